"""Reduce to intent: what a sink that hands back a whole rewritten message meant to change.

A milter, a user of a mail library or a program gives a message back whole, and on the way folds are moved, line ends
lost, parts written anew. Compared with what it was given, what really differs is little; only that is taken, as
changes to the octets that were there.

Rules: a field that says the same keeps its octets; the body is untouched unless its text differs and the sink had
declared to change it; fields that describe the body (Content-Type, Content-Transfer-Encoding, MIME-Version) go with
it: they are taken only together. The findings say what was wrong with what came back, taken or not. LF for every
line end (the folds of fields aside) is a notation and put right; some line ends lost and others kept is damage.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lonedot.message.compare import align, differing_range, relaxed
from lonedot.message.content import Content
from lonedot.message.edits import Effect
from lonedot.message.findings import Code, Finding, Part, Severity
from lonedot.message.guard import inspect
from lonedot.message.header import Field, HeaderView
from lonedot.message.intake import content_from
from lonedot.message.ledger import Change, Splice
from lonedot.message.loosely import is_same_body, is_same_field
from lonedot.message.transforms.crlf import repaired

__all__ = ["Reduced", "reduce"]

_LOOKS = 2000
"""Fields that are compared closely in one gap; what is left counts as replaced."""
_SHAPE_FIELDS = frozenset({b"content-type", b"content-transfer-encoding", b"mime-version"})


class Reduced(msgspec.Struct, frozen=True):
    """What is taken of a rewritten message, and what was found in it."""

    changes: tuple[Change, ...]
    """To be applied to the content that the sink was given."""
    findings: tuple[Finding, ...]
    """Damage and violations in what came back. Line ends that reducing puts right are notes."""
    words: str
    """What was taken and what was not, for a person."""
    whole_body_taken: bool
    """The body is the sink's, with its line ends repaired."""
    attempted: Content
    """What the sink handed back."""


class _Difference(msgspec.Struct, frozen=True):
    """Fields that went, and the octets of those that came in their place."""

    place: int
    """Where what came goes, counted in the head that the sink was given."""
    gone: tuple[Field, ...]
    come: tuple[bytes, ...]
    names: tuple[bytes, ...]
    """Of the fields that came, in lower case."""


def reduce(before: Content, octets_after: bytes | Content, effects: frozenset[Effect]) -> Reduced:
    """What the sink meant, given what it got, what it gave back and what it had declared.

    Raises:
        OSError, ValueError: a stored body cannot be read, or is not as long as recorded.
    """
    attempted = content_from(octets_after) if isinstance(octets_after, bytes) else octets_after
    old, new = HeaderView(before.head), HeaderView(attempted.head)
    same_body = is_same_body(before, attempted)
    readable = new.is_well_formed
    differences = _differences(old, new) if readable else []
    names = _names_in(differences)
    takes_head = readable and Effect.HEADER in effects
    # A body and the fields that describe it stand or fall together.
    takes_body = (
        not same_body
        and readable
        and Effect.BODY in effects
        and (takes_head or names.isdisjoint(_SHAPE_FIELDS))
    )
    changes: list[Change] = []
    if takes_head:
        keeps_shape = not same_body and not takes_body
        changes += _splices(before.head, differences, keeps_shape)
    if takes_body:
        start, end, octets = differing_range(before.body, repaired(attempted.body.octets()))
        if start != end or octets:
            changes.append(Splice(Part.BODY, start, end, octets))
    findings = _findings(before, attempted, effects, bool(names) or not readable, same_body, takes_body)
    words = _words(names, takes_head, same_body, takes_body, readable)
    return Reduced(tuple(changes), findings, words, takes_body, attempted)


def _differences(old: HeaderView, new: HeaderView) -> list[_Difference]:
    """The runs of fields that differ, top first."""
    was, now = old.fields, new.fields
    found = []
    for gone, come in align([relaxed(f) for f in was], [relaxed(f) for f in now]).gaps():
        for some, others in _rewritten(was, now, gone, come):
            place = was[some.start].start if some.start < len(was) else old.section_end
            found.append(
                _Difference(
                    place,
                    tuple(was[number] for number in some),
                    tuple(repaired(new.head[now[number].start : now[number].end]) for number in others),
                    tuple(now[number].name.lower() for number in others),
                )
            )
    return found


def _rewritten(
    was: Sequence[Field], now: Sequence[Field], gone: range, come: range
) -> list[tuple[range, range]]:
    """Leave out of a gap the fields that were only written in another way, in their order."""
    by_name: dict[bytes, list[int]] = {}
    for there in come:
        by_name.setdefault(now[there].name.lower(), []).append(there)
    gaps = []
    start, other = gone.start, come.start
    looks = _LOOKS
    for here in gone:
        for there in by_name.get(was[here].name.lower(), ()):
            if there < other:
                continue
            looks -= 1
            if looks < 0:
                break
            if is_same_field(was[here], now[there]):
                gaps.append((range(start, here), range(other, there)))
                start, other = here + 1, there + 1
                break
        if looks < 0:
            break
    gaps.append((range(start, gone.stop), range(other, come.stop)))
    return [(some, others) for some, others in gaps if some or others]


def _names_in(differences: list[_Difference]) -> set[bytes]:
    gone = {field.name.lower() for one in differences for field in one.gone}
    return gone.union(*(one.names for one in differences))


def _splices(head: bytes, differences: list[_Difference], keeps_shape: bool) -> list[Change]:
    """The differences as splices, the last first, so that the places of those before stay right."""
    changes: list[Change] = []
    for one in reversed(differences):
        come = [
            octets
            for octets, name in zip(one.come, one.names, strict=True)
            if not (keeps_shape and name in _SHAPE_FIELDS)
        ]
        gone = [field for field in one.gone if not (keeps_shape and field.name.lower() in _SHAPE_FIELDS)]
        octets = b"".join(come)
        if octets and one.place and head[one.place - 1] not in b"\r\n":
            octets = b"\r\n" + octets
        if gone and len(gone) == len(one.gone):
            changes.append(Splice(Part.HEAD, one.place, gone[-1].end, octets))
            continue
        changes += [Splice(Part.HEAD, field.start, field.end, b"") for field in reversed(gone)]
        if octets:
            changes.append(Splice(Part.HEAD, one.place, one.place, octets))
    return changes


def _findings(
    before: Content,
    attempted: Content,
    effects: frozenset[Effect],
    head_differs: bool,
    same_body: bool,
    takes_body: bool,
) -> tuple[Finding, ...]:
    """Damage and violations of what came back. What holds of the result only is found when that is inspected."""
    kept = []
    is_notation = _is_lf_throughout(attempted)
    for finding in inspect(before, attempted, effects):
        match finding.code:
            case Code.HEADER_UNDECLARED if not head_differs:
                continue
            case Code.BODY_UNDECLARED if same_body:
                continue
            case Code.SIGNATURE_BROKEN:
                continue
            case _ if finding.severity is Severity.NOTE:
                continue
            case Code.BARE_LF if is_notation and (same_body or takes_body):
                words = f"{finding.words} (put right when the message was reduced to what was meant)"
                kept.append(msgspec.structs.replace(finding, severity=Severity.NOTE, words=words))
            case _:
                kept.append(finding)
    kept.sort(key=lambda finding: finding.severity is Severity.NOTE)
    return tuple(kept)


def _is_lf_throughout(content: Content) -> bool:
    """LF is this sink's way to write every line end, as mail libraries do; a mixture is damage.

    Libraries copy the folds of fields as they got them, so a CRLF may stand before white space.
    """
    held = b""
    for chunk in content.chunks():
        text = held + chunk
        cut = len(text) - 2
        if cut > 0 and b"\r" in text:
            folds = text.count(b"\r\n ", 0, cut + 2) + text.count(b"\r\n\t", 0, cut + 2)
            if folds != text.count(b"\r", 0, cut):
                return False
        held = text[-2:]
    return b"\r" not in held


def _words(names: set[bytes], takes_head: bool, same_body: bool, takes_body: bool, readable: bool) -> str:
    listed = ", ".join(sorted(name.decode("ascii") for name in names)[:8])
    if not readable:
        return "what came back has no readable header section; nothing of it was taken"
    parts = []
    if names:
        parts.append(f"header fields {'taken' if takes_head else 'not taken (not declared)'}: {listed}")
    if takes_body:
        parts.append("the body was taken")
    elif not same_body:
        parts.append("the body differs and was not taken")
    return "; ".join(parts) or "nothing but the way it is written differs; nothing was taken"
