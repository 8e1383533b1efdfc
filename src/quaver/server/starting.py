"""An engine that is ready: loaded, spoken through, and measured at its limit."""

from __future__ import annotations

import logging
from typing import Any

import torch

from quaver.bench.measure import WARM_UPS, text_for
from quaver.bench.streams import run_streams
from quaver.loading import load
from quaver.loading.parts import find_device, use_little_stack
from quaver.server.wire import Place
from quaver.synthesizer import SpeechSynthesizer

log = logging.getLogger("quaver.engine")

STREAMS = {"cpu": 2, "cuda": 64}  # at once, unless told otherwise
WARM_SECONDS = 1.5  # of sound


def open_engine(place: Place) -> tuple[SpeechSynthesizer, dict[str, Any]]:
    """Load, and speak with one stream and more up to all slots; returns what there is to know.

    `rtf_when_full` of the facts is measured with all slots in use. On a CPU, an engine that is
    started again keeps what was measured before, so that it is back seconds earlier.
    """
    device = find_device(place.device)
    kind = device.type
    use_little_stack(device)
    synthesizer = load(
        place.model,
        place.recipe,
        place.device,
        codec=place.codec,
        voices=place.voices,
        slots=place.slots or STREAMS[kind],
        max_length=place.max_length,
        graphs=place.graphs,
    )
    facts = synthesizer.info()
    synthesizer.record()
    if kind == "cpu" and place.rtf_when_full is not None:
        return synthesizer, facts | {"rtf_when_full": place.rtf_when_full}
    rtf = 0.0
    for count in _counts(facts["slots"], kind):
        for _ in range(WARM_UPS[kind]):
            run = run_streams(synthesizer, text_for(WARM_SECONDS), WARM_SECONDS, range(count))
            rtf = run.seconds * count / run.audio_seconds
    if rtf > 1:
        log.warning(
            "%d streams at once take %.2f times as long as heard; give fewer --max-streams",
            facts["slots"],
            rtf,
        )
    return synthesizer, facts | {"rtf_when_full": rtf}


def _counts(slots: int, kind: str) -> list[int]:
    """Numbers of streams to try, the last `slots`; on a GPU prompts and sound are recorded too, of
    few and of many."""
    if kind == "cpu":
        return [1, slots]
    return [*(count for count in (1, 2, 4, 8, 16, 32) if count < slots), slots]


def gpu_bytes() -> int | None:
    """What this process holds of GPU memory; None without one."""
    return torch.cuda.memory_reserved() if torch.cuda.is_initialized() else None
