"""Every event a sink can be bound to: when it fires, what a sink may read there, and what it may say.

One table, `EVENTS`. The documentation prints it, the registry is validated against it, and dispatch asks it what a
verdict may be. The order of the members is the order in which a message meets the events.
"""

from __future__ import annotations

import enum

import msgspec

from lonedot.message.edits import Effect

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
    """Client, HELO, TLS, listener."""
    COMMAND = "command"
    """The command that is being answered."""
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
    old_names: tuple[str, ...]
    """Names in older systems that the registry and `smtpreg` answer to."""


_SPEAK = frozenset({Says.NEXT, Says.STOP, Says.REJECT, Says.DEFER})
_JUDGE = _SPEAK | {Says.HOLD, Says.DISCARD}
_SESSION = frozenset({Reads.SESSION})
_COMMAND = _SESSION | {Reads.COMMAND}
_ENVELOPE = _COMMAND | {Reads.ENVELOPE}
_WHOLE = _SESSION | {Reads.ENVELOPE, Reads.CONTENT}
_ALL = frozenset(Effect)
_NONE: frozenset[Effect] = frozenset()
_P, _T = Kind.PROTOCOL, Kind.TRANSPORT

EVENTS: dict[Event, EventFacts] = {
    Event.CONNECT: EventFacts(
        _P, "a client has connected, before the greeting", _SESSION, _SPEAK, _NONE, ("OnConnect",)
    ),
    Event.HELO: EventFacts(
        _P,
        "EHLO or HELO, before it is answered",
        _COMMAND,
        _SPEAK,
        _NONE,
        ("OnHeloCommand", "OnEhloCommand"),
    ),
    Event.VERB: EventFacts(
        _P,
        "VRFY, EXPN, HELP, NOOP or RSET, before it is answered",
        _COMMAND,
        _SPEAK,
        _NONE,
        ("OnInboundCommand", "OnNoopCommand", "OnHelpCommand", "OnRsetCommand"),
    ),
    Event.MAIL: EventFacts(
        _P, "MAIL FROM, well formed, before it is answered", _ENVELOPE, _SPEAK, _NONE, ("OnMailCommand",)
    ),
    Event.RCPT: EventFacts(
        _P,
        "RCPT TO that the relay itself would take, before it is answered",
        _ENVELOPE,
        _SPEAK,
        _NONE,
        ("OnRcptCommand",),
    ),
    Event.DATA: EventFacts(
        _P, "DATA or the first BDAT, before 354", _ENVELOPE, _SPEAK, _NONE, ("OnDataCommand",)
    ),
    Event.END_OF_DATA: EventFacts(
        _P,
        "the message is in, before anything is promised; edits are committed with the acceptance",
        _WHOLE,
        _JUDGE,
        _ALL,
        ("_EOD", "OnEndOfData", "OnEndOfHeaders"),
    ),
    Event.ARRIVAL: EventFacts(
        _T,
        "the message is about to enter the queue, from SMTP or Pickup, once",
        _WHOLE,
        _JUDGE,
        _ALL,
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
        names = ", ".join(event.value for event in EVENTS)
        raise ValueError(f"there is no event {name!r}; there are: {names}")
    return event
