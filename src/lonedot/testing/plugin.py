"""The pytest plugin: the fixture `lonedot_relay`. Loaded into every pytest run of an environment that has Lonedot.

Rule: nothing of Lonedot is imported, and nothing of pytest's is changed, before a test asks for the fixture.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lonedot.sinks.bindings import Binding
    from lonedot.sinks.sink import AnySink
    from lonedot.testing.fixtures import RelayThread, StartRelay

__all__ = ["lonedot_relay"]


@pytest.fixture
def lonedot_relay() -> Iterator[StartRelay]:
    """Starts a relay with the sinks given; it listens on a free port and is stopped when the test has ended."""
    from lonedot.testing.fixtures import RelayThread  # noqa: PLC0415  # the rule of this module

    with contextlib.ExitStack() as stack:

        def start(*sinks: AnySink | Binding) -> RelayThread:
            return stack.enter_context(RelayThread(*sinks))

        yield start
