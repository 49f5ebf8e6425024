"""Any order of words, pauses, losses and disk answers: memory is given back, and a 250 is a message in custody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.intake import MEMORY_LIMIT
from lonedot.spool.interface import SpoolFault, SpoolFull
from tests.unit.reception.room import Line, Room, settle

ENVELOPE = b"MAIL FROM:<c@a.example>\r\nRCPT TO:<d@b.example>\r\n"
HEAD = b"From: c@a.example\r\n\r\n"
LONG = HEAD + (b"x" * 70 + b"\r\n") * (MEMORY_LIMIT // 72 + 2)
Step = tuple[str, int]

WORDS = (
    b"NOOP\r\n",
    b"RSET\r\n",
    b"EHLO again\r\n",
    b"MAIL FROM:<c@a.example>\r\n",
    b"RCPT TO:<d@b.example>\r\n",
    b"RCPT TO:<d@nowhere.example>\r\n",
    b"DATA\r\n",
    ENVELOPE + b"DATA\r\n",
    HEAD + b"body\r\n.\r\n",
    LONG,
    b".\r\n",
    b"\r\n.\r\n",
    ENVELOPE + b"BDAT %d LAST\r\n%s" % (len(HEAD), HEAD),
    ENVELOPE + b"BDAT %d\r\n%s" % (len(LONG), LONG),
    b"BDAT 0 LAST\r\n",
    b"BDAT 5\r\n12345",
    b"nonsense\r\n",
    b"bare\nLF\r\n",
    b"X-A: b\r\n" * 40_000,
)
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(0, len(WORDS) - 1)),
        st.tuples(st.just("say"), st.sampled_from([7, 8, 9, 12, 13, 14])),
        st.tuples(st.just("disk"), st.sampled_from([0, 0, 0, 1, 2])),
        st.tuples(st.just("full"), st.integers(0, 1)),
        st.tuples(st.just("time"), st.sampled_from([1, 200, 400])),
        st.tuples(st.sampled_from(["turn", "pause", "resume", "eof"]), st.just(0)),
    ),
    max_size=30,
)
ERRORS = (None, SpoolFault("broken"), SpoolFull("full"))


async def play(steps: Sequence[Step], cut: int, end: str, memory: int) -> None:
    room = Room(memory=memory)
    room.spool.by_hand = True
    line = room.connect()
    for what, which in steps:
        if line.wire.lost():
            break
        await act(room, line, what, which, cut)
    match end:
        case "quit" if not line.wire.lost():
            line.say(b"\r\n.\r\nQUIT\r\n")
        case "abort":
            line.session.abort()
        case _:
            line.wire.lose()
    for _ in range(100):
        await settle()
        if not room.spool.open:
            break
        room.spool.answer()
    await room.pass_time(10_000)
    queued = b"".join(line.wire.writes).count(b"Ok: queued as")
    accepted = len(room.spool.accepted)
    assert queued <= accepted, "a 250 without a message"
    assert accepted - queued <= (0 if end == "quit" else 1), "a message that nobody was told of"
    assert len(room.desk.offered) == accepted
    assert room.budget.used == 0
    assert (room.open, room.timers, room.spool.bodies) == (0, 0, 0)
    assert "session.fault" not in room.what_was_noted()


async def act(room: Room, line: Line, what: str, which: int, cut: int) -> None:
    match what:
        case "say":
            octets = WORDS[which]
            for start in range(0, len(octets), cut):
                if not line.wire.lost():
                    line.say(octets[start : start + cut])
        case "disk" if room.spool.open:
            room.spool.answer(ERRORS[which])
            await settle()
        case "full":
            room.spool.write_error = SpoolFull("full") if which else None
        case "time":
            await room.pass_time(which)
        case "turn":
            await settle()
        case "pause":
            line.session.pause_writing()
        case "resume":
            line.session.resume_writing()
        case "eof":
            if not line.session.eof_received():
                line.wire.close()
            await settle()
        case _:
            pass


@given(
    STEPS,
    st.sampled_from([1 << 20, 4096, 70_000]),
    st.sampled_from(["lose", "abort", "quit"]),
    st.sampled_from([0, 50_000, 1 << 30]),
)
def test_memory_is_given_back_and_a_250_is_a_message(
    steps: list[Step], cut: int, end: str, memory: int
) -> None:
    asyncio.run(play(steps, cut, end, memory))
