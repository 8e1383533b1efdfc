"""Characters folded to those that models know: invisible, typographic, compatibility, emoji."""

from __future__ import annotations

import re
import unicodedata

# Bidi marks, joiners, word joiners, invisible operators, soft hyphen, BOM, language tags,
# variation selectors, fillers that take no room.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\ud800-\udfff\ufffd\ufffc]"
)
# Zero-width joiners shape letters of scripts from Arabic to Khmer; elsewhere they are invisible.
_JOINER = re.compile("(?<![\u0600-\u1fff])[\u200c\u200d]+|[\u200c\u200d]+(?![\u0600-\u1fff])")
_NARROW_SPACE = re.compile("(?<=\\d)[\u00a0\u2009\u202f](?=\\d{3}(?!\\d))")
_KEYCAP = re.compile("([0-9])\ufe0f?\u20e3[ \t]*")
_KEYCAP_MARK = re.compile("[#*]\ufe0f?\u20e3")
_SYMBOLS_READ = frozenset("°©®™℃℉№℅ℓ℔℞Ω℮℗℠℡ª¦")
_BULLET = re.compile("^([ \t>]*)[●○■□◆◇►▶➢➤☐☑☒▪▫◦‣⁃]\ufe0f?(?=\\s)", re.MULTILINE)
_EMOTICON = re.compile(
    r"(?<!\S)(?:[:;=][-'^o]?[)(\]\[DPpOo|/\\*3]+|[xX]D+|<3+|</3|\^[_.-]?\^|:'\(|T_T|¯\\_\(ツ\)_/¯"
    r"|:[a-z][a-z0-9_+-]{1,40}:)(?=[\s.,!?]|$)"
)
_COMPATIBILITY = re.compile(
    "[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\ufb00-\ufb06\u2460-\u24ea"
    "\u1d2c-\u1d6a\u2100-\u214f\U0001d400-\U0001d7ff\U0001f100-\U0001f10a"
    "\u0132\u0133\u0149\u01c4-\u01cc\u01f1-\u01f3\u2160-\u217f\u33a0-\u33ff]"
)
_FULL_WIDTH_MARK = re.compile("[\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff5e\uffe0-\uffe6]")
# Characters that no model has seen, as the near ones that all know.
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u00ad\u2043\ufe63\u058a\u2e17", "-"),
        **dict.fromkeys("\u2212\u2796\u02d7", "\u2212"),
        **dict.fromkeys("\u2015\u2e3a\u2e3b\ufe58\ufe31", "—"),
        **dict.fromkeys("\u02bc\u02bb\u02b9\u02c8\u2032\u201b\u055a\ua78c", "'"),
        **dict.fromkeys("\u2033\u201f\u02ba\u301d\u301e\u275d\u275e", '"'),
        "\u2035": "'", "\u2034": "'''", "\u2025": "..", "\u2024": ".", "\u2027": "·",
        "\u203c": "!!", "\u2047": "??", "\u2048": "?!", "\u2049": "!?", "\u203d": "?!",
        "\u2044": "/", "\u2215": "/", "\u2223": "|", "\u2217": "*", "\u2236": ":",
        "\u2800": " ", "\u1680": " ", "\u037e": ";", "\u275b": "'", "\u275c": "'",
        "\u301c": "~", "\uff5e": "~", "\u223c": "~", "\u2016": "|", "\u00a6": "|",
    }
)  # fmt: skip
_QUOTES = str.maketrans(
    {
        **dict.fromkeys("‘’‚‹›`´", "'"),
        **dict.fromkeys("“”„«»", '"'),
        "…": "...", "¡": "", "¿": "",
    }
)  # fmt: skip
_LETTERS = str.maketrans(
    {
        "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "ð": "th", "Ð": "Th",
        "þ": "th", "Þ": "Th", "ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe",
        "ı": "i", "ĸ": "k", "ŋ": "ng", "Ŋ": "Ng", "ħ": "h", "Ħ": "H", "ŧ": "t", "Ŧ": "T",
        "ſ": "s", "ƒ": "f", "ə": "e", "Ə": "E", "ŀ": "l", "Ŀ": "L", "ɓ": "b", "ɗ": "d",
    }
)  # fmt: skip
NATIVE_LETTERS = {"de": "ßẞ", "fr": "æÆœŒ", "it": "", "es": ""}


def fold(text: str) -> str:
    """`text` without invisible characters and emoji, and with exotic characters made plain.

    Digits, letters, accents and the usual typographic marks stay as they are.
    """
    text = _BULLET.sub(r"\1•", text)
    text = _KEYCAP_MARK.sub("", _KEYCAP.sub(r"\1. ", text))
    text = _NARROW_SPACE.sub("", text)
    text = _JOINER.sub("", _INVISIBLE.sub("", text))
    text = _COMPATIBILITY.sub(_compatible, text).translate(_PLAIN)
    text = _EMOTICON.sub("", text)
    if text.isascii():
        return text
    return "".join(c for c in text if not _is_picture(c))


def fold_marks(text: str) -> str:
    """Full-width marks and quotes as their ASCII forms."""
    text = _FULL_WIDTH_MARK.sub(lambda m: unicodedata.normalize("NFKC", m[0]), text)
    return text.translate(_QUOTES)


def fold_letters(text: str, language: str) -> str:
    """Letters that have no decomposition as ASCII letters, save those of `language` itself."""
    own = NATIVE_LETTERS.get(language, "" if language == "en" else None)
    if own is None:
        return text
    table = {key: value for key, value in _LETTERS.items() if chr(key) not in own}
    return text.translate(table)


def _compatible(match: re.Match[str]) -> str:
    char = match[0]
    if char in "℃℉":
        return "°C" if char == "℃" else "°F"
    if char in "™℠":
        return char
    return unicodedata.normalize("NFKC", char)


def _is_picture(char: str) -> bool:
    """Whether this is an emoji, a dingbat, a box or the like, which have no sound."""
    code = ord(char)
    if code >= 0x1F000:
        return code <= 0x1FBFF or (0xE000 <= code & 0xFFFF <= 0xF8FF and code >= 0xF0000)
    if code < 0x2000 or char in _SYMBOLS_READ:
        return False
    if 0xE000 <= code <= 0xF8FF or char in "\u20e3\u3030\u303d\u3297\u3299":
        return True
    return unicodedata.category(char) == "So" and (code < 0x2E80 or code > 0xA000)
