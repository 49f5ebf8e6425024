"""The clock is the system's, and a stamp is its time in words."""

import time

from hypothesis import given
from hypothesis import strategies as st

from lonedot.observability.clock import SystemClock
from lonedot.observability.stamp import Stamp
from lonedot.terms.clock import Clock


def test_the_system_clock() -> None:
    clock: Clock = SystemClock()
    assert abs(clock.now() - time.time()) < 5
    assert clock.monotonic() <= clock.monotonic()


@given(st.lists(st.floats(0, 4e9), min_size=1, max_size=5))
def test_a_stamp_is_right_whichever_way_the_clock_goes(times: list[float]) -> None:
    rest = iter(times)
    stamp = Stamp(lambda: next(rest))
    for now in times:
        expected = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(now)))
        text = stamp.utc()
        assert text.startswith(expected + ".") and text.endswith("Z") and len(text) == 24
