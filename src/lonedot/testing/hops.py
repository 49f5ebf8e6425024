"""Next hops, replies and outcomes as sinks of delivery events are shown them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lonedot.message.report import ReportKind
from lonedot.sinks.bindings import Setting
from lonedot.sinks.events import EVENTS, Event, Kind, Shows, event_named
from lonedot.sinks.hop import Departure, Hop
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.outcome import Outcome, Result, Stage
from lonedot.terms.reply import Reply

__all__ = ["make_hop", "make_outcomes", "usual_departure"]

_ID = "0000000000000"


def make_hop(
    event: Event | str = Event.SESSION_START,
    *,
    host: str = "mx.example.org",
    address: str = "192.0.2.25",
    port: int = 25,
    route: str = "route 1",
    destination: str = "example.org",
    tls: str = "",
    offered: Sequence[str] = ("PIPELINING", "8BITMIME"),
    settings: Mapping[str, Setting] | None = None,
) -> Hop:
    """A session with a next hop as a sink is shown it at that event. `offered`: not yet known at `session-start`.

    Raises:
        ValueError: no such event, or one that shows no next hop.
    """
    chosen = event if isinstance(event, Event) else event_named(event)
    if EVENTS[chosen].kind is not Kind.DELIVERY or chosen is Event.DSN:
        raise ValueError(f"event {chosen.value!r} shows no next hop")
    return Hop(
        event=chosen,
        id=_ID,
        route=route,
        destination=destination,
        next_hop=f"{host}[{address}]:{port}",
        host=host,
        address=address,
        port=port,
        tls=tls,
        offered=() if chosen is Event.SESSION_START else tuple(offered),
        settings=dict(settings or {}),
    )


def make_outcomes(
    recipients: str | Sequence[str] = "recipient@example.org",
    result: Result | str = Result.DELIVERED,
    words: str = "",
    code: int = 0,
) -> tuple[tuple[Recipient, Outcome], ...]:
    """The same outcome for each recipient: `delivered`, `deferred` or `failed`, by the next hop's reply.

    Raises:
        ValueError: no such result.
    """
    each = (recipients,) if isinstance(recipients, str) else recipients
    chosen = Result(result)
    known, enhanced, text, reason = _USUAL[chosen]
    reply = Reply(code or known, enhanced, ((words or f"{enhanced} {text}").encode(),))
    outcome = Outcome(chosen, Stage.CONTENT, reason, reply, "mx.example.org[192.0.2.25]:25", enhanced)
    return tuple((Recipient(Address(address.encode())), outcome) for address in each)


_USUAL = {
    Result.DELIVERED: (250, "2.0.0", "Ok", "delivered"),
    Result.DEFERRED: (451, "4.7.1", "Try again later", "the next hop said: later"),
    Result.FAILED: (550, "5.1.1", "No such user", "the next hop refused it"),
}


def usual_departure(
    event: Event,
    envelope: Envelope,
    hop: Hop | None = None,
    recipient: str = "",
    outcomes: Sequence[tuple[Recipient, Outcome]] | None = None,
) -> Departure | None:
    """What that event shows of an attempt at which nothing is out of the usual; None before delivery."""
    facts = EVENTS[event]
    if facts.kind is not Kind.DELIVERY or facts.shows is not Shows.MESSAGE:
        return None
    people = envelope.recipients
    is_report = event is Event.DSN
    if outcomes is None:
        usual = Result.FAILED if is_report else Result.DELIVERED
        outcomes = make_outcomes([person.address.text for person in people], usual)
    one = Recipient(Address(recipient.encode())) if recipient else next(iter(people), None)
    taken = Reply(250, "2.1.5", (b"2.1.5 Ok",))
    return Departure(
        event=event,
        hop=None if is_report else hop or make_hop(event),
        recipient=one if event is Event.PER_RECIPIENT else None,
        replies=tuple((person, taken) for person in people) if event is Event.BEFORE_DATA else None,
        outcomes=tuple(outcomes) if event in (Event.OUTCOME, Event.DSN) else None,
        report=ReportKind.FAILURE if is_report else None,
    )
