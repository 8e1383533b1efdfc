"""Seams: exact pauses, no clicks, one segment untouched, chunks and memory of no consequence."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quaver.audio.join import FADE_SECONDS, HOLD_SECONDS, SeamJoiner
from quaver.audio.levels import AUDIBLE_AMPLITUDE, first_audible, last_audible

RATE = 2_000  # low, for speed
FADE = round(FADE_SECONDS * RATE)


def segment(lead: int, sound: int, tail: int, seed: int = 0) -> np.ndarray:
    """Samples of a tone between two stretches of near-silence, which is noise as codecs make it."""
    noise = np.random.default_rng(seed).uniform(-1, 1, lead + sound + tail) * AUDIBLE_AMPLITUDE / 2
    noise[lead : lead + sound] += 0.5 * np.cos(0.3 * np.arange(sound))
    return noise.astype(np.float32)


def joined(
    segments: Sequence[np.ndarray], pauses: Sequence[float], chunk_sizes: Sequence[int] = (10**9,)
) -> np.ndarray:
    """What comes out when chunks of these sizes, in turn, go in."""
    joiner, out, turn = SeamJoiner(RATE), [], 0
    for index, samples in enumerate(segments):
        at = 0
        while at < len(samples):
            size = chunk_sizes[turn % len(chunk_sizes)]
            out.append(joiner.push(samples[at : at + size]))
            at, turn = at + size, turn + 1
        if index < len(pauses):
            out.append(joiner.end_segment(pauses[index]))
    return np.concatenate([*out, joiner.finish()])


def gaps(samples: np.ndarray) -> list[int]:
    """Lengths of the silences between sounds that are longer than a quarter period of the tone."""
    at = np.flatnonzero(np.abs(samples) >= AUDIBLE_AMPLITUDE)
    steps = np.diff(at) - 1
    return steps[steps > 10].tolist()


def jump(samples: np.ndarray) -> float:
    return float(np.abs(np.diff(samples)).max(initial=0))


silences = st.integers(0, 1_000) | st.just(int(1.2 * HOLD_SECONDS * RATE))
segments = st.builds(segment, silences, st.integers(0, 1_000), silences, st.integers(0, 9))
sounding = st.builds(
    segment, st.integers(60, 1_000), st.integers(20, 1_000), st.integers(60, 1_000)
)
pauses = st.floats(0.0, 1.0)
sizes = st.lists(st.integers(1, 700), min_size=1, max_size=5)


@given(segments, sizes, pauses)
@settings(deadline=None, max_examples=30)
def test_one_segment_is_untouched(samples: np.ndarray, sizes: list[int], pause: float) -> None:
    assert np.array_equal(joined([samples], [], sizes), samples)
    assert np.array_equal(joined([samples], [pause], sizes), samples)


@given(st.lists(st.tuples(segments, pauses), max_size=5), sizes)
@example([(segment(0, 99, 0), 0.1), (segment(0, 99, 0), 0.1)], [FADE // 3])
@settings(deadline=None, max_examples=30)
def test_chunks_do_not_matter(parts: list[tuple[np.ndarray, float]], sizes: list[int]) -> None:
    whole = joined([s for s, _ in parts], [p for _, p in parts])
    assert np.array_equal(joined([s for s, _ in parts], [p for _, p in parts], sizes), whole)
    assert whole.dtype == np.float32


@given(st.lists(st.tuples(sounding, st.floats(0.01, 1.0)), min_size=2, max_size=5), sizes)
@settings(deadline=None, max_examples=30)
def test_gaps_are_the_pauses(parts: list[tuple[np.ndarray, float]], sizes: list[int]) -> None:
    out = joined([s for s, _ in parts], [p for _, p in parts][:-1], sizes)
    wanted = [p * RATE for _, p in parts[:-1]]
    assert gaps(out) == pytest.approx(wanted, abs=RATE / 1_000)
    first, last = parts[0][0], parts[-1][0]
    assert np.array_equal(out[: last_audible(first)], first[: last_audible(first)])
    start = first_audible(last)
    assert start is not None
    assert np.array_equal(out[len(out) - (len(last) - start) :], last[start:])


@given(st.lists(st.tuples(segments, pauses), min_size=2, max_size=5))
@settings(deadline=None, max_examples=30)
def test_there_is_no_click(parts: list[tuple[np.ndarray, float]]) -> None:
    out = joined([s for s, _ in parts], [p for _, p in parts])
    slope = np.pi / 2 / FADE  # the steepest of a fade, where it has its full length
    if all(len(s) >= FADE for s, _ in parts):
        assert jump(out) <= max(jump(s) for s, _ in parts) + 0.51 * slope


def test_a_segment_cut_off_in_full_voice_fades() -> None:
    loud = np.full(1_000, 0.8, dtype=np.float32)
    out = joined([loud, loud], [0.1])
    assert len(out) == 2_000 + 0.1 * RATE
    assert jump(out) < 0.8 * np.pi / 2 / FADE
    assert np.array_equal(out[: 1_000 - FADE], loud[FADE:])


def test_sound_leaves_at_once_and_so_does_most_of_the_pause() -> None:
    joiner = SeamJoiner(RATE)
    samples = segment(10, 1_000, 500)
    assert len(joiner.push(samples[:1_000])) == 1_000 - FADE
    assert len(joiner.push(samples[1_000:])) == 1_010 - (1_000 - FADE)
    assert len(joiner.end_segment(0.1)) == 0.05 * RATE - FADE


def test_silence_within_a_segment_passes() -> None:
    samples = np.concatenate([segment(0, 500, 40_000), segment(0, 500, 0)])
    assert np.array_equal(joined([samples], []), samples)


def test_memory_is_bounded_whatever_the_silence() -> None:
    joiner = SeamJoiner(RATE)
    bound = HOLD_SECONDS * RATE + FADE
    silence = np.zeros(1_000, dtype=np.float32)
    joiner.push(segment(0, 500, 0))
    passed = sum(len(joiner.push(silence)) for _ in range(100))
    assert passed >= 100_000 - bound
    joiner.end_segment(0.5)
    for _ in range(100):
        joiner.push(silence)
        held = [v for v in vars(joiner).values() if isinstance(v, np.ndarray)]
        assert sum(map(len, held)) <= 2 * bound
    assert len(joiner.push(segment(0, 500, 0))) <= 3 * bound


def test_a_silent_segment_is_one_pause_not_two() -> None:
    sound, silent = segment(100, 500, 100), segment(900, 0, 900)
    assert gaps(joined([sound, silent, sound], [0.2, 0.6])) == [0.6 * RATE]
    assert gaps(joined([sound, silent[:0], sound], [0.6, 0.2])) == [0.6 * RATE]


def test_a_pause_before_anything_is_none() -> None:
    sound = segment(100, 500, 100)
    assert np.array_equal(joined([sound[:0], sound], [0.5]), sound)
