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


def test_only_files_of_the_days_in_question_are_read(tmp_path: Path, clock: HandClock) -> None:
    events = EventLog(tmp_path, clock)
    events.append(EventKind.STARTED, "", "yesterday")
    clock.time += 86400
    events.append(EventKind.STARTED, "", "today")
    events.close()
    day = clock.time - clock.time % 86400
    for since, found in ((0.0, 2), (day - 86400, 2), (day - 1, 1), (day, 1), (clock.time + 1, 0), (1e300, 0)):
        assert len(events.read(since)) == found, since
    (old, _) = sorted(tmp_path.iterdir())
    old.write_bytes(b"\xff" * 100)
    assert [event.words for event in events.read(day)] == ["today"]


def test_an_event_that_was_booked_already(tmp_path: Path, clock: HandClock) -> None:
    events, other = EventLog(tmp_path, clock), EventLog(tmp_path, clock)
    events.append(EventKind.ONE_CLIENT, "", "words", listener="in", client="192.0.2.7")
    events.flush()
    clock.time += 3600
    for log_of_a_worker in (events, other):
        assert log_of_a_worker.has(EventKind.ONE_CLIENT, 3600, listener="in")
        assert log_of_a_worker.has(EventKind.ONE_CLIENT, 86400)
        assert not log_of_a_worker.has(EventKind.ONE_CLIENT, 3599, listener="in")
        assert not log_of_a_worker.has(EventKind.ONE_CLIENT, 86400, listener="second")
        assert not log_of_a_worker.has(EventKind.STARTED, 86400)
