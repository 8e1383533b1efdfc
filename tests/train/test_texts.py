"""The training texts: the same for a seed, speakable, varied, and blind to the panel."""

import re
from collections import Counter
from itertools import islice

import pytest

from quaver.core.errors import ConfigError
from quaver.quality.panel import PLAIN_SENTENCES
from quaver.train.spoken import NUMBER_SLOTS
from quaver.train.texts import (
    ALPHABET,
    Grammar,
    grammar,
    plain,
    sentences,
    utterances,
    word_classes,
    words,
)


@pytest.fixture(scope="module")
def sample():
    return list(islice(utterances(0), 30_000))


def share(sample, condition):
    return sum(map(condition, sample)) / len(sample)


def test_a_seed_names_a_corpus(sample):
    assert list(islice(utterances(0), 500)) == sample[:500]
    assert list(islice(utterances(1), 500)) != sample[:500]


def test_only_the_alphabet_occurs_and_all_of_it(sample):
    assert set("".join(sample)) == ALPHABET


def test_lengths(sample):
    lengths = [len(text) for text in sample]
    assert max(lengths) <= 230
    assert 60 <= sum(lengths) / len(lengths) <= 80
    assert 0.09 <= share(sample, lambda text: len(text.split()) <= 4) <= 0.16
    assert 0.09 <= share(lengths, lambda length: length >= 150) <= 0.16


def test_most_texts_end_like_sentences(sample):
    assert 0.955 <= share(sample, lambda text: text[-1] in ".?!") <= 0.985


def test_texts_are_tidy(sample):
    assert all(text == text.strip() and text and "  " not in text for text in sample)
    assert not any("{" in text or "_" in text for text in sample)


def test_texts_vary(sample):
    assert len(set(sample)) > 0.85 * len(sample)


def test_every_listed_word_is_pronounced(sample):
    said = Counter(word for text in sample for word in plain(text).split())
    assert sum(word in said for word in words()) > 0.95 * len(words())


def test_digits_and_number_words_both_occur(sample):
    text = " ".join(sample)
    assert len(re.findall(r"\b\d+\b", text)) > 1000
    for form in ("forty two", "42", "$", "%", "o'clock", "nineteen ", "1984", "GPU", "FP8"):
        assert form in text, form


def test_the_panel_is_never_seen(sample):
    panel = [plain(sentence) for sentence in PLAIN_SENTENCES]
    assert not any(sentence in plain(text) for text in sample[:5000] for sentence in panel)
    assert not set(panel) & {plain(text) for text in sentences()}


def test_a_panel_sentence_would_be_dropped(monkeypatch):
    unwanted = sentences()[0]
    monkeypatch.setattr("quaver.train.texts.PLAIN_SENTENCES", (unwanted,))
    assert not any(plain(unwanted) in plain(text) for text in islice(utterances(0), 2000))


def test_the_panel_is_plain():
    assert len(set(PLAIN_SENTENCES)) == 60
    for sentence in PLAIN_SENTENCES:
        assert 6 <= len(sentence.split()) <= 14
        assert not re.search(r"\d", sentence)


def test_the_data_is_what_it_claims_to_be():
    assert list(words()) == sorted(set(words()))
    assert all(re.fullmatch("[a-z]+", word) for word in words())
    assert len(set(sentences())) == len(sentences())
    assert all(set(sentence) <= ALPHABET for sentence in sentences())
    assert all(len(members) > 300 for members in word_classes().values())


def test_every_slot_of_the_grammar_can_be_filled():
    computed = {*NUMBER_SLOTS, "listword"}
    computed |= {"listnoun", "listplural", "listadj", "listadv", "listpast", "listgerund"}
    assert grammar().unknown(dict.fromkeys(computed)) == []
    assert Grammar.parse("[a]\n{b} {c_cap}").unknown({"c": None}) == ["b"]


def test_a_choice_without_a_list_is_an_error():
    with pytest.raises(ConfigError, match="before the first"):
        Grammar.parse("lonely\n")
