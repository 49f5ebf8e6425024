"""Sinks of the session that run elsewhere: the session waits for each answer and loses nothing meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import msgspec
import pytest

from lonedot.reception.session import PAUSE_AT
from lonedot.sinks.bindings import Binding, Isolation
from lonedot.sinks.calls import Answer, Call, Failure
from lonedot.sinks.events import Event
from lonedot.sinks.load import bind
from lonedot.sinks.protocol import Question, Session
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Defer, Next, Reject, Verdict
from tests.unit.reception.room import SETTINGS, Line, Room, settle
from tests.unit.reception.test_session_sinks import ENVELOPE, IN_SESSION, MESSAGE, TEXT, bdat, bound


def apart(event: Event, name: str = "S", priority: int = 1, **options: str) -> Binding:
    made = bound(event, None, name, priority, **options)
    return msgspec.structs.replace(made, isolation=Isolation.PROCESS)


class Elsewhere:
    """Where sinks run that a test answers for by hand."""

    def __init__(self, room: Room) -> None:
        self.open: list[tuple[Question, asyncio.Future[Answer]]] = []
        room.acceptor.elsewhere = self

    def __call__(self, call: Call | Question) -> asyncio.Future[Answer]:
        assert isinstance(call, Question)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.open.append((call, future))
        return future

    async def answer(self, returned: object = Next(), error: BaseException | None = None) -> Question:
        await settle()
        question, future = self.open.pop(0)
        future.set_result(Answer(returned, error))
        await settle()
        return question


async def test_every_event_waits_for_its_sink_and_everything_else_for_the_event() -> None:
    room = Room(bindings=[apart(event) for event in IN_SESSION])
    elsewhere = Elsewhere(room)
    line = room.connect(greeted=False)
    line.say(b"EHLO copier\r\nVRFY joe\r\n" + ENVELOPE + b"DATA\r\n")
    asked = []
    codes = []
    for _ in IN_SESSION:
        codes.append(line.codes())
        asked.append((await elsewhere.answer()).session.event)
    assert asked == [Event.CONNECT, Event.HELO, Event.VERB, Event.MAIL, Event.RCPT, Event.DATA]
    assert codes == [[], [220], [250], [252], [250], [250]]
    assert line.codes() == [354]
    line.say(TEXT + b"QUIT\r\n")
    await settle()
    assert line.codes() == [250]
    await elsewhere.answer()
    assert line.codes() == [221]
    assert line.wire.lost() and room.open == 0


@pytest.mark.parametrize(
    ("event", "commands", "answers"),
    [
        (Event.CONNECT, b"", b"554 5.7.1 no\r\n"),
        (Event.VERB, b"VRFY a\r\nRCPT TO:<a>\r\n", b"550 5.7.1 no\r\n503 5.5.1 MAIL first\r\n"),
        (Event.MAIL, ENVELOPE, b"550 5.7.1 no\r\n503 5.5.1 MAIL first\r\n"),
        (Event.RCPT, ENVELOPE, b"250 2.1.0 Ok\r\n550 5.7.1 no\r\n"),
    ],
)
async def test_refusals(event: Event, commands: bytes, answers: bytes) -> None:
    room = Room(bindings=[apart(event)])
    elsewhere = Elsewhere(room)
    line = room.connect(greeted=bool(commands))
    line.say(commands)
    await elsewhere.answer(Reject("no"))
    assert line.heard() == answers
    assert room.noted_[0] == ("sink.refused", f"S at {event.value}: no")


async def test_a_refused_greeting_is_no_greeting() -> None:
    room = Room(bindings=[apart(Event.HELO)])
    elsewhere = Elsewhere(room)
    line = room.connect(greeted=False)
    line.say(b"EHLO copier\r\n" + ENVELOPE)
    assert line.codes() == [220]
    await elsewhere.answer(Defer("who"))
    assert line.codes() == [451, 503, 503]


async def test_plaintext_that_comes_while_starttls_is_asked_about_ends_the_session() -> None:
    options = msgspec.structs.replace(SETTINGS.options, tls_available=True)
    room = Room(msgspec.structs.replace(SETTINGS, options=options), bindings=[apart(Event.VERB)])
    elsewhere = Elsewhere(room)
    line = room.connect()
    line.say(b"STARTTLS\r\n", b"MAIL FROM:<evil@a.example>\r\n")
    await elsewhere.answer()
    assert line.codes() == [554]
    assert line.wire.lost()


async def test_data_refused_and_bdat_refused() -> None:
    room = Room(bindings=[apart(Event.DATA)])
    elsewhere = Elsewhere(room)
    line = room.connect()
    line.say(ENVELOPE + b"DATA\r\n")
    await elsewhere.answer(Defer("busy"))
    assert line.codes() == [250, 250, 451]
    line.say(b"RSET\r\n" + bdat(b"RSET\r\n" * 3) + b"NOOP\r\n")
    await elsewhere.answer(Reject("no"))
    assert line.codes() == [250, 250, 250, 550, 250]


async def test_text_before_the_reply_to_data_is_no_text_here_either() -> None:
    room = Room(bindings=[apart(Event.DATA)])
    elsewhere = Elsewhere(room)
    line = room.connect()
    line.say(ENVELOPE + b"DATA\r\n", TEXT)
    await elsewhere.answer()
    assert line.codes() == [250, 250, 554]
    assert line.wire.lost() and room.spool.accepted == []


async def test_inline_sinks_before_and_behind() -> None:
    room = Room(
        bindings=[
            bound(Event.MAIL, Next(), "a", 1),
            apart(Event.MAIL, "b", 2),
            apart(Event.MAIL, "c", 3),
            bound(Event.MAIL, Reject("last"), "d", 4),
        ]
    )
    elsewhere = Elsewhere(room)
    line = room.connect()
    line.say(b"MAIL FROM:<c@a.example>\r\n")
    assert (await elsewhere.answer()).binding.name == "b"
    assert (await elsewhere.answer()).binding.name == "c"
    assert line.heard() == b"550 5.7.1 last\r\n"


@pytest.mark.parametrize(
    ("on_error", "codes"),
    [("defer", [451, 503]), ("hold", [451, 503]), ("reject", [550, 503]), ("skip", [250, 250])],
)
async def test_a_sink_that_does_not_answer_is_handled_by_on_error(on_error: str, codes: list[int]) -> None:
    room = Room(bindings=[apart(Event.MAIL, on_error=on_error)])
    elsewhere = Elsewhere(room)
    line = room.connect()
    line.say(ENVELOPE)
    await elsewhere.answer(None, Failure("no answer within 10 s"))
    assert line.codes() == codes
    assert ("sink.failed", "S at mail: no answer within 10 s") in room.noted_


async def test_without_a_place_to_run_it_fails() -> None:
    room = Room(bindings=[apart(Event.MAIL)])
    line = room.connect()
    line.say(b"MAIL FROM:<c@a.example>\r\n")
    assert line.codes() == [451]


async def test_only_its_own_session_waits() -> None:
    room = Room(bindings=[apart(Event.RCPT, rule="RCPT TO=slow@*")])
    elsewhere = Elsewhere(room)
    slow, other = room.connect(), room.connect()
    slow.say(b"MAIL FROM:<c@a.example>\r\nRCPT TO:<slow@b.example>\r\n")
    await settle()
    other.say(bdat(MESSAGE))
    await settle()
    assert other.codes() == [250, 250, 250]
    assert slow.codes() == [250]
    await elsewhere.answer()
    assert slow.codes() == [250]


async def test_reading_pauses_when_too_much_comes_meanwhile() -> None:
    room = Room(bindings=[apart(Event.MAIL)])
    elsewhere = Elsewhere(room)
    line = room.connect()
    line.say(ENVELOPE + b"RSET\r\n", b"NOOP\r\n" * (PAUSE_AT // 6 + 1))
    assert line.wire.paused()
    await elsewhere.answer()
    assert not line.wire.paused()


async def test_time_does_not_end_a_session_that_waits_for_us() -> None:
    room = Room(bindings=[apart(Event.MAIL)])
    elsewhere = Elsewhere(room)
    line = room.connect()
    line.say(ENVELOPE)
    await room.pass_time(4000)
    assert not line.wire.is_closing_
    assert not line.session.stop()
    await elsewhere.answer()
    assert line.codes() == [250, 250]


# -- what ends meanwhile ---------------------------------------------------------------------------------


def lose(line: Line) -> None:
    line.wire.lose()


def abort(line: Line) -> None:
    line.session.abort()


@pytest.mark.parametrize("end", [lose, abort])
@pytest.mark.parametrize("event", IN_SESSION)
async def test_a_connection_that_is_lost_takes_the_question_back(
    event: Event, end: Callable[[Line], None]
) -> None:
    room = Room(bindings=[apart(event)])
    elsewhere = Elsewhere(room)
    line = room.connect(greeted=False)
    line.say(b"EHLO copier\r\nVRFY a\r\n" + ENVELOPE + b"DATA\r\n")
    await settle()
    ((_, future),) = elsewhere.open
    end(line)
    await settle()
    assert future.cancelled()
    assert room.open == 0 and room.budget.used == 0
    assert "session.fault" not in room.what_was_noted()
    assert room.timers == 0


async def test_a_question_that_the_relay_takes_back_is_deferred() -> None:
    room = Room(bindings=[apart(Event.MAIL)])
    elsewhere = Elsewhere(room)
    line = room.connect()
    line.say(ENVELOPE)
    await settle()
    elsewhere.open[0][1].cancel()
    await settle()
    assert line.codes() == [451, 503]


async def test_a_fault_of_ours_while_asking_is_421() -> None:
    room = Room(bindings=[apart(Event.MAIL)])
    elsewhere = Elsewhere(room)
    line = room.connect()
    line.say(ENVELOPE)
    await settle()
    elsewhere.open[0][1].set_exception(RuntimeError("boom"))
    await settle()
    assert line.codes() == [421]
    assert ("session.fault", "RuntimeError: boom") in room.noted_
    assert line.wire.lost() and room.open == 0


async def test_a_client_that_has_closed_its_side_still_gets_the_answer() -> None:
    room = Room(bindings=[apart(Event.MAIL)])
    elsewhere = Elsewhere(room)
    line = room.connect()
    line.say(bdat(MESSAGE))
    assert line.session.eof_received()
    await elsewhere.answer()
    await settle()
    assert line.codes() == [250, 250, 250]
    assert line.wire.lost() and len(room.spool.accepted) == 1


# -- the same as inline ----------------------------------------------------------------------------------

LINES = [
    b"RSET\r\n",
    b"NOOP\r\n",
    b"VRFY joe\r\n",
    b"EHLO copier\r\n",
    b"EHLO late\r\n",
    b"MAIL FROM:<c@a.example>\r\n",
    b"MAIL FROM:<late@a.example>\r\n",
    b"RCPT TO:<d@b.example>\r\n",
    b"RCPT TO:<late@b.example>\r\n",
    b"RCPT TO:<d@nowhere.example>\r\n",
    b"BDAT 12\r\nMAIL FROM:\r\n",
    b"BDAT %d LAST\r\n" % len(MESSAGE) + MESSAGE,
    bdat(MESSAGE),
    b"WHAT\r\n",
]


def verdict_for(session: Session) -> Verdict:
    """The same for the same question."""
    return Defer(f"late at {session.event.value}") if b"late" in session.command.argument else Next()


def judging(event: Event, isolation: Isolation) -> Binding:
    made = bind(sink(f"at {event.value}", on=event)(verdict_for), sink_class="tests:s")  # type: ignore[arg-type]
    return msgspec.structs.replace(made, isolation=isolation)


async def talk(chance: random.Random, said: bytes, isolation: Isolation) -> tuple[bytes, int]:
    """All that is heard, and how many messages were taken."""
    room = Room(bindings=[judging(event, isolation) for event in IN_SESSION if event is not Event.CONNECT])

    async def elsewhere(call: Call | Question) -> Answer:
        assert isinstance(call, Question)
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        return Answer(verdict_for(call.session))

    room.acceptor.elsewhere = elsewhere
    line = room.connect(greeted=False)
    place = 0
    while place < len(said):
        size = chance.choice([1, 7, 60, 500])
        line.say(said[place : place + size])
        place += size
        if chance.random() < 0.3:
            await settle()
    heard = b""
    while (more := line.heard()) or line.session.is_busy:
        heard += more
        await settle()
    assert "session.fault" not in room.what_was_noted()
    heard += line.heard()
    for given in room.spool.accepted:
        heard = heard.replace(given.id.encode(), b"ID")
    return heard, len(room.spool.accepted)


@pytest.mark.parametrize("seed", range(40))
async def test_any_dialog_in_any_pieces_is_answered_as_inline(seed: int) -> None:
    chance = random.Random(seed)
    said = b"EHLO copier\r\n" + b"".join(chance.choices(LINES, k=60))
    inline = await talk(random.Random(seed + 1000), said, Isolation.INLINE)
    assert await talk(chance, said, Isolation.PROCESS) == inline
    assert inline[0].count(b"\r\n") >= 20
