"""Speech to learn from: text from `quaver.train.texts`, spoken by Debian's `flite`.

Work is cut into shards that depend on nothing but the configuration and their number, so any
number of processes can make them in any order, a killed run goes on where it stopped, and the
result is the same everywhere. Shard 0 is the validation set.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from tempfile import gettempdir

import numpy as np
from numpy.typing import NDArray

from quaver.core.errors import ConfigError, UnsupportedError
from quaver.core.files import new_file, scratch_folder
from quaver.train.config import DataConfig
from quaver.train.texts import utterances

NO_FLITE = "flite is not installed; on Debian: apt-get install flite"
_AUDIBLE = 10 ** (-45 / 20)  # of full scale; flite's own pauses lie far below


def make_dataset(
    config: DataConfig, jobs: int, progress: Callable[[float], None] = lambda hours: None
) -> float:
    """Make the shards that are missing until there are `config.hours`; returns the hours.

    `progress` is called with the hours made so far.
    """
    if shutil.which("flite") is None:
        raise UnsupportedError(NO_FLITE)
    folder = Path(config.folder)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, config)
    # Half the wanted size of an utterance is a safe first guess; the loop tops up.
    hours, made = 0.0, 0
    with ProcessPoolExecutor(jobs) as pool:
        while hours < config.hours:
            missing = config.hours - hours
            per_shard = hours / made if made else config.utterances_per_shard * 5.0 / 3600
            count = max(1, round(missing / per_shard))
            shards = range(made, made + count)
            for future in as_completed([pool.submit(_make_shard, config, s) for s in shards]):
                hours += future.result()
                progress(hours)
            made += count
    return hours


def _claim(folder: Path, config: DataConfig) -> None:
    """One folder holds one dataset: shards of two configurations must not mix."""
    record = {k: v for k, v in asdict(config).items() if k not in ("folder", "hours")}
    path = folder / "dataset.json"
    text = json.dumps(record, indent=1)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{folder} holds a dataset of another configuration; name another folder")
    with new_file(path) as part:
        part.write_text(text, encoding="utf-8")


def _make_shard(config: DataConfig, shard: int) -> float:
    """Write one shard unless it is there; returns its hours."""
    stem = Path(config.folder) / f"shard-{shard:05d}"
    table, sound = stem.with_suffix(".jsonl"), stem.with_suffix(".i16")
    if not table.exists():
        rows = []
        with new_file(sound) as part, part.open("wb") as out:
            for text, voice, samples in _speak_shard(config, shard):
                rows.append({"text": text, "voice": voice, "samples": len(samples)})
                out.write(samples.tobytes())
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        with new_file(table) as part:  # last: a shard with a table is whole
            part.write_text(lines, encoding="utf-8")
    return sound.stat().st_size / 2 / config.sample_rate / 3600


def _speak_shard(config: DataConfig, shard: int) -> Iterator[tuple[str, str, NDArray[np.int16]]]:
    texts = utterances(seed=config.seed * 1_000_003 + shard)
    with scratch_folder(Path(gettempdir())) as scratch:
        for index, text in enumerate(islice(texts, config.utterances_per_shard)):
            voice = config.voices[(index + shard) % len(config.voices)]
            samples, rate = speak(text, voice, scratch / "out.wav")
            yield text, voice, prepare(samples, rate, config)


def speak(text: str, voice: str, scratch: Path) -> tuple[NDArray[np.int16], int]:
    """flite's own samples [n] and their rate; `scratch` is overwritten."""
    command = ["flite", "-voice", voice, "-t", text, "-o", str(scratch)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UnsupportedError(NO_FLITE) from None
    if done.returncode:
        raise UnsupportedError(f"flite failed for voice {voice}: {done.stderr.strip()[:200]}")
    with wave.open(str(scratch)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
        return samples, file.getframerate()


def prepare(samples: NDArray[np.int16], rate: int, config: DataConfig) -> NDArray[np.int16]:
    """To the configured rate, with the silence at both ends cut down."""
    from scipy.signal import resample_poly

    divisor = int(np.gcd(rate, config.sample_rate))
    sound = resample_poly(
        samples.astype(np.float32) / 32768.0, config.sample_rate // divisor, rate // divisor
    )
    audible = np.flatnonzero(np.abs(sound) > _AUDIBLE)
    if len(audible):
        lead = int(config.lead_seconds * config.sample_rate)
        tail = int(config.tail_seconds * config.sample_rate)
        sound = sound[max(0, audible[0] - lead) : audible[-1] + tail]
    return np.clip(np.rint(sound * 32767.0), -32768, 32767).astype(np.int16)
