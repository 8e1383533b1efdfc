"""Web addresses, e-mail addresses, paths and file names, as people read them aloud."""

from __future__ import annotations

import re
from urllib.parse import unquote

_URL = re.compile(
    r"(?<![\w@])(?:(?:https?|ftp|wss?|file|mailto)://?|mailto:|www\.)[^\s<>\"'`()\[\]{}|\\^]{1,2000}",
    re.IGNORECASE,
)
_EMAIL = re.compile(
    r"(?<![\w.+-])([\w.+-]{1,64})@((?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})(?![\w-])"
)
_TOP = (
    "com|org|net|edu|gov|mil|int|io|ai|dev|app|co|uk|us|eu|de|fr|es|it|kr|jp|cn|in|ca|au|ch|at|nl"
    "|se|no|info|biz|me|tv|xyz|tech|cloud|fm|gg|ly|so|sh|wiki|online|store|site"
)
_DOMAIN = re.compile(
    rf"(?<![\w.@/-])(?:[a-zA-Z0-9-]{{1,63}}\.){{1,6}}(?:{_TOP})\b(?![\w@-]|\.\w)"
    r"(?::\d{2,5})?(?:/[^\s<>\"'`()\[\]{}|\\^]{0,500})?"
)
_SUFFIXES = (
    "json|toml|ya?ml|txt|md|py|js|ts|tsx|jsx|html?|css|csv|tsv|xml|pdf|docx?|xlsx?|pptx?|png|jpe?g"
    "|gif|svg|webp|mp3|mp4|wav|ogg|flac|zip|tar|gz|exe|dll|sh|bat|cfg|conf|ini|log|lock|env|rs|go"
    "|c|h|cpp|hpp|java|rb|php|sql|ipynb|safetensors|gguf|onnx|pt|bin|deb|rpm|iso"
)
_FILE = re.compile(
    rf"(?<![\w@])(?:[~.]{{0,2}}/)?(?:[\w-]{{1,80}}[./]){{0,10}}[\w-]{{0,80}}\.(?:{_SUFFIXES})\b(?![\w@-]|\.\w)"
)
_PATH = re.compile(
    r"(?<![\w/.:<])(?:~|\.{1,2})?/(?:[A-Za-z_.][\w.@-]{0,80}/){0,20}[A-Za-z_.][\w.@-]{0,80}/?"
)
_NAMES = {
    ".": "dot", "/": "slash", "-": "dash", "_": "underscore", "@": "at", ":": "colon",
    "?": "question mark", "=": "equals", "&": "and", "#": "hash", "+": "plus", "%": "percent",
    "~": "tilde",
}  # fmt: skip
_PARTS = re.compile(r"[^\W\d_]+|\d+|[^\w\s]|_")
_WORDS_AS_LETTERS = frozenset(
    ("io ai api uk us eu tv css html php sql csv pdf png xml url gg fm").split()
)


def read_addresses(text: str) -> str:
    """`text` with every address, path and file name as words: `example dot com slash docs`."""
    if "@" in text:
        text = _EMAIL.sub(lambda m: _spell(m[0]), text)
    if "://" in text or "www." in text or "WWW." in text or "mailto:" in text:
        text = _URL.sub(_url, text)
    if "." in text:
        text = _FILE.sub(_file, _DOMAIN.sub(_url, text))
    if "/" in text:
        text = _PATH.sub(_file, text)
    return text


def _url(match: re.Match[str]) -> str:
    """The host and the path; the query, the scheme and `www.` are not said."""
    address = match[0]
    end = len(address.rstrip(".,;:!?*_~"))
    rest = address[end:]
    bare = re.sub(r"^(?:[a-z]+://?|mailto:)", "", address[:end], flags=re.IGNORECASE)
    bare = re.sub(r"^www\.", "", bare, flags=re.IGNORECASE)
    bare = unquote(re.split(r"[?#]", bare)[0]).rstrip("/")
    return _spell(bare) + rest


def _file(match: re.Match[str]) -> str:
    text = match[0]
    end = len(text.rstrip("."))
    if not any(c.isalpha() for c in text):
        return text
    return _spell(text[:end].rstrip("/")) + text[end:]


def _spell(address: str) -> str:
    return " ".join(_part(part) for part in _PARTS.findall(address))


def _part(part: str) -> str:
    if part.lower() in _WORDS_AS_LETTERS:
        return " ".join(part.upper())
    if part.isalpha() and part.isupper() and len(part) > 1:
        return part.lower()
    return _NAMES.get(part, part if part.isalnum() else "")
