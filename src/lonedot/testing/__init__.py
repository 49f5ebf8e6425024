"""For tests: of sinks by their authors, and of Lonedot itself. Only tests import it.

What the author of a sink needs is here and stays (docs/api-stability.md): a message, one sink run on it, what came of
that, a whole relay. It is loaded when it is asked for. The other modules of this package serve Lonedot's own tests.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lonedot.testing.asking import Asked, ask_sink, make_session
    from lonedot.testing.envelopes import make_envelope
    from lonedot.testing.fixtures import Arrival, Refused, RelayThread, RunningRelay, StartRelay, relay_with
    from lonedot.testing.hops import make_hop, make_outcomes
    from lonedot.testing.sinks import Ran, bound, make_message, run_sink

__all__ = [
    "Arrival",
    "Asked",
    "Ran",
    "Refused",
    "RelayThread",
    "RunningRelay",
    "StartRelay",
    "ask_sink",
    "bound",
    "make_envelope",
    "make_hop",
    "make_message",
    "make_outcomes",
    "make_session",
    "relay_with",
    "run_sink",
]

_HOMES = {
    "Arrival": "lonedot.testing.fixtures",
    "Asked": "lonedot.testing.asking",
    "Ran": "lonedot.testing.sinks",
    "Refused": "lonedot.testing.fixtures",
    "RelayThread": "lonedot.testing.fixtures",
    "RunningRelay": "lonedot.testing.fixtures",
    "StartRelay": "lonedot.testing.fixtures",
    "ask_sink": "lonedot.testing.asking",
    "bound": "lonedot.testing.sinks",
    "make_envelope": "lonedot.testing.envelopes",
    "make_hop": "lonedot.testing.hops",
    "make_message": "lonedot.testing.sinks",
    "make_outcomes": "lonedot.testing.hops",
    "make_session": "lonedot.testing.asking",
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
