"""What a sink may say: edits as values, and what becomes of the message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from lonedot.message.edits import AnyEdit
from lonedot.sinks.events import Says

__all__ = [
    "EDITS_LIMIT",
    "READ_LIMIT",
    "Accept",
    "Defer",
    "Discard",
    "Hold",
    "Next",
    "Redirect",
    "Reject",
    "Stop",
    "Verdict",
    "says_of",
]

EDITS_LIMIT = 10_000
"""Edits in a verdict that comes from another process."""

READ_LIMIT = 64 * 1024 * 1024
"""Octets that a sink may have read behind a command."""

_Edits = Annotated[Sequence[AnyEdit], msgspec.Meta(max_length=EDITS_LIMIT)]


class Next(msgspec.Struct, frozen=True, tag="next"):
    """Go on to the next sink, with these edits."""

    edits: _Edits = ()


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Call no further sink for this event; the message itself goes on."""

    edits: _Edits = ()


class Hold(msgspec.Struct, frozen=True, tag="hold"):
    """Keep the message until a person releases it. `words` say why, for that person."""

    words: str
    edits: _Edits = ()


class Reject(msgspec.Struct, frozen=True, tag="reject"):
    """Refuse it for good; `words` go to the client, behind code and enhanced status code."""

    words: str
    code: int = 550
    """500 to 599."""
    enhanced: str = "5.7.1"


class Defer(msgspec.Struct, frozen=True, tag="defer"):
    """Refuse it for now: a client that queues comes again. `words` go to the client."""

    words: str
    code: int = 451
    """400 to 499."""
    enhanced: str = "4.7.1"


class Discard(msgspec.Struct, frozen=True, tag="discard"):
    """Accept it and send it to nobody; recorded, with `words`, in its history."""

    words: str


class Accept(msgspec.Struct, frozen=True, tag="accept"):
    """Answer the command with success, in words of your own, and ask no further sink of this event."""

    words: str = ""
    """For the client; empty: the usual ones."""
    code: int = 0
    """200 to 299; 0: the usual one. Another than the usual only where the command is not the relay's own."""
    enhanced: str = ""
    keywords: Annotated[tuple[str, ...], msgspec.Meta(max_length=32)] = ()
    """At `helo`: lines that are added to the reply to EHLO, such as `XEXAMPLE 1`."""
    read: int = 0
    """At `verb`: so many octets follow. The client is told 354, they are dropped, then the answer goes out."""


class Redirect(msgspec.Struct, frozen=True, tag="redirect"):
    """Go on to the next sink, with these edits; the message is sent over the route of this name."""

    route: str
    edits: _Edits = ()


Verdict = Next | Stop | Hold | Reject | Defer | Discard | Accept | Redirect

_SAYS: dict[type[object], Says] = {
    Next: Says.NEXT,
    Stop: Says.STOP,
    Hold: Says.HOLD,
    Reject: Says.REJECT,
    Defer: Says.DEFER,
    Discard: Says.DISCARD,
    Accept: Says.ACCEPT,
    Redirect: Says.REDIRECT,
}


def says_of(returned: object) -> Says | None:
    """What a verdict is in the table of events; None: it is no verdict."""
    return _SAYS.get(type(returned))
