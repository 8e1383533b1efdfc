"""Sound as pictures: mel spectrograms as PNG, melodies as SVG. By hand, so nothing is installed."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quaver.comparing.page_parts.charts import Scale, label, line, picture
from quaver.comparing.page_parts.markup import Html, el
from quaver.quality.metrics.pitch import HOP_SECONDS, pitch_track
from quaver.quality.metrics.spectra import (
    FLOOR_DECIBELS,
    MEL_BANDS,
    WINDOW_SECONDS,
    Floats,
    align,
    decibels,
    floor_below_peak,
    mel_filters,
    power_spectra,
)

Bytes = NDArray[np.uint8]

LEAST_HOP, MOST_FRAMES = 0.008, 640  # seconds; wider pictures would show no more
WARP_SECONDS = 0.5  # how far the alignment may stray from an even stretch
DIFFERENCE_DECIBELS = 40.0  # at either end of the colours
HERTZ = (60, 80, 100, 125, 150, 200, 250, 300, 400, 500)  # that a melody may be held against
CLEAR = 0  # the colour of no sound at all
SHADES = 255
# Dark violet over red to pale yellow, of rising lightness, so that it reads in grey too.
_LOUDNESS = ("#06050f", "#2a115c", "#641a80", "#a1307e", "#dd4a69", "#f8865f", "#fdc78b", "#fcfdbf")
# Dark where both are alike; blue and orange are told apart by nearly all eyes.
_CHANGE = ("#a8e0ff", "#3fa0e8", "#17507f", "#15161a", "#8a4510", "#f08a2c", "#ffe0a8")


@dataclass(frozen=True, slots=True)
class Pictures:
    """PNG files: either side, and the candidate less the reference."""

    reference: bytes
    candidate: bytes
    difference: bytes


def png(pixels: Bytes, palette: Bytes) -> bytes:
    """An image of palette indices [height, width]; `palette` is [256, 3], CLEAR is transparent."""
    height, width = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bits a pixel, by palette
    rows = np.pad(pixels, ((0, 0), (1, 0)))  # each begins with the number of its filter: none
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette.tobytes()),
        (b"tRNS", b"\0"),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def colours(names: tuple[str, ...]) -> Bytes:
    """A palette [256, 3] through `names` in hexadecimal; the first entry is kept for CLEAR."""
    anchors = np.array([[int(name[k : k + 2], 16) for k in (1, 3, 5)] for name in names])
    places = np.linspace(0, len(names) - 1, SHADES)
    found = np.stack([np.interp(places, np.arange(len(names)), row) for row in anchors.T], 1)
    return np.rint(np.vstack([np.zeros((1, 3)), found])).astype(np.uint8)


def shades(values: Floats, low: float, high: float, width: int) -> Bytes:
    """Indices [bands, width] of `values` [frames, bands], low notes at the bottom."""
    share = np.clip((values - low) / (high - low), 0.0, 1.0)
    indices = np.rint(1 + share * (SHADES - 1)).astype(np.uint8)
    return np.pad(indices.T[::-1], ((0, 0), (0, width - len(values))), constant_values=CLEAR)


def spectrograms(reference: Floats, candidate: Floats, rate: int) -> Pictures | None:
    """Of samples [n] and [m], on one scale of time and of loudness; None if either is too short.

    The two say the same words at times of their own, so the candidate is laid over the reference
    by the cheapest path before they are subtracted.
    """
    longest = max(len(reference), len(candidate)) / rate
    if min(len(reference), len(candidate)) < 2 * WINDOW_SECONDS * rate:
        return None
    hop = max(LEAST_HOP, longest / MOST_FRAMES)
    filters = mel_filters(round(WINDOW_SECONDS * rate), rate, MEL_BANDS).T
    powers = [power_spectra(x, rate, hop=hop) @ filters for x in (reference, candidate)]
    floor = floor_below_peak(powers[0])
    theirs, ours = (decibels(power, floor) for power in powers)
    width, bottom = max(len(theirs), len(ours)), float(10 * np.log10(floor))
    loudness = colours(_LOUDNESS)
    sides = [
        png(shades(x, bottom, bottom + FLOOR_DECIBELS, width), loudness) for x in (theirs, ours)
    ]
    change = _warped(ours, theirs, round(WARP_SECONDS / hop)) - theirs
    pixels = shades(change, -DIFFERENCE_DECIBELS, DIFFERENCE_DECIBELS, width)
    return Pictures(sides[0], sides[1], png(pixels, colours(_CHANGE)))


def _warped(ours: Floats, theirs: Floats, radius: int) -> Floats:
    """`ours` [n, bands] at the times of `theirs` [m, bands]: means over what falls there."""
    here, there = align(ours, theirs, radius)
    total, count = np.zeros_like(theirs), np.zeros((len(theirs), 1))
    np.add.at(total, there, ours[here])
    np.add.at(count, there, 1.0)
    warped: Floats = total / count
    return warped


def melody(sides: dict[str, Floats], rate: int) -> Html | None:
    """The pitch of each side over time; None where there is no voice."""
    tracks = {name: _track(samples, rate) for name, samples in sides.items()}
    voiced = np.concatenate([track[track > 0] for track in tracks.values()])
    if not len(voiced):
        return None
    width, height, left, bottom = 600.0, 130.0, 48.0, 108.0
    seconds = max(len(samples) for samples in sides.values()) / rate
    x = Scale(0.0, seconds, left, width - 6)
    low, high = _octaves(voiced)
    y = Scale(low, high, bottom, 8.0)
    parts = []
    for hertz in HERTZ:
        level = np.log2(hertz)
        if low <= level <= high:
            parts += [line(left, y(level), width - 6, y(level), "grid")]
            parts += [label(left - 5, y(level) + 4, f"{hertz} Hz", "end")]
    step = max(1, round(seconds / 6))
    parts += [label(x(s), height - 6, f"{s} s") for s in range(0, int(seconds) + 1, step)]
    for name, track in tracks.items():
        parts.append(el("path", d=_path(track, x, y), class_=f"track {name}"))
    told = "Pitch over time: " + " and ".join(sides)
    return picture(told, width, height, *parts, class_="melody")


def _octaves(hertz: Floats) -> tuple[float, float]:
    """The range that is drawn, as log2 of Hz: what `hertz` [n] need, and an octave at least."""
    low, high = float(np.log2(hertz.min())) - 0.1, float(np.log2(hertz.max())) + 0.1
    more = max(0.0, 1.0 - (high - low)) / 2
    return low - more, high + more


def _track(samples: Floats, rate: int) -> Floats:
    """Hertz [frames], 0 for no voice; no frames of what is shorter than the tracker's window."""
    if len(samples) < 0.05 * rate:
        return np.zeros(0)
    return pitch_track(samples, rate)


def _path(track: Floats, x: Scale, y: Scale) -> str:
    """Lines through neighbouring voiced frames."""
    steps, before = [], False
    for place, hertz in enumerate(track):
        if hertz > 0:
            point = f"{x(place * HOP_SECONDS):.1f} {y(float(np.log2(hertz))):.1f}"
            steps.append(("L" if before else "M") + point)
        before = hertz > 0
    return "".join(steps)
