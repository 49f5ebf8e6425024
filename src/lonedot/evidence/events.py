"""The event log: what broke, who did it, what was done. One line each, in files by day.

The table of kinds is the whole vocabulary: a number that never changes its meaning, the usual cause, and what a
person can do. `lonedot status` prints it.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from lonedot.evidence.days import DayFiles
from lonedot.observability.levels import LogLevel
from lonedot.observability.log import event
from lonedot.terms.clock import Clock

__all__ = ["Event", "EventKind", "EventLog", "KindFacts"]

Scalar = str | int | float | bool | None


class KindFacts(msgspec.Struct, frozen=True):
    """What is known of a kind of event."""

    number: int
    level: LogLevel
    cause: str
    action: str
    """What a person can do; `{id}` is the message's."""


class EventKind(enum.Enum):
    """What can happen. The value is the name in files and commands."""

    SINK_FAILED = "sink-failed"
    SINK_DAMAGED = "sink-damaged"
    SINK_REPAIRED = "sink-repaired"
    SINK_OVERSTEPPED = "sink-overstepped"
    SINK_REFUSED = "sink-refused"
    SINK_STALLED = "sink-stalled"
    BINDING_SWITCHED_OFF = "binding-switched-off"
    BINDING_HOLDS = "binding-holds"
    SIGNATURE_BROKEN = "signature-broken"
    MESSAGE_REPAIRED_AT_DOOR = "message-repaired-at-door"
    MESSAGE_HELD = "message-held"
    STORED_ALTERED = "stored-altered"
    RECORD_DAMAGED = "record-damaged"
    POISON = "poison"
    MESSAGE_EXPIRED = "message-expired"
    BOUNCED_TO_BADMAIL = "bounced-to-badmail"
    LOOP_FOUND = "loop-found"
    NEXT_HOP_REFUSED = "next-hop-refused"
    NEXT_HOP_UNREACHABLE = "next-hop-unreachable"
    LOGIN_REFUSED = "login-refused"
    TLS_REFUSED = "tls-refused"
    DUPLICATE_POSSIBLE = "duplicate-possible"
    DISK_FULL = "disk-full"
    SPOOL_FAULT = "spool-fault"
    PICKUP_REFUSED = "pickup-refused"
    ONE_CLIENT = "one-client"
    POP3_FAILED = "pop3-failed"
    POP3_REFUSED = "pop3-refused"
    STARTED = "started"
    STOPPED = "stopped"

    @property
    def facts(self) -> KindFacts:
        return _FACTS[self]


def _facts(number: int, level: LogLevel, cause: str, action: str) -> KindFacts:
    return KindFacts(number, level, cause, action)


_WARNING, _ERROR, _INFO = LogLevel.WARNING, LogLevel.ERROR, LogLevel.INFO

_FACTS: dict[EventKind, KindFacts] = {
    EventKind.SINK_FAILED: _facts(
        101,
        _WARNING,
        "A sink raised, returned nonsense or took too long.",
        "See the exception: lonedot why {id}",
    ),
    EventKind.SINK_DAMAGED: _facts(
        102,
        _WARNING,
        "A sink handed back octets that cannot be sent, or that no longer mean what they meant; its change was undone.",
        "Mend the sink; what it did to which octet: lonedot why {id}",
    ),
    EventKind.SINK_REPAIRED: _facts(
        103,
        _WARNING,
        "A sink damaged a message, and its binding asks for repair.",
        "Mend the sink: lonedot why {id}",
    ),
    EventKind.SINK_OVERSTEPPED: _facts(
        104,
        _WARNING,
        "A sink changed what it had not declared; that part of its change was not taken.",
        "Declare the effect, or mend the sink: lonedot why {id}",
    ),
    EventKind.SINK_REFUSED: _facts(
        105, _INFO, "A sink refused a message.", "Nothing, if it is meant to: lonedot why {id}"
    ),
    EventKind.SINK_STALLED: _facts(
        107,
        _ERROR,
        "A sink that runs in the relay did not return by its deadline, or ended the relay, which was started again.",
        'Mend the sink, or give its binding isolation = "process"; until then disable it',
    ),
    EventKind.BINDING_SWITCHED_OFF: _facts(
        108,
        _ERROR,
        "A cosmetic binding reached its maximum of faults and is not called any more; mail goes out without its work.",
        "Mend the sink, then: lonedot sinks enable NAME",
    ),
    EventKind.BINDING_HOLDS: _facts(
        109,
        _ERROR,
        "A protective binding reached its maximum of faults; messages that it fails on are held from now on.",
        "Mend the sink, then: lonedot sinks enable NAME; and look at what is held: lonedot queue list --state held",
    ),
    EventKind.SIGNATURE_BROKEN: _facts(
        110,
        _ERROR,
        "A binding changed what one before it had signed with DKIM; the next hop will find the signature broken.",
        "Have it run before the signing one, or not at all; what it did: lonedot why {id}",
    ),
    EventKind.MESSAGE_REPAIRED_AT_DOOR: _facts(
        201,
        _INFO,
        "A client that we trust sent bare CR or LF, lines that are too long, or no header section.",
        "Mend the device, if you can; its messages go out repaired: lonedot why {id}",
    ),
    EventKind.MESSAGE_HELD: _facts(
        202,
        _WARNING,
        "A message was held.",
        "Look, then release or delete it: lonedot why {id}; lonedot queue release {id}",
    ),
    EventKind.STORED_ALTERED: _facts(
        203,
        _ERROR,
        "The stored octets are not those that were stored: a hand or the disk changed them. The message is held.",
        "Check the disk and who writes in the spool; then: lonedot queue show {id}",
    ),
    EventKind.RECORD_DAMAGED: _facts(
        204,
        _ERROR,
        "A stored record cannot be read; it is set aside.",
        "Check the disk: lonedot queue list --state damaged",
    ),
    EventKind.POISON: _facts(
        205,
        _ERROR,
        "The relay died three times while it worked on this message; it is held.",
        "Report it with its octets: lonedot queue export {id} --to FOLDER",
    ),
    EventKind.MESSAGE_EXPIRED: _facts(
        206,
        _WARNING,
        "A message could not be delivered in time.",
        "See the next hop's words: lonedot why {id}",
    ),
    EventKind.BOUNCED_TO_BADMAIL: _facts(
        207,
        _WARNING,
        "A message can be neither delivered nor returned.",
        "Look into the Badmail folder; it is not tried again",
    ),
    EventKind.LOOP_FOUND: _facts(
        208,
        _WARNING,
        "A message goes in a circle.",
        "Check the route: does the next hop send it back? lonedot why {id}",
    ),
    EventKind.NEXT_HOP_REFUSED: _facts(
        301, _WARNING, "The next hop refused a message for good.", "Its words say why: lonedot why {id}"
    ),
    EventKind.NEXT_HOP_UNREACHABLE: _facts(
        302,
        _WARNING,
        "The next hop does not answer, or answers with 421.",
        "Is it up, and does a firewall let us through? Mail waits and is tried again",
    ),
    EventKind.LOGIN_REFUSED: _facts(
        303, _ERROR, "The smarthost refuses login or password.", "Check login and password of the route"
    ),
    EventKind.TLS_REFUSED: _facts(
        304,
        _WARNING,
        "TLS to the next hop is asked for and not to be had, or its certificate is not believed.",
        "Check tls and tls_ca of the route, and the next hop's certificate",
    ),
    EventKind.DUPLICATE_POSSIBLE: _facts(
        305,
        _INFO,
        "The connection broke between the end of data and the reply: the next hop may have the message already.",
        "Nothing; it is sent again, since losing it would be worse",
    ),
    EventKind.DISK_FULL: _facts(
        401,
        _ERROR,
        "The disk is nearly full; messages are refused with 452.",
        "Make room; clients try again by themselves",
    ),
    EventKind.SPOOL_FAULT: _facts(
        402,
        _ERROR,
        "The disk or the store failed; messages are refused with 451.",
        "Check the disk and the system's log",
    ),
    EventKind.PICKUP_REFUSED: _facts(
        403,
        _WARNING,
        "A file in Pickup is no message, or names no recipient.",
        "Look at it in the Badmail folder",
    ),
    EventKind.ONE_CLIENT: _facts(
        404,
        _WARNING,
        "All clients of a listener have one address, which relay_from trusts: a container's network, or a proxy.",
        "Let the relay see the real addresses, or take that one out of relay_from; who sends: lonedot history",
    ),
    EventKind.POP3_FAILED: _facts(
        405,
        _WARNING,
        "A POP3 mailbox cannot be looked at.",
        "The words say why; mail waits there. How it fares: lonedot pop3 list",
    ),
    EventKind.POP3_REFUSED: _facts(
        406,
        _WARNING,
        "A message in a POP3 mailbox cannot be taken; it stays there.",
        "Read it at the provider; once the cause is mended: lonedot pop3 poll NAME --again",
    ),
    EventKind.STARTED: _facts(501, _INFO, "The relay started.", "Nothing"),
    EventKind.STOPPED: _facts(502, _INFO, "The relay stopped.", "Nothing, if it was meant to"),
}


class Event(msgspec.Struct, frozen=True):
    """One line of the event log."""

    at: float
    kind: EventKind
    id: str
    """Of the message; empty when it is about none."""
    words: str
    """What happened, in a sentence; the remote's own words where it spoke."""
    fields: dict[str, str | int | float | bool | None] = {}


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Event).decode

MAX_WORDS = 4000
_FAR = 2.0**36
"""Seconds that a calendar can still hold."""


class EventLog:
    """The events of a spool. Every one is also a line of the log."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._now = clock.now
        self._files = DayFiles(folder, _tell_loss)

    @property
    def lost(self) -> int:
        return self._files.lost

    def append(self, kind: EventKind, id: str, words: str, **fields: Scalar) -> None:
        """Book an event. Never raises because of the disk."""
        now = self._now()
        cut = words if len(words) <= MAX_WORDS else words[: MAX_WORDS - 1] + "…"
        shown = {name: value for name, value in fields.items() if value not in (None, "")}
        line = _encode(Event(now, kind, id, cut, dict(shown))) + b"\n"
        self._files.append(line, now)
        log_fields: dict[str, object] = {"words": cut, **shown}
        for name in ("name", "level", "event"):  # the log's own words
            if name in log_fields:
                log_fields[f"{name}_"] = log_fields.pop(name)
        event(f"event.{kind.value}", kind.facts.level, id=id, **log_fields)

    def read(self, since: float = 0.0, kinds: Collection[EventKind] = (), limit: int = 10_000) -> list[Event]:
        """The last `limit` events since that time (seconds since 1970), of those kinds (empty: all), oldest first."""
        found: list[Event] = []
        for one in self._events(since, kinds):
            if one.at >= since and (not kinds or one.kind in kinds):
                found.append(one)
                if len(found) >= 2 * limit:
                    found.sort(key=_at)
                    del found[:-limit]
        found.sort(key=_at)  # several workers write at the same time, each into a file of its own
        return found[-limit:]

    def has(self, kind: EventKind, seconds: float, **fields: Scalar) -> bool:
        """Such an event was booked so long ago or later, by any worker. Reads files: not for every message."""
        return any(
            all(one.fields.get(name) == value for name, value in fields.items())
            for one in self.read(self._now() - seconds, (kind,))
        )

    def flush(self) -> None:
        self._files.flush()

    def close(self) -> None:
        self._files.close()

    def forget(self, before: float) -> int:
        """Remove the files of days that ended before that time; how many."""
        return self._files.forget(before)

    def _events(self, since: float, kinds: Collection[EventKind]) -> Iterator[Event]:
        """Those of these kinds (empty: all) in files of that day and later ones."""
        self._files.flush()
        first_day = time.strftime("%Y-%m-%d", time.gmtime(max(0.0, min(since, _FAR))))
        names = [kind.value.encode() for kind in kinds]
        for stem in self._files.stems():
            if stem[:10] < first_day:
                continue
            octets = self._files.read(stem, 0, self._files.size_of(stem)) or b""
            for line in octets.splitlines():
                if names and not any(name in line for name in names):
                    continue  # cheaper than to decode it
                try:
                    yield _decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue  # half a line of a crash, or a kind of a newer version


def _at(one: Event) -> float:
    return one.at


def _tell_loss(reason: str) -> None:
    event(
        "evidence.lost",
        LogLevel.WARNING,
        reason=reason,
        do="make room on the disk; events go to the log alone",
    )
