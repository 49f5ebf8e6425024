"""Every event a sink can be bound to: when it fires, what a sink may read there, and what it may say.

One table, `EVENTS`. The documentation prints it, the registry is validated against it, and dispatch asks it what a
verdict may be. The order of the members is the order in which a message meets the events.
"""

from __future__ import annotations

import enum

import msgspec

from lonedot.message.edits import Effect
from lonedot.sinks.rules import Command

__all__ = ["EVENTS", "Event", "EventFacts", "Kind", "Reads", "Says", "event_named"]


class Event(enum.Enum):
    """A point at which code may look and speak."""

    CONNECT = "connect"
    HELO = "helo"
    VERB = "verb"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    END_OF_DATA = "end-of-data"
    ARRIVAL = "arrival"


class Kind(enum.Enum):
    PROTOCOL = "protocol"
    """Before 250, in the session: the client hears the answer."""
    TRANSPORT = "transport"
    """The message is whole."""


class Reads(enum.Enum):
    """What a sink is shown."""

    SESSION = "session"
    """Client, name in EHLO, TLS, listener."""
    COMMAND = "command"
    """The command that is being answered: verb and argument."""
    ENVELOPE = "envelope"
    """As far as it is known."""
    CONTENT = "content"
    """Header section and body."""


class Says(enum.Enum):
    """Verdicts by name."""

    NEXT = "next"
    STOP = "stop"
    REJECT = "reject"
    DEFER = "defer"
    HOLD = "hold"
    DISCARD = "discard"


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
    def shows_message(self) -> bool:
        """A sink is called with a `Message`; else with a `Session`, and its edits would have nothing to edit."""
        return Reads.CONTENT in self.reads


_SPEAK = frozenset({Says.NEXT, Says.STOP, Says.REJECT, Says.DEFER})
_JUDGE = _SPEAK | {Says.HOLD, Says.DISCARD}
_SESSION = frozenset({Reads.SESSION})
_COMMAND = _SESSION | {Reads.COMMAND}
_ENVELOPE = _COMMAND | {Reads.ENVELOPE}
_WHOLE = _SESSION | {Reads.ENVELOPE, Reads.CONTENT}
_ALL = frozenset(Effect)
_NONE: frozenset[Effect] = frozenset()
_UNNAMED: frozenset[Command] = frozenset()
_NAMED = _UNNAMED | {Command.EHLO}
_SENT = _NAMED | {Command.MAIL_FROM}
_ADDRESSED = frozenset(Command)
_P, _T = Kind.PROTOCOL, Kind.TRANSPORT

EVENTS: dict[Event, EventFacts] = {
    Event.CONNECT: EventFacts(
        _P,
        "a client has connected; a refusal takes the place of the greeting, as 554 or 421, and the session ends",
        _SESSION,
        _SPEAK,
        _NONE,
        _UNNAMED,
        ("OnConnect",),
    ),
    Event.HELO: EventFacts(
        _P,
        "EHLO or HELO, which is answered; a refusal is the reply to each MAIL until the client greets again",
        _COMMAND,
        _SPEAK,
        _NONE,
        _NAMED,
        ("OnHeloCommand", "OnEhloCommand"),
    ),
    Event.VERB: EventFacts(
        _P,
        "VRFY or EXPN, before it is answered",
        _COMMAND,
        _SPEAK,
        _NONE,
        _NAMED,
        ("OnInboundCommand",),
    ),
    Event.MAIL: EventFacts(
        _P,
        "MAIL FROM that the relay itself would take, before it is answered",
        _ENVELOPE,
        _SPEAK,
        _NONE,
        _SENT,
        ("OnMailCommand",),
    ),
    Event.RCPT: EventFacts(
        _P,
        "RCPT TO that the relay itself would take, before it is answered",
        _ENVELOPE,
        _SPEAK,
        _NONE,
        _ADDRESSED,
        ("OnRcptCommand",),
    ),
    Event.DATA: EventFacts(
        _P,
        "DATA or the first BDAT of a message, before it is answered",
        _ENVELOPE,
        _SPEAK,
        _NONE,
        _ADDRESSED,
        ("OnDataCommand",),
    ),
    Event.END_OF_DATA: EventFacts(
        _P,
        "a message came through a session, and nothing is promised yet; edits are committed with the acceptance",
        _WHOLE,
        _JUDGE,
        _ALL,
        _ADDRESSED,
        ("_EOD", "OnEndOfData", "OnEndOfHeaders"),
    ),
    Event.ARRIVAL: EventFacts(
        _T,
        "a message is about to enter the queue, from a session or from Pickup, once",
        _WHOLE,
        _JUDGE,
        _ALL,
        _ADDRESSED,
        ("OnArrival", "OnTransportSubmission", "OnSubmission", "OnSubmittedMessage"),
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
