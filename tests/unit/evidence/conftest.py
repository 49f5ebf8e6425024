"""A clock that a test sets."""

import pytest


class HandClock:
    """Stands still until it is moved. Begins 2023-11-14 22:13:20 UTC."""

    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time - 1_600_000_000


@pytest.fixture
def clock() -> HandClock:
    return HandClock()
