"""Archive: keeps a copy of each message, as it was received or as it is sent.

At `arrival` (the default, before all other sinks) that is the message as it came; at `message-start` the copy that is
about to go to a next hop, and at `outcome` the one that was taken there. Into a folder or a Maildir; `archive_address`
sends one to a mailbox.

Rules a change here must keep:
1. The copy is written and synced before the message goes on. One that cannot be written is an error of the sink.
2. A message that is shown again is filed under the same name: a crash makes no second copy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import chain

import msgspec

from lonedot.message.edits import Edit, Effect
from lonedot.message.filed import LineEnd
from lonedot.sinks.bindings import Role
from lonedot.sinks.filing import envelope_fields, fault_of_folder, put_into_folder, put_into_maildir
from lonedot.sinks.foreign import idempotency_key, octets_of
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Next, Verdict
from lonedot.sinks.view import Message
from lonedot.terms.outcome import Result

__all__ = ["ArchiveAddressSettings", "ArchiveSettings", "archive", "archive_address"]


class ArchiveSettings(msgspec.Struct, frozen=True):
    """The settings of a binding: one of `folder` and `maildir`."""

    folder: str = ""
    """Whole path of a folder; each copy is a file in it."""
    maildir: str = ""
    """Whole path of a Maildir."""
    line_ends: LineEnd = LineEnd.CRLF
    """How lines end in a file."""
    envelope: bool = True
    """A file begins with fields that name sender and recipients, who may stand nowhere else."""

    def __post_init__(self) -> None:
        if bool(self.folder) == bool(self.maildir):
            raise ValueError("write one of folder and maildir")
        name = "folder" if self.folder else "maildir"
        if fault := fault_of_folder(self.folder or self.maildir):
            raise ValueError(f"{name}: {fault}")


class ArchiveAddressSettings(msgspec.Struct, frozen=True):
    """The settings of a binding."""

    address: str
    """The mailbox of the archive; it becomes one more recipient of each message."""

    def __post_init__(self) -> None:
        if "@" not in self.address:
            raise ValueError("address: write it with its domain")
        Edit.add_recipient(self.address)


@sink(
    "Archive",
    settings=ArchiveSettings,
    on="arrival",
    priority=0,
    reads={"body"},
    role=Role.PROTECTIVE,
)
async def archive(message: Message, settings: ArchiveSettings) -> Verdict:
    """File the message.

    Raises:
        Failure: it cannot be written.
    """
    if not _is_wanted(message):
        return Next()
    name = f"{message.id}.{idempotency_key(message)[:16]}"
    octets = _octets(message, settings)
    if settings.folder:
        await asyncio.to_thread(put_into_folder, settings.folder, name, octets)
    else:
        await asyncio.to_thread(put_into_maildir, settings.maildir, name, octets)
    return Next()


@sink(
    "Archive address",
    settings=ArchiveAddressSettings,
    on="arrival",
    priority=0,
    effects={Effect.ENVELOPE},
    role=Role.PROTECTIVE,
)
def archive_address(message: Message, settings: ArchiveAddressSettings) -> Verdict:
    """Add the mailbox of the archive to the recipients."""
    wanted = settings.address.casefold()
    if any(one.address.text.casefold() == wanted for one in message.envelope.recipients):
        return Next()
    return Next([Edit.add_recipient(settings.address)])


def _is_wanted(message: Message) -> bool:
    """At `outcome`, whether anybody got it."""
    departure = message.departure
    if departure is None or departure.outcomes is None:
        return True
    return any(outcome.result is Result.DELIVERED for _, outcome in departure.outcomes)


def _octets(message: Message, settings: ArchiveSettings) -> Iterator[bytes]:
    octets = octets_of(message, settings.line_ends)
    if not settings.envelope:
        return octets
    envelope = message.envelope
    fields = envelope_fields(
        envelope.reverse_path.octets, (one.address.octets for one in envelope.recipients)
    )
    return chain((fields if settings.line_ends is LineEnd.CRLF else fields.replace(b"\r\n", b"\n"),), octets)
