"""A training configuration: each wrong key, type and value is one line that names it."""

from pathlib import Path

import pytest

from quaver.core.errors import ConfigError
from quaver.train.config import Range, read_config

CONFIGS = Path(__file__).parents[2] / "configs"
VALID = (CONFIGS / "nano.toml").read_text()
WHOLE = "allowed is a whole number from"

# What is replaced in nano.toml, by what, and what is told.
WRONG = {
    "an unknown key": ("batch = 32", "batches = 32", r"section codec: unknown keys .'batches'"),
    "an unknown section": ("[codec.model]", "[codex]", "unknown keys .'codex'"),
    "a missing key": ("steps = 20900\n", "", r"section codec.schedule: the keys .'steps'"),
    "a missing section": ("[lm.schedule]", "[lm.model.x]", "the keys .'schedule'. are missing"),
    "a text for a number": (
        "batch = 32",
        'batch = "two"',
        "codec.batch is 'two'; allowed is a whole",
    ),
    "a truth for a number": ("batch = 32", "batch = true", f"codec.batch is True; {WHOLE} 1"),
    "a fraction": ("batch = 32", "batch = 32.5", "codec.batch is 32.5; allowed is a whole"),
    "a list": ("batch = 32", "batch = [32]", r"codec.batch is .32.; allowed is a whole number"),
    "a date": ("batch = 32", "batch = 2026-01-01", "codec.batch is datetime.date"),
    "a table": ("batch = 32", "batch = {a = 1}", "codec.batch is ..a.: 1.; allowed"),
    "no section": ("[data]\nfolder", "data = 1\n[codec.x]\nfolder", "section data is 1; a section"),
    "zero": ("batch = 32", "batch = 0", f"codec.batch is 0; {WHOLE} 1 to 65,536"),
    "less than zero": ("batch = 32", "batch = -1", "codec.batch is -1;"),
    "a huge number": ("batch = 32", f"batch = {10**30}", "codec.batch is 1000.*allowed"),
    "thousands of digits": ("batch = 32", f"batch = {'9' * 5000}", "not valid TOML"),
    "thousands of hex digits": ("batch = 32", f"batch = 0x{'f' * 50_000}", "thousands of digits"),
    "no number": (
        "learning_rate = 1e-3",
        "learning_rate = nan",
        "is nan; allowed is a number above 0 up to 10",
    ),
    "infinity": ("learning_rate = 1e-3", "learning_rate = inf", "learning_rate is inf"),
    "minus infinity": ("learning_rate = 2e-3", "learning_rate = -inf", "lm.schedule.learning_rate"),
    "a rate of zero": (
        "learning_rate = 1e-3",
        "learning_rate = 0",
        "codec.schedule.learning_rate is 0",
    ),
    "hours below zero": ("hours = 300", "hours = -1", "data.hours is -1"),
    "hours that are none": ("hours = 18", "hours = nan", "codec.hours is nan"),
    "an empty list": (
        'voices = ["slt", "rms", "awb"]',
        "voices = []",
        r"data.voices is ..; allowed is a list of 1",
    ),
    "a number among texts": ('"rms"', "7", r"data.voices.1. is 7; allowed is a text"),
    "an empty text": ('"rms"', '""', r"data.voices.1. is ''; allowed is a text of 1 to"),
    "a text for a list": (
        'voices = ["slt", "rms", "awb"]',
        'voices = "slt"',
        "data.voices is 'slt'",
    ),
    "an empty folder": ('folder = "runs/nano/data"', 'folder = ""', "data.folder is ''"),
    "three for a pair": ("[[256, 24],", "[[256, 24, 1],", r"codec.mel_scales.0. has 3 entries; 2"),
    "a pair of texts": ("[[256, 24],", '[["a", "b"],', r"codec.mel_scales.0..0. is 'a'"),
    "a window that is too long": (
        "[2048, 80]",
        "[65536, 80]",
        "crop_samples is 12288; with a window",
    ),
    "a share above one": (
        "dropout_codes = 0.03",
        "dropout_codes = 1.5",
        "is 1.5; allowed is a number from 0 to 1",
    ),
    "a seed below zero": ("seed = 1", "seed = -1", "data.seed is -1"),
    "never saved": ("save_every = 1000", "save_every = 0", "save_every is 0"),
    "a date in a model": (
        "rope_theta = 10000.0",
        "rope_theta = 1979-05-27",
        "lm.model.rope_theta is",
    ),
    "no number in a model": (
        "rope_theta = 10000.0",
        "rope_theta = nan",
        "lm.model.rope_theta is nan",
    ),
    "wrong sampling": (
        "[lm.model]",
        "[lm.generation]\ntemperature = -1.0\n[lm.model]",
        "lm.generation: temperature is -1.0",
    ),
    "unknown sampling": ("[lm.model]", "[lm.generation]\nheat = 1.0\n[lm.model]", "heat"),
    "a broken table": ("[data]", "[data", "not valid TOML"),
    "a table twice": ("[lm.model]", "[codec.model]", "not valid TOML"),
}


@pytest.mark.parametrize(("old", "new", "told"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_told_in_one_line(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = tmp_path / "wrong.toml"
    assert old in VALID
    path.write_text(VALID.replace(old, new, 1))
    with pytest.raises(ConfigError, match=told) as caught:
        read_config(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


FILES = {
    "nested without end": (b"a = " + b"[" * 100_000, "nested too deeply|not valid TOML"),
    "UTF-16": (VALID.encode("utf-16"), "is text in UTF-16, not in UTF-8; convert it"),
    "Latin-1": ("# caf\xe9\n".encode("latin-1"), "not text in UTF-8"),
    "binary": (bytes(range(256)) * 10, "not text"),
    "huge": (b"# a comment\n" * 200_000, "more than 1,048,576 bytes"),
    "empty": (b"", "the keys .'codec', 'data', 'lm'. are missing"),
}


@pytest.mark.parametrize(("content", "told"), FILES.values(), ids=FILES)
def test_a_file_that_is_none_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=told):
        read_config(path)


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    for path, told in (
        (tmp_path / "none.toml", "no configuration at .*configs/nano.toml is an example"),
        (tmp_path, "cannot read .*Is a directory"),
        (tmp_path / ("a" * 300), "File name too long"),
    ):
        with pytest.raises(ConfigError, match=told):
            read_config(path)


def test_a_mark_and_whole_numbers_for_fractions_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "fine.toml"
    path.write_bytes(b"\xef\xbb\xbf" + VALID.encode())
    config = read_config(path)
    assert (config.data.hours, type(config.data.hours)) == (300.0, float)
    assert config.codec.mel_scales[0] == (256, 24)


def test_a_range_says_what_it_allows() -> None:
    assert str(Range(0, 10, above=True)) == "above 0 up to 10"
    assert str(Range(1, 65_536)) == "from 1 to 65,536"
    assert not Range(0, 10, above=True).allows(0)
    assert not Range(0, 10).allows(float("nan"))
