"""From the end of data to the reply: every way a message is refused, held, discarded or taken."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from lonedot.message.content import FileBody
from lonedot.message.edits import Edit, Effect
from lonedot.message.fold import fold
from lonedot.message.intake import Arrived, Intake, content_from
from lonedot.message.ledger import Action
from lonedot.reception.acceptance import Verdict
from lonedot.reception.settings import STRANGER, TRUSTED
from lonedot.sinks.bindings import Binding, OnError
from lonedot.sinks.verdicts import Discard, Hold, Next, Reject
from lonedot.sinks.verdicts import Verdict as SinkVerdict
from lonedot.sinks.view import Message
from lonedot.spool.interface import (
    Facts,
    KeyUsed,
    MessageState,
    RecipientStatus,
    SpoolFault,
    SpoolFull,
)
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import SessionId
from tests.unit.reception.room import Room, settle
from tests.unit.sinks.making import binding, editing, rewriting

ENVELOPE = Envelope(Address(b"c@a.example"), (Recipient(Address(b"d@b.example")),))
FACTS = Facts("smtp", SessionId("s"), client="192.0.2.1", helo="copier", protocol="ESMTP", revision="r1")
OCTETS = b"From: c@a.example\r\nDate: x\r\nMessage-ID: <1@a>\r\n\r\nbody\r\n"


def verdicts(
    room: Room,
    octets: bytes = OCTETS,
    *,
    trusted: bool = False,
    arrived: Arrived | None = None,
    key: bytes = b"",
) -> list[Verdict]:
    """Where the verdict will be; it must come once."""
    told: list[Verdict] = []
    room.acceptor.accept(
        room.acceptor.new_id(),
        ENVELOPE,
        FACTS,
        arrived or Arrived(content_from(octets)),
        TRUSTED if trusted else STRANGER,
        told.append,
        key,
    )
    return told


async def verdict(room: Room, octets: bytes = OCTETS, *, trusted: bool = False, key: bytes = b"") -> Verdict:
    told = verdicts(room, octets, trusted=trusted, key=key)
    await settle()
    (only,) = told
    return only


async def test_taken_with_a_trace_field_and_entry_0() -> None:
    room = Room()
    told = await verdict(room)
    (given,) = room.spool.accepted
    assert told.accepted
    assert told.reply.text == f"250 2.0.0 Ok: queued as {given.id}"
    assert given.arrival.octets() == OCTETS
    (entry,) = given.ledger
    assert (entry.binding, entry.event, entry.action) == ("lonedot", "door", Action.KEPT)
    queued = fold(given.arrival, given.ledger, verify=True)
    assert queued.octets().endswith(OCTETS)
    assert queued.octets().startswith(b"Received: from copier (")
    assert given.size == queued.size
    assert (given.owner, given.state) == ("worker", MessageState.QUEUED)
    (claim,) = room.desk.offered
    assert (claim.epoch, claim.arrival, claim.message.id) == (1, given.arrival, given.id)
    assert room.notes.acceptances == [given]


async def test_without_room_at_the_desk_it_waits_in_the_spool() -> None:
    room = Room()
    room.desk.has_room = False
    assert (await verdict(room)).accepted
    assert room.desk.offered == []
    assert room.spool.accepted[0].owner == ""
    assert room.spool.next_due() == room.clock.now()


@pytest.mark.parametrize(
    ("octets", "trusted", "code", "enhanced", "words"),
    [
        (b"Received: x\r\n" * 30 + OCTETS, True, 554, "5.4.6", "circle"),
        (OCTETS + b"bare\nLF\r\n", False, 550, "5.6.0", "bare LF at octet"),
        (OCTETS + b"N\0L\r\n", True, 550, "5.6.0", "NUL at octet"),
        (OCTETS + b"x" * 1200 + b"\r\n", False, 550, "5.6.0", "line of more than 998"),
    ],
)
async def test_refused_at_the_door(
    octets: bytes, trusted: bool, code: int, enhanced: str, words: str
) -> None:
    room = Room()
    told = await verdict(room, octets, trusted=trusted)
    assert (told.accepted, told.reply.code, told.reply.enhanced) == (False, code, enhanced)
    assert words in told.reply.text
    assert room.spool.accepted == []
    assert [answer for answer, _ in room.notes.refusals] == [told.reply]


async def test_one_hop_below_the_limit_is_taken() -> None:
    assert (await verdict(Room(), b"Received: x\r\n" * 29 + OCTETS)).accepted


@pytest.mark.parametrize(
    ("error", "code"),
    [(SpoolFull("full"), 452), (SpoolFault("broken"), 451), (KeyUsed("k"), 451), (OSError("odd"), 451)],
)
async def test_a_spool_that_fails_promises_nothing(error: Exception, code: int) -> None:
    room = Room()
    room.spool.by_hand = True
    told = verdicts(room)
    room.spool.answer(error)
    await settle()
    assert [(v.accepted, v.reply.code) for v in told] == [(False, code)]
    assert room.desk.offered == []
    assert [what for what, _ in room.notes.failures] == ["accept"]


async def test_a_commit_that_is_cancelled_is_a_451() -> None:
    room = Room()
    room.spool.by_hand = True
    told = verdicts(room)
    room.spool.open[0][1].cancel()
    await settle()
    assert [(v.accepted, v.reply.code) for v in told] == [(False, 451)]


async def test_a_key_is_used_once() -> None:
    room = Room()
    assert (await verdict(room, key=b"k")).accepted
    told = await verdict(room, key=b"k")
    assert (told.accepted, told.reply.code) == (False, 451)
    assert len(room.spool.accepted) == 1


# -- sinks ---------------------------------------------------------------------------------------------


def saying(said: SinkVerdict | Exception) -> Binding:
    def call(message: Message) -> SinkVerdict:
        if isinstance(said, Exception):
            raise said
        return said

    return binding(call, "scanner", effects=set(Effect), on_error=OnError.DEFER)


async def test_reject_is_a_550_in_the_sinks_words() -> None:
    room = Room(bindings=[saying(Reject("a\nvirus: größe\0 " + "x" * 1000))])
    told = await verdict(room)
    assert (told.accepted, told.reply.code, told.reply.enhanced) == (False, 550, "5.7.1")
    assert told.reply.lines[0].startswith(b"a virus: gr??e? xxx")
    assert len(told.reply.lines[0]) == 400
    assert [entry.action for entry in room.notes.sunken] == [Action.REJECTED]
    assert room.spool.accepted == []


async def test_a_rejection_without_words_has_some() -> None:
    assert (await verdict(Room(bindings=[saying(Reject(" \n"))]))).reply.lines == (b"Refused",)


async def test_a_sink_that_fails_defers_and_keeps_its_words_to_us() -> None:
    room = Room(bindings=[saying(RuntimeError("db password is x"))])
    told = await verdict(room)
    assert (told.accepted, told.reply.code) == (False, 451)
    assert "password" not in told.reply.text
    assert "password" in room.notes.refusals[0][1]


async def test_hold_is_taken_and_sent_to_nobody() -> None:
    room = Room(bindings=[saying(Hold("look at it", [Edit.add_field("X-A", "b")]))])
    assert (await verdict(room)).accepted
    (given,) = room.spool.accepted
    assert (given.state, given.reason, given.owner) == (MessageState.HELD, "scanner: look at it", "")
    assert given.recipients[0].status is RecipientStatus.WAITING
    assert fold(given.arrival, given.ledger, verify=True).octets().startswith(b"X-A: b\r\n")
    assert room.desk.offered == []


async def test_discard_is_taken_and_finished_with_its_reason() -> None:
    room = Room(bindings=[saying(Discard("spam"))])
    assert (await verdict(room)).accepted
    (given,) = room.spool.accepted
    assert (given.state, given.reason) == (MessageState.FINISHED, "discarded by scanner: spam")
    assert given.recipients[0].status is RecipientStatus.DELETED
    assert room.spool.show(given.id).state is MessageState.FINISHED
    assert room.desk.offered == []


async def test_what_a_sink_adds_to_the_envelope_is_stored_and_offered() -> None:
    room = Room(bindings=[binding(editing(Edit.add_recipient("x@b.example")), effects={Effect.ENVELOPE})])
    assert (await verdict(room)).accepted
    (given,) = room.spool.accepted
    assert [(r.index, r.recipient.address.text) for r in given.recipients] == [
        (0, "d@b.example"),
        (1, "x@b.example"),
    ]
    assert room.desk.offered[0].message.envelope == given.envelope


async def test_the_sources_own_edits_have_an_entry_of_their_own() -> None:
    room = Room()
    told: list[Verdict] = []
    room.acceptor.accept(
        room.acceptor.new_id(),
        ENVELOPE,
        msgspec.structs.replace(FACTS, source="pickup"),
        Arrived(content_from(b"Bcc: e@b.example\r\n" + OCTETS)),
        TRUSTED,
        told.append,
        edits=(Edit.remove_field("Bcc"),),
    )
    await settle()
    (given,) = room.spool.accepted
    assert [entry.event for entry in given.ledger] == ["door", "pickup"]
    assert b"Bcc" not in fold(given.arrival, given.ledger, verify=True).octets()
    assert b"Bcc" in given.arrival.octets()


# -- bodies in files -----------------------------------------------------------------------------------


def in_a_file(room: Room) -> Arrived:
    intake = Intake(lambda: room.spool.body_writer(room.acceptor.new_id()))
    intake.spill()
    intake.feed(OCTETS)
    arrived = intake.finish()
    assert isinstance(arrived.content.body, FileBody)
    return arrived


@pytest.mark.parametrize(
    ("said", "code"),
    [(Next(), 250), (Reject("no"), 550), (Next([Edit.add_field("X-A", "b")]), 250), (RuntimeError(), 451)],
)
async def test_sinks_of_a_large_message_run_in_a_thread_and_are_answered(
    said: SinkVerdict | Exception, code: int
) -> None:
    room = Room(bindings=[saying(said)])
    told = verdicts(room, arrived=in_a_file(room))
    assert told == []
    await _until(told)
    assert [v.reply.code for v in told] == [code]


@pytest.mark.parametrize("error", [UnicodeEncodeError("utf-8", "x", 0, 1, "odd"), SpoolFull("full")])
async def test_a_spool_that_raises_behind_the_thread_is_answered_too(error: Exception) -> None:
    room = Room(bindings=[saying(Next())])
    room.spool.accept_error = error
    told = verdicts(room, arrived=in_a_file(room))
    await _until(told)
    assert [v.reply.code for v in told] == [452 if isinstance(error, SpoolFull) else 451]


async def test_a_stored_body_that_cannot_be_read_is_answered() -> None:
    room = Room(bindings=[binding(rewriting(bytes), "reads")])
    told = verdicts(room, arrived=in_a_file(room))
    await _until(told)
    assert [v.reply.code for v in told] == [451]


async def _until(told: list[Verdict]) -> None:
    """Until the thread is done: it is the executor's own that is waited for."""
    await asyncio.get_running_loop().run_in_executor(None, lambda: None)
    await asyncio.get_running_loop().shutdown_default_executor()
    await settle()
    assert told
