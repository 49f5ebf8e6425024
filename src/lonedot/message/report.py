"""Delivery status notifications: the message that tells a sender what became of theirs (RFC 3461, 3464, 6522).

Rules: the result is canonical and, apart from a sender's address that is not ASCII, 7-bit, so that any hop takes
it; the caller sends it with the null reverse-path, and never reports on a message that came with one. What is
quoted from the original is bounded and is never trusted: it goes in encoded when it is not plain text.
"""

from __future__ import annotations

import binascii
import re

import msgspec

from lonedot.message.content import Content
from lonedot.message.report_words import (
    ReportedRecipient,
    ReportKind,
    date_text,
    plain_text,
    reply_text,
    status_of,
    subject_of,
)
from lonedot.message.transforms.encode import CannotEncode, encode_7bit
from lonedot.message.transforms.encode_body import base64_lines, quoted_printable
from lonedot.terms.address import Address
from lonedot.terms.envelope import Ret
from lonedot.terms.reply import Reply

__all__ = ["CONTENT_LIMIT", "HEAD_LIMIT", "Original", "ReportKind", "ReportedRecipient", "build_report"]

CONTENT_LIMIT = 1024 * 1024
"""Octets of an original that is returned whole; of a larger one only the header section is."""
HEAD_LIMIT = 64 * 1024
"""Octets of the header section that are returned."""

_ACTIONS = {
    ReportKind.FAILURE: b"failed",
    ReportKind.DELAY: b"delayed",
    ReportKind.SUCCESS: b"delivered",
    ReportKind.RELAYED: b"relayed",
}


class Original(msgspec.Struct, frozen=True):
    """What a report must know of the message it speaks of."""

    sender: Address
    """Its reverse-path, to which the report goes; never the null one."""
    content: Content
    arrived_at: float
    """Seconds since 1970."""
    envid: bytes = b""
    """xtext as the client gave it."""
    ret: Ret = Ret.UNSTATED
    smtputf8: bool = False


def build_report(
    kind: ReportKind,
    reported: tuple[ReportedRecipient, ...],
    original: Original,
    *,
    hostname: str,
    message_id: str,
    now: float,
) -> bytes:
    """The octets of a report, canonical.

    `message_id` is the left part of its Message-ID, unique at `hostname`; `now` is in seconds since 1970. The
    content comes back whole only with a failure, when the sender asked for it (RFC 3461 §4.3) and it is at most
    CONTENT_LIMIT octets; else the header section does.

    Raises:
        ValueError: no recipients, the null reverse-path, or a control character in an address or `hostname`.
        OSError: the content is in a file that cannot be read.
    """
    if not reported:
        raise ValueError("a report speaks of at least one recipient")
    if original.sender.is_null:
        raise ValueError("nothing is reported to the null reverse-path (RFC 5321 §4.5.5)")
    host = hostname.encode("ascii")
    for octets in (host, original.sender.octets, message_id.encode("ascii")):
        if _CONTROLS.search(octets):
            raise ValueError(f"{octets!r} holds control characters")
    wants_all = kind is ReportKind.FAILURE and original.ret is Ret.FULL
    returned, closing = _returned(original, wants_all)
    text = plain_text(kind, hostname, reported, closing)
    status = _status_part(kind, reported, original, host)
    parts = [_text_part(text), status, returned]
    boundary = _boundary(message_id.encode("ascii"), parts)
    head = [
        b"From: Mail Delivery System <MAILER-DAEMON@%s>" % host,
        b"To: <%s>" % original.sender.octets,
        b"Subject: %s" % subject_of(kind).encode(),
        b"Date: %s" % date_text(now).encode(),
        b"Message-ID: <%s@%s>" % (message_id.encode(), host),
        *_threading(original.content.head),
        b"Auto-Submitted: auto-replied",  # RFC 3834 §5
        b"MIME-Version: 1.0",
        b'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="%s"' % boundary,
        b"",
        b"",
    ]
    lines = [b"\r\n".join(head)]
    lines += [b"--%s\r\n%s\r\n" % (boundary, part) for part in parts]
    lines.append(b"--%s--\r\n" % boundary)
    return b"".join(lines)


_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
_PLAIN_ID = re.compile(rb"<[!-;=?-~]{1,250}>")
_MESSAGE_ID = re.compile(rb"(?:^|\n)message-id[ \t]*:\s*([^\r\n]*)", re.IGNORECASE)


def _threading(head: bytes) -> list[bytes]:
    """Fields that let a mail program show the report beside the original (RFC 3834 §3.1.5)."""
    found = _MESSAGE_ID.search(head[:HEAD_LIMIT])
    id_ = found.group(1).strip() if found else b""
    if not _PLAIN_ID.fullmatch(id_):
        return []
    return [b"In-Reply-To: " + id_, b"References: " + id_]


def _boundary(seed: bytes, parts: list[bytes]) -> bytes:
    """A boundary that occurs in none of the parts; the same for the same report."""
    number = 0
    while True:
        boundary = b"=_%s_%d" % (binascii.hexlify(seed)[-48:], number)
        if not any(boundary in part for part in parts):
            return boundary
        number += 1


def _is_plain(octets: bytes) -> bool:
    """May stand in a 7-bit part as it is: ASCII, CRLF alone ends lines, none too long, no NUL."""
    lines = octets.split(b"\r\n")
    return (
        octets.isascii()
        and b"\0" not in octets
        and octets.count(b"\r") == octets.count(b"\n") == len(lines) - 1
        and max(map(len, lines)) <= 998
    )


def _part(content_type: bytes, octets: bytes) -> bytes:
    """A body part of text, encoded only where it has to be."""
    if _is_plain(octets):
        return b"Content-Type: %s\r\n\r\n%s" % (content_type, octets)
    lead = b"Content-Type: %s\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" % content_type
    return lead + b"".join(quoted_printable([octets]))


def _text_part(text: str) -> bytes:
    return _part(b"text/plain; charset=utf-8", text.encode().replace(b"\n", b"\r\n"))


# --- the part for programs: RFC 3464 §2.1 ------------------------------------------------------------


def _status_part(
    kind: ReportKind, reported: tuple[ReportedRecipient, ...], original: Original, host: bytes
) -> bytes:
    message = [b"Reporting-MTA: dns; " + host]
    if original.envid:
        message.insert(0, _field(b"Original-Envelope-Id", _from_xtext(original.envid)))
    message.append(b"Arrival-Date: " + date_text(original.arrived_at).encode())
    groups = [message] + [_recipient_group(kind, one) for one in reported]
    body = b"\r\n".join(b"\r\n".join(group) + b"\r\n" for group in groups)
    return b"Content-Type: message/delivery-status\r\n\r\n" + body


def _recipient_group(kind: ReportKind, one: ReportedRecipient) -> list[bytes]:
    fields: list[bytes] = []
    recipient = one.recipient
    if recipient.orcpt:
        kind_of_address, _, xtext = recipient.orcpt.partition(b";")
        value = b"%s; %s" % (_visible(kind_of_address), _from_xtext(xtext))
        fields.append(_field(b"Original-Recipient", value))
    if recipient.address.octets.isascii():
        fields.append(_field(b"Final-Recipient", b"rfc822; " + _visible(recipient.address.octets)))
    else:
        fields.append(_field(b"Final-Recipient", b"utf-8; " + _utf8_address(recipient.address)))
    fields.append(b"Action: " + _ACTIONS[kind])
    fields.append(b"Status: " + status_of(kind, one).encode())
    outcome = one.outcome
    if outcome is not None:
        host = outcome.next_hop.partition("[")[0].partition(":")[0]
        if host:
            fields.append(_field(b"Remote-MTA", b"dns; " + _visible(host.encode())))
        if outcome.reply is not None:
            fields.append(_field(b"Diagnostic-Code", b"smtp; " + _diagnostic(outcome.reply)))
        elif outcome.reason:
            fields.append(_field(b"Diagnostic-Code", b"X-Lonedot; " + _visible(outcome.reason.encode())))
    if one.last_attempt_at:
        fields.append(b"Last-Attempt-Date: " + date_text(one.last_attempt_at).encode())
    if kind is ReportKind.DELAY and one.retry_until:
        fields.append(b"Will-Retry-Until: " + date_text(one.retry_until).encode())
    return fields


def _diagnostic(reply: Reply) -> bytes:
    """The remote's words on one logical line; every line keeps its code (RFC 3464 §2.3.6)."""
    return _visible(" ".join(reply_text(reply).split("\n")).encode())


def _visible(octets: bytes) -> bytes:
    """ASCII without control characters; everything else as a backslash escape."""
    text = octets.decode("utf-8", "backslashreplace")
    return "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in text).encode()


def _from_xtext(octets: bytes) -> bytes:
    """xtext decoded (RFC 3461 §4), as far as the result can be shown; else as it was given."""
    decoded = _XTEXT.sub(lambda found: bytes([int(found.group(1), 16)]), octets)
    return decoded if decoded.isascii() and not _CONTROLS.search(decoded) else _visible(octets)


_XTEXT = re.compile(rb"\+([0-9A-F]{2})")


def _utf8_address(address: Address) -> bytes:
    r"""utf-8-addr-xtext of RFC 6533 §3: `\x{E9}` for every sign outside ASCII, so that the part stays 7-bit."""
    signs = []
    for sign in address.text:
        if "!" <= sign <= "~" and sign not in "\\+=":
            signs.append(sign)
        else:
            signs.append(f"\\x{{{ord(sign):02X}}}")
    return "".join(signs).encode()


def _field(name: bytes, value: bytes) -> bytes:
    """A field, folded at white space below 78 octets where that can be, and cut where a line would pass 998."""
    lines = []
    line = name + b":"
    for word in value.split():
        piece = word[:900]
        if len(line) + 1 + len(piece) > 78 and line != name + b":" and line.strip():
            lines.append(line)
            line = b""
        line += b" " + piece
    lines.append(line)
    return b"\r\n".join(lines)


# --- what comes back of the original -----------------------------------------------------------------


def _returned(original: Original, wants_all: bool) -> tuple[bytes, str]:
    """The third part (RFC 6522 §3) and the sentence that says what it is."""
    content = original.content
    if wants_all and content.size <= CONTENT_LIMIT:
        whole = _whole_part(original)
        if whole is not None:
            return whole, "Your message is attached."
    head = content.head
    if head.endswith(b"\r\n\r\n"):
        head = head[:-2]
    cut = len(head) > HEAD_LIMIT
    if cut:
        head = head[: head.rfind(b"\n", 0, HEAD_LIMIT) + 1 or HEAD_LIMIT]
    is_utf8 = original.smtputf8 and not head.isascii()
    part = _part(b"message/global-headers" if is_utf8 else b"text/rfc822-headers", head)  # RFC 6533 §5
    if cut:
        return part, "The first part of the header section of your message is attached."
    return part, "The header section of your message is attached."


def _whole_part(original: Original) -> bytes | None:
    """The original as an attachment, or None when it cannot be made 7-bit text."""
    content = original.content
    if original.smtputf8 and content.has_eight_bit:
        # RFC 6532 §3.7: message/global, unlike message/rfc822, may be encoded.
        lead = b"Content-Type: message/global\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        return lead + b"".join(base64_lines([content.octets()]))
    try:
        octets = (encode_7bit(content) if content.has_eight_bit else content).octets()
    except CannotEncode:
        return None
    return b"Content-Type: message/rfc822\r\n\r\n" + octets if _is_plain(octets) else None
