"""Who breaks a signature that was just made: bindings that sign are asked one behind the other, and may only add."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lonedot.message.findings import Code, Finding
from lonedot.message.ledger import Action, Entry
from lonedot.sinks.standing import Fault

__all__ = ["blamed", "broken_signature"]


def broken_signature(entry: Entry) -> Finding | None:
    """What the guard found, when the entry broke a DKIM signature."""
    return next((finding for finding in entry.findings if finding.code is Code.SIGNATURE_BROKEN), None)


def blamed(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The entries of bindings that sign; one that broke a signature has that booked as its fault."""
    return tuple(
        msgspec.structs.replace(entry, fault=Fault.DAMAGE.value)
        if entry.action is Action.KEPT and not entry.fault and broken_signature(entry) is not None
        else entry
        for entry in entries
    )
