"""Marks inside of a line: emphasis, code spans, links, HTML, LaTeX, citations.

Marks go one by one and need no partner, since a sentence may hold only one of two. Every pattern
is possessive or bounded, so that hostile text takes linear time.
"""

from __future__ import annotations

import html
import re

_NAME = r"(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});"
_ENTITY = re.compile(rf"&(?:amp;)++(?:{_NAME})?|&{_NAME}")
_CITATION = re.compile(
    r"【[^【】]{0,60}†[^【】]{0,60}】|\[\^[^\[\]\s]{1,40}\]"
    r"|\s?(?:\[\d{1,3}\])++(?=[.,;:!?)\s]|$)|(?<=\S)\[\d{1,3}\]"
)
_ADDRESS = r"\((?:[^()\s]|\([^()\s]*+\))*+(?:\s++(?:\"[^\"\n]{0,300}\"|'[^'\n]{0,300}'))?\s*+\)"
_IMAGE = re.compile(rf"!\[([^\[\]]{{0,500}})\](?:{_ADDRESS}|\[[^\[\]\n]{{0,200}}\])")
_LINK = re.compile(
    rf"\[((?:[^\[\]]|\[[^\[\]]{{0,200}}\]){{0,500}}+)\](?:{_ADDRESS}|\[[^\[\]\n]{{0,200}}\])"
)
_AUTOLINK = re.compile(r"<((?:https?://|mailto:)[^<>\s]{1,2000}|[^<>\s@]{1,64}@[^<>\s@]{1,255})>")
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:-]{0,30})(\s[^<>]{0,500})?(/?)>")
_HTML = frozenset(
    (
        "a abbr address article aside audio b bdi bdo big blockquote body br button canvas "
        "caption center cite code col colgroup data dd del details dfn dialog div dl dt em "
        "embed fieldset figcaption figure font footer form h1 h2 h3 h4 h5 h6 head header hr "
        "html i iframe img input ins kbd label legend li link main mark menu meta meter nav "
        "noscript object ol optgroup option output p param picture pre progress q rp rt ruby s "
        "samp script section select small source span strike strong style sub summary sup svg "
        "table tbody td template textarea tfoot th thead time title tr track tt u ul var video "
        "wbr speak prosody emphasis voice say-as phoneme break lang audio"
    ).split()
)
_BLOCKS = frozenset(
    ("br p div li tr h1 h2 h3 h4 h5 h6 ul ol table hr blockquote dt dd pre").split()
)
_SILENT = (("<!--", "-->"), ("<script", "</script>"), ("<style", "</style>"))
_CODE = re.compile(r"(?<!`)(`{1,3})(?!`)([^`\n]{1,500}+)\1(?!`)")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
_MATH = re.compile(r"(?<![\w$])\$(?=[^\s$])([^$\n]{1,200}+)(?<!\s)\$(?![\w$])")
_COMMAND = re.compile(r"\\([a-zA-Z]{1,20})\s?")
_FRACTION = re.compile(r"\\[dt]?frac\s?\{([^{}]{1,100})\}\s?\{([^{}]{1,100})\}")
_ROOT = re.compile(r"\\sqrt\s?\{([^{}]{1,100})\}")
_COMMANDS = {
    "times": "×", "cdot": "×", "div": "÷", "pm": "±", "leq": "≤", "geq": "≥", "neq": "≠",
    "le": "≤", "ge": "≥", "ne": "≠", "approx": "≈", "infty": "∞", "to": "→", "rightarrow": "→",
    "left": "", "right": "", "text": "", "mathrm": "", "mathbf": "", "boxed": "", "quad": " ",
    "begin": "", "end": "", "displaystyle": "", "degree": "°", "circ": "°", "ldots": "...",
}  # fmt: skip
_EMPHASIS = re.compile(r"\*+|_+|~+|={2,}|`+")
_PIPES = re.compile(r"(?<!\s)\s*+\|[\s|]*")  # from where spaces begin: linear in their number
_MIDDLE_BULLET = re.compile(r"(?<!\s)\s++[•·●▪]\s+")


def unescape_entities(text: str) -> str:
    """Characters for HTML entities; unknown entities stay, chains of `&amp;` are undone."""
    if "&" not in text:
        return text
    return _ENTITY.sub(lambda m: html.unescape("&" + m[0][1:].replace("amp;", "")), text)


def strip_inline(text: str) -> str:
    """`text` without inline marks; underscores inside of words stay."""
    for start, end in _SILENT:
        text = _without(text, start, end)
    text = _CITATION.sub("", text) if "[" in text or "【" in text else text
    if "](" in text or "][" in text:
        text = _LINK.sub(r"\1", _IMAGE.sub(r"\1", text))
    if "<" in text:
        text = _TAG.sub(_tag, _AUTOLINK.sub(r"\1", text))
    text = _CODE.sub(lambda m: _HUMP.sub(" ", m[2]), text)
    if "$" in text or "\\" in text:
        text = _plain_math(text)
    text = _EMPHASIS.sub(_emphasis, text)
    return _MIDDLE_BULLET.sub(", ", _PIPES.sub(_pipe, text))


def _without(text: str, start: str, end: str) -> str:
    """`text` without its parts from `start` to `end`; a part that does not end stays."""
    lower = text.lower()
    if start not in lower or len(lower) != len(text):
        return text
    kept, at = [], 0
    while (begin := lower.find(start, at)) >= 0:
        stop = lower.find(end, begin)
        if stop < 0:
            break
        kept.append(text[at:begin])
        at = stop + len(end)
    return "".join(kept) + text[at:]


def _tag(match: re.Match[str]) -> str:
    closing, name, attributes, empty = match.groups()
    known = name.lower() in _HTML and (not attributes or "=" in attributes or empty)
    if not (known or closing or empty or (attributes and "=" in attributes)):
        return match[0]  # an emotion tag
    if name.lower() in _BLOCKS:
        return "\n"
    return ""


def _plain_math(text: str) -> str:
    text = _MATH.sub(_inline_math, text.replace("$$", " "))
    text = _ROOT.sub(r"the square root of \1", _FRACTION.sub(r"\1 over \2", text))
    text = _ESCAPE.sub(r"\1", text)
    return _COMMAND.sub(_command, text)


def _inline_math(match: re.Match[str]) -> str:
    """LaTeX between dollars, which has no sentence in it; `$5 and $` does."""
    body = match[1]
    if body[0].isdigit() and not re.search(r"[\\^_=+{}]", body):
        return match[0]
    return body


def _command(match: re.Match[str]) -> str:
    before = match.string[match.start() - 1 : match.start()]
    if before.isalnum() or (before in (":", "\\") and before):
        return match[0]  # a path such as C:\new
    return f" {_COMMANDS.get(match[1], match[1])} "


def _emphasis(match: re.Match[str]) -> str:
    run, text = match[0], match.string
    before = text[match.start() - 1 : match.start()]
    after = text[match.end() : match.end() + 1]
    inside = before.isalnum() and after.isalnum()
    if run[0] == "_":
        return run if inside else ""
    if run == "*" and _is_product(text, match.start(), match.end()):
        return run
    if run == "==":
        return run if before.isspace() and after.isspace() else ""
    if run == "~":
        return run if after.isdigit() or after == "/" else ""
    return ""


def _is_product(text: str, start: int, end: int) -> bool:
    left, right = text[max(0, start - 3) : start], text[end : end + 3]
    spaced = left[-1:] == " " and right[:1] == " "
    if spaced:
        left, right = left[:-1], right[1:]
    one = (
        left[-1:].isdigit()
        or left[-1:] == ")"
        or (left[-1:].isalpha() and not left[-2:-1].isalnum())
    )
    two = (
        right[:1].isdigit()
        or right[:1] == "("
        or (right[:1].isalpha() and not right[1:2].isalnum())
    )
    number = left[-1:].isdigit() or right[:1].isdigit()
    return one and two and (spaced or number)


def _pipe(match: re.Match[str]) -> str:
    inner = match.start() > 0 and match.end() < len(match.string)
    if not inner or "\n" in match[0]:
        return "\n" if "\n" in match[0] else ""
    return ", "
