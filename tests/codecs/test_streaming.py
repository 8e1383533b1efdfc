"""A stream of frames gives the samples of one decode of them all, however it is cut."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quaver.codecs.snac import Snac, SnacConfig
from quaver.core.errors import InputError
from quaver.core.protocols import Part
from shapes import Shapes

FRAME = 2048
BOOK = 16
CONFIG = SnacConfig(
    sampling_rate=24000,
    encoder_dim=2,
    encoder_rates=(2, 4, 8, 8),
    decoder_dim=32,
    decoder_rates=(8, 8, 4, 2),
    codebook_size=BOOK,
    codebook_dim=4,
    vq_strides=(4, 2, 1),
)
seeds = st.sampled_from([None, 0, 1, 2**63 - 1])
codes = st.lists(st.integers(0, BOOK - 1), min_size=7, max_size=7)
chunks_of_frames = st.lists(st.lists(codes, max_size=4), max_size=7)


@pytest.fixture(scope="module")
def snac(device) -> Snac:
    random = np.random.default_rng(0)
    codec = Snac(CONFIG).requires_grad_(False)
    for name, weight in codec.named_parameters():
        shape = tuple(weight.shape)
        values = random.normal(0, 0.6 * np.prod(shape[1:]) ** -0.5, shape)
        if name.endswith("alpha"):
            values = random.uniform(0.5, 2.0, shape)
        elif name.endswith("bias"):
            values = random.normal(0, 0.1, shape)
        elif name.endswith("codebook.weight"):
            values = random.normal(0, 1.0, shape)
        weight.copy_(torch.from_numpy(values))
    return codec.to(device).eval()


def as_frames(frames: list[list[int]]) -> Tensor:
    return torch.tensor(frames, dtype=torch.int64).reshape(-1, 7)


def random_frames(count: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, BOOK, (count, 7)))


@torch.inference_mode()
def one_shot(snac: Snac, frames: Tensor, seed: int | None) -> np.ndarray:
    if not len(frames):
        return np.zeros(0, np.float32)
    chosen = None if seed is None else torch.tensor([seed], device=snac.device)
    return snac.decode_batch(frames[None].to(snac.device), chosen)[0].cpu().numpy()


def streamed(snac: Snac, chunks: list[Tensor], seed: int | None) -> list[np.ndarray]:
    stream = snac.stream(seed)
    return [*(stream.push(chunk) for chunk in chunks), stream.finish()]


def assert_same(ours: np.ndarray, expected: np.ndarray) -> None:
    assert ours.dtype == np.float32
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max(initial=0.0) < 1e-5


@settings(max_examples=60)
@given(chunks_of_frames, seeds)
def test_a_stream_is_one_decode_however_it_is_cut(snac, chunks, seed):
    frames = as_frames([frame for chunk in chunks for frame in chunk])
    out = np.concatenate(streamed(snac, [as_frames(c) for c in chunks], seed))
    assert len(out) == len(frames) * FRAME
    assert_same(out, one_shot(snac, frames, seed))


@settings(max_examples=25)
@given(chunks_of_frames, seeds)
def test_peek_is_the_end_if_the_stream_ended_there_and_changes_nothing(snac, chunks, seed):
    stream, pushed, out = snac.stream(seed), [], []
    for chunk in chunks:
        pushed += chunk
        out.append(stream.push(as_frames(chunk)))
        here = np.concatenate((*out, stream.peek()))
        assert_same(here, one_shot(snac, as_frames(pushed), seed))
        assert_same(stream.peek(), here[sum(map(len, out)) :])
    out.append(stream.finish())
    untouched = np.concatenate(streamed(snac, [as_frames(c) for c in chunks], seed))
    assert_same(np.concatenate(out), untouched)


def test_the_samples_are_loud_and_unlike_each_other(snac):
    sound = one_shot(snac, random_frames(20), None)
    assert 0.05 < np.abs(sound).max() < 0.999
    assert sound.std() > 0.01
    assert np.abs(np.diff(sound.reshape(20, FRAME), axis=0)).max(axis=1).min() > 0.01


def test_every_frame_is_heard_the_first_and_the_last_too(snac):
    frames = random_frames(9)
    whole = np.concatenate(streamed(snac, [*frames.split(1)], None))
    for at in range(9):
        changed = frames.clone()
        changed[at] = (changed[at] + 5) % BOOK
        other = np.concatenate(streamed(snac, [*changed.split(1)], None))
        heard = np.abs(whole - other).reshape(9, FRAME).max(axis=1)
        assert heard[at] > 0.01
        assert all(heard[i] < 1e-5 for i in range(9) if abs(i - at) > 3)


def test_the_first_three_frames_give_sound_and_each_one_after_gives_a_frame(snac):
    stream = snac.stream(None)
    first = stream.push(random_frames(3))
    assert 0 < len(first) < FRAME
    for frame in random_frames(5, seed=1).split(1):
        assert len(stream.push(frame)) == FRAME


def test_no_sample_changes_when_more_frames_come(snac):
    frames, other = random_frames(8), random_frames(8, seed=1)
    for count in range(3, 8):
        both = [snac.stream(3), snac.stream(3)]
        early, late = (
            np.concatenate((stream.push(frames[:count]), stream.push(rest[count:])))
            for stream, rest in zip(both, (frames, other), strict=True)
        )
        final = len(snac.stream(3).push(frames[:count]))
        assert final > 0
        assert_same(early[:final], late[:final])
        assert np.abs(early[final:] - late[final:]).max() > 0.01


@pytest.mark.parametrize("seed", [None, 5])
def test_one_frame_and_none(snac, seed):
    one = random_frames(1)
    (first, last) = streamed(snac, [one], seed)
    assert len(first) + len(last) == FRAME
    assert_same(np.concatenate((first, last)), one_shot(snac, one, seed))
    assert [len(piece) for piece in streamed(snac, [], seed)] == [0]
    assert [len(piece) for piece in streamed(snac, [one[:0], one[:0]], seed)] == [0, 0, 0]
    assert len(snac.stream(seed).peek()) == 0


def test_noise_repeats_by_seed(snac):
    chunks = [*random_frames(6).split(2)]
    sounds = {s: np.concatenate(streamed(snac, chunks, s)) for s in (None, 0, 1, 2**32, 2**63 - 1)}
    for seed, sound in sounds.items():
        assert_same(sound, np.concatenate(streamed(snac, chunks, seed)))
        for other in sounds.keys() - {seed}:
            assert np.abs(sound - sounds[other]).max() > 0.01


def test_streams_beside_each_other_do_not_mix(snac):
    first, second = random_frames(6), random_frames(6, seed=1)
    streams, outs = (snac.stream(1), snac.stream(2)), ([], [])
    for pair in zip(first.split(1), second.split(1), strict=True):
        for stream, out, frame in zip(streams, outs, pair, strict=True):
            out.append(stream.push(frame))
    for stream, out, frames, seed in zip(streams, outs, (first, second), (1, 2), strict=True):
        assert_same(np.concatenate((*out, stream.finish())), one_shot(snac, frames, seed))


def test_a_batch_decodes_as_each_alone(snac):
    frames = torch.stack([random_frames(4, seed) for seed in range(3)]).to(snac.device)
    seeds = torch.tensor([4, 5, 6], device=snac.device)
    with torch.inference_mode():
        together = snac.decode_batch(frames, seeds).cpu().numpy()
    for row, alone, seed in zip(together, frames, (4, 5, 6), strict=True):
        assert_same(row, one_shot(snac, alone, seed))


@settings(max_examples=40)
@given(
    st.lists(st.tuples(chunks_of_frames, seeds), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_streams_decoded_together_are_each_as_alone(snac, streams, random, graphs):
    """Whatever is in a batch, wherever each stream is, however many there is room for."""
    pool = snac.streams(slots=1, graphs=graphs)
    opened = [pool.open(seed) for _, seed in streams]
    left = [[as_frames(chunk) for chunk in chunks] for chunks, _ in streams]
    outs = [[] for _ in streams]
    open_ = set(range(len(streams)))
    while open_:
        chosen = random.sample(sorted(open_), random.randint(1, len(open_)))
        parts = [
            Part(opened[i], left[i].pop(0) if left[i] else None, last=not left[i]) for i in chosen
        ]
        for i, part, samples in zip(chosen, parts, pool.decode(parts), strict=True):
            outs[i].append(samples)
            if part.last:
                open_.remove(i)
    for (chunks, seed), out in zip(streams, outs, strict=True):
        frames = as_frames([frame for chunk in chunks for frame in chunk])
        assert_same(np.concatenate(out), one_shot(snac, frames, seed))


def test_a_place_that_was_used_remembers_nothing(snac):
    pool = snac.streams(slots=1, graphs=True)
    for seed in range(3):
        frames = random_frames(5, seed)
        stream = pool.open(seed)
        assert stream.row == 1
        out = [stream.push(frames[:2]), stream.push(frames[2:])]
        if seed == 1:
            stream.close()  # given up half-way
            continue
        assert_same(np.concatenate((*out, stream.finish())), one_shot(snac, frames, seed))


def test_what_has_ended_is_not_decoded(snac):
    stream = snac.stream(None)
    stream.finish()
    with pytest.raises(InputError, match="ended"):
        stream.push(random_frames(1))
    stream.close()


@pytest.mark.parametrize("groups", [[3, 1, 2, 8, 4], [10, 8], [3, 1], [6, 4, 1, 1]])
def test_what_is_recorded_beforehand_is_all_that_streams_need(snac, groups):
    pool = snac.streams(3)
    pool._recorded, pool._side = Shapes(), None
    pool.record({3, 4, 6, 10}, {1, 2, 4, 8})
    known = {*pool._recorded.seen}
    frames = [random_frames(sum(groups), seed) for seed in range(3)]
    streams = [pool.open(seed) for seed in range(3)]
    outs = [[] for _ in streams]
    for parts in zip(*(each.split(groups) for each in frames), strict=True):
        looking = [Part(s, p[:2], True, keep=False) for s, p in zip(streams, parts, strict=True)]
        pool.decode(looking)
        given = [Part(s, p) for s, p in zip(streams, parts, strict=True)]
        for out, samples in zip(outs, pool.decode(given), strict=True):
            out.append(samples.copy())  # a GPU's are copies
    ends = pool.decode([Part(s, None, last=True) for s in streams])
    outs = [[*out, end] for out, end in zip(outs, ends, strict=True)]
    assert pool._recorded.seen == known
    for seed, (out, own) in enumerate(zip(outs, frames, strict=True)):
        assert_same(np.concatenate(out), one_shot(snac, own, seed))


def test_what_is_prepared_in_a_thread_changes_nothing(snac):
    pool = snac.streams(slots=2, graphs=True)
    pool._recorded = Shapes()
    pool.prepare(3)
    assert pool._prepared is not None
    stream, frames = pool.open(4), random_frames(6, 1)
    assert pool._prepared is None  # it was waited for
    out = [stream.push(frames[:3]), stream.push(frames[3:]), stream.finish()]
    assert_same(np.concatenate(out), one_shot(snac, frames, 4))


def test_what_fails_in_that_thread_is_told(snac):
    pool = snac.streams(slots=1, graphs=True)
    pool._recorded = Shapes()
    pool.prepare(-1)
    with pytest.raises(RuntimeError, match="negative"):
        pool.open(None)


@pytest.mark.parametrize("tf32", [False, True])
def test_streams_let_cudnn_multiply_as_the_codec_says(snac, tf32, monkeypatch):
    seen = []

    def decode(frames, chunk, seeds):
        seen.append(torch.backends.cudnn.allow_tf32)
        return torch.zeros(len(frames), frames.shape[1] * snac.samples_per_frame)

    monkeypatch.setattr(snac, "tf32", tf32)
    monkeypatch.setattr(snac, "decode_chunk", decode)
    snac.streams(slots=1, graphs=False).open(None).push(random_frames(3, 1))
    assert seen == [tf32]
