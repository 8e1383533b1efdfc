"""Read any audio file that FFmpeg knows as mono samples at the rate a model wants.

Channels are averaged here and not by FFmpeg, whose float downmix scales by 0.707 a side and so
makes two equal channels 3 dB louder, past full scale.
"""

from __future__ import annotations

import errno
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from quaver.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av import AudioFrame
    from numpy.typing import NDArray

MAX_SECONDS = 600.0
MAX_REFERENCE_SECONDS = 30.0  # of a voice to clone
# FFmpeg's names of containers. Each holds its own sound: playlists and scripts, which make FFmpeg
# open what they name, are not among them.
CONTAINERS = (
    *("wav", "w64", "flac", "mp3", "ogg", "mov", "mp4", "m4a", "matroska", "webm"),
    *("aac", "aiff", "caf", "au"),
)
ALLOWED = "wav, flac, mp3, ogg, opus, m4a, mp4, mov, webm, mka, aac, aiff, caf, w64 or au"


def read(
    path: str | Path, sample_rate: int, max_seconds: float = MAX_SECONDS
) -> NDArray[np.float32]:
    """The first audio stream of the file as samples [n] at `sample_rate` Hz, n > 0.

    Raises InputError when the file is missing, damaged, empty, without an audio stream, or
    longer than `max_seconds`; decoding stops at that limit, so a huge file costs no memory.
    """
    import av

    path = Path(path)
    _check_file(path)
    pieces: list[NDArray[np.float32]] = []
    room = int(max_seconds * sample_rate)
    try:
        for piece in _pieces(path, sample_rate):
            pieces.append(piece)
            room -= len(piece)
            if room < 0:
                raise InputError(
                    f"{path} is longer than {max_seconds:g} s, the most allowed; cut it first"
                )
    except PermissionError as error:
        raise InputError(f"{path} may not be read; allow it or give another file") from error
    except (av.FFmpegError, ValueError) as error:  # ValueError: the rate changes midway
        raise InputError(
            f"{path} is not a sound audio file ({_reason(error)}); give {ALLOWED}"
        ) from error
    if not sum(map(len, pieces)):
        raise InputError(f"{path} holds no samples; give a file with sound in it")
    return np.concatenate(pieces)


def _pieces(path: Path, sample_rate: int) -> Iterator[NDArray[np.float32]]:
    import av

    # Absolute, so that no name reads as a URL; and no file may make FFmpeg open another.
    options = {"protocol_whitelist": "file", "format_whitelist": ",".join(CONTAINERS)}
    with av.open(str(path.resolve()), options=options) as container:
        if not container.streams.audio:
            raise InputError(f"{path} has no audio stream; give an audio file")
        resampler = av.AudioResampler(format="fltp", rate=sample_rate)
        for frame in container.decode(container.streams.audio[0]):
            for out in resampler.resample(frame):
                yield _mono(out)
        for out in resampler.resample(None):
            yield _mono(out)


def _check_file(path: Path) -> None:
    """InputError for what is no regular file."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        kind = error.strerror or str(error)
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            kind = "does not exist"
        raise InputError(f"{str(path)[:200]} {kind}; give the path of an audio file") from error
    if not stat.S_ISREG(mode):
        kind = "is a folder" if stat.S_ISDIR(mode) else "is a pipe or a device"
        raise InputError(f"{path} {kind}; give the path of an audio file")


def _reason(error: Exception) -> str:
    """FFmpeg's words, without the path, which the message has already."""
    if getattr(error, "errno", None) == errno.EINVAL:  # what it says of a format not in its list
        return "its container is not one that is read"
    return getattr(error, "strerror", None) or str(error)


def _mono(frame: AudioFrame) -> NDArray[np.float32]:
    return frame.to_ndarray().mean(axis=0, dtype=np.float32)
