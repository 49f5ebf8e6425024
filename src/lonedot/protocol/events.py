"""What the server machine tells its shell. An event that says *decide* waits for exactly one `respond(reply)`.

Everything the machine can judge by itself (grammar, sequence, limits) it answers itself and reports as `Refused`.
"""

from __future__ import annotations

import enum

import msgspec

from lonedot.terms.address import Address
from lonedot.terms.envelope import BodyType, Recipient, Ret
from lonedot.terms.reply import Reply

__all__ = [
    "AuthRequested",
    "ChunkRefused",
    "ClientStated",
    "Closed",
    "CommandHeard",
    "ContentBegun",
    "ContentChunk",
    "ContentEnded",
    "ContentMode",
    "Event",
    "Greeted",
    "MailGiven",
    "QuitGiven",
    "RcptGiven",
    "Refused",
    "ResetGiven",
    "TlsRequested",
    "VerifyGiven",
]


class ContentMode(enum.Enum):
    DATA = "DATA"
    BDAT = "BDAT"


class Greeted(msgspec.Struct, frozen=True):
    """HELO or EHLO, already answered with 250."""

    verb: bytes
    name: bytes


class CommandHeard(msgspec.Struct, frozen=True):
    """A command that the shell wants to be asked about (`ServerSession.asked`), before it is obeyed. Decide.

    `obey()` goes on as if nobody had been asked; `respond` refuses it, or answers it with 2xx in place of the machine.
    """

    verb: bytes
    """In upper case; one that the machine does not know as well."""
    argument: bytes


class MailGiven(msgspec.Struct, frozen=True):
    """MAIL FROM, well formed and allowed here. Decide."""

    reverse_path: Address
    body: BodyType
    smtputf8: bool
    size: int
    """Declared size in octets; 0 when not given."""
    ret: Ret
    envid: bytes
    tolerated: str
    """What was forgiven in the line (`space after FROM:`, `no angle brackets`); empty when nothing."""


class RcptGiven(msgspec.Struct, frozen=True):
    """RCPT TO, well formed and allowed here. Decide; a 2xx adds the recipient."""

    recipient: Recipient
    tolerated: str


class ContentBegun(msgspec.Struct, frozen=True):
    """DATA, or the first BDAT, with at least one recipient. Decide: 354 (DATA) or 250 (BDAT) goes on, else refused.

    For BDAT a positive answer is not written (the chunk is answered when its octets are in); a refusal is, and the
    octets are read and dropped.
    """

    mode: ContentMode


class ContentChunk(msgspec.Struct, frozen=True):
    """Octets of the message: dot-unstuffed for DATA, as they came for BDAT. No decision."""

    octets: bytes


class ContentEnded(msgspec.Struct, frozen=True):
    """End of data (CRLF.CRLF, or the LAST chunk). Decide: the one reply of the message; it ends the transaction."""

    mode: ContentMode
    size: int
    """Octets of content received (also those dropped when over the limit)."""
    over_limit: bool
    """More than the SIZE limit: what was over was not handed out; the only right answer is 552."""


class ChunkRefused(msgspec.Struct, frozen=True):
    """A BDAT transaction failed (too large, DATA after BDAT) and is already answered: drop what was stored."""

    reply: Reply


class ResetGiven(msgspec.Struct, frozen=True):
    """RSET, or EHLO in a transaction: what was collected is void. Already answered."""


class TlsRequested(msgspec.Struct, frozen=True):
    """STARTTLS, nothing behind it. 220 is written; the shell sends it, shakes hands, then calls `tls_started`."""


class AuthRequested(msgspec.Struct, frozen=True):
    """A complete AUTH exchange. Decide; the machine forgets the password with the answer."""

    mechanism: bytes
    identity: bytes
    password: bytes


class ClientStated(msgspec.Struct, frozen=True):
    """XCLIENT: a proxy says whom it speaks for. Decide: 220 begins the session anew, a new EHLO is needed."""

    address: str | None
    """None: as it was; empty: the proxy does not know."""
    helo: str
    """What that client calls itself; empty when not given."""
    verb: bytes
    """Of PROTO, in upper case: SMTP or ESMTP; empty when not given."""
    login: str
    """Who has logged in at the proxy; empty when nobody has."""


class VerifyGiven(msgspec.Struct, frozen=True):
    """VRFY or EXPN. Decide."""

    verb: bytes
    argument: bytes


class QuitGiven(msgspec.Struct, frozen=True):
    """QUIT, already answered with 221: send and close."""


class Refused(msgspec.Struct, frozen=True):
    """A command that the machine refused (already answered). `command` is cut to 128 octets and redacted."""

    command: bytes
    reply: Reply


class Closed(msgspec.Struct, frozen=True):
    """The machine ends the session: send what is left, then close. `words` is for our log."""

    words: str


Event = (
    Greeted
    | CommandHeard
    | MailGiven
    | RcptGiven
    | ContentBegun
    | ContentChunk
    | ContentEnded
    | ChunkRefused
    | ResetGiven
    | TlsRequested
    | AuthRequested
    | ClientStated
    | VerifyGiven
    | QuitGiven
    | Refused
    | Closed
)
