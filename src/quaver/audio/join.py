"""Join the segments of a long text: no click, no doubled pause, no more memory than a breath.

Each segment is a recording of its own, with its own silence at both ends, so plain concatenation
gives pauses of any length and a step where two noise floors meet. The joiner keeps the last
audible sample of one segment and the first of the next exactly the asked pause apart: it keeps
natural silence on both sides as far as it fits, fades both sides over 5 ms, and fills with zeros.

Nothing but silence waits: a segment's audible samples leave at once, except the last 5 ms when
they are all that a fade could use. Output depends on the samples alone, never on the chunks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from quaver.audio.levels import first_audible, last_audible

if TYPE_CHECKING:
    from numpy.typing import NDArray

FADE_SECONDS = 0.005
LEAD_SECONDS = 0.05  # natural silence kept before a segment, for breath and soft attacks
HOLD_SECONDS = 2.0


class SeamJoiner:
    """Push a segment's chunks, end it, push the next; `finish` at the end. One stream each.

    The silence before the first segment and after the last is left as it is, so a stream of one
    segment passes unchanged to the bit. Silence within a segment passes too; of silence that runs
    on for more than `HOLD_SECONDS` the oldest is let go, and a seam that follows is then too long
    by as much. A pause below two fades (10 ms) is made that long.
    """

    def __init__(self, sample_rate: int) -> None:
        self._sample_rate = sample_rate
        self._fade = self._samples_in(FADE_SECONDS)
        self._hold = self._samples_in(HOLD_SECONDS)
        self._held = _nothing()  # audible samples, then silence, not passed on yet
        self._sound = 0  # how many of the held come before the silence
        self._passed = 0  # samples of the present silence that have been passed on
        self._lead: NDArray[np.float32] | None = None  # set between two segments' sounds
        self._gap = 0  # samples between two segments' sounds
        self._risen = self._fade  # samples of the fade-in done

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take samples [n] of the present segment; give those [m] that are ready, m >= 0."""
        if self._lead is None:
            return self._append(samples)
        onset = first_audible(samples)
        if onset is None:
            self._lead = np.concatenate([self._lead, samples])[-self._hold :]
            return _nothing()
        lead = np.concatenate([self._lead, samples[:onset]])
        return np.concatenate([self._seam(lead), self._append(samples[onset:])])

    def end_segment(self, pause_seconds: float) -> NDArray[np.float32]:
        """The present segment is whole; give what of its end is certain to be kept.

        A segment without any sound has no end of its own: of its pause and the one before it, the
        longer holds.
        """
        if not (len(self._held) or self._passed or self._lead is not None):
            return _nothing()  # nothing has come yet that a pause could follow
        asked = max(self._samples_in(pause_seconds), 2 * self._fade)
        self._gap = asked if self._lead is None else max(asked, self._gap)
        if self._lead is None:
            self._lead = _nothing()
        # The pause is heard while the next segment is still being made, so let it go early.
        left_for_lead = min(self._samples_in(LEAD_SECONDS), self._gap - self._fade)
        silence = len(self._held) - self._sound
        certain = min(silence, self._gap - left_for_lead - self._passed) - self._fade
        return self._pass_on(self._sound + certain) if certain > 0 else _nothing()

    def finish(self) -> NDArray[np.float32]:
        """The stream is whole; give the rest [m]. The joiner is not to be used again."""
        seam = self._seam(self._lead) if self._lead is not None and len(self._lead) else _nothing()
        return np.concatenate([seam, self._pass_on(len(self._held))])

    def _samples_in(self, seconds: float) -> int:
        return round(seconds * self._sample_rate)

    def _append(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        samples = self._faded_in(samples)
        if (last := last_audible(samples)) is not None:
            self._sound = len(self._held) + last + 1
            self._passed = 0
        self._held = np.concatenate([self._held, samples])
        for_fade = min(self._sound, len(self._held) - self._fade)
        return self._pass_on(max(for_fade, len(self._held) - self._hold, 0))

    def _pass_on(self, count: int) -> NDArray[np.float32]:
        ready, self._held = self._held[:count], self._held[count:]
        self._passed += max(count - self._sound, 0)
        self._sound = max(self._sound - count, 0)
        return ready

    def _faded_in(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._risen == self._fade:
            return samples
        ramp = _ramp(self._fade)[self._risen : self._risen + len(samples)]
        self._risen += len(ramp)
        return np.concatenate([samples[: len(ramp)] * ramp, samples[len(ramp) :]])

    def _seam(self, lead: NDArray[np.float32]) -> NDArray[np.float32]:
        """The end of one segment and the pause; `lead` [n] is the silence before the next sound.

        The lead's part of the pause is appended to what is held, as the next segment's start.
        """
        silence = len(self._held) - self._sound
        room = max(self._gap - self._passed, 2 * self._fade)
        before = min(len(lead), room - min(silence, self._fade), self._samples_in(LEAD_SECONDS))
        after = min(silence, room - before)
        before = min(len(lead), room - after)
        end = self._held[: self._sound + after].copy()
        fade = min(self._fade, len(end))
        end[len(end) - fade :] *= _ramp(fade)[::-1]
        fill = np.zeros(room - after - before, dtype=np.float32)
        self._held, self._sound, self._passed, self._risen = _nothing(), 0, 0, 0
        self._lead = None
        start = self._append(lead[len(lead) - before :])
        return np.concatenate([end, fill, start])


def _nothing() -> NDArray[np.float32]:
    return np.zeros(0, dtype=np.float32)


def _ramp(count: int) -> NDArray[np.float32]:
    """Raised cosine [count] from just above 0 to just below 1, symmetric."""
    phase = (np.arange(count, dtype=np.float32) + 0.5) / max(count, 1)
    return (0.5 - 0.5 * np.cos(np.pi * phase)).astype(np.float32)
