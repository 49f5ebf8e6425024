"""Taking over messages that were exported: from files in a folder of the spool, where the command has put them.

Rules:
1. A message that is here already is never taken a second time: its id is its key. What is here is not changed.
2. What was held or damaged is held here; the rest is queued, and standing rules are asked as for any new message.
3. A file is judged whole before anything is accepted: its measures are taken anew, its ledger is tried.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Awaitable
from pathlib import Path
from typing import BinaryIO

import msgspec

from lonedot.admin.operations import Desk, Operation
from lonedot.admin.transfer import TransferFault, Transferred, read_header, waits
from lonedot.admin.values import AdminError, Changed, ImportArguments, Left
from lonedot.message.content import Body, Content, MemoryBody
from lonedot.message.fold import FoldFault, fold
from lonedot.message.measure import Meter, measure
from lonedot.message.transforms import CannotTransform
from lonedot.spool.interface import (
    Acceptance,
    BodyWriter,
    KeyUsed,
    MessageState,
    NoSuchMessage,
    SpoolFault,
)
from lonedot.terms.ids import MessageId, id_time

__all__ = ["HERE_ALREADY", "IMPORT", "MAX_IMPORTED"]

HERE_ALREADY = "it is here already"
MAX_IMPORTED = 500
"""Messages in one step."""
_IN_MEMORY = 256 * 1024
_CHUNK = 256 * 1024
_ID = re.compile(r"[0-7][0-9a-v]{12}\Z")
_CLOCK_SECONDS = 0.01
"""An id that is not older may be given to a message that comes in now."""


async def take_over(desk: Desk, wanted: ImportArguments) -> Changed:
    """Each message named, from its file in the folder; those that were not taken, with the reason."""
    folder = Path(wanted.folder)
    if not folder.is_absolute():
        raise AdminError("the folder must be a whole path", wanted.folder, "begin it with /")
    if len(wanted.ids) > MAX_IMPORTED:
        raise AdminError(f"{len(wanted.ids)} messages are too many at once", "import")
    for id in wanted.ids:
        if not _ID.match(id):
            raise AdminError(f"{id[:40]!r} is not a message id", "import", "name the file as export named it")
    accepting: list[tuple[str, Awaitable[None]]] = []
    left: list[Left] = []
    for id in dict.fromkeys(wanted.ids):
        try:
            accepting.append((id, await _accepted(desk, folder / f"{id}.message", id, hold=wanted.hold)))
        except TransferFault as error:
            left.append(Left(id, str(error)))
        except (OSError, SpoolFault) as error:
            left.append(Left(id, f"it cannot be taken: {error}"))
    done: list[str] = []
    for id, future in accepting:
        try:
            await future
        except KeyUsed:
            left.append(Left(id, HERE_ALREADY))
        except SpoolFault as error:
            left.append(Left(id, f"it cannot be taken: {error}"))
        else:
            done.append(id)
    if desk.hooks is not None and done:
        desk.hooks.kick([MessageId(id) for id in done])
    return Changed(tuple(done), tuple(left))


async def _accepted(desk: Desk, path: Path, id: str, *, hold: bool) -> Awaitable[None]:
    """The promise that it is durable. Raises TransferFault, OSError or SpoolFault."""
    _refuse_known(desk, id)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise TransferFault("it is not a file")
        given = await asyncio.to_thread(read_header, file, id)
        _judge(desk, given)
        writer: BodyWriter | None = None
        try:
            if given.body_size > _IN_MEMORY:
                if not desk.spool.has_room(given.body_size):
                    raise SpoolFault("there is too little room on the disk")
                writer = desk.spool.body_writer(MessageId(id))
            arrival = await _arrival(given, file, writer)
            await asyncio.to_thread(_try_ledger, given, arrival)
            _refuse_known(desk, id)
        except BaseException:
            if writer is not None:
                writer.discard()
            raise
    return desk.spool.accept((_acceptance(given, arrival, hold=hold),))


def _refuse_known(desk: Desk, id: str) -> None:
    try:
        desk.spool.show(MessageId(id))
    except NoSuchMessage:
        return
    raise TransferFault(HERE_ALREADY)


def _judge(desk: Desk, given: Transferred) -> None:
    now = desk.clock.now()
    if id_time(given.id) > now - _CLOCK_SECONDS:
        raise TransferFault("its id is of the future: look at the clocks of both machines")
    if not 0 <= given.accepted_at <= now:
        raise TransferFault("the time at which it was accepted is out of range")
    if given.state is MessageState.FINISHED or not waits(given):
        raise TransferFault("it was finished: nobody waits for it")


async def _arrival(given: Transferred, file: BinaryIO, writer: BodyWriter | None) -> Content:
    """Its octets, measured anew; a large body goes through `writer`."""
    head = await asyncio.to_thread(file.read, given.head_size)
    if len(head) != given.head_size:
        raise TransferFault("it ends within the head")
    meter, rest, kept = Meter(), given.body_size, bytearray()
    while rest:
        chunk = await asyncio.to_thread(file.read, min(_CHUNK, rest))
        if not chunk:
            raise TransferFault("it ends within the body")
        rest -= len(chunk)
        meter.feed(chunk)
        if writer is None:
            kept += chunk
        else:
            writer.write(chunk)
    if await asyncio.to_thread(file.read, 1):
        raise TransferFault("there are octets behind its body")
    body: Body = MemoryBody(bytes(kept)) if writer is None else writer.finish()
    found = measure(head), meter.finish()
    if found != (given.head, given.body):
        raise TransferFault("its octets are not those that were exported: a digest differs")
    return Content(head, body, *found)


def _try_ledger(given: Transferred, arrival: Content) -> None:
    """Every copy can be made, and is what the ledger says."""
    scopes = {tuple(entry.scope) for entry in given.ledger if entry.scope}
    known = range(len(given.recipients))
    if any(index not in known for scope in scopes for index in scope):
        raise TransferFault("its ledger speaks of a recipient that there is not")
    copies = {tuple(index in scope for scope in scopes): index for index in known}
    try:
        for recipient in copies.values() if scopes else (None,):
            fold(arrival, given.ledger, recipient, verify=True)
    except (FoldFault, CannotTransform, OSError, ValueError) as error:
        raise TransferFault(f"its ledger does not fit its octets: {error}") from error


def _acceptance(given: Transferred, arrival: Content, *, hold: bool) -> Acceptance:
    is_held = hold or given.state is not MessageState.QUEUED
    words = [given.reason] if given.reason and given.state is not MessageState.QUEUED else []
    if hold:
        words.append("imported, to be looked at")
    transport = given.transport
    if transport is not None:
        transport = msgspec.structs.replace(transport, was_given_back=True)
    return Acceptance(
        id=MessageId(given.id),
        accepted_at=given.accepted_at,
        envelope=given.envelope,
        facts=msgspec.structs.replace(given.facts, transcript=None),
        arrival=arrival,
        ledger=given.ledger,
        recipients=given.recipients,
        size=given.size,
        state=MessageState.HELD if is_held else MessageState.QUEUED,
        reason="; ".join(words),
        key=b"import " + given.id.encode(),
        transport=transport,
    )


IMPORT = Operation("import", ImportArguments, Changed, take_over)
