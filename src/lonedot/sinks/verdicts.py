"""What a sink may say: edits as values, and what becomes of the message."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lonedot.message.edits import AnyEdit

__all__ = ["Defer", "Discard", "Hold", "Next", "Reject", "Stop", "Verdict"]


class Next(msgspec.Struct, frozen=True):
    """Go on to the next sink, with these edits."""

    edits: Sequence[AnyEdit] = ()


class Stop(msgspec.Struct, frozen=True):
    """Call no further sink for this event; the message itself goes on."""

    edits: Sequence[AnyEdit] = ()


class Hold(msgspec.Struct, frozen=True):
    """Keep the message until a person releases it. `words` say why, for that person."""

    words: str
    edits: Sequence[AnyEdit] = ()


class Reject(msgspec.Struct, frozen=True):
    """Refuse it for good; `words` go to the client, behind code and enhanced status code."""

    words: str
    code: int = 550
    """500 to 599."""
    enhanced: str = "5.7.1"


class Defer(msgspec.Struct, frozen=True):
    """Refuse it for now: a client that queues comes again. `words` go to the client."""

    words: str
    code: int = 451
    """400 to 499."""
    enhanced: str = "4.7.1"


class Discard(msgspec.Struct, frozen=True):
    """Accept it and send it to nobody; recorded, with `words`, in its history."""

    words: str


Verdict = Next | Stop | Hold | Reject | Defer | Discard
