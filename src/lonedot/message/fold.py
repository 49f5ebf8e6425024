"""Folding the ledger over the arrival form: the octets of the queued form, put together from values.

Changes apply one after the other, each to the result of the one before. Head splices touch the head alone: the body
stays the same object with the measure it had. Body splices and transforms of a stored body are read through, never
written out. A ledger that does not fit its octets is a fault of custody, and is never papered over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import assert_never

from lonedot.message import transforms
from lonedot.message.content import Content, Measure, spliced
from lonedot.message.findings import Part
from lonedot.message.ledger import Action, Change, Digests, Entry, EnvelopeChange, Splice, Transform
from lonedot.message.measure import measure, measure_body, profile_with_fields
from lonedot.message.profile import Profile
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient

__all__ = ["FoldFault", "apply_changes", "changes_octets", "digests_of", "fold", "fold_envelope"]


_HEAD = Part.HEAD


class FoldFault(Exception):
    """The ledger does not fit the octets; the words say where."""


def digests_of(content: Content) -> Digests:
    """Digests of head and body as a ledger entry keeps them."""
    return Digests(content.head_measure.sha256, content.body_measure.sha256)


def fold(
    arrival: Content, entries: Iterable[Entry], recipient: int | None = None, *, verify: bool = False
) -> Content:
    """The content after all changes in force.

    Entries scoped to recipients hold only when `recipient` is one of them. With `verify` the digests of the result
    are compared with those of the last entry that holds.

    Raises:
        FoldFault: a range or a digest does not fit, or a transform is not known.
        CannotTransform, OSError, ValueError: see `transforms.apply`.
    """
    changes: list[Change] = []
    last: Entry | None = None
    for entry in entries:
        if entry.scope and (recipient is None or recipient not in entry.scope):
            continue
        changes.extend(entry.changes)
        if entry.action is not Action.SHADOWED:
            last = entry
    content = apply_changes(arrival, changes, is_measured=verify)
    if verify and last is not None and digests_of(content) != last.after:
        raise FoldFault(f"after the entry of {last.binding} ({last.event}) the octets are not those recorded")
    return content


def changes_octets(entry: Entry) -> bool:
    """Some change of it in force is of the content, not of the envelope alone."""
    return not all(isinstance(change, EnvelopeChange) for change in entry.changes)


def apply_changes(content: Content, changes: Iterable[Change], *, is_measured: bool = True) -> Content:
    """The content after these changes; envelope changes are passed over.

    `is_measured`: the measure of the head is that of its octets, or a digest will tell; else a changed head is
    measured anew from its first octet to its last.

    Raises: as `fold`.
    """
    head, body = content.head, content.body
    head_measure: Measure | None = content.head_measure
    body_measure: Measure | None = content.body_measure
    profile = (
        content.head_measure.profile if is_measured else None
    )  # of the head as it stands, while it is known
    for change in changes:
        match change:
            case Splice(part=part, start=start, end=end, octets=octets) if part is _HEAD:
                if not 0 <= start <= end <= len(head):
                    raise FoldFault(f"a splice of octets {start} to {end} in a head of {len(head)}")
                if profile is not None:
                    profile = profile_with_fields(profile, head, start, octets) if start == end else None
                head = head[:start] + octets + head[end:] if start else octets + head[end:]
                head_measure = None
            case Splice(part=Part.BODY, start=start, end=end, octets=octets):
                if not 0 <= start <= end <= body.size:
                    raise FoldFault(f"a splice of octets {start} to {end} in a body of {body.size}")
                body = spliced(body, start, end, octets)
                body_measure = None
            case Splice():
                raise FoldFault("a splice of the envelope, which has no octets")
            case Transform(name=name):
                if name not in transforms.TRANSFORMS:
                    raise FoldFault(f"the transform {name!r} is not known here")
                if head_measure is None:
                    head_measure = _measured(head, profile)
                content = transforms.apply(
                    name, Content(head, body, head_measure, body_measure or measure_body(body))
                )
                head, body = content.head, content.body
                head_measure, body_measure = content.head_measure, content.body_measure
                profile = head_measure.profile
            case EnvelopeChange():
                pass
            case _:
                assert_never(change)
    if head_measure is None:
        head_measure = _measured(head, profile)
    return Content(head, body, head_measure, body_measure or measure_body(body))


def fold_envelope(envelope: Envelope, changes: Iterable[Change]) -> Envelope:
    """The envelope after these changes: removed recipients are gone, added ones stand last, each once."""
    wanted = [change for change in changes if isinstance(change, EnvelopeChange)]
    if not wanted:
        return envelope
    reverse_path = envelope.reverse_path
    recipients = list(envelope.recipients)
    for change in wanted:
        removed = set(change.removed)
        recipients = [known for known in recipients if known.address.octets not in removed]
        present = {known.address.octets for known in recipients}
        for octets in change.added:
            if octets not in present:
                present.add(octets)
                recipients.append(Recipient(Address(octets)))
        if change.reverse_path is not None:
            reverse_path = Address(change.reverse_path)
    return Envelope(
        reverse_path,
        tuple(recipients),
        envelope.body,
        envelope.smtputf8,
        envelope.ret,
        envelope.envid,
    )


def _measured(head: bytes, profile: Profile | None) -> Measure:
    """The measure of a head whose profile may be known; its digest is always taken of the octets themselves."""
    return measure(head) if profile is None else Measure(profile, hashlib.sha256(head).digest())
