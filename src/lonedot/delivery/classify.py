"""What a failure means: the one place that turns replies and lost connections into outcomes.

Rules. A reply is judged by its first digit unless a row of the table below says otherwise. What goes wrong with a
*session* (connection, greeting, EHLO, TLS, login) says nothing against a message, so it defers, however permanent it
sounds: a person can mend a route, and the message expires if nobody does; only a sink may refuse one for good, or
DNS say that a domain does not exist or takes no mail. What goes wrong with a *message* is believed. When the connection
is lost behind the end of data nobody knows what came of it: deferred, and said so. The remote's own words are never
rewritten; ours stand beside them.
"""

from __future__ import annotations

import msgspec

from lonedot.delivery.jobs import Fault, SessionFault
from lonedot.protocol.client_plan import Refusal
from lonedot.sinks.calls import Decision, Dispatched
from lonedot.terms.outcome import Outcome, Result, Stage
from lonedot.terms.reply import Reply

__all__ = [
    "DISCARDED",
    "HANDED_OVER",
    "PASSED_ON",
    "RELAYED",
    "classify_fault",
    "classify_local",
    "classify_refusal",
    "classify_reply",
    "classify_session",
    "classify_sink",
    "discarded_by",
]

RELAYED = "accepted by the next hop"
"""The reason of a delivery to a hop that does not offer DSN: if success was to be reported, we report "relayed"."""

HANDED_OVER = "accepted by the delivery agent"
"""The reason of a delivery by LMTP: it is the last one, so success is reported as "delivered" (RFC 3461 §4.3)."""

DISCARDED = "discarded by route "
"""How the reason of what goes nowhere begins, with the name of the route behind it. Nobody is told that it arrived."""

PASSED_ON = "accepted by the next hop, which also takes over the delivery reports"
"""The reason of a delivery to a hop that offers DSN: reports of success are its duty (RFC 3461 §5.2.2)."""


class _Row(msgspec.Struct, frozen=True):
    """A reply that is not judged by its first digit alone, or that deserves words of its own."""

    code: int
    """0: any."""
    enhanced: tuple[str, ...]
    """Empty: any, also none; `""` in it: none was given."""
    stages: tuple[Stage, ...]
    result: Result | None
    """None: by the first digit."""
    words: str
    status: str = ""
    """For a reply without an enhanced status code."""


_ANY: tuple[Stage, ...] = ()
_RCPT = (Stage.RCPT,)
_DEFERRED = Result.DEFERRED
_CROWD = "the next hop takes no more recipients at once"
_SIZE = "the message is too large for the next hop"

# The first row that fits is taken.
_ROWS: tuple[_Row, ...] = (
    # RFC 5321 §3.8: the service goes away; nothing is said about the message.
    _Row(421, (), _ANY, _DEFERRED, "the next hop ended the session", "4.3.2"),
    # RFC 4954 §6 and RFC 3207 §4: a fault of the route's settings.
    _Row(530, (), _ANY, _DEFERRED, "the next hop wants a login or TLS first: see the route", "5.7.0"),
    _Row(534, (), _ANY, _DEFERRED, "the next hop wants another kind of login: see the route", "5.7.9"),
    _Row(535, (), _ANY, _DEFERRED, "the next hop does not accept our login: see the route", "5.7.8"),
    _Row(538, (), _ANY, _DEFERRED, "the next hop wants TLS before a login: see the route", "5.7.11"),
    # RFC 5321 §4.5.3.1.10: 552 to RCPT means "too many recipients" and is temporary; 5.2.2 is a full mailbox.
    _Row(552, ("",), _RCPT, _DEFERRED, _CROWD, "5.5.3"),
    _Row(0, ("4.5.3", "5.5.3"), _RCPT, _DEFERRED, _CROWD),
    _Row(452, ("",), _RCPT, None, f"{_CROWD}, or has no room", "4.3.1"),
    _Row(0, ("5.6.11",), _ANY, None, "the next hop says the message has bare line feeds; none left here"),
    _Row(0, ("5.2.2", "4.2.2"), _ANY, None, "the mailbox is full"),
    _Row(0, ("5.1.1", "5.1.10", "4.1.1"), _ANY, None, "the next hop does not know the recipient"),
    _Row(0, ("5.1.2", "5.1.3", "5.4.1"), _RCPT, None, "the next hop cannot send to this address"),
    _Row(0, ("5.1.7", "5.1.8", "4.1.8"), _ANY, None, "the next hop does not accept the sender's address"),
    _Row(0, ("5.3.4", "5.2.3"), _ANY, None, _SIZE),
    _Row(552, (), (Stage.MAIL, Stage.DATA, Stage.CONTENT), None, _SIZE, "5.3.4"),
    _Row(452, (), _ANY, None, "the next hop has no room at the moment", "4.3.1"),
    _Row(0, ("4.7.0", "4.7.1"), _ANY, None, "the next hop asks to try again later (greylisting, or a limit)"),
    _Row(550, (), _RCPT, None, "the next hop refuses the recipient", "5.1.0"),
    _Row(553, (), (Stage.MAIL, Stage.RCPT), None, "the next hop does not accept the address", "5.1.3"),
    _Row(
        555, (), (Stage.MAIL, Stage.RCPT), None, "the next hop does not know a parameter it offered", "5.5.4"
    ),
)

_BY_STAGE = {
    Stage.MAIL: "the sender",
    Stage.RCPT: "the recipient",
    Stage.DATA: "the message before its content",
    Stage.CONTENT: "the message",
}


def classify_reply(
    stage: Stage, reply: Reply, next_hop: str, *, passes_dsn: bool = False, is_last: bool = False
) -> Outcome:
    """The outcome of a reply to MAIL, RCPT, DATA or the end of data. `is_last`: from a delivery agent, by LMTP."""
    code = reply.code
    if code < 300:
        reason = PASSED_ON if passes_dsn else HANDED_OVER if is_last else RELAYED
        return Outcome(Result.DELIVERED, stage, reason, reply, next_hop, reply.enhanced or "2.0.0")
    for row in _ROWS:
        if (
            row.code in (0, code)
            and (not row.enhanced or reply.enhanced in row.enhanced)
            and (not row.stages or stage in row.stages)
        ):
            result, words, status = row.result, row.words, reply.enhanced or row.status
            break
    else:
        result, words, status = None, "", reply.enhanced
    if result is None:
        result = Result.DEFERRED if code < 500 else Result.FAILED
    if not words:
        what = _BY_STAGE.get(stage, "us")
        words = f"the next hop {'refuses' if result is Result.FAILED else 'does not take'} {what}"
        words += "" if result is Result.FAILED else " for now"
    return Outcome(result, stage, words, reply, next_hop, _status(result, status))


def classify_session(fault: SessionFault, next_hop: str) -> Outcome:
    """The outcome when no session could be opened: deferred, unless a sink or DNS rules the next hop out."""
    reply = fault.reply
    result = Result.FAILED if fault.is_final else Result.DEFERRED
    status = fault.status or (reply.enhanced if reply is not None else "")
    if not status:
        status = _SESSION_STATUS.get(fault.stage, "4.4.2")
    return Outcome(result, fault.stage, fault.words, reply, next_hop, _status(result, status))


# RFC 3463 §3.5: no answer from host, bad connection, unable to route; §3.8: security.
_SESSION_STATUS = {
    Stage.ROUTE: "4.4.4",
    Stage.CONNECT: "4.4.1",
    Stage.GREETING: "4.4.2",
    Stage.EHLO: "4.4.2",
    Stage.STARTTLS: "4.7.5",
    Stage.AUTH: "4.7.8",
    Stage.LOCAL: "4.3.0",
}


def classify_fault(fault: Fault, next_hop: str) -> Outcome:
    """The outcome of a transaction that ended without its replies: always deferred."""
    if fault.cause is not None:
        return Outcome(Result.DEFERRED, Stage.LOCAL, fault.words, None, next_hop, "4.3.0")
    if fault.end_written:
        words = f"{fault.words}, behind the end of data: it may have taken the message, so a second copy is possible"
        return Outcome(Result.DEFERRED, Stage.CONTENT, words, None, next_hop, "4.4.2", is_in_doubt=True)
    return Outcome(Result.DEFERRED, fault.stage, fault.words, None, next_hop, "4.4.2")


def classify_refusal(refusal: Refusal, next_hop: str) -> Outcome:
    """The outcome when the plan shows that this hop cannot take the message: failed, and nothing was sent."""
    return Outcome(Result.FAILED, Stage.LOCAL, refusal.words, None, next_hop, refusal.status)


def classify_local(words: str, status: str = "4.3.0") -> Outcome:
    """The outcome when the octets here cannot be sent; by the class of `status` deferred or failed."""
    result = Result.FAILED if status.startswith("5") else Result.DEFERRED
    return Outcome(result, Stage.LOCAL, words, None, "", status)


def discarded_by(route: str) -> Outcome:
    """The outcome of a route that leads nowhere: nothing is left to be done."""
    return Outcome(Result.DELIVERED, Stage.ROUTE, DISCARDED + route, status="2.0.0")


def classify_sink(said: Dispatched, stage: Stage, next_hop: str) -> Outcome:
    """The outcome when a sink refuses an attempt: failed or deferred, as it says.

    What went wrong inside a sink is for us and stands in its ledger entry: a sender may read these words in a report.
    """
    result = Result.FAILED if said.decision is Decision.REJECT else Result.DEFERRED
    if said.code:
        words = f"sink {said.binding} refuses: {said.words}" if said.words else f"sink {said.binding} refuses"
    else:
        words = f"sink {said.binding} could not judge the message"
    status = said.enhanced or ("5.3.0" if result is Result.FAILED else "4.3.0")
    return Outcome(result, stage, words, None, next_hop, _status(result, status))


def _status(result: Result, status: str) -> str:
    """A status whose class agrees with the result: a refusal that we take for temporary says 4."""
    if not status:
        return "4.0.0" if result is Result.DEFERRED else "5.0.0"
    return ("4" if result is Result.DEFERRED else "5") + status[1:]
