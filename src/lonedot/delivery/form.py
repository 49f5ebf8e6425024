"""The octets of one copy as they go to one next hop: folded from the ledger, made 7-bit, edited by sinks.

Rules: only canonical content is a form; what is done to it for one hop is an entry of the attempt, and the entries
of a form lead from the queued octets to its own, so that what was sent can be put together again.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lonedot.message.content import Content, MemoryBody
from lonedot.message.encode import CanonicalContent, canonicalise
from lonedot.message.findings import Part
from lonedot.message.fold import apply_changes, digests_of, fold
from lonedot.message.ledger import Action, Entry, Splice, Transform
from lonedot.protocol.client_plan import ContentFacts
from lonedot.sinks.calls import Dispatched
from lonedot.terms.address import Address
from lonedot.terms.clock import Clock

__all__ = [
    "BEFORE_SIGNING",
    "NEEDED",
    "SEVEN_BIT",
    "Form",
    "downgraded",
    "edited",
    "folded",
    "form_of",
    "reads_body",
    "traced",
]

SEVEN_BIT = "encode-7bit"
"""The transform for a hop without 8BITMIME, and for what is to be signed."""

NEEDED = "8-bit parts were re-encoded: the next hop does not offer 8BITMIME"
BEFORE_SIGNING = "8-bit parts were re-encoded before signing, so that no hop on the way has to do it"

_INLINE_LIMIT = 256 * 1024
"""Octets in memory that are worked on at once; larger content, and files, are read in a thread."""


class Form(msgspec.Struct, frozen=True):
    """What goes to a next hop, and what the plan must know of it."""

    canonical: CanonicalContent
    facts: ContentFacts
    entries: tuple[Entry, ...] = ()

    @property
    def content(self) -> Content:
        return self.canonical.content

    @property
    def in_memory(self) -> bool:
        """Reading it never waits for a disk."""
        return isinstance(self.canonical.content.body, MemoryBody)


def form_of(canonical: CanonicalContent, entries: tuple[Entry, ...] = ()) -> Form:
    content = canonical.content
    facts = ContentFacts(
        canonical.size,
        content.head_measure.profile.eight_bit >= 0,
        content.body_measure.profile.eight_bit >= 0,
        isinstance(content.body, MemoryBody) and canonical.size <= _INLINE_LIMIT,
    )
    return Form(canonical, facts, entries)


def reads_body(entries: Sequence[Entry]) -> bool:
    """Folding them reads the body."""
    for entry in entries:
        for change in entry.changes:
            if isinstance(change, Transform) or (isinstance(change, Splice) and change.part is Part.BODY):
                return True
    return False


def folded(arrival: Content, entries: Sequence[Entry], recipient: int) -> CanonicalContent:
    """The content of a recipient's copy, ready for the encoder.

    Raises:
        NotCanonical, FoldFault, CannotTransform, OSError, ValueError.
    """
    return canonicalise(fold(arrival, entries, recipient, verify=True))


def downgraded(form: Form, clock: Clock, words: str = NEEDED) -> Form:
    """The same without 8-bit octets, with the ledger entry that says so (RFC 6152 §3) and why.

    Raises:
        CannotTransform, NotCanonical, OSError, ValueError.
    """
    began = clock.monotonic()
    content = form.content
    changes = (Transform(SEVEN_BIT),)
    after = apply_changes(content, changes)
    made = canonicalise(after)
    entry = Entry(
        binding="lonedot",
        binding_id="",
        event="downgrade",
        at=clock.now(),
        took_seconds=clock.monotonic() - began,
        before=digests_of(content),
        after=digests_of(after),
        action=Action.KEPT,
        changes=changes,
        words=words,
    )
    return form_of(made, (*form.entries, entry))


def traced(
    form: Form, sender: Address, recipient: Address | None, scope: tuple[int, ...], clock: Clock
) -> Form:
    """The same with the trace fields of the last delivery (RFC 5321 §4.4), and the ledger entry that says so.

    A copy that is for several (`scope` has their numbers) names none of them: `recipient` is then None.

    Raises:
        NotCanonical: an address cannot stand in a field.
    """
    content = form.content
    octets = b"Return-Path: <%s>\r\n" % sender.octets
    if recipient is not None:
        octets += b"Delivered-To: %s\r\n" % recipient.octets
    changes = (Splice(Part.HEAD, 0, 0, octets),)
    after = apply_changes(content, changes)
    entry = Entry(
        binding="lonedot",
        binding_id="",
        event="delivery",
        at=clock.now(),
        took_seconds=0.0,
        before=digests_of(content),
        after=digests_of(after),
        action=Action.KEPT,
        changes=changes,
        words="the last delivery: envelope sender and recipient",
        scope=scope,
    )
    return form_of(canonicalise(after), (*form.entries, entry))


def edited(form: Form, said: Dispatched) -> Form:
    """The form behind a chain of sinks.

    Raises:
        NotCanonical: they made of it what cannot be sent.
    """
    entries = (*form.entries, *said.entries)
    if said.content is form.content:
        return msgspec.structs.replace(form, entries=entries)
    return form_of(canonicalise(said.content), entries)
