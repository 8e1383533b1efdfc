"""Utterances to hear and to see, and those that failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quaver.comparing.page_parts.choosing import FIT, WORDS, Sounds
from quaver.comparing.page_parts.difference import compared
from quaver.comparing.page_parts.markup import Html, el, in_unit, join, number, scroll
from quaver.comparing.page_parts.pictures import melody, spectrograms
from quaver.comparing.page_parts.utterances import FAILURES, Both, Utterance, data_address
from quaver.comparing.speaking import AGAIN, CANDIDATE, REFERENCE
from quaver.quality.metrics.spectra import Floats

MOST_FAILURES = 12
MOST_LISTED = 200  # rows
SIDES = {REFERENCE: "Reference", CANDIDATE: "Candidate", AGAIN: "Reference, once more"}
MELS = (
    ("Reference", "mel spectrogram, 80 dB from dark to light"),
    ("Candidate", "on the same scale"),
    ("Difference", "orange is louder in the candidate, blue quieter, up to 40 dB"),
)


def examples(shown: Sequence[tuple[str, Both]], ranked: Sequence[Both], sounds: Sounds) -> Html:
    """The chosen ones in full, then a table of all, worst first."""
    body = [_example(why, both, sounds) for why, both in shown]
    return el(
        "section",
        el("h2", "Utterances", id="utterances-title"),
        el(
            "p",
            "Ordered by how many more words the candidate lost, then by how much worse its sound "
            "fits the text. Both spoke under seeds of their own, so melody and pace may differ "
            "without either being worse.",
            class_="lead",
        ),
        body or el("p", "Nothing was spoken by both.", class_="reason"),
        _all(ranked) if ranked else None,
        id="utterances",
        aria_labelledby="utterances-title",
    )


def _example(why: str, both: Both, sounds: Sounds) -> Html:
    said_by = f", {both.candidate.voice}" if both.candidate.voice else ""
    return el(
        "article",
        el("h3", why),
        el("blockquote", both.candidate.text),
        el("p", both.key, said_by, class_="key"),
        el(
            "div", [_side(each, sounds) for each in (both.reference, both.candidate)], class_="pair"
        ),
        _pictures(both),
        class_="utterance",
    )


def _side(each: Utterance, sounds: Sounds) -> Html:
    wrong, fit = each.value(WORDS), each.value(FIT)
    known = [
        f"{each.seconds:.2f} s",
        None if wrong is None else f"{number(in_unit(wrong, 'share'), 1)} % of words wrong",
        None if fit is None else f"alignment {number(fit, 2)}",
    ]
    return el(
        "div",
        el("h4", SIDES[each.side]),
        player(each, sounds),
        compared(each.text, each.transcript),
        el("p", " \N{MIDDLE DOT} ".join(one for one in known if one), class_="key"),
        class_=f"side {each.side}",
    )


def player(each: Utterance, sounds: Sounds) -> Html:
    """The sound, or where it is; on paper always where it is."""
    if not each.heard:
        return el("p", "There is no sound.", class_="reason")
    place = el("code", each.place)
    address = sounds.player(each)
    if address is None:
        told = " beside this page; it would make the page too large."
        return el("p", place, told, class_="reason")
    named = f"{SIDES[each.side]}: {each.text}"
    return join(
        el(
            "audio",
            controls=True,
            preload="metadata",
            src=address,
            data_sound=each.name,
            aria_label=named,
        ),
        el("p", place, class_="file"),
    )


def _pictures(both: Both) -> Html:
    (theirs, rate), (ours, _) = both.reference.sound, both.candidate.sound
    if not rate or not len(ours):
        return el("p", "Without sound on both sides there is nothing to see.", class_="reason")
    found = spectrograms(theirs.astype(float), ours.astype(float), rate)
    if found is None:
        return el("p", "The sound is too short to be seen.", class_="reason")
    images = (found.reference, found.candidate, found.difference)
    mels = [
        el(
            "figure",
            el("img", src=data_address("image/png", image), alt=f"{name}: {told}", class_="mel"),
            el("figcaption", el("b", name), f", {told}"),
        )
        for (name, told), image in zip(MELS, images, strict=True)
    ]
    sides = {REFERENCE: theirs.astype(float), CANDIDATE: ours.astype(float)}
    return join(el("div", mels, class_="mels"), _melody(sides, rate))


def _melody(sides: dict[str, Floats], rate: int) -> Html | None:
    track = melody(sides, rate)
    if track is None:
        return None
    keys = [el("span", SIDES[side], class_=f"legend {side}") for side in sides]
    return el("figure", scroll("Pitch", track), el("figcaption", el("b", "Pitch"), keys))


def _all(ranked: Sequence[Both]) -> Html:
    heads = ("utterance", "text", "words wrong", "more than the reference", "alignment")
    rows = [
        el(
            "tr",
            el("th", both.key, scope="row"),
            el("td", both.candidate.text, class_="text"),
            el("td", _share(both.candidate.value(WORDS))),
            el("td", _share(both.change(WORDS), signed=True)),
            el("td", _signed(both.change(FIT))),
        )
        for both in ranked[:MOST_LISTED]
    ]
    table = el(
        "table", el("thead", el("tr", [el("th", h, scope="col") for h in heads])), el("tbody", rows)
    )
    left = len(ranked) - len(rows)
    more = f"; {left} more are in work.jsonl" if left else ""
    told = f"All {len(ranked)}, worst first{more}"
    where = el(
        "p",
        "Their sound is beside this page, such as ",
        el("code", ranked[0].candidate.place),
        ".",
        class_="key",
    )
    return el("details", el("summary", told), where, scroll("All utterances", table))


def _share(value: float | None, *, signed: bool = False) -> str:
    return "" if value is None else f"{number(100 * value, 1, signed=signed)} %"


def _signed(value: float | None) -> str:
    return "" if value is None else number(value, 2, signed=True)


def failures(utterances: Sequence[Mapping[str, Utterance]], sounds: Sounds) -> Html:
    """What is plainly broken on any side, the candidate's first."""
    broken = [
        each[side]
        for side in (CANDIDATE, REFERENCE, AGAIN)
        for each in utterances
        if side in each and each[side].value(FAILURES)
    ]
    spoken = sum(len(each) for each in utterances)
    told = f"{len(broken)} of {spoken} utterances are plainly broken"
    if len(broken) > MOST_FAILURES:
        told += f"; the first {MOST_FAILURES} are here, all are in work.jsonl"
    return el(
        "section",
        el("h2", "Failures", id="failures-title"),
        el("p", f"{told}.", class_="lead"),
        [_failure(each, sounds) for each in broken[:MOST_FAILURES]],
        id="failures",
        aria_labelledby="failures-title",
    )


def _failure(each: Utterance, sounds: Sounds) -> Html:
    return el(
        "article",
        el("h3", SIDES[each.side], ": ", ", ".join(each.faults())),
        el("blockquote", each.text),
        player(each, sounds),
        class_="utterance broken",
    )
