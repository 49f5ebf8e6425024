"""Lonedot: a mail transport that people can program.

What the author of a sink needs is here: `sink`, `Message`, `Edit`, the verdicts. It is loaded when it is asked for, so
that a command which needs none of it starts quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lonedot.message.edits import Edit, Effect
    from lonedot.message.mailboxes import Mailbox
    from lonedot.message.parts import Part
    from lonedot.sinks.events import Event
    from lonedot.sinks.hop import Hop
    from lonedot.sinks.protocol import Session
    from lonedot.sinks.sink import Sink, sink
    from lonedot.sinks.verdicts import (
        Accept,
        Defer,
        Discard,
        Hold,
        Next,
        Redirect,
        Reject,
        Stop,
        Verdict,
    )
    from lonedot.sinks.view import Message
    from lonedot.terms.envelope import Envelope, Recipient
    from lonedot.terms.outcome import Outcome, Result

__all__ = [
    "Accept",
    "Defer",
    "Discard",
    "Edit",
    "Effect",
    "Envelope",
    "Event",
    "Hold",
    "Hop",
    "Mailbox",
    "Message",
    "Next",
    "Outcome",
    "Part",
    "Recipient",
    "Redirect",
    "Reject",
    "Result",
    "Session",
    "Sink",
    "Stop",
    "Verdict",
    "__version__",
    "sink",
]

__version__ = "0.1.0"

_HOMES = {
    "Accept": "lonedot.sinks.verdicts",
    "Defer": "lonedot.sinks.verdicts",
    "Discard": "lonedot.sinks.verdicts",
    "Edit": "lonedot.message.edits",
    "Effect": "lonedot.message.edits",
    "Envelope": "lonedot.terms.envelope",
    "Event": "lonedot.sinks.events",
    "Hold": "lonedot.sinks.verdicts",
    "Hop": "lonedot.sinks.hop",
    "Mailbox": "lonedot.message.mailboxes",
    "Message": "lonedot.sinks.view",
    "Next": "lonedot.sinks.verdicts",
    "Outcome": "lonedot.terms.outcome",
    "Part": "lonedot.message.parts",
    "Recipient": "lonedot.terms.envelope",
    "Redirect": "lonedot.sinks.verdicts",
    "Reject": "lonedot.sinks.verdicts",
    "Result": "lonedot.terms.outcome",
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
