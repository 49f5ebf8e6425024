"""Every event a sink can be bound to: when it fires, what a sink may read there, and what it may say.

One table, `EVENTS`. The documentation prints it, the registry is validated against it, and dispatch asks it what a
verdict may be. The order of the members is the order in which a message meets the events.
"""

from __future__ import annotations

import enum

import msgspec

from lonedot.message.edits import Effect
from lonedot.sinks.rules import Command

__all__ = ["EVENTS", "Event", "EventFacts", "Kind", "Reads", "Says", "Shows", "event_named"]


class Event(enum.Enum):
    """A point at which code may look and speak."""

    __hash__ = object.__hash__  # looked up for each call of a sink

    CONNECT = "connect"
    HELO = "helo"
    AUTH = "auth"
    VERB = "verb"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    END_OF_DATA = "end-of-data"
    ARRIVAL = "arrival"
    BEFORE_RESOLVE = "before-resolve"
    AFTER_RESOLVE = "after-resolve"
    ROUTE = "route"
    SESSION_START = "session-start"
    MESSAGE_START = "message-start"
    PER_RECIPIENT = "per-recipient"
    BEFORE_DATA = "before-data"
    SESSION_END = "session-end"
    OUTCOME = "outcome"
    DSN = "dsn"


class Kind(enum.Enum):
    PROTOCOL = "protocol"
    """Before 250, in the session: the client hears the answer."""
    TRANSPORT = "transport"
    """The message is whole, and on its way into the queue."""
    DELIVERY = "delivery"
    """A next hop is being tried, or was."""


class Shows(enum.Enum):
    """What a sink is called with."""

    SESSION = "Session"
    MESSAGE = "Message"
    HOP = "Hop"


class Reads(enum.Enum):
    """What a sink is shown."""

    SESSION = "session"
    """Client, name in EHLO, TLS, listener."""
    COMMAND = "command"
    """The command that is being answered: verb and argument."""
    ENVELOPE = "envelope"
    """As far as it is known."""
    CREDENTIALS = "credentials"
    """Name and password of a login."""
    CONTENT = "content"
    """Header section and body."""
    HOP = "hop"
    """Route, host, address, TLS, and what its EHLO offers."""
    OUTCOME = "outcome"
    """What came of an attempt, by recipient."""


class Says(enum.Enum):
    """Verdicts by name."""

    __hash__ = object.__hash__  # looked up for each call of a sink

    NEXT = "next"
    STOP = "stop"
    ACCEPT = "accept"
    REJECT = "reject"
    DEFER = "defer"
    HOLD = "hold"
    DISCARD = "discard"
    REDIRECT = "redirect"


class EventFacts(msgspec.Struct, frozen=True):
    """One row of the table."""

    kind: Kind
    fires: str
    reads: frozenset[Reads]
    says: frozenset[Says]
    effects: frozenset[Effect]
    """What edits may touch."""
    rule: frozenset[Command]
    """What a rule may ask: the rest is not known yet."""
    old_names: tuple[str, ...]
    """Names in older systems that the registry and `smtpreg` answer to."""

    @property
    def shows(self) -> Shows:
        """What a sink is called with. Where that is no `Message`, its edits would have nothing to edit."""
        if Reads.CONTENT in self.reads:
            return Shows.MESSAGE
        return Shows.HOP if self.kind is Kind.DELIVERY else Shows.SESSION

    @property
    def shows_message(self) -> bool:
        """A sink is called with a `Message`."""
        return self.shows is Shows.MESSAGE


_GO_ON = frozenset({Says.NEXT, Says.STOP})
_REFUSE = _GO_ON | {Says.REJECT, Says.DEFER}
_SPEAK = _REFUSE | {Says.ACCEPT}
_JUDGE = _REFUSE | {Says.HOLD, Says.DISCARD}
_ROUTE = _JUDGE | {Says.REDIRECT}
_SESSION = frozenset({Reads.SESSION})
_COMMAND = _SESSION | {Reads.COMMAND}
_ENVELOPE = _COMMAND | {Reads.ENVELOPE}
_WHOLE = _SESSION | {Reads.ENVELOPE, Reads.CONTENT}
_HOP = frozenset({Reads.HOP})
_SENT = _HOP | {Reads.ENVELOPE, Reads.CONTENT}
_ALL = frozenset(Effect)
_NONE: frozenset[Effect] = frozenset()
_OCTETS = _NONE | {Effect.HEADER, Effect.BODY}
_UNNAMED: frozenset[Command] = frozenset()
_NAMED = _UNNAMED | {Command.EHLO}
_FROM = _NAMED | {Command.MAIL_FROM}
_ADDRESSED = _FROM | {Command.RCPT_TO}
_P, _T, _D = Kind.PROTOCOL, Kind.TRANSPORT, Kind.DELIVERY


def _row(
    kind: Kind,
    fires: str,
    reads: frozenset[Reads],
    says: frozenset[Says],
    effects: frozenset[Effect],
    rule: frozenset[Command],
    *old_names: str,
) -> EventFacts:
    return EventFacts(kind, fires, reads, says, effects, rule, old_names)


EVENTS: dict[Event, EventFacts] = {
    Event.CONNECT: _row(
        _P,
        "a client has connected; a refusal takes the place of the greeting, as 554 or 421, and the session ends",
        _SESSION,
        _SPEAK,
        _NONE,
        _UNNAMED,
        "OnConnect",
    ),
    Event.HELO: _row(
        _P,
        "EHLO or HELO, before it is answered",
        _COMMAND,
        _SPEAK,
        _NONE,
        _NAMED,
        "OnHeloCommand",
        "OnEhloCommand",
    ),
    Event.AUTH: _row(
        _P,
        "AUTH has brought a name and a password, before it is answered; who accepts has checked them",
        _COMMAND | {Reads.CREDENTIALS},
        _SPEAK,
        _NONE,
        _NAMED,
        "OnAuthCommand",
        "OnProcessAuthentication",
        "OnEndOfAuthentication",
    ),
    Event.VERB: _row(
        _P,
        "any command that no other event is for, also one that the relay does not know, before it is obeyed",
        _COMMAND,
        _SPEAK,
        _NONE,
        _NAMED | {Command.VERB},
        "OnInboundCommand",
        "OnHelpCommand",
        "OnNoopCommand",
        "OnRsetCommand",
    ),
    Event.MAIL: _row(
        _P,
        "MAIL FROM that the relay itself would take, before it is answered",
        _ENVELOPE,
        _SPEAK,
        _NONE,
        _FROM,
        "OnMailCommand",
    ),
    Event.RCPT: _row(
        _P,
        "RCPT TO that the relay itself would take, before it is answered",
        _ENVELOPE,
        _SPEAK,
        _NONE,
        _ADDRESSED,
        "OnRcptCommand",
    ),
    Event.DATA: _row(
        _P,
        "DATA or the first BDAT of a message, before it is answered",
        _ENVELOPE,
        _REFUSE,
        _NONE,
        _ADDRESSED,
        "OnDataCommand",
    ),
    Event.END_OF_DATA: _row(
        _P,
        "a message came through a session, and nothing is promised yet; edits are committed with the acceptance",
        _WHOLE,
        _JUDGE,
        _ALL,
        _ADDRESSED,
        "_EOD",
        "OnEndOfData",
        "OnEndOfHeaders",
    ),
    Event.ARRIVAL: _row(
        _T,
        "a message enters the queue, from a session or from Pickup, once",
        _WHOLE,
        _ROUTE,
        _ALL,
        _ADDRESSED,
        "OnArrival",
        "OnTransportSubmission",
        "OnSubmission",
        "OnSubmittedMessage",
    ),
    Event.BEFORE_RESOLVE: _row(
        _T,
        "recipients are about to be resolved: they are as they were addressed",
        _WHOLE,
        _ROUTE,
        _ALL,
        _ADDRESSED,
        "OnPreCategorize",
        "OnCategorize",
    ),
    Event.AFTER_RESOLVE: _row(
        _T,
        "recipients are resolved: they are those that mail is sent to",
        _WHOLE,
        _ROUTE,
        _ALL,
        _ADDRESSED,
        "OnPostCategorize",
        "OnResolvedMessage",
    ),
    Event.ROUTE: _row(
        _T,
        "the routes of its recipients are about to be chosen; the last word before the queue",
        _WHOLE,
        _ROUTE,
        _ALL,
        _ADDRESSED,
        "OnTransportRouter",
        "OnGetMessageRouter",
        "OnRoutedMessage",
        "OnCategorizedMessage",
    ),
    Event.SESSION_START: _row(
        _D,
        "a connection to a next hop stands, and EHLO is about to be sent; a refusal is an attempt that failed there",
        _HOP,
        _REFUSE,
        _NONE,
        _UNNAMED,
        "OnSessionStart",
        "OnOpenConnection",
    ),
    Event.MESSAGE_START: _row(
        _D,
        "MAIL FROM is about to be sent; edits are of the copy that goes to this next hop in this attempt",
        _SENT,
        _REFUSE | {Says.HOLD},
        _OCTETS,
        _ADDRESSED,
        "OnMessageStart",
        "OnDeliverMailItem",
    ),
    Event.PER_RECIPIENT: _row(
        _D,
        "a RCPT TO is about to be sent; a refusal is that of this recipient",
        _SENT,
        _REFUSE,
        _NONE,
        _ADDRESSED,
        "OnPerRecipient",
    ),
    Event.BEFORE_DATA: _row(
        _D,
        "the next hop has answered every RCPT TO, and DATA is about to be sent",
        _SENT | {Reads.OUTCOME},
        _REFUSE,
        _NONE,
        _ADDRESSED,
        "OnBeforeData",
    ),
    Event.SESSION_END: _row(
        _D,
        "QUIT is about to be sent to a next hop",
        _HOP,
        _GO_ON,
        _NONE,
        _UNNAMED,
        "OnSessionEnd",
        "OnCloseConnection",
    ),
    Event.OUTCOME: _row(
        _D,
        "an attempt is over, and what came of it is about to be recorded; after a crash in between it fires again",
        _SENT | {Reads.OUTCOME},
        _GO_ON | {Says.HOLD},
        _NONE,
        _ADDRESSED,
        "MsgTrackLog",
    ),
    Event.DSN: _row(
        _D,
        "a delivery report was made, and is about to be stored with the outcome that causes it",
        frozenset({Reads.ENVELOPE, Reads.CONTENT, Reads.OUTCOME}),
        _GO_ON | {Says.HOLD, Says.DISCARD, Says.REDIRECT},
        _OCTETS,
        _ADDRESSED,
    ),
}

_BY_NAME = {
    name.lower(): event for event, facts in EVENTS.items() for name in (event.value, *facts.old_names)
}


def event_named(name: str) -> Event:
    """The event of that name, ours or an old one; case does not matter.

    Raises:
        ValueError: there is none; the words say which there are.
    """
    event = _BY_NAME.get(name.strip().lower())
    if event is None:
        names = ", ".join(known.value for known in EVENTS)
        raise ValueError(f"there is no event {name!r}; there are: {names}")
    return event
