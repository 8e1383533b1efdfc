"""Frames to tokens and back loses nothing and lets nothing wrong through."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quaver.codecs.layout import SNAC_ORDER, CodeLayout
from quaver.core.errors import InputError

RELEASED = CodeLayout(128266, 4096)


@st.composite
def layouts_with_frames(draw) -> tuple[CodeLayout, torch.Tensor]:
    size = draw(st.integers(1, 5000))
    layout = CodeLayout(draw(st.integers(0, 200_000)), size)
    code = st.sampled_from([0, size - 1]) | st.integers(0, size - 1)
    frames = draw(st.lists(st.lists(code, min_size=7, max_size=7), max_size=6))
    return layout, torch.tensor(frames, dtype=torch.int64).reshape(-1, 7)


@given(layouts_with_frames())
def test_tokens_are_a_bijection(case):
    layout, frames = case
    tokens = layout.to_tokens(frames).flatten()
    assert torch.equal(layout.to_frames(tokens), frames)
    for position, token in zip([*range(7)] * len(frames), tokens.tolist(), strict=True):
        code = token - layout.first(position)
        assert 0 <= code < layout.codebook_size
    assert all(layout.first_token <= t < layout.end_token for t in tokens.tolist())


@pytest.mark.parametrize("size", [1, 2, 5000])
def test_every_position_and_code_has_a_token_of_its_own(size):
    layout = CodeLayout(11, size)
    frames = torch.arange(size)[:, None].expand(-1, 7)
    assert layout.to_tokens(frames).unique().tolist() == [*range(11, 11 + 7 * size)]


@given(layouts_with_frames())
def test_codebooks_are_a_bijection(case):
    layout, frames = case
    books = layout.to_codebooks(frames)
    assert [len(book) for book in books] == [n * len(frames) for n in (1, 2, 4)]
    assert torch.equal(layout.from_codebooks(books), frames)
    batch = frames.expand(3, *frames.shape)
    assert torch.equal(layout.from_codebooks(layout.to_codebooks(batch)), batch)


def test_the_order_of_the_codebooks_is_the_released_models():
    assert SNAC_ORDER == (0, 1, 2, 2, 1, 2, 2)
    coarse, middle, fine = [10, 11], [20, 21, 22, 23], [*range(30, 38)]
    frames = RELEASED.from_codebooks([torch.tensor(b) for b in (coarse, middle, fine)])
    # c0[i], c1[2i], c2[4i], c2[4i+1], c1[2i+1], c2[4i+2], c2[4i+3]
    assert frames.tolist() == [[10, 20, 30, 31, 21, 32, 33], [11, 22, 34, 35, 23, 36, 37]]
    assert [b.tolist() for b in RELEASED.to_codebooks(frames)] == [coarse, middle, fine]


def test_tokens_of_the_released_model():
    ends = torch.tensor([[0] * 7, [4095] * 7])
    first, last = RELEASED.to_tokens(ends).tolist()
    assert first == [128266 + p * 4096 for p in range(7)]
    assert (last[0], last[6], RELEASED.end_token) == (132361, 156937, 156938)


@given(layouts_with_frames(), st.data())
def test_a_token_of_another_position_is_refused_and_named(case, data):
    layout, frames = case
    tokens = layout.to_tokens(torch.cat((frames, torch.zeros(1, 7).long()))).flatten()
    at = data.draw(st.integers(0, len(tokens) - 1))
    frame, position = divmod(at, 7)
    own = range(layout.first(position), layout.first(position) + layout.codebook_size)
    anywhere = st.sampled_from([own.start - 1, own.stop]) | st.integers(0, layout.end_token + 5)
    wrong = data.draw(anywhere.filter(lambda token: token not in own))
    tokens[at] = wrong
    with pytest.raises(InputError, match=f"token {wrong} at position {position} of frame {frame} "):
        layout.to_frames(tokens)


def test_one_lost_token_is_noticed_and_not_shifted_over():
    tokens = RELEASED.to_tokens(torch.full((3, 7), 5)).flatten()
    with pytest.raises(InputError, match="position 2 of frame 0"):
        RELEASED.to_frames(torch.cat((tokens[:2], tokens[3:10])).repeat(7)[:14])
    with pytest.raises(InputError, match="not whole frames of 7"):
        RELEASED.to_frames(tokens[:-1])


@pytest.mark.parametrize("code", [-1, 4096])
def test_a_code_outside_the_book_is_refused(code):
    frames = torch.zeros(2, 7, dtype=torch.int64)
    frames[1, 3] = code
    with pytest.raises(InputError, match=r"outside 0\.\.4095"):
        RELEASED.to_tokens(frames)


def test_frames_of_another_codec_are_refused():
    with pytest.raises(InputError, match="frames have 8 codes; this layout has 7"):
        RELEASED.to_tokens(torch.zeros(2, 8, dtype=torch.int64))
