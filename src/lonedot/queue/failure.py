"""What kind of failure put a recipient off: one table, from what was heard to how soon to try again.

Rule: an outcome says all that is needed, so that whoever makes outcomes knows nothing of classes. The first row that
fits is taken. What no row fits is `OTHER` and waits as the route says.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from lonedot.terms.outcome import Outcome, Stage

__all__ = ["WAITS", "Failure", "failure_of"]


class Failure(enum.Enum):
    """Why a recipient was put off."""

    UNREACHABLE = "unreachable"
    """No session: it says nothing of the message, and everything of the next hop."""
    LOST = "lost"
    """The session ended in the middle, by the next hop's word (421) or without one."""
    RATE_LIMITED = "rate limited"
    GREYLISTED = "greylisted"
    MAILBOX_FULL = "mailbox full"
    CROWDED = "crowded"
    """Too many recipients in one transaction."""
    CONTENT = "content"
    """Refused for now when the content was known."""
    LOCAL = "local"
    """On our side."""
    OTHER = "other"


class _Row(msgspec.Struct, frozen=True):
    """What is empty fits anything."""

    failure: Failure
    stages: frozenset[Stage] = frozenset()
    codes: frozenset[int] = frozenset()
    """0: no reply."""
    statuses: frozenset[str] = frozenset()
    """Behind the class: `7.1` stands for 4.7.1."""
    words: tuple[str, ...] = ()
    """One of these stands in the reply, in small letters."""


_SESSION = frozenset({Stage.ROUTE, Stage.CONNECT, Stage.GREETING, Stage.EHLO, Stage.STARTTLS, Stage.AUTH})
_BEFORE_DATA = frozenset({Stage.MAIL, Stage.RCPT})
_CONTENT = frozenset({Stage.DATA, Stage.CONTENT})
_TRANSACTION = _BEFORE_DATA | _CONTENT

_ROWS = (
    _Row(Failure.UNREACHABLE, _SESSION),
    _Row(Failure.LOCAL, frozenset({Stage.LOCAL})),
    _Row(Failure.LOST, codes=frozenset({421})),
    _Row(Failure.LOST, _TRANSACTION, frozenset({0}), frozenset({"4.2"})),
    _Row(Failure.CROWDED, statuses=frozenset({"5.3"})),
    _Row(Failure.MAILBOX_FULL, statuses=frozenset({"2.2"})),
    _Row(Failure.GREYLISTED, _BEFORE_DATA, words=("greylist", "graylist", "grey list", "gray list")),
    _Row(Failure.RATE_LIMITED, statuses=frozenset({"7.28"})),
    _Row(
        Failure.RATE_LIMITED,
        statuses=frozenset({"7.0", "7.1", "4.5", "3.2"}),
        words=("rate", "too many", "too much", "limit", "throttl", "quota"),
    ),
    _Row(Failure.GREYLISTED, frozenset({Stage.RCPT}), statuses=frozenset({"7.0", "7.1"})),
    _Row(Failure.CONTENT, _CONTENT),
)

WAITS: Mapping[Failure, tuple[float, ...]] = {
    # RFC 6647 §5: most servers that greylist take the second try after five minutes.
    Failure.GREYLISTED: (5, 5, 10, 30, 60, 240),
    Failure.RATE_LIMITED: (10, 20, 30, 60, 120, 240),
    Failure.MAILBOX_FULL: (30, 60, 120, 240),
    Failure.CONTENT: (5, 15, 30, 60, 240),
    Failure.CROWDED: (1, 1, 5, 15, 30, 60, 240),
}
"""Minutes by class; a class that is not here waits as the route says."""


def failure_of(outcome: Outcome) -> Failure:
    """The class of an outcome that puts a recipient off."""
    reply = outcome.reply
    code = 0 if reply is None else reply.code
    status = outcome.status.partition(".")[2]
    text = ""
    for row in _ROWS:
        if (
            (row.stages and outcome.stage not in row.stages)
            or (row.codes and code not in row.codes)
            or (row.statuses and status not in row.statuses)
        ):
            continue
        if row.words:
            if reply is None:
                continue
            text = text or reply.text.lower()
            if not any(word in text for word in row.words):
                continue
        return row.failure
    return Failure.OTHER
