"""Lonedot: a mail transport that people can program.

What the author of a sink needs is here: `sink`, `Message`, `Edit`, the verdicts. It is loaded when it is asked for, so
that a command which needs none of it starts quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lonedot.message.edits import Edit, Effect
    from lonedot.sinks.protocol import Session
    from lonedot.sinks.sink import Sink, sink
    from lonedot.sinks.verdicts import Defer, Discard, Hold, Next, Reject, Stop, Verdict
    from lonedot.sinks.view import Message

__all__ = [
    "Defer",
    "Discard",
    "Edit",
    "Effect",
    "Hold",
    "Message",
    "Next",
    "Reject",
    "Session",
    "Sink",
    "Stop",
    "Verdict",
    "__version__",
    "sink",
]

__version__ = "0.1.0"

_HOMES = {
    "Defer": "lonedot.sinks.verdicts",
    "Discard": "lonedot.sinks.verdicts",
    "Edit": "lonedot.message.edits",
    "Effect": "lonedot.message.edits",
    "Hold": "lonedot.sinks.verdicts",
    "Message": "lonedot.sinks.view",
    "Next": "lonedot.sinks.verdicts",
    "Reject": "lonedot.sinks.verdicts",
    "Session": "lonedot.sinks.protocol",
    "Sink": "lonedot.sinks.sink",
    "Stop": "lonedot.sinks.verdicts",
    "Verdict": "lonedot.sinks.verdicts",
    "sink": "lonedot.sinks.sink",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'lonedot' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
