"""What a next hop offers, what a message needs, and the commands that follow: pure functions from facts to a plan.

Rules: a parameter is sent only when its keyword was offered and not switched off for the route; what a hop cannot
take is found here, before anything is written; an address goes into a command only when it cannot end that command
or add a parameter to it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence, Set

import msgspec

from lonedot.protocol.errors import LocalProtocolError
from lonedot.protocol.events import ContentMode
from lonedot.terms.envelope import Envelope, Notify, Recipient, Ret
from lonedot.terms.reply import Reply

__all__ = [
    "BDAT_LIMIT",
    "NO_OFFER",
    "ContentFacts",
    "Offer",
    "Plan",
    "Refusal",
    "RefusalKind",
    "guard_line",
    "plan_transaction",
    "read_offer",
]

BDAT_LIMIT = 256 * 1024
"""Content up to this many octets goes by BDAT where CHUNKING is offered: it is one write together with its command."""

# RFC 5321 §4.5.3.1.4: 512 with CRLF. Extensions lengthen MAIL and RCPT: RFC 1870 §4, 6152 §2, 6531 §3.4, 3461 §4.
_LINE_LIMIT = 512
_MAIL_LIMIT = _LINE_LIMIT + 26 + 17 + 10 + 120
_RCPT_LIMIT = _LINE_LIMIT + 540

# A path that needs no second look: printable, without white space, angle brackets and quotes; UTF-8 above ASCII.
_PLAIN_PATH = re.compile(rb"[!#-;=?-~\x80-\xff]*").fullmatch
# RFC 5321 §4.1.2 Quoted-string, with UTF-8 (RFC 6531 §3.3).
_QUOTED_PATH = re.compile(rb'"(?:[ !#-\[\]-~\x80-\xff]|\\[ -~])*"@[!#-;=?-~\x80-\xff]+', re.DOTALL).fullmatch
# RFC 3461 §4: printable ASCII; what xtext escapes must not stand there in the clear.
_XTEXT = re.compile(rb"[!-~]{1,500}").fullmatch

_NOTIFY_WORDS = ((Notify.SUCCESS, b"SUCCESS"), (Notify.FAILURE, b"FAILURE"), (Notify.DELAY, b"DELAY"))


class Offer(msgspec.Struct, frozen=True):
    """The extensions of one session, less those that the route switches off."""

    esmtp: bool = False
    """EHLO was answered; False after a fall-back to HELO."""
    size: int = -1
    """Largest content in octets; 0: SIZE is known but no limit was named; -1: not offered (RFC 1870)."""
    pipelining: bool = False
    eight_bit_mime: bool = False
    smtputf8: bool = False
    chunking: bool = False
    dsn: bool = False
    starttls: bool = False
    enhanced_status_codes: bool = False
    auth: tuple[bytes, ...] = ()
    """Mechanisms in upper case, in the order of the server."""


NO_OFFER = Offer()


def read_offer(ehlo: Reply, ignored: Set[bytes] = frozenset()) -> Offer:
    """The offer in a positive reply to EHLO (RFC 5321 §4.1.1.1); `ignored` keywords (upper case) count as absent."""
    size = -1
    words: set[bytes] = set()
    auth: list[bytes] = []
    for line in ehlo.lines[1:]:
        keyword, _, parameters = line.strip().partition(b" ")
        keyword = keyword.upper()
        # "AUTH=LOGIN" is how servers said it before RFC 2554.
        if keyword.startswith(b"AUTH="):
            keyword, parameters = b"AUTH", keyword[5:] + b" " + parameters
        if keyword in ignored:
            continue
        words.add(keyword)
        if keyword == b"SIZE":
            number = parameters.strip()
            size = int(number) if number.isdigit() and len(number) <= 20 else 0
        elif keyword == b"AUTH":
            auth.extend(name for name in parameters.upper().split() if name not in auth)
    return Offer(
        esmtp=True,
        size=size,
        pipelining=b"PIPELINING" in words,
        eight_bit_mime=b"8BITMIME" in words,
        smtputf8=b"SMTPUTF8" in words,
        chunking=b"CHUNKING" in words,
        dsn=b"DSN" in words,
        starttls=b"STARTTLS" in words,
        enhanced_status_codes=b"ENHANCEDSTATUSCODES" in words,
        auth=tuple(auth),
    )


class ContentFacts(msgspec.Struct, frozen=True):
    """What the plan must know of the content."""

    size: int
    """Octets by the rule of SIZE: with CRLF, without stuffing and end of data (RFC 1870 §3)."""
    head_eight_bit: bool = False
    body_eight_bit: bool = False
    at_hand: bool = True
    """In memory as a whole, so that it can follow its command in the same write."""


class Plan(msgspec.Struct, frozen=True):
    """One transaction: the commands without their CRLF. RCPT lines are in the order of the recipients given."""

    mode: ContentMode
    mail: bytes
    rcpt: tuple[bytes, ...]
    size: int
    passes_dsn: bool
    """The hop offers DSN: the duty to report success goes with the message (RFC 3461 §5.2.2)."""


class RefusalKind(enum.Enum):
    NEEDS_SEVEN_BIT = "needs-seven-bit"
    """8-bit content, a hop without 8BITMIME: re-encode and plan again."""
    NEEDS_SMTPUTF8 = "needs-smtputf8"
    TOO_LARGE = "too-large"
    BAD_ADDRESS = "bad-address"


class Refusal(msgspec.Struct, frozen=True):
    """This hop cannot take it as it is."""

    kind: RefusalKind
    status: str
    words: str
    places: tuple[int, ...] = ()
    """Positions of the recipients concerned; empty: all of them."""


def plan_transaction(
    envelope: Envelope, recipients: Sequence[Recipient], facts: ContentFacts, offer: Offer
) -> Plan | Refusal:
    """The commands that hand `facts`' content to `recipients`, or why this hop cannot have it.

    `envelope` gives reverse-path and parameters; its own recipients are not looked at (a transaction may be for some
    of them only).
    """
    reverse = envelope.reverse_path.octets
    if not _is_safe_path(reverse):
        return Refusal(
            RefusalKind.BAD_ADDRESS,
            "5.1.7",
            f"the reverse-path {envelope.reverse_path.text!r} is not an address",
        )
    commands = []
    odd: list[int] = []
    international: list[int] = []
    for place, recipient in enumerate(recipients):
        address = recipient.address.octets
        if not address or not _is_safe_path(address):
            odd.append(place)
        elif not address.isascii():
            international.append(place)
        if offer.dsn and (recipient.notify or recipient.orcpt):
            commands.append(b"RCPT TO:<%s>%s" % (address, _dsn_of(recipient)))
        else:
            commands.append(b"RCPT TO:<%s>" % address)
    if odd:
        return Refusal(
            RefusalKind.BAD_ADDRESS, "5.1.3", "this is not an address that SMTP can carry", tuple(odd)
        )

    # RFC 6531 §3.2: only what really is international needs the extension.
    needs_utf8 = not reverse.isascii() or (envelope.smtputf8 and facts.head_eight_bit)
    # RFC 6531 §3.1: a server with SMTPUTF8 has 8BITMIME; where a route switches that off, neither can be used.
    if (needs_utf8 or international) and not (offer.smtputf8 and offer.eight_bit_mime):
        return Refusal(
            RefusalKind.NEEDS_SMTPUTF8,
            "5.6.7",
            "the next hop does not offer SMTPUTF8, and "
            + ("the sender or the header section" if needs_utf8 else "the address")
            + " is not ASCII; no downgrade exists (RFC 6531)",
            () if needs_utf8 else tuple(international),
        )
    eight_bit = facts.head_eight_bit or facts.body_eight_bit
    if eight_bit and not offer.eight_bit_mime:
        return Refusal(
            RefusalKind.NEEDS_SEVEN_BIT,
            "5.6.3",
            "the next hop does not offer 8BITMIME and the content is 8-bit",
        )
    if 0 < offer.size < facts.size:
        return Refusal(
            RefusalKind.TOO_LARGE,
            "5.3.4",
            f"the message has {facts.size} octets; the next hop takes at most {offer.size}",
        )

    mail = b"MAIL FROM:<%s>" % reverse
    if offer.size >= 0:
        mail = b"%s SIZE=%d" % (mail, facts.size)
    if eight_bit:
        mail += b" BODY=8BITMIME"
    if needs_utf8 or international:
        mail += b" SMTPUTF8"
    if offer.dsn:
        if envelope.ret is not Ret.UNSTATED:
            mail += b" RET=" + envelope.ret.value.encode()
        if envelope.envid and _XTEXT(envelope.envid):
            mail += b" ENVID=" + envelope.envid
    use_bdat = offer.chunking and facts.at_hand and facts.size <= BDAT_LIMIT
    return Plan(
        ContentMode.BDAT if use_bdat else ContentMode.DATA, mail, tuple(commands), facts.size, offer.dsn
    )


def _is_safe_path(path: bytes) -> bool:
    return _PLAIN_PATH(path) is not None or _QUOTED_PATH(path) is not None


def _dsn_of(recipient: Recipient) -> bytes:
    """` NOTIFY=… ORCPT=…` as given by the client (RFC 3461 §5.2.1: passed on unchanged)."""
    parameters = b""
    if recipient.notify & Notify.NEVER:
        parameters = b" NOTIFY=NEVER"
    elif recipient.notify:
        parameters = b" NOTIFY=" + b",".join(word for bit, word in _NOTIFY_WORDS if recipient.notify & bit)
    if recipient.orcpt and _XTEXT(recipient.orcpt):
        parameters += b" ORCPT=" + recipient.orcpt
    return parameters


def guard_line(line: bytes, limit: int = 0) -> bytes:
    """The one door for command lines: `line` with its CRLF. `limit` (with CRLF) is for lines of AUTH.

    Raises:
        LocalProtocolError: CR, LF or NUL inside, or longer than a server must read.
    """
    if b"\r" in line or b"\n" in line or b"\0" in line:
        raise LocalProtocolError("a command must not hold CR, LF or NUL")
    if len(line) > _LINE_LIMIT - 2:
        verb = line[:5].upper()
        limit = limit or (
            _MAIL_LIMIT if verb == b"MAIL " else _RCPT_LIMIT if verb == b"RCPT " else _LINE_LIMIT
        )
        if len(line) > limit - 2:
            raise LocalProtocolError(f"a command of {len(line) + 2} octets; at most {limit} are allowed")
    return line + b"\r\n"
