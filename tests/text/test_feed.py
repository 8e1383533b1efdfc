"""Sentences that come out while text comes in, with the blocks that are not read left out."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quaver.text.feed import SentenceFeed
from quaver.text.normalization import normalize

LINES = [
    *("Hello there. ", "How are you?", "plain words", "- item", "1. first", "> quoted", "# Head"),
    *("```py", "```", "x = 1", "| a | b |", "|---|---|", "a | b", "---|---", "", "", "**Bold one.",
      "Bold two.**", "~~~", "<think>", "</think>", "3. ", "-", "#", "|", "`code` here. And", "***"),
]  # fmt: skip
texts = st.lists(st.sampled_from(LINES), max_size=16).map("\n".join)
WHOLE = """Sure. Here it is:

```python
print("never. Read. This.")
```
- Milk
- Eggs and ham

| Name | Age |
|------|-----|
| Bob | 5. Or so. |

**Done. All of it.**"""
SENTENCES = ["Sure.", "Here it is:", "Milk.", "Eggs and ham.", "**Done.", "All of it.**"]


def fed(text: str, size: int, mode: str = "full") -> list[str]:
    feed = SentenceFeed(2000, mode)  # type: ignore[arg-type]
    found = [s for at in range(0, len(text), size) for s in feed.push(text[at : at + size])]
    return found + feed.finish()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_blocks_that_are_left_out_never_come_out(size: int) -> None:
    assert fed(WHOLE, size) == SENTENCES
    assert [normalize(s) for s in fed(WHOLE, size)][-2:] == ["Done.", "All of it."]


@pytest.mark.parametrize("mode", ["full", "light"])
@given(text=texts, size=st.integers(1, 9))
@example(text="- a\r\n- b\r\n\r\n```\r\nx\r\n```\r\nc", size=1)
@settings(deadline=None, max_examples=200)
def test_pieces_give_the_same_as_the_whole(mode: str, text: str, size: int) -> None:
    assert fed(text, size, mode) == fed(text, max(1, len(text)), mode)


def test_a_fence_that_never_ends_loses_nothing_before_it() -> None:
    assert fed("One. Two\n```py\ncode. More. Code", 1) == ["One.", "Two"]


def test_sentences_do_not_wait_for_the_end_of_their_line() -> None:
    feed = SentenceFeed(200, "full")
    assert feed.push("- First one. ") == []
    assert feed.push("Second") == ["First one."]
    assert feed.push(" one.\n- Next") == []
    assert feed.push("\n\nLast. B") == ["Second one.", "Next.", "Last."]
    assert feed.finish() == ["B"]


def test_mode_off_keeps_everything() -> None:
    assert re.sub(r"\s", "", "".join(fed(WHOLE, 1, "off"))) == re.sub(r"\s", "", WHOLE)


def test_a_feed_starts_anew_after_its_end() -> None:
    feed = SentenceFeed(200, "full")
    feed.push("```\nx")
    assert feed.finish() == []
    assert feed.push("Hi. There") == ["Hi."]
