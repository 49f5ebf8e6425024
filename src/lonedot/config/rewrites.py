"""`[[rewrite]]`: addresses of the envelope that are written anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from lonedot.config import addresses as a
from lonedot.config import values as v
from lonedot.config.key import Key
from lonedot.config.values import Unfit, show, text

__all__ = ["Rewrite"]


def taken(value: object, folder: Path) -> str:
    """A pattern as of a route; `*@` before a domain says nothing more than the domain does."""
    words = text(value, folder).strip()
    return a.pattern(words.removeprefix("*@"), folder)


def replacement(value: object, folder: Path) -> str:
    """An address, a domain, or `*.` and a domain."""
    words = text(value, folder).strip().removeprefix("*@")
    if words != "*":
        try:
            return a.pattern(words, folder)
        except Unfit:
            pass
    raise Unfit(
        f"{show(value)} is no address that something could become",
        'write "*@new.example" to keep the name before the @, or one address',
    )


class Rewrite(msgspec.Struct, frozen=True, kw_only=True, rename={"sender": "from"}):
    """Addresses that are written anew: those of the envelope alone, once, by the first table that takes them."""

    sender: Annotated[
        tuple[str, ...],
        Key(
            v.many(taken, at_least=1),
            "Which senders: `*@old.example`, `*@*.old.example` (what is below it), `*`, or one address. The empty "
            "sender of reports is never written anew.",
            '"*@old.example"',
        ),
    ] = ()
    to: Annotated[
        tuple[str, ...],
        Key(
            v.many(taken, at_least=1),
            "Which recipients, in the same way. A table may have both.",
            '"*@old.example"',
        ),
    ] = ()
    into: Annotated[
        str,
        Key(
            replacement,
            "What they become: `*@new.example` keeps the name before the @, `*@*.new.example` also the host before a "
            "domain that was taken as `*@*.old.example`; one address replaces everything.",
            '"*@new.example"',
        ),
    ]
