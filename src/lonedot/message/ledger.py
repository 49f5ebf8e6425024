"""The ledger: who changed a message, when, and to what. Values only; the spool keeps them.

A stored message is its *arrival form* (raw octets as received, dot-unstuffed) plus an append-only list of entries.
Entry 0 is what was done at the door (repairs, missing fields, the trace field); every sink that ran has an entry of
its own, also when it changed nothing or its change was undone. The queued form is the fold of all `changes` over the
arrival form; an attempt may add a suffix of its own (a 7-bit copy for a 7-bit hop).

Rules: an entry is atomic; `changes` holds only what is in force (empty when undone); they apply one after the
other, each to the result of the one before; nothing is ever parsed and written again.
"""

from __future__ import annotations

import enum

import msgspec

from lonedot.message.findings import Finding, Part

__all__ = ["Action", "Change", "Digests", "Entry", "EnvelopeChange", "Splice", "Transform"]


class Splice(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="splice"):
    """Replace octets `start:end` of a part by `octets`."""

    part: Part
    start: int
    end: int
    octets: bytes


class Transform(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="transform"):
    """A named, deterministic function over the whole content (see `transforms`)."""

    name: str


class EnvelopeChange(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="envelope"):
    """Recipients added or removed (as octets of the address), or another reverse-path."""

    added: tuple[bytes, ...] = ()
    removed: tuple[bytes, ...] = ()
    reverse_path: bytes | None = None


Change = Splice | Transform | EnvelopeChange


class Digests(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """SHA-256 of head and body (32 octets each)."""

    head: bytes
    body: bytes


class Action(enum.Enum):
    """What was done with what a sink wanted."""

    __hash__ = object.__hash__  # looked up for each entry
    KEPT = "kept"
    UNCHANGED = "unchanged"
    REDUCED = "reduced"
    """A whole rewritten message was reduced to the declared edits; the rest was not taken."""
    REPAIRED = "repaired"
    UNDONE = "undone"
    HELD = "held"
    REJECTED = "rejected"
    SKIPPED = "skipped"
    """The sink itself failed (raised, returned nonsense) and its binding says go on."""
    DEFERRED = "deferred"
    SHADOWED = "shadowed"
    """The binding is in shadow: what its sink said and would have changed is recorded, and nothing of it was done."""


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One line of the ledger."""

    binding: str
    """Display name of the binding, or `lonedot` for the relay's own work."""
    binding_id: str
    """Its GUID; empty for the relay's own work."""
    event: str
    """`door`, `arrival`, `downgrade`, … """
    at: float
    took_seconds: float
    before: Digests
    after: Digests
    action: Action
    verdict: str = "next"
    changes: tuple[Change, ...] = ()
    findings: tuple[Finding, ...] = ()
    words: str = ""
    """What a person should know: the exception of a sink that raised, the client that sent bare LFs, …"""
    attempted: Digests | None = None
    """Digests of what the sink handed back, when that is not what was taken."""
    tail_before: bytes = b""
    """Last 64 octets before; kept when something was found."""
    tail_attempted: bytes = b""
    """Last 64 octets of what the sink handed back."""
    attempted_size: int = -1
    scope: tuple[int, ...] = ()
    """Numbers of the recipients whose copy it concerns; empty means all."""
    revision: str = ""
    """Revision of the registry under which the sink ran."""
    fault: str = ""
    """What is booked against the binding (a value of `sinks.standing.Fault`); empty when nothing is."""
    proposed: tuple[Change, ...] = ()
    """What a sink in shadow would have changed. Never in force."""
