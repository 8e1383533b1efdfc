"""English abbreviations, initialisms, capitals and signs as words."""

from __future__ import annotations

import re

_ABBREVIATIONS = {
    "Dr": "Doctor", "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Prof": "Professor",
    "Jr": "Junior", "Sr": "Senior", "Gen": "General", "Col": "Colonel", "Sgt": "Sergeant",
    "Lt": "Lieutenant", "Capt": "Captain", "Rev": "Reverend", "Gov": "Governor",
    "Sen": "Senator", "Rep": "Representative", "Hon": "Honorable", "Mt": "Mount",
    "vs": "versus", "etc": "et cetera", "approx": "approximately", "dept": "department",
    "Dept": "Department", "est": "established", "Inc": "Incorporated", "Ltd": "Limited",
    "Corp": "Corporation", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Fig": "Figure",
    "fig": "figure", "Vol": "Volume", "vol": "volume", "Ch": "Chapter", "Sec": "Section",
    "pp": "pages", "cf": "compare", "ca": "circa", "Sept": "September", "Messrs": "Messieurs",
    "ext": "extension", "Ext": "Extension", "govt": "government", "misc": "miscellaneous",
    "Assn": "Association", "Bros": "Brothers", "Cmdr": "Commander", "Maj": "Major",
    "Jan": "January", "Feb": "February", "Aug": "August", "Oct": "October", "Nov": "November",
    "Dec": "December",
}  # fmt: skip
_ABBREVIATED = re.compile(
    rf"(?<![\w.'])({'|'.join(sorted(_ABBREVIATIONS, key=len, reverse=True))})"
    r"\.(?=(\s+[^\W_]|[,;:)\"']|\s*$|\s*\n)?)"
)
_BARE_TITLES = re.compile(r"\b(Dr|Mr|Mrs|Ms|vs)\b(?=\s+[A-Za-z])")
_LATIN = re.compile(r"(?<!\w)(?:e\.\s?g\.?|i\.\s?e\.?|a\.\s?k\.\s?a\.)(?!\w),?", re.IGNORECASE)
_SAINT = re.compile(r"\bSt\.(?=\s[A-Z])(?<!\w\s(?=St\.)St\.)|\bSt\.(?=\s[A-Z])")
_STREET = re.compile(r"(?<=[a-z\d] )St\.(?=\s[a-z]|\s*$|[,;])")
_PAGE = re.compile(
    r"\bp\.\s?(?=\d|(?:one|two|three|four|five|six|seven|eight|nine|ten|[a-z]+teen|[a-z]+ty)\b)"
)
_SHORT = re.compile(r"(?<![\w/])(w/o|w/|b/c|n/a|N/A|a/c)(?!\w/)(\s?)")
_SHORTS = {"w/o": "without", "w/": "with", "b/c": "because", "n/a": "not applicable",
           "a/c": "A C"}  # fmt: skip
_DOTTED = re.compile(
    r"(?<![\w.])((?:(?:[A-Za-z]\.){1,6}|(?:[A-Z]\. ){1,6})[A-Z]|(?:[A-Za-z]\.){1,6}[a-z]|Ph\.D)"
    r"\.?(?!\w)"
)
_AMPERSAND = re.compile(r"\b([A-Z]{1,4})&([A-Z]{1,4})\b")
_HALF_DAY = re.compile(r"(?<=[a-z] )([AaPp])(?:\.\s?[Mm]\b\.?|M\b)(?=(\s*$|\s+[A-Z])?)")
_ACRONYMS = frozenset(
    (
        "NASA NATO UNESCO UNICEF OPEC AIDS COVID SARS RADAR LASER SCUBA FIFA UEFA NAFTA DARPA "
        "ASCII JPEG GIF RAM ROM PIN SIM LAN WAN WIFI CAPTCHA REST SOAP CRUD YAML TOML JSON "
        "BASIC COBOL NASDAQ FEMA OSHA HIPAA SWAT PTA IKEA LEGO NAVY SCSI POSIX LIDAR SONAR GUI "
        "SAT MIDI CAD CERN MOMA SOHO TED VISA LLAMA BERT CLIP OPUS WAV POC WASM SIEM DOGE ROFL "
        "YOLO FOMO SCOTUS POTUS ICANN MENSA NORAD INTERPOL BAFTA COBRA OLED RAID BIOS"
    ).split()
)
_INITIALISMS = frozenset(
    (
        "FBI CIA USA UK US EU UN API APIS HTTP HTTPS HTML CSS XML SQL URL URI GPT LLM AI ML NLP "
        "TTS STT ASR CPU GPU TPU SSD HDD USB PDF PNG CSV IBM NSA IRS BBC CNN NBC CBS ABC MIT "
        "UCLA PHP SDK IDE SSH FTP DNS VPN TCP UDP IP ISO IEEE ATM DIY FAQ CEO CFO CTO COO VP HR "
        "PR PC TV DVD CD DJ DNA RNA MRI CT HIV BMW KFC NBA NFL NHL MLB UFO UFC WWE WHO IMF GDP "
        "ETA ETF IPO ID OK IOT AWS GCP IOS SMS MMS GPS LED LCD HD UHD RPG FPS NPC PHD BA MA MBA "
        "ADHD OCD PTSD AM PM"
    ).split()
) - {"WHO", "US", "AM", "ABC"} | {"ABC"}
_WORDS = frozenset(
    (
        "A I AN AS AT BE BY DO GO HE IF IN IS IT ME MY NO OF ON OR SO TO UP US WE AM OH OK HI "
        "YO HA AH ALL AND ANY ARE BAD BIG BUT BUY CAN CUT DAY DID DIE DOG CAT EAT END FAR FEW "
        "FOR FUN GET GOD GOT GUY HAD HAS HER HEY HIM HIS HIT HOT HOW ITS JOB LET LIE LOT LOW "
        "MAD MAN MAY MEN MOM DAD NEW NOT NOW ODD OFF OLD ONE OUR OUT OWN PAY PUT RED RUN SAD "
        "SAW SAY SEE SET SHE SIT SIX SON TEN THE TOO TOP TRY TWO USE WAR WAS WAY WHO WHY WIN "
        "WON YES YET YOU NOR AGO AIR ARM ART ASK BED BOX BOY CAR CUP EAR EGG EYE FIX FLY GAS "
        "GUN ICE JOY KEY KID LAW LEG MAP MIX NET OIL PEN PET RAW SEA SKY SUN TAX TEA TIE TIP "
        "WET YEP NOPE TIPS NOTE STEP TODO WARNING"
    ).split()
)
_CAPITALS = re.compile(r"(?<![\w'<])([A-Z]{2,})('?s\b)?(?![\w])")
_LOUD_PIECE = re.compile(r"[^.!?\n]+(?:[.!?\n]+|$)")
_HARD = re.compile(
    r"[BCDFGHJKLMNPQRSTVWXZ]{4,}|^[BCDFGHJKLMNPQRSTVWXZ]{3}|Q(?!U)|[BCDFGJKPQTVXZ]{3}"
)
_VOWEL = re.compile("[AEIOUY]")
_ROMAN = {"II": "two", "III": "three", "IV": "four", "V": "five", "VI": "six", "VII": "seven",
          "VIII": "eight", "IX": "nine", "X": "ten", "XI": "eleven", "XII": "twelve",
          "XIII": "thirteen", "XIV": "fourteen", "XV": "fifteen", "XVI": "sixteen"}  # fmt: skip
_ORDINALS = {"two": "second", "three": "third", "five": "fifth", "eight": "eighth",
             "nine": "ninth", "twelve": "twelfth"}  # fmt: skip
_PARTS = re.compile(
    r"\b(World War|Chapter|Part|Act|Volume|Section|Phase|Type|Stage|Class|Level|Book|Article|Scene"
    r"|Appendix|Figure|Episode|Season|Title|Super Bowl) ([IVX]{1,5})\b(?! ?')"
)
_MONARCHS = re.compile(
    r"\b(Henry|Louis|Elizabeth|Charles|George|Edward|James|William|Richard|Philip|Paul|Benedict"
    r"|Pius|Napoleon|Nicholas|Alexander|Catherine|Frederick|Leo|Gregory|Francis|Mary|Peter)"
    r" ([IVX]{2,5})\b"
)
_SEQUEL = re.compile(r"(?<=[a-z] )(II|III|VII|VIII|XII|XIII)\b")
_MATH = {"=": "equals", "≠": "is not equal to", "≈": "is about", "≤": "is at most",
         "≥": "is at least", "÷": "divided by", "×": "times", "±": "plus or minus", "+": "plus",
         "<": "is less than", ">": "is greater than"}  # fmt: skip
_SIGNS = (
    (re.compile(r"\bC\+\+"), "C plus plus"), (re.compile(r"\b([CF])#"), r"\1 sharp"),
    (re.compile(r"\s?&\s?"), " and "), (re.compile(r"(?<!\w)@(?=\w)"), "at "),
    (re.compile(r"(?<=\w)\s?@\s?(?=\w)"), " at "),
    (re.compile(r"(?<!\w)#(?=[^\W\d_])"), "hashtag "),
    (re.compile(r"©\s?(?=\w)"), "copyright "), (re.compile(r"§+\s?"), "section "),
    (re.compile(r"\s?∞"), " infinity"), (re.compile(r"√\s?"), " the square root of "),
    (re.compile(r"(?<=\w) ?([=≠≈≤≥÷×±]) ?(?=\w)"), lambda m: f" {_MATH[m[1]]} "),
    (re.compile(r"(?<=\w) ([+<>]) (?=\w)"), lambda m: f" {_MATH[m[1]]} "),
    (re.compile(r"\s?(?:→|⇒|⟶|->|=>|⟹|➜)\s?"), ", "), (re.compile(r"\bπ\b"), "pi"),
    (re.compile(r"(?<=\w)%"), " percent"), (re.compile(r"(?<=\w)/(?=\w)"), " "),
)  # fmt: skip
_HASHTAG = re.compile(r"(?<!\w)#[^\W\d_]\w{0,60}")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


def read_words(text: str) -> str:
    """`text` with abbreviations, initialisms, Roman numerals and signs as words."""
    text = _AMPERSAND.sub(lambda m: f"{' '.join(m[1])} and {' '.join(m[2])}", text)
    text = lower_capitals(text)
    text = _LATIN.sub(_latin, text)
    text = _PAGE.sub("page ", text)
    text = _STREET.sub(lambda m: "Street" + ("." if _ends(m) else ""), text)
    text = _SAINT.sub("Saint", text)
    text = _ABBREVIATED.sub(_abbreviation, text)
    text = _BARE_TITLES.sub(lambda m: _ABBREVIATIONS[m[1]], text)
    text = _SHORT.sub(lambda m: _SHORTS[m[1].lower()] + (m[2] or " "), text)
    text = _HALF_DAY.sub(
        lambda m: f"{m[1].upper()} M" + ("." if m[2] is not None and "." in m[0] else ""), text
    )
    text = _PARTS.sub(_part, text)
    text = _MONARCHS.sub(_monarch, text)
    text = _SEQUEL.sub(lambda m: _ROMAN[m[1]], text)
    text = _DOTTED.sub(_dotted, text)
    text = _CAPITALS.sub(lambda m: _initialism(m[1], m[2] or "", loud=False), text)
    return read_signs(text)


def read_signs(text: str) -> str:
    """Signs between words, as words."""
    text = _HASHTAG.sub(lambda m: _HUMP.sub(" ", m[0]), text)
    for pattern, spoken in _SIGNS:
        text = pattern.sub(spoken, text)
    return text


def lower_capitals(text: str) -> str:
    """`text` with sentences that are all capitals in lower case; initialisms stay."""
    return _LOUD_PIECE.sub(_quiet, text)


def _quiet(m: re.Match[str]) -> str:
    piece = m[0]
    words = re.findall(r"[^\W\d_]{2,}", piece)
    loud = [w for w in words if w.isupper()]
    if len(loud) < len(words) or not words:
        return piece
    if all(w in _INITIALISMS or w in _ACRONYMS or (len(w) < 4 and w not in _WORDS) for w in words):
        return piece  # names of things, not a shout
    spoken = _CAPITALS.sub(lambda w: _initialism(w[1], w[2] or "", loud=True), piece)
    spoken = re.sub(
        r"(?<=[a-z]')[A-Z]+\b|\b[A-Z]+(?='[A-Z])|(?<= )A(?= [a-z])", lambda w: w[0].lower(), spoken
    )
    start = re.search(r"[^\W\d_]", spoken)
    assert start is not None  # it has words
    at = start.start()
    return spoken[:at] + spoken[at].upper() + spoken[at + 1 :]


def _initialism(word: str, tail: str, *, loud: bool) -> str:
    if word in _WORDS:
        return word.lower() + tail
    if word in _ACRONYMS:
        return word.capitalize() + tail
    spelled = word in _INITIALISMS
    if not spelled and not loud:
        spelled = (
            len(word) <= 3
            or _VOWEL.search(word) is None
            or (len(word) <= 5 and _HARD.search(word) is not None)
        )
    if not spelled and loud:
        spelled = _VOWEL.search(word) is None
    if spelled and len(word) <= 12:
        return " ".join(word) + ("'s" if tail else "")
    return word.lower() + tail


def _latin(m: re.Match[str]) -> str:
    first = m[0][0].lower()
    return {"e": "for example", "i": "that is", "a": "also known as"}[first]


def _ends(m: re.Match[str]) -> bool:
    return not m.string[m.end() :].strip() or m.string[m.end() : m.end() + 1] == "\n"


def _abbreviation(m: re.Match[str]) -> str:
    ends = _ends(m)
    if m[1] in ("etc", "Inc", "Ltd", "Corp", "Jr", "Sr", "Ave", "Blvd", "Rd"):
        ends = ends or (
            bool(re.match(r"\s+[A-Z]", m.string[m.end() : m.end() + 3])) and m[1] == "etc"
        )
    return _ABBREVIATIONS[m[1]] + ("." if ends else "")


def _part(m: re.Match[str]) -> str:
    if m[2] == "I":
        return (
            f"{m[1]} one"
            if m[1] == "World War"
            or re.match(r"\s*(?:[.:,;]|$|of\b)", m.string[m.end() : m.end() + 4])
            else m[0]
        )
    return f"{m[1]} {_ROMAN.get(m[2], m[2])}"


def _monarch(m: re.Match[str]) -> str:
    if m[2] not in _ROMAN:
        return m[0]
    name = _ROMAN[m[2]]
    return f"{m[1]} the {_ORDINALS.get(name, name + 'th')}"


def _dotted(m: re.Match[str]) -> str:
    letters = re.findall("[A-Za-z]", m[1])
    if len(letters) < 2:
        return m[0]
    return " ".join(letters).upper() + ("." if m[0].endswith(".") and _ends(m) else "")
