"""The journey: what is concluded, and how it is told."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.diagnosis.tell import Kind, Line, clean, moment, span, tell
from lonedot.diagnosis.why import Journey, TranscriptLine, Transcripts, Who, journey
from lonedot.message.ledger import Action
from lonedot.spool.interface import Attempt, MessageState, RecipientStatus, Stored
from lonedot.terms.ids import MessageId
from lonedot.terms.outcome import Outcome, Result, Stage
from lonedot.terms.reply import Reply
from tests.unit.diagnosis.stories import (
    BEGAN,
    attempt_that_delivered,
    content,
    deferred,
    entry,
    stored,
    the_story,
)

SNAPSHOT = Path(__file__).with_name("why_story.txt")
TWO_DAYS = {"all": 2 * 86400.0}
TALK = Transcripts(
    session=(
        TranscriptLine(0.0, Who.NOTE, "connected"),
        TranscriptLine(0.001, Who.RELAY, "220 relay.example.com<CR><LF>"),
        TranscriptLine(0.002, Who.PEER, "EHLO copier3<CR><LF>"),
    ),
    attempts={1: (TranscriptLine(0.25, Who.PEER, "250 2.0.0 Ok: queued as 4F1<CR><LF>"),)},
)


def _text(message: Stored, now: float = BEGAN + 3600, is_running: bool = True) -> str:
    return _plain(tell(journey(message, Transcripts(), now, TWO_DAYS, is_running), UTC))


def _plain(lines: tuple[Line, ...]) -> str:
    return "".join(f"{'  ' * line.indent}{line.text}".rstrip() + "\n" for line in lines)


def test_the_story_is_told_as_it_is_kept_beside_this_test() -> None:
    told = _plain(tell(journey(the_story(), TALK, BEGAN + 3600, TWO_DAYS), UTC, transcripts=True))
    assert told == SNAPSHOT.read_text()


def test_the_faulty_sink_is_named_first_of_all() -> None:
    found = journey(the_story(), Transcripts(), BEGAN)
    assert found.summary == (
        'Delivered. The sink "XRecipientList (faulty)" damaged the message; the damage was undone.'
    )
    assert [(s.binding, s.entry, s.action, s.failed) for s in found.suspects] == [
        ("XRecipientList (faulty)", 2, Action.REDUCED, False)
    ]


def test_the_alarm_stands_out() -> None:
    alarms = [
        line.text for line in tell(journey(the_story(), Transcripts(), BEGAN), UTC) if line.kind is Kind.ALARM
    ]
    assert 'THE SINK "XRecipientList (faulty)" DAMAGED THE MESSAGE.' in alarms


class TestSummary:
    def test_waiting(self) -> None:
        assert (
            journey(stored(ledger=()), Transcripts(), BEGAN).summary == "Waiting in the queue: not tried yet."
        )

    def test_tried(self) -> None:
        message = stored(ledger=(), attempts=(deferred(BEGAN), deferred(BEGAN + 60)))
        assert "tried 2 times, not delivered yet" in journey(message, Transcripts(), BEGAN).summary

    def test_held_gives_the_reason(self) -> None:
        message = stored(MessageState.HELD, ledger=(), reason="the scanner failed")
        assert journey(message, Transcripts(), BEGAN).summary.startswith(
            "Held: the scanner failed. It is not sent"
        )

    def test_damaged_gives_the_reason(self) -> None:
        message = stored(MessageState.DAMAGED, ledger=(), reason="another digest")
        assert journey(message, Transcripts(), BEGAN).summary.startswith("Damaged: another digest.")

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (RecipientStatus.DELIVERED, "Delivered to all 2 recipients."),
            (RecipientStatus.FAILED, "Finished: 2 refused for good."),
            (RecipientStatus.EXPIRED, "Finished: 2 given up after trying for too long."),
            (RecipientStatus.DELETED, "Finished: 2 deleted."),
        ],
    )
    def test_finished(self, status: RecipientStatus, words: str) -> None:
        message = stored(MessageState.FINISHED, ledger=(), status=status, recipients=("a@b", "c@d"))
        assert journey(message, Transcripts(), BEGAN).summary == words


class TestNext:
    def test_next_try_and_expiry(self) -> None:
        text = _text(stored(attempts=(deferred(BEGAN + 1),), next_at=BEGAN + 3900))
        assert "tried again 2026-07-14 04:38:20 +0000 (in 5 minutes)" in text
        assert "gives up and tells the sender after 2026-07-16 03:33:20 +0000" in text

    def test_an_answer_to_the_null_sender_is_not_promised(self) -> None:
        text = _text(stored(attempts=(deferred(BEGAN + 1),), sender=b""))
        assert "tells the sender" not in text and "The relay gives up after" in text

    def test_due_now(self) -> None:
        assert "is due now" in _text(stored(next_at=BEGAN))

    def test_a_relay_that_is_down_is_said(self) -> None:
        assert "The relay is not running" in _text(stored(), is_running=False)
        assert "The relay is not running" not in _text(the_story(), is_running=False)

    def test_no_expiry_is_made_up(self) -> None:
        steps = journey(
            stored(attempts=(deferred(BEGAN),)), Transcripts(), BEGAN, {"a": 60.0, "b": 70.0}
        ).next_steps
        assert [step.expires_at for step in steps] == [0.0]


class TestAdvice:
    def test_held_ones_can_be_released(self) -> None:
        commands = [
            advice.command for advice in journey(stored(MessageState.HELD), Transcripts(), BEGAN).advice
        ]
        assert any(command.startswith("lonedot queue release") for command in commands)

    @pytest.mark.parametrize("stage", list(Stage))
    @pytest.mark.parametrize("result", list(Result))
    def test_every_end_of_an_attempt_can_be_told(self, stage: Stage, result: Result) -> None:
        outcome = Outcome(result, stage, "because", Reply(550, "", (b"no\x1b[2J",)), "mx[1]:25")
        attempt = Attempt(BEGAN, BEGAN + 1, "mx[1]:25", "all", "", ((0, outcome),))
        text = _text(stored(attempts=(attempt,)))
        assert "the next hop said: 550 no\\x1b[2J" in text

    def test_a_connection_that_fails_names_the_host(self) -> None:
        outcome = Outcome(Result.DEFERRED, Stage.CONNECT, "refused", None, "mx[1]:25")
        attempt = Attempt(BEGAN, BEGAN + 1, "mx[1]:25", "all", "", ((0, outcome),))
        assert "Check that mx[1]:25 is up" in _text(stored(attempts=(attempt,)))


def test_no_control_sign_gets_to_a_terminal() -> None:
    message = stored(reason="x\x1b[2J", recipients=("a\u202e@b",))
    facts = msgspec.structs.replace(message.facts, helo="h\x07\n", client="c\x00")
    text = _text(msgspec.structs.replace(message, facts=facts, state=MessageState.HELD))
    assert all(line.isprintable() for line in text.splitlines())


@given(st.sampled_from(Action), st.sampled_from(["next", "error", "hold"]))
def test_every_action_has_words(action: Action, verdict: str) -> None:
    message = the_story()
    entry = msgspec.structs.replace(message.ledger[2], action=action, verdict=verdict)
    assert '"XRecipientList (faulty)"' in _text(msgspec.structs.replace(message, ledger=(entry,)))
    harmless = msgspec.structs.replace(entry, findings=())
    assert '"XRecipientList (faulty)"' in _text(msgspec.structs.replace(message, ledger=(harmless,)))


def test_a_report_names_its_message() -> None:
    message = stored()
    facts = msgspec.structs.replace(message.facts, source="dsn", parent=MessageId("1jkq0a0000000"))
    text = _text(msgspec.structs.replace(message, facts=facts))
    assert "the relay wrote it itself" in text and "lonedot why 1jkq0a0000000" in text


def test_it_survives_json() -> None:
    found = journey(the_story(), TALK, BEGAN, TWO_DAYS)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Journey) == found


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_is_a_moment(at: float) -> None:
    assert moment(at, UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "no time"),
        (0.0012, "1.2 ms"),
        (0.25, "250 ms"),
        (1, "1 second"),
        (1.5, "1.5 seconds"),
        (89, "89 seconds"),
        (600, "10 minutes"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (90000, "1 d 1 h"),
        (172800, "2 d"),
    ],
)
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words


@given(st.text())
def test_clean_text_is_printable(text: str) -> None:
    assert clean(text).isprintable()


def test_the_sinks_of_an_attempt_are_told_with_it() -> None:
    """A sink refused at MAIL: nobody asked the next hop, so it is not said to have been silent."""
    base = deferred(BEGAN + 10)
    refusal = Outcome(Result.DEFERRED, Stage.MAIL, "sink Gate refuses: not now", None, "mx", "4.7.1")
    before = content()
    gate = msgspec.structs.replace(
        entry(before, before, (), binding="Gate", binding_id="{1}", event="message-start"),
        action=Action.DEFERRED,
        verdict="defer",
        words="not now",
    )
    text = _text(stored(attempts=(msgspec.structs.replace(base, outcomes=((0, refusal),), suffix=(gate,)),)))
    assert '"Gate" put the message off.' in text
    assert "event message-start" in text
    assert "sink Gate refuses: not now." in text
    assert "The next hop said nothing" not in text


def test_a_sink_that_damaged_the_copy_of_an_attempt_is_named_in_the_summary() -> None:
    before = content()
    faulty = msgspec.structs.replace(
        entry(before, before, (), binding="Faulty", binding_id="{1}", event="message-start"),
        action=Action.SKIPPED,
        verdict="error",
        words="Faulty failed: ValueError: x",
    )
    attempt = msgspec.structs.replace(attempt_that_delivered(before, BEGAN + 1), suffix=(faulty,))
    found = journey(stored(attempts=(attempt,)), Transcripts(), BEGAN)
    assert 'The sink "Faulty" failed; the message went on without it.' in found.summary
