"""For tests: of sinks by their authors, and of Lonedot itself. Only tests import it.

What the author of a sink needs is here and stays (docs/api-stability.md): a message, one sink run on it, what came of
that, a whole relay. It is loaded when it is asked for. The other modules of this package serve Lonedot's own tests.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lonedot.testing.fixtures import Arrival, Refused, RelayThread, RunningRelay, StartRelay, relay_with
    from lonedot.testing.sinks import Ran, bound, make_envelope, make_message, make_session, run_sink

__all__ = [
    "Arrival",
    "Ran",
    "Refused",
    "RelayThread",
    "RunningRelay",
    "StartRelay",
    "bound",
    "make_envelope",
    "make_message",
    "make_session",
    "relay_with",
    "run_sink",
]

_HOMES = {
    "Arrival": "lonedot.testing.fixtures",
    "Ran": "lonedot.testing.sinks",
    "Refused": "lonedot.testing.fixtures",
    "RelayThread": "lonedot.testing.fixtures",
    "RunningRelay": "lonedot.testing.fixtures",
    "StartRelay": "lonedot.testing.fixtures",
    "bound": "lonedot.testing.sinks",
    "make_envelope": "lonedot.testing.sinks",
    "make_message": "lonedot.testing.sinks",
    "make_session": "lonedot.testing.sinks",
    "relay_with": "lonedot.testing.fixtures",
    "run_sink": "lonedot.testing.sinks",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'lonedot.testing' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
