"""One reader of many streams, and who gets the next slot."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from quaver.core.types import Audio
from quaver.loading import load

TEXT = "Hello."
TWICE = f"{TEXT}\n\n{TEXT}"
LONG = " ".join(f"This is sentence number {i}, and it goes on for a while." for i in range(12))
BRIEF = {"temperature": 0.8, "top_p": 1.0}
IDLE = {"running": 0, "waiting": 0}


@pytest.fixture(scope="module")
def voice(device, tiny_checkpoint):
    return load(tiny_checkpoint, "fp32", str(device), slots=2, max_length=1500)


def same(chunks: list[NDArray[np.float32]], audio: Audio) -> bool:
    """Up to rounding, which a GPU's libraries may do differently from call to call."""
    return np.allclose(np.concatenate(chunks), audio.samples, rtol=0, atol=1e-5)


def test_polled_streams_are_as_those_that_are_read(voice):
    streams = [voice.stream(TWICE, seed=seed, **BRIEF) for seed in range(3)]  # one more than slots
    heard: list[list[NDArray[np.float32]]] = [[] for _ in streams]
    while not all(stream.ended for stream in streams):
        voice.advance()
        for stream, chunks in zip(streams, heard, strict=True):
            while (chunk := stream.poll()) is not None:
                chunks.append(chunk.samples)
    for seed, (stream, chunks) in enumerate(zip(streams, heard, strict=True)):
        alone = voice.generate(TWICE, seed=seed, **BRIEF)
        assert same(chunks, alone)
        assert stream.stats.finish_reasons == alone.stats.finish_reasons
    assert voice.state() == IDLE


def test_a_stream_that_nobody_polls_gives_back_its_slot_after_a_segment(voice):
    with voice.stream(LONG, seed=1, **BRIEF):
        voice.advance()
        assert voice.state()["running"] == 1
        while voice.state()["running"]:
            voice.advance()
        assert voice.state() == IDLE


def test_who_has_the_lowest_rank_gets_the_next_slot(voice):
    running = [voice.stream(TEXT, seed=seed) for seed in range(2)]
    voice.advance()
    ranks = {11: 2.0, 12: 1.0, 13: 2.0}
    waiting = [voice.stream(TEXT, seed=s, rank=lambda _, r=r: r) for s, r in ranks.items()]
    order: list[int] = []
    for each in running:
        each.close()
        voice.advance()
        order += {s.job.seed for s in voice._engine._streams if s} & ranks.keys() - {*order}
    assert order == [12, 11]
    for each in [*running, *waiting]:
        each.close()


def test_a_device_that_has_failed_is_no_stream_s_fault(voice, monkeypatch):
    """Its process must end, and another begin: here it would fail one stream after the other."""

    def fails(prompts):
        raise torch.AcceleratorError("an illegal memory access was encountered")

    with monkeypatch.context() as broken:
        broken.setattr(voice._engine._steps, "prefill", fails)
        stream = voice.stream(TEXT, seed=1)
        with pytest.raises(torch.AcceleratorError):
            voice.advance()
    stream.close()
    assert voice.state() == IDLE


def test_a_prompt_that_cannot_be_read_ends_its_own_stream_alone(voice, monkeypatch):
    prefill = voice._engine._steps.prefill
    poisoned = voice._family.prompt("Poison.", "ada", None).tokens

    def fails(prompts):
        if any(tokens == poisoned for _, tokens in prompts):
            raise RuntimeError("out of memory")
        prefill(prompts)

    alone = voice.generate(TEXT, seed=1)
    monkeypatch.setattr(voice._engine._steps, "prefill", fails)
    good, bad = voice.stream(TEXT, seed=1), voice.stream("Poison.", voice="ada", seed=1)
    with pytest.raises(RuntimeError, match="out of memory"):
        next(bad)
    assert same([chunk.samples for chunk in good], alone)
    assert voice.state() == IDLE
