"""The guard: what a sink's change did to a message that it should not have done.

Rules: only what is new is reported: a defect that was there before is not the sink's; the body is not read unless it
changed, or what the header section says of it did; findings are values, and what is done about them is dispatch's to
decide. DAMAGE comes first, then VIOLATION, then NOTE, and the body before the head, so that the first one is the one
to tell a person.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

import msgspec

from lonedot.message.compare import align, inserted_fields, relaxed
from lonedot.message.content import Content, Measure
from lonedot.message.defects import defects, octets_around
from lonedot.message.dkimspan import broken_by_head, signatures_of
from lonedot.message.edits import Effect
from lonedot.message.findings import Code, Finding, Part, Severity
from lonedot.message.header import HeaderView
from lonedot.message.measure import is_plain_fields, profile_with_fields
from lonedot.message.mime import Kind, Structure, walk
from lonedot.message.survey import RegionKind, survey
from lonedot.terms.envelope import Envelope

__all__ = ["inspect", "inspect_octets", "shown", "with_plain_fields"]

_SEVERITIES = {Severity.DAMAGE: 0, Severity.VIOLATION: 1, Severity.NOTE: 2}
_SHAPE_FIELDS = frozenset({b"content-type", b"content-transfer-encoding", b"mime-version"})
_SHOWN = 24
_PLAIN_NAMES = re.compile(rb"^[A-Za-z][!-9;-~]*", re.MULTILINE)


def inspect(
    before: Content,
    after: Content,
    declared: frozenset[Effect],
    envelope: Envelope | None = None,
    envelope_after: Envelope | None = None,
) -> tuple[Finding, ...]:
    """Everything that is wrong or worth knowing of a change, worst first.

    `envelope` is the one before the change; `envelope_after` the one after it, the same when it is not given.

    Raises:
        OSError, ValueError: a stored body that changed cannot be read, or is not as long as recorded.
    """
    found: list[Finding] = []
    head_changed = before.head is not after.head and before.head_measure.sha256 != after.head_measure.sha256
    body_changed = before.body is not after.body and before.body_measure.sha256 != after.body_measure.sha256
    new_envelope = envelope if envelope_after is None else envelope_after
    if head_changed:
        _inspect_head(found, before, after, declared, new_envelope, body_changed)
    elif body_changed:
        found += inspect_octets(before, after)
        found += _inspect_shape(before, after)
    if body_changed:
        _inspect_body(found, before, after, declared)
    if envelope is not None and new_envelope is not None and envelope is not new_envelope:
        _inspect_envelope(found, envelope, new_envelope, declared)
    if len(found) > 1:
        found.sort(key=lambda finding: (_SEVERITIES[finding.severity], finding.part is Part.HEAD))
    return tuple(found)


def with_plain_fields(
    before: Content, octets: bytes, declared: frozenset[Effect], envelope: Envelope
) -> Content | None:
    """The content with these fields on top, when that is a change of which `inspect` has nothing to say.

    What most sinks do to most messages, at the price of looking at what they add and not at all that was there. None:
    perhaps there is something, and `inspect` has to look.
    """
    head = before.head
    if (
        Effect.HEADER not in declared
        or not before.body_measure.profile.is_canonical
        or len(head) < 2
        or head[0] in b" \t"
        or (len(envelope.recipients) > 1 and b"@" in octets)
    ):
        return None
    profile = profile_with_fields(before.head_measure.profile, head, 0, octets)
    if profile is None or b"dkim-signature" in head.lower():
        return None
    lower = octets.lower()
    if b"content-" in lower or b"mime-version" in lower:
        return None
    after = octets + head
    measure = Measure(profile, hashlib.sha256(after).digest())
    return Content(after, before.body, measure, before.body_measure)


def inspect_octets(before: Content, after: Content) -> list[Finding]:
    """Defects of octets and header section that `after` has and `before` had not."""
    found = defects(after)
    if not found:
        return []
    known = {(finding.code, finding.part) for finding in defects(before)}
    return [_in_words(finding, after) for finding in found if (finding.code, finding.part) not in known]


# --- header section ----------------------------------------------------------------------------------


def _inspect_head(
    found: list[Finding],
    before: Content,
    after: Content,
    declared: frozenset[Effect],
    envelope: Envelope | None,
    body_changed: bool,
) -> None:
    is_declared = Effect.HEADER in declared
    inserted = inserted_fields(before.head, after.head)
    if inserted is None or body_changed or not after.is_canonical:
        found += inspect_octets(before, after)
    old = HeaderView(before.head)
    if inserted is not None:
        text = inserted
        if is_plain_fields(inserted):
            names = set(_PLAIN_NAMES.findall(inserted.lower()))
        else:
            names = {field.name.lower() for field in HeaderView(inserted).fields}
    else:
        text, names = _compare_fields(found, old, HeaderView(after.head))
    if not is_declared:
        words = f"the sink changed the header section, which it had not declared: {_names(names)}"
        found.append(Finding(Code.HEADER_UNDECLARED, Severity.VIOLATION, Part.HEAD, -1, words, text[:64]))
    if body_changed or not names.isdisjoint(_SHAPE_FIELDS):
        found += _inspect_shape(before, after)
    if before.head_measure.profile.eight_bit < 0 <= (place := after.head_measure.profile.eight_bit):
        found.append(_eight_bit(after, Part.HEAD, place))
    for signature in signatures_of(old):
        if not names.isdisjoint(signature.signed):
            name = broken_by_head(signature, old, HeaderView(after.head))
            if name is not None:
                words = f"{signature.words} covers the field {_text(name)}, which is not what it was"
                found.append(_signature(is_declared, Part.HEAD, words))
    if envelope is not None and len(envelope.recipients) > 1 and b"@" in text:
        _inspect_disclosure(found, before.head, text, envelope)


def _compare_fields(found: list[Finding], old: HeaderView, new: HeaderView) -> tuple[bytes, set[bytes]]:
    """What came into the header section, and the names of all fields concerned; removals and moves are noted."""
    was = [relaxed(field) for field in old.fields]
    now = [relaxed(field) for field in new.fields]
    alignment = align(was, now)
    gone, come = alignment.gone, alignment.come
    moved = {was[number] for number in gone} & {now[number] for number in come}
    names = {was[number][0] for number in gone} | {now[number][0] for number in come}
    come_names = {now[number][0] for number in come}
    lost = [number for number in gone if was[number][0] not in come_names]
    if lost:
        words = f"header fields are gone: {_names(was[number][0] for number in lost)}"
        octets = old.head[old.fields[lost[0]].start :][:64]
        found.append(Finding(Code.FIELD_REMOVED, Severity.NOTE, Part.HEAD, -1, words, octets))
    if moved:
        words = f"header fields stand in another order: {_names(name for name, _ in moved)}"
        found.append(Finding(Code.FIELDS_REORDERED, Severity.NOTE, Part.HEAD, -1, words))
    text = b"".join(new.head[new.fields[number].start : new.fields[number].end] for number in come)
    return text, names


_ADDRESS_SIGN = re.compile(rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\xff-]")


def _inspect_disclosure(found: list[Finding], head: bytes, text: bytes, envelope: Envelope) -> None:
    """A recipient whom the header section did not name and now does is shown to all the others."""
    text = text.lower()
    known = head.lower()
    for recipient in envelope.recipients:
        address = recipient.address.octets.lower()
        if b"@" in address and _mentions(text, address) and not _mentions(known, address):
            words = f"the header section now shows {recipient.address} to every other recipient"
            place = max(text.find(address) - 24, 0)
            octets = text[place : place + 64]
            found.append(Finding(Code.RECIPIENT_DISCLOSED, Severity.DAMAGE, Part.HEAD, -1, words, octets))


def _mentions(text: bytes, address: bytes) -> bool:
    """The address stands in the text, and not as a part of a longer one."""
    at = text.find(address)
    while at >= 0:
        behind = at + len(address)
        after = text[behind : behind + 2].rstrip(b". \t\r\n>,;)\"'")
        if not (at and _ADDRESS_SIGN.match(text, at - 1)) and not (after and _ADDRESS_SIGN.match(after)):
            return True
        at = text.find(address, at + 1)
    return False


# --- body --------------------------------------------------------------------------------------------


def _inspect_body(found: list[Finding], before: Content, after: Content, declared: frozenset[Effect]) -> None:
    is_declared = Effect.BODY in declared
    old, new = before.body.size, after.body.size
    if not is_declared:
        words = f"the sink changed the body, which it had not declared: {old} octets before, {new} after"
        found.append(Finding(Code.BODY_UNDECLARED, Severity.VIOLATION, Part.BODY, -1, words, _tail(after)))
    if old != new:
        words = f"the body went from {old} octets to {new}"
        found.append(Finding(Code.SIZE_CHANGED, Severity.NOTE, Part.BODY, -1, words))
    if before.body_measure.profile.eight_bit < 0 <= (place := after.body_measure.profile.eight_bit):
        found.append(_eight_bit(after, Part.BODY, place))
    for signature in signatures_of(HeaderView(before.head)):
        words = f"{signature.words} covers the body, which is not what it was"
        found.append(_signature(is_declared, Part.BODY, words))


def _inspect_shape(before: Content, after: Content) -> list[Finding]:
    """Boundaries and transfer encodings: what the MIME structure says and what is there."""
    new = walk(after)
    if not new.is_complete:
        return []
    found: list[Finding] = []
    old: Structure | None = None
    if new.unended or new.root.closed_at >= 0:
        old = walk(before)
        _compare_boundaries(found, after, old, new)
    surveyed = survey(after.body, new, encodings=True)
    wrong = [(region, flaws.mismatch) for region, flaws in surveyed.items() if flaws.mismatch >= 0]
    if wrong:
        old = old or walk(before)
        known = {
            old.parts[region.part].path
            for region, flaws in survey(before.body, old, encodings=True).items()
            if flaws.mismatch >= 0
        }
        for region, place in wrong:
            part = new.parts[region.part]
            if region.kind is RegionKind.LEAF and part.path not in known:
                encoding = _text(part.encoding) or "7bit (nothing else is said)"
                around = octets_around(after, Part.BODY, place)
                words = (
                    f"part {part.path} ({_text(part.content_type)}) is declared {encoding}, but octet {place} of the "
                    f"body is not: `{shown(_piece_at(after, place))}`"
                )
                found.append(
                    Finding(Code.ENCODING_MISMATCH, Severity.DAMAGE, Part.BODY, place, words, around)
                )
    return found


def _compare_boundaries(found: list[Finding], after: Content, old: Structure, new: Structure) -> None:
    known = {part.boundary for part in old.unended}
    for part in new.unended:
        if part.boundary not in known:
            words = f"the closing boundary `--{shown(part.boundary, 80)}--` of part {part.path} is missing"
            around = octets_around(after, Part.BODY, max(part.body_end - 32, 0))
            found.append(
                Finding(Code.BOUNDARY_MISSING, Severity.DAMAGE, Part.BODY, part.body_end, words, around)
            )
    root = new.root
    if root.kind is Kind.MULTIPART and root.is_ended and old.root.is_ended:
        behind = root.body_end - root.closed_at
        was = old.root.body_end - old.root.closed_at
        if behind > max(was, 0):
            words = f"{behind} octets stand behind the last boundary, where most mail programs show nothing"
            around = octets_around(after, Part.BODY, root.closed_at)
            found.append(Finding(Code.SIZE_CHANGED, Severity.NOTE, Part.BODY, root.closed_at, words, around))


# --- envelope ----------------------------------------------------------------------------------------


def _inspect_envelope(
    found: list[Finding], old: Envelope, new: Envelope, declared: frozenset[Effect]
) -> None:
    if Effect.ENVELOPE in declared:
        return
    was = {recipient.address for recipient in old.recipients}
    now = {recipient.address for recipient in new.recipients}
    words = []
    if added := sorted(now - was):
        words.append(f"added the recipient {', '.join(map(str, added[:5]))}")
    if removed := sorted(was - now):
        words.append(f"removed the recipient {', '.join(map(str, removed[:5]))}")
    if old.reverse_path != new.reverse_path:
        words.append(f"changed the reverse-path from {old.reverse_path} to {new.reverse_path}")
    if words:
        text = f"the sink {' and '.join(words)}; it had not declared to change the envelope"
        found.append(Finding(Code.ENVELOPE_UNDECLARED, Severity.VIOLATION, Part.ENVELOPE, -1, text))


# --- words -------------------------------------------------------------------------------------------

_SIGNS = {0: " NUL ", 9: " HT ", 10: " LF ", 13: " CR "}
_SHOW = [_SIGNS.get(o, chr(o) if 32 <= o < 127 else f"\\x{o:02x}") for o in range(256)]


def shown(octets: bytes, limit: int = 64) -> str:
    """Octets for a person: text as it is, line ends by name (`%%EOF LF`), other octets as escapes."""
    text = "".join(_SHOW[octet] for octet in octets[:limit])
    return text.replace("CR  LF", "CRLF").replace("  ", " ").strip()


def _tail(content: Content) -> bytes:
    """The last 64 octets of a message."""
    if content.body.size:
        return octets_around(content, Part.BODY, content.body.size)
    return content.head[-64:]


def _last_line(tail: bytes) -> bytes:
    """The last line of a message with its line end, cut at the front."""
    text = tail.rstrip(b"\r\n")
    start = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
    return tail[start:][-_SHOWN - 4 :] if len(tail) - start > _SHOWN + 4 else tail[start:]


def _piece_at(content: Content, place: int) -> bytes:
    """A few octets from `place` of the body on."""
    around = octets_around(content, Part.BODY, min(place + 32, content.body.size))
    start = max(min(place, content.body.size - len(around)), 0)
    return around[place - start :][:_SHOWN]


def _in_words(finding: Finding, content: Content) -> Finding:
    """A defect in words that show the octets."""
    where = "header section" if finding.part is Part.HEAD else "body"
    place = f"octet {finding.offset} of the {where}"
    match finding.code:
        case Code.BARE_LF | Code.BARE_CR:
            name = "LF" if finding.code is Code.BARE_LF else "CR"
            tail = _tail(content)
            at_end = tail.endswith(b"\r") if name == "CR" else tail.endswith(b"\n") and tail[-2:] != b"\r\n"
            if at_end and (finding.part is Part.BODY or not content.body.size):
                words = (
                    f"the message now ends in `{shown(_last_line(tail))}`: the last line end is a bare {name}"
                )
                section = content.head if finding.part is Part.HEAD else content.body
                size = len(section) if isinstance(section, bytes) else section.size
                if finding.offset < size - 1:
                    words += f", and the first one is {place}"
            else:
                words = f"{place} is a bare {name}; lines must end in CRLF"
        case Code.NO_FINAL_NEWLINE:
            words = f"the message now ends in `{shown(_last_line(_tail(content)))}`: the last line has no line end"
        case Code.LINE_TOO_LONG:
            words = f"the line that starts at {place} is longer than 998 octets"
        case Code.NUL:
            words = f"{place} is a NUL, which text must not hold"
        case _:
            return finding
    return msgspec.structs.replace(finding, words=words)


def _eight_bit(content: Content, part: Part, place: int) -> Finding:
    where = "header section" if part is Part.HEAD else "body"
    words = f"the {where} was 7-bit and now holds 8-bit octets, the first at octet {place}"
    around = octets_around(content, part, place)
    return Finding(Code.EIGHT_BIT_INTRODUCED, Severity.NOTE, part, place, words, around)


def _signature(is_declared: bool, part: Part, words: str) -> Finding:
    severity = Severity.NOTE if is_declared else Severity.DAMAGE
    return Finding(Code.SIGNATURE_BROKEN, severity, part, -1, words)


def _text(octets: bytes) -> str:
    return octets.decode("ascii", "backslashreplace")


def _names(names: Iterable[bytes]) -> str:
    listed = sorted({_text(name) for name in names})
    more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
    return ", ".join(listed[:8]) + more
