"""When to try again, to tell, to give up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lonedot.queue.retry import RetrySchedule

DEFAULT = RetrySchedule()


def test_default_waits_without_jitter() -> None:
    assert [DEFAULT.wait_seconds(n, 0.5) / 60 for n in range(1, 9)] == [1, 5, 15, 30, 60, 240, 240, 240]


@given(attempts=st.integers(1, 100), random=st.floats(0, 1), age=st.floats(0, 172_799))
def test_never_later_than_the_expiry_and_never_in_the_past(attempts: int, random: float, age: float) -> None:
    at = DEFAULT.next_at(attempts, 1000.0, 1000.0 + age, random)
    assert at is not None
    assert 1000.0 + age < at <= 1000.0 + DEFAULT.expire_seconds
    assert 0.9 <= DEFAULT.wait_seconds(attempts, random) / DEFAULT.wait_seconds(attempts, 0.5) <= 1.1 + 1e-9


def test_expired() -> None:
    assert DEFAULT.next_at(3, 0.0, 172_800.0, 0.5) is None


def test_delay_notice() -> None:
    assert not DEFAULT.wants_delay_notice(0.0, 4 * 3600 - 1)
    assert DEFAULT.wants_delay_notice(0.0, 4 * 3600)
