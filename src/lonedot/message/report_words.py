"""What a delivery report says to a person: subject, first paragraph, and a paragraph for each recipient.

Rules: the first paragraph is understood by somebody who has never heard of SMTP; it says what happened, to whom,
whose fault it is and what to do next. The remote's own words are quoted as they were sent, apart from octets that
cannot be shown. Nothing here decides anything; the facts come from the outcome.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from textwrap import TextWrapper

import msgspec

from lonedot.terms.envelope import Recipient
from lonedot.terms.outcome import Outcome, Stage
from lonedot.terms.reply import Reply

__all__ = [
    "ReportKind",
    "ReportedRecipient",
    "date_text",
    "plain_text",
    "reply_text",
    "status_of",
    "subject_of",
]

WIDTH = 76
RECIPIENTS_SPELT_OUT = 100
"""More recipients than this are counted in the text; the delivery-status part still names every one."""


class ReportKind(enum.Enum):
    FAILURE = "failed"
    DELAY = "delayed"
    SUCCESS = "delivered"
    RELAYED = "relayed"
    """Handed to a host that does not promise reports (RFC 3461 §5.2.2)."""


class ReportedRecipient(msgspec.Struct, frozen=True):
    """One recipient of the original message and what came of it."""

    recipient: Recipient
    outcome: Outcome | None = None
    """None: never tried."""
    last_attempt_at: float = 0.0
    """Seconds since 1970; 0 when never tried."""
    retry_until: float = 0.0
    """For a delay: when the relay will give up."""
    attempts: int = 0
    is_expired: bool = False
    """It failed because the time ran out, not because somebody refused it."""


def date_text(at: float) -> str:
    """The date of RFC 5322 §3.3, in UTC. `at` is seconds since 1970."""
    return format_datetime(datetime.fromtimestamp(at, UTC))


def subject_of(kind: ReportKind) -> str:
    match kind:
        case ReportKind.FAILURE:
            return "Your message could not be delivered"
        case ReportKind.DELAY:
            return "Your message is delayed"
        case ReportKind.SUCCESS:
            return "Your message was delivered"
        case ReportKind.RELAYED:
            return "Your message was passed on"


def status_of(kind: ReportKind, reported: ReportedRecipient) -> str:
    """The enhanced status code of the Status field (RFC 3464 §2.3.4); its class agrees with the action."""
    given = reported.outcome.status if reported.outcome else ""
    if not given and reported.outcome and reported.outcome.reply:
        given = reported.outcome.reply.enhanced
    numbers = given.split(".")
    sound = (
        len(numbers) == 3
        and numbers[0] in {"2", "4", "5"}
        and all(n.isascii() and n.isdigit() and len(n) <= 3 for n in numbers)
    )
    match kind:
        case ReportKind.FAILURE:
            if sound and numbers[0] != "2":
                return given
            return "4.4.7" if reported.is_expired else "5.0.0"
        case ReportKind.DELAY:
            return given if sound and numbers[0] == "4" else "4.0.0"
        case ReportKind.SUCCESS | ReportKind.RELAYED:
            return given if sound and numbers[0] == "2" else "2.0.0"


def reply_text(reply: Reply) -> str:
    """A reply as the peer sent it, one line for each of its lines; what cannot be shown is escaped."""
    last = len(reply.lines) - 1
    lines = []
    for number, octets in enumerate(reply.lines):
        shown = _shown(octets.decode("utf-8", "backslashreplace"))
        lines.append(f"{reply.code}{' ' if number == last else '-'}{shown}")
    return "\n".join(lines)


def plain_text(kind: ReportKind, hostname: str, reported: Sequence[ReportedRecipient], closing: str) -> str:
    """The text part, lines ended by LF. `closing` says what of the original is attached."""
    spelt = reported[:RECIPIENTS_SPELT_OUT]
    blocks = [_fill(_opening(kind, hostname, reported))]
    blocks += [_recipient_block(kind, one, len(reported) == 1) for one in spelt]
    if len(spelt) < len(reported):
        blocks.append(f"... and {len(reported) - len(spelt)} more recipients, listed in the attached report.")
    blocks.append(_fill(closing))
    return "\n\n".join(blocks) + "\n"


def _opening(kind: ReportKind, hostname: str, reported: Sequence[ReportedRecipient]) -> str:
    number = len(reported)
    whom = (
        shown_address(reported[0].recipient)
        if number == 1
        else f"{number} recipients, which are listed below,"
    )
    lead = f"This is the mail relay {hostname}."
    match kind:
        case ReportKind.FAILURE:
            what = f"Your message to {whom} was not delivered, and no further attempt will be made."
            return " ".join([lead, what, *_cause_and_advice(reported)])
        case ReportKind.DELAY:
            until = max(one.retry_until for one in reported)
            what = f"Your message to {whom} has not been delivered yet."
            promise = "The relay goes on trying; you need not send it again."
            limit = f"It gives up on {date_text(until)}, and will tell you if it does." if until else ""
            return " ".join([lead, what, *_cause_and_advice(reported)[:1], promise, limit]).rstrip()
        case ReportKind.SUCCESS:
            return f"{lead} You asked to be told: your message to {whom} has been delivered."
        case ReportKind.RELAYED:
            return (
                f"{lead} You asked to be told: your message to {whom} has been handed to the next mail server. "
                "That server does not send reports of delivery, so you may hear no more unless it fails."
            )


def _cause_and_advice(reported: Sequence[ReportedRecipient]) -> list[str]:
    causes = {_cause(one): one for one in reported}
    if len(causes) > 1:
        return [
            "The causes differ and stand beside each recipient below.",
            "What to do next stands there too.",
        ]
    cause, one = next(iter(causes.items()))
    return [cause, _advice(one)]


def _cause(one: ReportedRecipient) -> str:
    """Whose fault it is, in a sentence."""
    outcome = one.outcome
    if outcome is None:
        return "It was never tried, because this relay found no time or no way to do so."
    host = _shown(outcome.next_hop.partition("[")[0]) or "the next mail server"
    if outcome.stage is Stage.LOCAL:
        return "The cause lies on this relay, not with you and not with the recipient."
    if outcome.stage is Stage.ROUTE:
        return "This relay knows no way to that address."
    reply = outcome.reply
    if reply is None:
        if outcome.stage is Stage.CONNECT:
            return f"The mail server {host} could not be reached."
        return f"The connection to the mail server {host} broke before it had answered."
    if reply.is_permanent:
        if outcome.stage is Stage.RCPT:
            return f"The mail server {host} refused this recipient."
        if outcome.stage in {Stage.AUTH, Stage.STARTTLS}:
            return f"The mail server {host} did not let this relay in; that is between the two servers."
        return f"The mail server {host} refused the message."
    if reply.is_transient:
        return f"The mail server {host} did not take the message for the time being."
    return f"The mail server {host} gave an answer that this relay could not act on."


_ADVICE = {
    "1.1": "Check the address for mistakes; there is no such mailbox there.",
    "1.2": "Check the part of the address behind the @; no mail is received there.",
    "1.3": "Check the address for mistakes; it is not well formed.",
    "1.10": "Check the part of the address behind the @; it accepts no mail.",
    "2.1": "The mailbox is closed; ask the recipient by another way for an address in use.",
    "2.2": "The mailbox is full; tell the recipient by another way, and send the message again later.",
    "2.3": "The message is larger than the recipient may receive; send less, or send it in parts.",
    "3.4": "The message is larger than that server accepts; send less, or send it in parts.",
    "6.3": "The message needs an encoding that the other server does not take; send it as plain text or as a file.",
    "6.7": "An address holds signs that the other server does not take; use another address of that recipient.",
    "7.1": "The other side does not accept mail from you; ask its administrator, and show the words below.",
}


def _advice(one: ReportedRecipient) -> str:
    """What the sender can do about a failure."""
    status = status_of(ReportKind.FAILURE, one).partition(".")[2]
    if status in _ADVICE:
        return _ADVICE[status]
    if status.startswith("7."):
        return "This is a rule of the other side; its administrator can explain it, given the words below."
    if one.is_expired or (one.outcome and (one.outcome.reply is None or one.outcome.reply.is_transient)):
        return "Send it again later; if it fails again, show this report to your administrator."
    return "If the words below do not explain it, show this report to your administrator."


def shown_address(recipient: Recipient) -> str:
    """An address for people; signs that are not printable are escaped."""
    return f"<{_shown(recipient.address.text)}>"


def _shown(text: str) -> str:
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def _fill(text: str, indent: str = "") -> str:
    """Lines of at most 76 signs, broken at white space only, so that addresses stay whole."""
    wrapper = TextWrapper(
        WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.fill(text)


def _recipient_block(kind: ReportKind, one: ReportedRecipient, is_only: bool) -> str:
    """What concerns one recipient. Of the only one the opening has said the cause and what to do."""
    lines = [shown_address(one.recipient)]
    outcome = one.outcome
    if kind in {ReportKind.FAILURE, ReportKind.DELAY}:
        words = [] if is_only else [_cause(one)]
        if one.is_expired:
            words.append(f"The time for trying ended after {one.attempts} attempts.")
        if outcome and outcome.reason:
            words.append(f"({_shown(outcome.reason)})")
        if kind is ReportKind.FAILURE and not is_only:
            words.append(_advice(one))
        if words:
            lines.append(_fill(" ".join(words), "  "))
    if outcome and outcome.reply:
        host = _shown(outcome.next_hop) or "the next mail server"
        lines.append(f"  {host} said:")
        lines += [f"    {line}" for line in reply_text(outcome.reply).split("\n")]
    return "\n".join(lines)
