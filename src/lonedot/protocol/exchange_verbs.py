"""The verbs of Exchange servers, XEXCH50 and X-LINK2STATE: what the machine must know of them. Only sinks accept them.

Rules that must not break:

1. Neither is offered, obeyed or sent by the relay itself. Without a sink that accepts them they are not recognised.
2. The octets of XEXCH50 are read behind our 354 alone (`ServerSession.respond_behind`). Where it is refused, a client
   that sends them all the same is cut off at the first that is no command, as behind a refused DATA.
3. What X-LINK2STATE brings stands in its line, which is longer than that of other commands, and bounded like them.
"""

from __future__ import annotations

from lonedot.protocol import answers
from lonedot.protocol.commands import not_recognised, unknown_answered
from lonedot.protocol.events import Event
from lonedot.protocol.session import Command, ServerSession
from lonedot.terms.reply import Reply

__all__ = ["LINK_STATE_LINE", "exchange_verbs"]

LINK_STATE_LINE = 1026
"""Octets of X-LINK2STATE with CRLF: what the servers that speak it may send (Microsoft KB 812455)."""


def exchange_verbs(command_line: int) -> dict[bytes, Command]:
    """Both, where other commands may be so long."""
    return {
        b"XEXCH50": Command(_xexch50, command_line, _xexch50_answered),
        b"X-LINK2STATE": Command(not_recognised, max(command_line, LINK_STATE_LINE), unknown_answered),
    }


def _xexch50(session: ServerSession, argument: bytes) -> Event | None:
    refused = session.refuse(answers.UNKNOWN_COMMAND)
    session.octets_were_refused = True
    return refused


def _xexch50_answered(session: ServerSession, reply: Reply) -> None:
    unknown_answered(session, reply)
    session.octets_were_refused = reply.code >= 400
