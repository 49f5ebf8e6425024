"""The event log: kinds with numbers, lines that come back."""

import io
from pathlib import Path

from lonedot.evidence.events import MAX_WORDS, EventKind, EventLog
from lonedot.observability import log
from lonedot.observability.levels import LogKind, LogLevel
from tests.unit.evidence.conftest import HandClock


def test_every_kind_is_explained_under_a_number_of_its_own() -> None:
    numbers = [kind.facts.number for kind in EventKind]
    assert len(set(numbers)) == len(numbers)
    for kind in EventKind:
        assert kind.facts.cause.endswith(".")
        assert kind.facts.action and not kind.facts.action.endswith(".")
        assert kind.facts.action.format(id="0h3k")


def test_events_come_back(tmp_path: Path, clock: HandClock) -> None:
    events = EventLog(tmp_path, clock)
    events.append(EventKind.STARTED, "", "relay.example.com")
    clock.time += 10
    events.append(EventKind.SINK_DAMAGED, "0h3k", "undone", binding="X", level="warning", empty="", none=None)
    everything = events.read()
    assert [(event.kind, event.id, event.words) for event in everything] == [
        (EventKind.STARTED, "", "relay.example.com"),
        (EventKind.SINK_DAMAGED, "0h3k", "undone"),
    ]
    assert everything[1].fields == {"binding": "X", "level": "warning"}
    assert events.read(since=clock.time) == everything[1:]
    assert events.read(kinds={EventKind.STARTED}) == everything[:1]
    assert events.read(limit=1) == everything[1:]
    events.close()
    assert EventLog(tmp_path, clock).read() == everything


def test_each_event_is_a_line_of_the_log(tmp_path: Path, clock: HandClock) -> None:
    stream = io.BytesIO()
    log.configure(LogKind.HUMAN, LogLevel.INFO, stream)
    events = EventLog(tmp_path, clock)
    events.append(EventKind.STORED_ALTERED, "0h3k", "digest differs", name="x", level="y")
    log.configure(LogKind.JSON, LogLevel.WARNING, io.BytesIO())
    assert b'error: event.stored-altered id=0h3k words="digest differs" name_=x level_=y' in stream.getvalue()
    events.close()


def test_half_a_line_and_unknown_kinds_are_passed_over(tmp_path: Path, clock: HandClock) -> None:
    log.configure(LogKind.JSON, LogLevel.ERROR, io.BytesIO())
    events = EventLog(tmp_path, clock)
    events.append(EventKind.MESSAGE_HELD, "0h3k", "x" * (2 * MAX_WORDS))
    events.close()
    (file,) = tmp_path.iterdir()
    with file.open("ab") as stream:
        stream.write(b'{"at":1,"kind":"from-the-future","id":"","words":""}\n\xff\xfe\n{"at":17')
    (event,) = EventLog(tmp_path, clock).read()
    assert len(event.words) == MAX_WORDS
