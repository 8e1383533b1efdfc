"""JSON of strangers: read within limits, and half characters are joined or left out."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quaver.server.errors import ApiError
from quaver.server.jsontext import JsonError, SurrogateJoiner, read_object, without_surrogates
from quaver.server.schemas import SpeechRequest, parse


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Hi \ud83d there", "Hi  there"),
        ("\ud83d", ""),
        ("\ude00\ud83d", ""),
        ("a\ud83d\ude00b", "a\U0001f600b"),
        ("\ud83d\ud83d\ude00", "\U0001f600"),
        ("\ufeffno\udfff", "\ufeffno"),
    ],
)
def test_half_characters_are_left_out(given, expected):
    assert without_surrogates(given) == expected


@given(st.text(), st.lists(st.integers(0, 20), max_size=6))
def test_characters_cut_in_two_are_joined(text, cuts):
    """As clients cut that count in 16 bits: JavaScript's, Java's and C#'s."""
    raw = text.encode("utf-16-le")
    cuts = sorted({min(2 * cut, len(raw)) for cut in cuts} | {0, len(raw)})
    pieces = [raw[start:end].decode("utf-16-le", "surrogatepass") for start, end in pairwise(cuts)]
    joiner = SurrogateJoiner()
    assert "".join(joiner.push(piece) for piece in pieces) == text


@given(st.text(), st.integers(0xD800, 0xDFFF), st.text())
def test_any_lone_surrogate_is_spoken_without(before, half, after):
    body = json.dumps({"input": f"{before}x{chr(half)}x{after}"})
    assert parse(SpeechRequest, body).input == f"{before}xx{after}"


@pytest.mark.parametrize(
    "body",
    [
        *('{"input": "a", "input": "b"}', '{"input": "a", "x": {"y": 1, "y": 2}}'),
        *('{"input": "a", "speed": NaN}', '{"input": "a", "x": Infinity}', '{"x": -Infinity}'),
        *("[" * 100_000, '{"a":' * 100_000, "[]", "3", "null", '"input"', "", "{", "{} {}"),
        *("\ufeff\ufeff{}", '{"input": "a\nb"}', "{'input': 1}"),
    ],
)
def test_what_is_no_object_is_refused(body):
    with pytest.raises(JsonError):
        read_object(body.encode())
    with pytest.raises(ApiError) as refused:
        parse(SpeechRequest, body)
    assert (refused.value.status, refused.value.code) == (400, "invalid_json")
    assert len(refused.value.message) < 200


@pytest.mark.parametrize("body", [b"\xff\xfe{}", b'{"input": "\xff"}', b'{"a": "\xed\xa0\xbd"}'])
def test_what_is_no_utf8_is_refused(body):
    with pytest.raises(JsonError, match="is not UTF-8"):
        read_object(body)


@pytest.mark.parametrize("digits", [30, 400, 4299, 4301, 100_000])
@pytest.mark.parametrize("name", ["seed", "speed", "max_seconds", "top_k", "sample_rate"])
def test_a_number_of_many_digits_is_out_of_range(name, digits):
    sign = "" if name == "top_k" else "-"
    body = f'{{"input": "a", "{name}": {sign}{"7" * digits}}}'
    with pytest.raises(ApiError) as refused:
        parse(SpeechRequest, body)
    assert (refused.value.status, refused.value.param) == (400, name)
    assert parse(SpeechRequest, f'{{"input": "a", "x": {"7" * digits}}}').input == "a"


def test_a_byte_order_mark_is_skipped():
    assert parse(SpeechRequest, b'\xef\xbb\xbf{"input": "a"}').input == "a"
