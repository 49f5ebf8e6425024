"""What every test shares: the event loop, the hypothesis profiles and the question for a peer.

Profiles, chosen by HYPOTHESIS_PROFILE:

- `quick` (default): few examples, the same in every run, so that a red run can be repeated;
- `deep`: many random examples, for ./dev fuzz and ./dev crash; prints the line that repeats a failure.
"""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

from tests.need import need

__all__ = ["need"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell gives that to what it starts in the background, and every program that a test interrupts would have it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadlines: a shared machine stalls for reasons that are not ours, and pytest-timeout stops what hangs.
settings.register_profile(
    "quick", max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "deep", max_examples=5000, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Coroutine tests run on asyncio alone; the relay uses nothing else."""
    return "asyncio"
