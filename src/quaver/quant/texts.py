"""What a model says while it is calibrated: English of many kinds, none of it in the judging panel.

The texts are in `data/calibration.txt`, one a line; `data/README.md` says where they come from.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

DEFAULT_SAMPLES = 24  # texts: with more, the layers' inputs change little and the time grows
_TAG = re.compile(r"\s*<[a-z]+>")


@cache
def calibration_texts() -> tuple[str, ...]:
    """All texts, those that are used by default first. Some have an emotion tag such as <laugh>."""
    data = (files("quaver.quant") / "data" / "calibration.txt").read_text(encoding="ascii")
    return tuple(data.splitlines())


def without_tags(text: str) -> str:
    """`text` without emotion tags, for a model that does not read them."""
    return _TAG.sub("", text).strip()
