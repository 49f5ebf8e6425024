"""What is told of a message whose sinks are still to be asked, and of one that a sink has redirected."""

from __future__ import annotations

from datetime import UTC

import msgspec

from lonedot.cli.queue_text import listing_rows
from lonedot.diagnosis.tell import tell
from lonedot.diagnosis.why import Transcripts, journey
from lonedot.spool.interface import Listed, MessageState, Progress, Stored
from tests.unit.diagnosis.stories import BEGAN, the_story

QUEUED = MessageState.QUEUED


def waiting(progress: Progress | None, next_at: float = BEGAN) -> Stored:
    story = the_story()
    states = tuple(
        msgspec.structs.replace(state, status=type(state.status).WAITING, next_at=next_at)
        for state in story.recipients
    )
    return msgspec.structs.replace(
        story, state=QUEUED, reason="", recipients=states, attempts=(), transport=progress
    )


def told(stored: Stored) -> str:
    return "\n".join(line.text for line in tell(journey(stored, Transcripts(), BEGAN + 1), UTC))


def test_it_waits_for_a_sink() -> None:
    text = told(waiting(Progress("arrival", 1, "stamp", "{1}", "scanner")))
    assert 'In transport: it waits for the sink "scanner".' in text
    assert 'anna@example.net: first the sinks. The sink "scanner" is asked.' in text
    assert "Ask the sink again" not in text


def test_it_was_put_off() -> None:
    progress = Progress(waits_for="scanner", deferrals=2, words="scanner: busy")
    text = told(waiting(progress, BEGAN + 300))
    assert "Put off 2 times: scanner: busy." in text
    assert 'The sink "scanner" is asked 2026' in text
    assert "lonedot queue retry" in text


def test_a_redirect_is_told() -> None:
    stored = waiting(None)
    states = tuple(msgspec.structs.replace(state, redirect="second") for state in stored.recipients)
    assert 'A sink sends it over the route "second": anna@example.net.' in told(
        msgspec.structs.replace(stored, recipients=states)
    )


def test_the_listing_names_the_sink() -> None:
    people = (("anna@example.net", "waiting", ""),)
    row = Listed("1", QUEUED, "", BEGAN, 0.0, 10, "a@b.example", people, BEGAN + 60, 0, "scanner", "no")
    assert listing_rows(row, BEGAN)[-1] == "in transport, waiting for scanner, next in 60 seconds: no"
    row = msgspec.structs.replace(row, put_off="", next_at=BEGAN)
    assert listing_rows(row, BEGAN)[-1] == "in transport, waiting for scanner, due now"
