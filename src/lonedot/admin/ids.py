"""From what a person typed to a message: a whole id, or any part of one that only one message has.

Ids that were made within the same second differ in a few signs only, so a part that several have is answered with
the list of them, never with a guess.
"""

from __future__ import annotations

from collections.abc import Sequence

from lonedot.admin.values import MAX_LISTED, AdminError
from lonedot.spool.interface import Filter, MessageState, Spool
from lonedot.terms.ids import MessageId, number_from_id

__all__ = ["MIN_PART", "resolve", "resolve_all"]

MIN_PART = 4
MAX_IDS = 10_000
_SHOWN = 10
_SEARCHED = (
    (MessageState.QUEUED, MessageState.HELD, MessageState.DAMAGED),
    (MessageState.FINISHED,),
)


def resolve_all(spool: Spool, given: Sequence[str]) -> tuple[MessageId, ...]:
    """The ids meant, each once, in the order given.

    Raises:
        AdminError: one of them means no message, or several.
    """
    if not given:
        raise AdminError("no message is named", "id", "name at least one; lonedot queue list shows them")
    if len(given) > MAX_IDS:
        raise AdminError(f"{len(given)} ids are too many at once", "id", f"give at most {MAX_IDS}")
    return tuple(dict.fromkeys(resolve(spool, text) for text in given))


def resolve(spool: Spool, text: str) -> MessageId:
    """One id. A whole one is not looked up: whether it exists is seen when it is used.

    Raises:
        AdminError: it means no message, or several.
    """
    part = text.strip().lower()
    try:
        number_from_id(part)
    except ValueError:
        pass
    else:
        return MessageId(part)
    shown = "".join(sign if sign.isprintable() else "?" for sign in text[:40])
    if not (MIN_PART <= len(part) < 13 and part.isascii() and part.isalnum()):
        raise AdminError(
            f"{shown!r} is not a message id",
            "id",
            f"give its 13 signs, or at least {MIN_PART} of them in a row",
        )
    for states in _SEARCHED:
        rows = spool.listing(Filter(states=states, limit=MAX_LISTED))
        found = [row.id for row in rows if part in row.id]
        if len(found) == 1 and len(rows) < MAX_LISTED:
            return MessageId(found[0])
        if len(found) > 1:
            more = "" if len(found) <= _SHOWN else f" and {len(found) - _SHOWN} more"
            names = ", ".join(found[:_SHOWN])
            raise AdminError(f"{shown!r} may mean {names}{more}", "id", "give more of its signs")
        if len(rows) >= MAX_LISTED:
            raise AdminError(
                f"there are too many messages to search for {shown!r}", "id", "give the whole id"
            )
    raise AdminError(
        f"no message has {shown!r} in its id", "id", "lonedot queue list names those that are there"
    )
