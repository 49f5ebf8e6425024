"""The octets of a stored message in each of its forms, made anew from arrival form and ledger.

The form `sent` is built as the courier builds it, and its digests are compared with those recorded at the time, so
"these are the octets that left" is a proof and not a belief.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from lonedot.admin.values import AdminError, Form, Octets, Piece, Remark
from lonedot.message.content import Content
from lonedot.message.encode import CanonicalContent, DataEncoder, NotCanonical, StoredAltered, canonicalise
from lonedot.message.filed import FileEncoder, LineEnd
from lonedot.message.fold import FoldFault, changes_octets, fold
from lonedot.message.transforms import CannotTransform
from lonedot.spool.interface import (
    Attempt,
    ContentDamaged,
    NoSuchMessage,
    Spool,
    SpoolFault,
    Stored,
    WireRecord,
)

__all__ = ["arrival_form", "copies_of", "in_thread", "octets_of", "queued_form"]

_LINE_ENDS = frozenset(one.value for one in LineEnd)
_UNFIT = (FoldFault, CannotTransform, OSError, ValueError)


async def in_thread(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Chunks of what may have to be read from a disk, without holding up the loop."""
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk


def arrival_form(spool: Spool, stored: Stored) -> Content:
    """The octets as they came.

    Raises:
        AdminError: they are gone, or not what was stored.
    """
    if not stored.has_content:
        raise AdminError(
            "its octets are no longer kept",
            str(stored.id),
            "set keep_content in [server] to keep those of finished messages",
        )
    try:
        return spool.content(stored.id)
    except NoSuchMessage:
        raise AdminError("there is no such message", str(stored.id), "lonedot queue list") from None
    except (ContentDamaged, SpoolFault) as error:
        raise AdminError(
            f"its octets cannot be read: {error}",
            str(stored.id),
            "look at the disk; a copy may be in a backup",
        ) from error


def copies_of(stored: Stored) -> tuple[int | None, ...]:
    """The number of one recipient of each copy that there is; None alone where all get the same."""
    scopes = [frozenset(entry.scope) for entry in stored.ledger if entry.scope and changes_octets(entry)]
    if not scopes:
        return (None,)
    copies: dict[tuple[bool, ...], int] = {}
    for state in stored.recipients:
        copies.setdefault(tuple(state.index in scope for scope in scopes), state.index)
    return tuple(copies.values())


def _number_of(stored: Stored, address: str) -> int | None:
    """Whose copy is meant: the number of that recipient, None where no address is given.

    Raises:
        AdminError: there is no such recipient.
    """
    if not address:
        return None
    for state in stored.recipients:
        if state.recipient.address.text.casefold() == address.strip("<>").casefold():
            return state.index
    known = [state.recipient.address.text for state in stored.recipients[:10]]
    raise AdminError(
        f"{address} is not a recipient of it", str(stored.id), f"there are: {', '.join(known) or 'none'}"
    )


async def queued_form(spool: Spool, stored: Stored, recipient: int | None = None) -> Content:
    """The octets after everything in the ledger, as every next hop gets them, or that for one recipient.

    Raises:
        AdminError: they cannot be read, or the ledger does not fit them.
    """
    arrival = arrival_form(spool, stored)
    try:
        return await asyncio.to_thread(fold, arrival, stored.ledger, recipient)
    except _UNFIT as error:
        raise AdminError(f"the ledger cannot be applied: {error}", str(stored.id)) from error


async def octets_of(
    spool: Spool, stored: Stored, form: Form, attempt: int = 0, address: str = ""
) -> AsyncIterator[Piece]:
    """Octets, and remarks about them. `address`: of the recipient whose copy is meant.

    Raises:
        AdminError: they cannot be had; or copies differ, and no recipient is named.
    """
    recipient = _number_of(stored, address)
    if form is Form.SENT:
        async for piece in _sent(spool, stored, attempt, recipient):
            yield piece
        return
    if form is Form.ARRIVAL:
        content = arrival_form(spool, stored)
    else:
        copies = copies_of(stored)
        if recipient is None and len(copies) > 1:
            raise AdminError(
                f"its recipients get {len(copies)} different copies",
                str(stored.id),
                "name one with --recipient ADDRESS",
            )
        content = await queued_form(spool, stored, copies[0] if recipient is None else recipient)
    try:
        async for chunk in in_thread(content.chunks()):
            yield Octets(chunk)
    except (OSError, ValueError) as error:
        raise AdminError(f"its octets cannot be read to the end: {error}", str(stored.id)) from error


async def _sent(spool: Spool, stored: Stored, number: int, recipient: int | None) -> AsyncIterator[Piece]:
    number, attempt = _attempt_that_sent(stored, number, recipient)
    wire = attempt.wire
    assert wire is not None  # _attempt_that_sent chose it for that
    arrival = arrival_form(spool, stored)
    try:
        canonical, same = await asyncio.to_thread(_copy_sent, arrival, stored, attempt, recipient)
        async for chunk in in_thread(_encoder(canonical, wire).chunks()):
            yield Octets(chunk)
    except (NotCanonical, StoredAltered) as error:
        raise AdminError(
            f"what is stored now cannot be what was sent: {error}", str(stored.id), f"lonedot why {stored.id}"
        ) from error
    except _UNFIT as error:
        raise AdminError(f"its octets cannot be read to the end: {error}", str(stored.id)) from error
    if same:
        yield Remark(
            f"attempt {number}: the same octets as were sent to {attempt.next_hop} (SHA-256 compared)"
        )
    else:
        yield Remark(
            f"attempt {number}: NOT the octets that were sent to {attempt.next_hop}: the digests recorded then differ",
            is_fault=True,
        )


def _copy_sent(
    arrival: Content, stored: Stored, attempt: Attempt, wanted: int | None
) -> tuple[CanonicalContent, bool]:
    """The copy whose octets are those recorded, and True; else the first recipient's copy, and False.

    Reads the body as often as there are different copies.
    """
    wire = attempt.wire
    assert wire is not None
    entries = (*stored.ledger, *attempt.suffix)
    first: CanonicalContent | None = None
    seen: set[tuple[int, ...]] = set()
    recipients: list[int | None] = [wanted]
    if wanted is None:
        recipients = [index for index, _ in attempt.outcomes]
    for recipient in recipients or [None]:
        applied = tuple(n for n, entry in enumerate(entries) if not entry.scope or recipient in entry.scope)
        if applied in seen:
            continue
        seen.add(applied)
        canonical = canonicalise(fold(arrival, entries, recipient))
        encoder = _encoder(canonical, wire)
        for _ in encoder.chunks():
            pass
        made = encoder.record()
        if (made.head_sha256, made.body_sha256, made.size, made.tail) == (
            wire.head_sha256,
            wire.body_sha256,
            wire.size,
            wire.tail,
        ):
            return canonical, True
        first = first or canonical
    assert first is not None  # the list has at least one place
    return first, False


def _encoder(canonical: CanonicalContent, wire: WireRecord) -> DataEncoder | FileEncoder:
    """What wrote it: towards a next hop, or into a Maildir or a program."""
    if wire.mode in _LINE_ENDS:
        return FileEncoder(canonical, LineEnd(wire.mode))
    return DataEncoder(canonical, "BDAT" if wire.mode == "BDAT" else "DATA")


def _attempt_that_sent(stored: Stored, number: int, recipient: int | None) -> tuple[int, Attempt]:
    numbered = list(enumerate(stored.attempts, 1))
    if number and recipient is not None and number <= len(numbered):
        outcomes = numbered[number - 1][1].outcomes
        if all(index != recipient for index, _ in outcomes):
            raise AdminError(f"attempt {number} was not for that recipient", str(stored.id), "drop --attempt")
    if number:
        chosen = [pair for pair in numbered if pair[0] == number]
        if not chosen:
            raise AdminError(f"there is no attempt {number}", str(stored.id), f"it has {len(numbered)}")
        if chosen[0][1].wire is None:
            raise AdminError(f"attempt {number} sent no content", str(stored.id), f"lonedot why {stored.id}")
        return chosen[0]
    for pair in reversed(numbered):
        is_theirs = recipient is None or any(index == recipient for index, _ in pair[1].outcomes)
        if is_theirs and pair[1].wire is not None:
            return pair
    raise AdminError("nothing of it was sent yet", str(stored.id), f"lonedot why {stored.id}")
