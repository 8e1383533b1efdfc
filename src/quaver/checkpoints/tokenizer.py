"""`tokenizer.json` of a stranger: its form checked, and opened so that no text is lost.

A tokenizer is a small program: normalizers that rewrite text, patterns that split it. `check`
bounds what each may do, so that no text makes a process run out of memory or time.
`quaver.checkpoints.trial` then tries the whole in a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from quaver.checkpoints.atomic import one_line
from quaver.checkpoints.jsonfile import read_json
from quaver.checkpoints.pattern_reader import parse
from quaver.checkpoints.patterns import is_steady
from quaver.core.errors import CheckpointError
from quaver.core.panics import panics_as
from quaver.core.section import Section, shown

MAX_TOKENS = 2**22
MAX_CONTENT = 1000  # characters of a token or of a replacement
MAX_STEPS = 32  # normalizers, or pre-tokenizers
MAX_DEPTH = 8  # of sequences in sequences
MAX_GROWTH = 64.0  # times that text may become longer
MODELS = ("BPE", "WordLevel", "WordPiece", "Unigram")
NORMALIZERS = (
    *("Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Nmt"),
    *("Prepend", "Replace", "BertNormalizer", "ByteLevel"),
)
PRETOKENIZERS = (
    *("Sequence", "ByteLevel", "Split", "Whitespace", "WhitespaceSplit", "Metaspace", "Digits"),
    *("Punctuation", "BertPreTokenizer", "CharDelimiterSplit", "UnicodeScripts", "FixedLength"),
)
TRUSTED = frozenset(  # patterns of published tokenizers that a general rule would refuse
    {r"\d(?=(?:\d{3})+\b)", r"(?=(\d{3})+(?!\d))"}
)


@dataclass(frozen=True, slots=True)
class CheckedTokenizer:
    """A file whose form is fine. `token` has the `highest` id of the model's vocabulary."""

    path: Path
    highest: int
    token: str

    def open(self, vocab_size: int) -> Tokenizer:
        """The tokenizer, without what its author's last use left in it.

        Truncation and padding change texts, dropout draws what they become, and a post-processor
        adds tokens that prompts have already. Raises CheckpointError if an id has no row in the
        model's table.
        """
        tokenizer = _opened(self.path)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.post_processor = None
        if getattr(tokenizer.model, "dropout", None) is not None:
            tokenizer.model.dropout = None
        # the library gives added tokens ids of its own where those of the file have gaps
        added = tokenizer.get_added_tokens_decoder().items()
        last = {number: token.content for number, token in added if not token.special}
        last[self.highest] = self.token
        if (highest := max(last)) >= vocab_size:
            raise CheckpointError(
                f"{self.path} makes {shown(last[highest])} the token {highest}, and vocab_size is "
                f"{vocab_size}; allowed are ids below it: take the tokenizer.json and the "
                "config.json of one model"
            )
        return tokenizer


def check(path: Path) -> CheckedTokenizer:
    """Check the form of a `tokenizer.json`. Raises CheckpointError, which names file and key."""
    section = Section(read_json(path, "tokenizer"), str(path))
    growth = _Growth()
    _check_steps(section, "normalizer", NORMALIZERS, growth)
    _check_steps(section, "pre_tokenizer", PRETOKENIZERS, growth)
    if growth.factor > MAX_GROWTH:
        raise CheckpointError(
            f"{path} makes texts up to {growth.factor:.3g} times longer (normalizer and "
            f"pre_tokenizer); allowed: {MAX_GROWTH:.0f} times. Take the tokenizer.json of the "
            "model that this one was trained from"
        )
    _check_added(section)
    vocabulary = _vocabulary(section.section("model"))
    token = max(vocabulary, key=vocabulary.__getitem__)
    return CheckedTokenizer(path, vocabulary[token], token)


def _opened(path: Path) -> Tokenizer:
    with panics_as(CheckpointError, f"{path} is not a tokenizer: reading it fails"):
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001 - the Rust library raises bare Exception
            raise CheckpointError(f"{path} is not a tokenizer: {one_line(error)}") from None


def _vocabulary(model: Section) -> Mapping[str, int]:
    """The tokens of the model, and their ids."""
    kind = model.text("type", 40, "BPE")
    if kind not in MODELS:
        raise model.error("type", kind, ", ".join(MODELS))
    model.whole("max_input_chars_per_word", 0, MAX_CONTENT, None)
    for key in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        model.text(key, MAX_CONTENT, None, shortest=0)
    found = model.values.get("vocab")
    if kind == "Unigram" and isinstance(found, list):
        pairs = [each for each in found if isinstance(each, list) and each]
        if len(pairs) < len(found) or not all(isinstance(each[0], str) for each in pairs):
            raise model.error("vocab", found, "a list of tokens and numbers")
        found = {each[0]: number for number, each in enumerate(pairs)}
    if not isinstance(found, dict) or not 1 <= len(found) <= MAX_TOKENS:
        allowed = f"an object with 1 to {MAX_TOKENS:,} tokens and their ids"
        raise model.error("vocab", found, allowed)
    for token, number in found.items():
        if type(number) is not int or not 0 <= number < MAX_TOKENS:
            allowed = f"whole numbers from 0 to {MAX_TOKENS - 1:,}"
            raise model.error(f"vocab[{shown(token, 40)}]", number, allowed)
        if not isinstance(token, str) or len(token) > MAX_CONTENT:
            raise model.error("vocab", found, f"tokens of at most {MAX_CONTENT:,} characters")
    return found


def _check_added(section: Section) -> None:
    """CheckpointError for added tokens of another form."""
    listed = section.values.get("added_tokens")
    if listed is None:
        return
    if not isinstance(listed, list) or len(listed) > MAX_TOKENS:
        raise section.error("added_tokens", listed, f"a list of at most {MAX_TOKENS:,} tokens")
    for number, each in enumerate(listed):
        name = f"added_tokens[{number}]"
        if not isinstance(each, dict):
            raise section.error(name, each, "an object {...}")
        token = Section(each, section.file, name)
        token.whole("id", 0, MAX_TOKENS - 1)
        token.flag("special", False)
        content = token.values.get("content")
        if not isinstance(content, str) or len(content) > MAX_CONTENT:
            raise token.error("content", content, f"at most {MAX_CONTENT:,} characters")


class _Growth:
    """How many times longer a text can become, and how many steps make it so."""

    def __init__(self) -> None:
        self.factor, self.steps = 1.0, 0


def _check_steps(owner: Section, key: str, kinds: Iterable[str], growth: _Growth) -> None:
    """Check a normalizer or a pre-tokenizer, and those in it."""
    growth.steps = 0
    for step in _steps(owner, key, 0):
        growth.steps += 1
        if growth.steps > MAX_STEPS:
            raise owner.error(key, owner.values[key], f"at most {MAX_STEPS} steps")
        kind = step.text("type", 40)
        if kind not in kinds:
            raise step.error("type", kind, ", ".join(kinds))
        growth.factor *= _factor(kind, step)
        _check_pattern(step)
        step.whole("length", 1, 2**20, None)


def _steps(owner: Section, key: str, depth: int) -> Iterable[Section]:
    if not owner.has(key):
        return
    if depth > MAX_DEPTH:
        raise owner.error(key, owner.values[key], f"sequences at most {MAX_DEPTH} deep")
    section = owner.section(key)
    yield section
    for inner in ("normalizers", "pretokenizers"):
        listed = section.values.get(inner)
        if listed is None:
            continue
        if not isinstance(listed, list):
            raise section.error(inner, listed, "a list of objects")
        for number, each in enumerate(listed):
            name = f"{inner}[{number}]"
            yield from _steps(Section({name: each}, owner.file, section.path), name, depth + 1)


def _factor(kind: str, step: Section) -> float:
    """How many times longer a step can make a text, as far as its author decides it."""
    if kind == "ByteLevel":
        return 2.0
    if kind == "Prepend":
        return 1.0 + len(_content(step, "prepend"))
    if kind == "Replace":
        put = len(_content(step, "content"))
        pattern = step.section("pattern").values
        if isinstance(found := pattern.get("String"), str) and found:
            return max(1.0, put / len(found))
        return 1.0 + put
    return 1.0


def _content(step: Section, key: str) -> str:
    value = step.values.get(key)
    if not isinstance(value, str) or len(value) > MAX_CONTENT:
        raise step.error(key, value, f"a string of at most {MAX_CONTENT:,} characters")
    return value


def _check_pattern(step: Section) -> None:
    """CheckpointError for a pattern that a backtracking engine could need long for."""
    if not step.has("pattern"):
        return
    values = step.section("pattern").values
    if isinstance(text := values.get("String"), str) and 1 <= len(text) <= MAX_CONTENT:
        return
    source = values.get("Regex")
    allowed = 'an object with "String" or "Regex" and a text of 1 to 1,000 characters'
    if not isinstance(source, str) or not source:
        raise step.error("pattern", step.values["pattern"], allowed)
    if source in TRUSTED:
        return
    try:
        steady = is_steady(parse(source))
    except ValueError as error:
        raise step.error("pattern", source, f"patterns that Quaver understands ({error})") from None
    if not steady:
        allowed = (
            "patterns that take little time for any text: no repeated groups, at most two parts "
            "repeated without bound in an alternative"
        )
        raise step.error("pattern", source, allowed)
