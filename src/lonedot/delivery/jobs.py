"""What passes between a pool, its connections and the messages that wait for them: values, and one seam.

Rules: a report says what was heard and nothing of what it means (that is `classify`); a fault says whether the end
of data was written, because from there on nobody knows what came of the message.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from lonedot.delivery.transcript import Line
from lonedot.message.encode import DataEncoder, Sent
from lonedot.protocol.client_plan import Offer, Plan
from lonedot.sinks.events import Event
from lonedot.sinks.hop import Hop
from lonedot.terms.outcome import Stage
from lonedot.terms.reply import Reply

__all__ = ["Fault", "Job", "Sending", "SessionFault", "TransactionReport", "error_words"]


class SessionFault(Exception):
    """A session could not be opened."""

    def __init__(
        self,
        stage: Stage,
        words: str,
        reply: Reply | None = None,
        *,
        status: str = "",
        is_final: bool = False,
    ) -> None:
        super().__init__(words)
        self.stage = stage
        self.words = words
        self.reply = reply
        self.status = status
        """Enhanced status code; empty: by the reply, or by the stage."""
        self.is_final = is_final
        """A sink refuses this next hop for good, or the domain takes no mail. Whatever else goes wrong with a session
        says nothing of a message."""


class Sending(msgspec.Struct, frozen=True):
    """A message ready for one session."""

    plan: Plan
    encoder: DataEncoder
    in_memory: bool
    """Reading it never waits for a disk."""
    before_data: Callable[[tuple[Reply | None, ...]], bool | Awaitable[bool]] | None = None
    """Asked, with the reply to each RCPT, when some were taken and before DATA; False: the content does not go."""


class Fault(msgspec.Struct, frozen=True):
    """A transaction ended without its replies."""

    stage: Stage
    words: str
    end_written: bool
    """The end of data was on its way: whether the message was taken is unknown."""
    cause: BaseException | None = None
    """Why we dropped the connection: our octets could not be read, or are not those that were accepted."""
    is_stale: bool = False
    """The connection had been used before and died before its first reply: the peer had closed it."""


class TransactionReport(msgspec.Struct, frozen=True):
    """What one connection has to say of one transaction."""

    session: str
    next_hop: str
    tls: str
    recipients: tuple[Reply | None, ...]
    stage: Stage
    reply: Reply | None
    sent: Sent | None
    passes_dsn: bool
    lines: list[Line]
    fault: Fault | None = None
    is_withheld: bool = False
    """`Sending.before_data` said no."""
    finals: tuple[Reply | None, ...] = ()
    """LMTP: the reply behind the end of data for each recipient that has one; it decides. Empty in SMTP."""


class Job(Protocol):
    """A message that waits for a connection."""

    retried: bool
    """Owned by the pool: it was already given a second connection."""

    def prepare(
        self, offer: Offer, next_hop: str, hop_at: Callable[[Event], Hop]
    ) -> Sending | Awaitable[Sending | None] | None:
        """What to send in a session with that offer; None: nothing, the job has ended itself.

        `hop_at` gives the session as a sink is shown it.
        """
        ...

    def finished(self, report: TransactionReport) -> None: ...

    def unreachable(self, fault: SessionFault, next_hop: str, lines: list[Line]) -> None:
        """No session could be opened."""
        ...

    def not_tried(self) -> None:
        """The relay stops; nothing was begun."""
        ...


def error_words(error: BaseException) -> str:
    """What the system says of an error, for people."""
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)  # its errno is not one of the system
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
