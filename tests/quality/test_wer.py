"""The judge of words: one spelling for both sides, and ears that hear a known voice."""

import subprocess
import sys
import wave

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from needs import needs_flite
from quaver.core.errors import InputError, UnsupportedError
from quaver.quality.metrics.wer import WordErrorRate, normalise, word_errors
from quaver.quality.panel import PLAIN_SENTENCES
from quaver.quality.words import number_words, ordinal_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, World!", "hello world"),
        ("It's twenty-one \u2019til I\u2019m done.", "it's twenty one til i'm done"),
        ("42 of 1,204,007", "forty two of one million two hundred four thousand seven"),
        ("$4.99, or $5.", "four dollars ninety nine or five dollars"),
        ("May 3rd, 1984, at 5:30", "may third nineteen eighty four at five thirty"),
        ("5:00 or 5 o'clock", "five oclock or five oclock"),
        ("2.5%", "two point five percent"),
        ("Mr. Smith & Dr. Jones", "mister smith and doctor jones"),
        ("12345678901", "one two three four five six seven eight nine zero one"),
        ("'quoted'", "quoted"),
        ("...", ""),
    ],
)
def test_normalise(text, words):
    assert normalise(text) == words


@given(st.text(alphabet="aB 0123456789.,:$%'-!stndrh", max_size=40))
def test_normalise_twice_changes_nothing(text):
    once = normalise(text)
    assert normalise(once) == once
    assert set(once) <= set("abcdefghijklmnopqrstuvwxyz' ")


def test_number_words():
    assert number_words(0) == "zero"
    assert number_words(999_999_999).startswith("nine hundred ninety nine million")
    ordinals = {
        1: "first",
        12: "twelfth",
        20: "twentieth",
        21: "twenty first",
        100: "one hundredth",
    }
    assert {n: ordinal_words(n) for n in ordinals} == ordinals
    with pytest.raises(ValueError, match="outside"):
        number_words(-1)


def test_word_errors_counts_each_kind():
    assert word_errors("The cat sat.", "the cat sat") == (0, 3)
    assert word_errors("The cat sat.", "the hat sat down") == (2, 3)
    assert word_errors("The cat sat.", "") == (3, 3)
    assert word_errors("I have 42.", "i have forty two") == (0, 4)
    with pytest.raises(InputError, match="no words"):
        word_errors("!?", "hello")


@pytest.mark.parametrize("package", ["pocketsphinx", "jiwer"])
def test_a_missing_package_says_what_to_install(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnsupportedError, match=r"pip install 'quaver\[quality\]'"):
        WordErrorRate() if package == "pocketsphinx" else word_errors("a", "a")


@pytest.fixture(scope="module")
def judge():
    return WordErrorRate()


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """The first three panel sentences by one voice: [(text, samples, rate)]."""
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    spoken = []
    for text in PLAIN_SENTENCES[:3]:
        subprocess.run(["flite", "-voice", "rms", "-t", text, "-o", path], check=True)
        with wave.open(str(path)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), dtype=np.int16)
            spoken.append((text, samples.astype(np.float32) / 32768, file.getframerate()))
    return spoken


@needs_flite
def test_a_clear_voice_is_understood(judge, speech):
    counts = [judge.errors(*spoken) for spoken in speech]
    assert sum(errors for errors, _ in counts) <= 0.1 * sum(words for _, words in counts)


@needs_flite
@pytest.mark.slow
def test_what_is_heard_does_not_depend_on_what_came_before(judge, speech):
    _text, samples, rate = speech[0]
    before = judge.transcribe(samples, rate)
    judge.transcribe(*speech[1][1:])
    assert judge.transcribe(samples, rate) == before == WordErrorRate().transcribe(samples, rate)


@needs_flite
def test_other_sample_rates_are_understood(judge, speech):
    from scipy.signal import resample_poly

    text, samples, rate = speech[1]
    errors, words = judge.errors(text, resample_poly(samples, 3, 2), rate * 3 // 2)
    assert errors <= 0.2 * words


@needs_flite
def test_damage_is_heard(judge, speech):
    text, samples, rate = speech[0]
    errors, words = judge.errors(text, samples[: len(samples) // 3], rate)
    assert errors >= 0.4 * words


def test_nothing_is_heard_in_silence(judge):
    assert judge.errors("Good morning.", np.zeros(0, dtype=np.float32), 24_000)[1] == 2
    assert judge.transcribe(np.zeros(16_000, dtype=np.float32), 16_000) == ""


def test_unusable_sound_is_refused(judge):
    with pytest.raises(InputError, match="8000 Hz"):
        judge.transcribe(np.zeros(100, dtype=np.float32), 4000)
    with pytest.raises(InputError, match="finite"):
        judge.transcribe(np.full(100, np.nan, dtype=np.float32), 16_000)


def test_sounds_are_no_words():
    assert normalise("Well <laugh> that is it.") == "well that is it"
