"""What sinks are shown of a rehearsal: a session with a client and an attempt at a next hop that never were.

Rule: an event shows what the table of events says, so that a sink that asks for more fails here as it would there.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from lonedot.message.content import Content
from lonedot.message.intake import content_from
from lonedot.message.report import Original, ReportedRecipient, ReportKind, build_report
from lonedot.sinks.events import EVENTS, Event, Reads, Shows
from lonedot.sinks.hop import Departure, Hop
from lonedot.sinks.protocol import Command, Credentials, Moment
from lonedot.spool.interface import Facts
from lonedot.terms.address import NULL_REVERSE_PATH
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import SessionId
from lonedot.terms.outcome import Outcome, Result, Stage
from lonedot.terms.reply import Reply

__all__ = ["ID", "Scene"]

ID = "0000000000000"
_CLIENT = "127.0.0.1"
_HOST = "mx.example.org"
_ADDRESS = "192.0.2.25"
_NEXT_HOP = f"{_HOST}[{_ADDRESS}]:25"
_AT = 1_775_000_000.0
"""When it is played: always the same, so that what comes of it can be compared."""


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """Who speaks in the rehearsal, and what is said."""

    envelope: Envelope
    helo: str
    verb: str = "NOOP"
    """The command that `verb` is asked about."""
    argument: str = ""
    login: str = "nobody"
    password: str = ""
    revision: str = ""
    server: int = 1

    @property
    def facts(self) -> Facts:
        return Facts(
            "smtp",
            SessionId(ID),
            client=_CLIENT,
            helo=self.helo,
            protocol="ESMTP",
            trusted=True,
            revision=self.revision,
            server=self.server,
        )

    def moments(self, event: Event) -> Iterator[Moment]:
        """The session at that event: at `rcpt` once for each recipient, at any other event once."""
        envelope = self.envelope
        sender = envelope.reverse_path.text
        match event:
            case Event.HELO:
                command = "EHLO", self.helo
            case Event.AUTH:
                command = "AUTH", "PLAIN"
            case Event.VERB:
                command = self.verb, self.argument
            case Event.MAIL:
                command = "MAIL", f"FROM:<{sender}>"
            case _:
                command = "DATA", ""
        bare = msgspec.structs.replace(envelope, recipients=())
        if event is not Event.RCPT:
            yield self._moment(event, command, envelope if event is Event.DATA else bare)
            return
        for number, recipient in enumerate(envelope.recipients):
            before = msgspec.structs.replace(envelope, recipients=envelope.recipients[:number])
            yield self._moment(event, ("RCPT", f"TO:<{recipient.address.text}>"), before, recipient)

    def _moment(
        self, event: Event, command: tuple[str, str], envelope: Envelope, recipient: Recipient | None = None
    ) -> Moment:
        reads = EVENTS[event].reads
        verb, argument = command
        credentials = Credentials("PLAIN", self.login.encode(), self.password.encode())
        return Moment(
            event=event,
            id=ID,
            client=_CLIENT,
            listener="rehearsal",
            trusted=True,
            helo="" if event is Event.CONNECT else self.helo,
            command=Command(verb.upper().encode(), argument.encode()) if Reads.COMMAND in reads else None,
            envelope=envelope if Reads.ENVELOPE in reads else None,
            recipient=recipient,
            credentials=credentials if Reads.CREDENTIALS in reads else None,
        )

    def hop(self, event: Event) -> Hop:
        """A session with a next hop that offers the usual and takes all."""
        return Hop(
            event=event,
            id=ID,
            route="rehearsal",
            next_hop=_NEXT_HOP,
            host=_HOST,
            address=_ADDRESS,
            port=25,
            offered=() if event is Event.SESSION_START else ("PIPELINING", "8BITMIME"),
        )

    def departures(self, event: Event) -> Iterator[Departure]:
        """What a message shows of the attempt: at `per-recipient` once for each recipient, at any other event once."""
        facts = EVENTS[event]
        assert facts.shows is Shows.MESSAGE
        people = self.envelope.recipients
        is_report = event is Event.DSN
        outcome = _FAILED if is_report else _DELIVERED
        taken = Reply(250, "2.1.5", (b"2.1.5 Ok",))
        replies = tuple((person, taken) for person in people) if event is Event.BEFORE_DATA else None
        for recipient in people if event is Event.PER_RECIPIENT else (None,):
            yield Departure(
                event=event,
                hop=None if is_report else self.hop(event),
                recipient=recipient,
                replies=replies,
                outcomes=tuple((person, outcome) for person in people)
                if event in (Event.OUTCOME, Event.DSN)
                else None,
                report=ReportKind.FAILURE if is_report else None,
            )

    def report(self, content: Content) -> tuple[Content, Envelope]:
        """The report that the message could not be delivered, and its envelope."""
        sender = self.envelope.reverse_path
        reported = tuple(
            ReportedRecipient(
                recipient=person, outcome=_FAILED, last_attempt_at=_AT, retry_until=_AT, attempts=1
            )
            for person in self.envelope.recipients
        )
        octets = build_report(
            ReportKind.FAILURE,
            reported,
            Original(sender, content, _AT),
            hostname="relay.example.com",
            message_id=f"dsn.{ID}",
            now=_AT,
        )
        return content_from(octets), Envelope(NULL_REVERSE_PATH, (Recipient(sender),))


_DELIVERED = Outcome(
    Result.DELIVERED, Stage.CONTENT, "delivered", Reply(250, "2.0.0", (b"2.0.0 Ok",)), _NEXT_HOP, "2.0.0"
)
_FAILED = Outcome(
    Result.FAILED,
    Stage.CONTENT,
    "the next hop refused it",
    Reply(550, "5.1.1", (b"5.1.1 No such user",)),
    _NEXT_HOP,
    "5.1.1",
)
