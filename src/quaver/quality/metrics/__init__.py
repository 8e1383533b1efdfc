"""The metrics that a comparison measures, by name.

Ours are listed here by their place, and each class says its own name; others' come by the entry
point `quaver.metrics`, whose name is the metric's and whose value makes one. The strongest judges
are too large for a wheel: they come from folders that the user has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any

from quaver.core.errors import ConfigError, UnsupportedError
from quaver.quality.metrics.metric import Metric, NotMeasured

GROUP = "quaver.metrics"
OURS = (
    "wer:WordErrorRate",
    "alignment:Alignment",
    "mos:DistilMos",
    "pauses:PauseNoise",
    "pace:Duration",
    "failures:Failures",
    "speaker:VoiceDistance",
    "similarity:SpeakerSimilarity",
    "snr:Snr",
    "snr:SiSdr",
    "logmel:SpectralCorrelation",
    "distance:LogSpectralDistance",
    "distance:MultiResolutionStft",
    "pitch:Pitch",
    "pitch:PitchVoicing",
    "intelligibility:Estoi",
    "intelligibility:Pesq",
)
# Judges whose weights lie in a folder, by the word that gives it.
JUDGES: Mapping[str, str] = MappingProxyType(
    {
        "whisper": "whisper:WhisperWordErrorRate",
        "wavlm": "wavlm:WavlmSimilarity",
        "utmos": "utmos:Utmos",
    }
)
_NO_FOLDERS: Mapping[str, Path] = MappingProxyType({})


def find_metrics(folders: Mapping[str, Path] = _NO_FOLDERS) -> dict[str, Metric | NotMeasured]:
    """All metrics there are; in place of one whose packages are missing, the reason.

    `folders` of weights add the judges that read them, by the keys of `JUDGES`. InputError if one
    does not hold what its judge needs. ConfigError for a judge that there is not, or if an entry
    point takes a name that there is already, or makes what is no metric.
    """
    if unknown := sorted(set(folders) - set(JUDGES)):
        raise ConfigError(f"there is no judge {', '.join(unknown)}; there are {', '.join(JUDGES)}")
    found: dict[str, Metric | NotMeasured] = {}
    for place in OURS:
        made = _class(place)
        found[made.name] = _made(made)
    for judge, folder in folders.items():
        made = _class(JUDGES[judge])
        found[made.name] = _made(partial(made, folder))
    return found | _others(set(found))


def _others(taken: set[str]) -> dict[str, Metric | NotMeasured]:
    """What other packages offer, by the names of their entry points."""
    found: dict[str, Metric | NotMeasured] = {}
    for entry in entry_points(group=GROUP):
        if entry.name in taken | set(found):
            raise ConfigError(
                f"{entry.value} offers a metric called {entry.name}, which there is already; "
                "rename it or uninstall it"
            )
        made = _made(entry.load())
        if not isinstance(made, NotMeasured) and not callable(getattr(made, "measure", None)):
            raise ConfigError(f"{entry.value} makes {type(made).__name__}, which is no metric")
        found[entry.name] = made
    return found


def _class(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(f"{__name__}.{module}"), name)


def _made(make: Callable[[], Metric]) -> Metric | NotMeasured:
    try:
        return make()
    except UnsupportedError as error:
        return NotMeasured(str(error))
