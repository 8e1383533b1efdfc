"""Groups of frames that follow a listener: never late where that can be, and large where it can."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quaver.voicing import RAMP, group

FRAME = 2048 / 24000  # seconds
FIRST = 0.9 * FRAME  # sound that three frames give


def listen(pace: float, frames: int = 141) -> tuple[float, list[int]]:
    """The latest that sound comes, in seconds, where a frame takes `pace`; and the groups."""
    now, given, late, groups = 0.0, FIRST, 0.0, []
    while len(groups) < frames and sum(groups) < frames:
        count = group(given - now, pace)
        groups.append(count)
        now += count * pace
        late = max(late, now - given)
        given += count * FRAME
    return late, groups


@given(st.floats(0.001, 0.98 * FRAME))
def test_sound_is_not_late_while_frames_are_faster_than_it(pace):
    late, groups = listen(pace)
    assert late <= max(0.0, pace - FIRST) + 1e-9
    assert all(count & (count - 1) == 0 and count <= RAMP[-1] for count in groups)


@pytest.mark.parametrize(("share", "wanted"), [(0.1, 8), (0.5, 8), (0.8, 8), (0.97, 2)])
def test_groups_are_as_large_as_the_lead_allows(share, wanted):
    _, groups = listen(share * FRAME)
    assert groups[-1] == wanted
    assert groups == sorted(groups)


def test_who_is_behind_gets_every_frame_at_once():
    assert group(-5.0, 0.01) == group(0.0, 0.08) == 1
