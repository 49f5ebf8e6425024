"""What the spool keeps of the session that brought a message. The same for all its messages until it greets anew."""

from __future__ import annotations

from lonedot.reception.session_sinks import Seen
from lonedot.spool.interface import Facts

__all__ = ["facts_of", "utf8_protocol"]


def facts_of(
    session: Seen, verb: bytes, listener: str, revision: str, server: int, lmtp: bool = False
) -> Facts:
    """`verb`: EHLO or HELO, whichever greeted last; `lmtp`: that was LHLO."""
    spoken = "LMTP" if lmtp else "ESMTP"
    return Facts(
        source="smtp",
        session=session.id,
        listener=listener,
        client=session.client,
        helo=session.helo,
        protocol=f"{spoken}{_secured(session)}" if verb == b"EHLO" else "SMTP",
        tls=session.tls,
        login=session.login,
        trusted=session.trusted,
        revision=revision,
        server=server,
    )


def utf8_protocol(session: Seen, lmtp: bool = False) -> str:
    """The with-keyword of a message that needed SMTPUTF8 (RFC 6531 §4.3)."""
    return f"UTF8{'LMTP' if lmtp else 'SMTP'}{_secured(session)}"


def _secured(session: Seen) -> str:
    """What a with-keyword has at its end (RFC 3848)."""
    return ("S" if session.tls else "") + ("A" if session.login else "")
