"""A session without sockets: order of answers, back-pressure, what a lost connection leaves, time, TLS."""

from __future__ import annotations

import asyncio
import ssl

import msgspec
import pytest

from lonedot.message.intake import HEAD_LIMIT, MEMORY_LIMIT
from lonedot.protocol.options import ServerLimits, ServerOptions
from lonedot.reception.session import PAUSE_AT
from lonedot.reception.session_clock import CLOSE_SECONDS
from lonedot.spool.interface import MessageState, RecipientStatus, SpoolFault, SpoolFull
from lonedot.terms.address import Address
from lonedot.terms.reply import reply
from tests.unit.reception.room import SETTINGS, Line, Room, Wire, settle

ENVELOPE = b"MAIL FROM:<c@a.example>\r\nRCPT TO:<d@b.example>\r\n"
MESSAGE = b"From: c@a.example\r\nSubject: x\r\n\r\nbody\r\n"
BARE = b"From: c@a.example\r\n\r\nbo\ndy\r\n"
OPEN = ENVELOPE + b"DATA\r\n"
TEXT = MESSAGE + b".\r\n"


def bdat(content: bytes) -> bytes:
    return ENVELOPE + b"BDAT %d LAST\r\n" % len(content) + content


def big(octets: int) -> bytes:
    return MESSAGE + (b"x" * 70 + b"\r\n") * (octets // 72 + 1)


# -- order ---------------------------------------------------------------------------------------------


async def test_greeting_and_a_pipelined_group_are_one_write_each() -> None:
    line = Room().connect(greeted=False)
    assert line.wire.writes == [b"220 relay.example.com ESMTP\r\n"]
    line.say(b"EHLO copier\r\n" + ENVELOPE + b"RCPT TO:<e@b.example>\r\nDATA\r\n")
    assert len(line.wire.writes) == 2
    assert line.codes() == [220, 250, 250, 250, 250, 354]


async def test_250_is_written_after_the_commit_and_not_before() -> None:
    room = Room()
    room.spool.by_hand = True
    line = room.connect()
    line.say(OPEN, TEXT)
    await settle()
    assert line.codes() == [250, 250, 354]
    room.spool.answer()
    await settle()
    (given,) = room.spool.accepted
    assert line.heard() == b"250 2.0.0 Ok: queued as %s\r\n" % given.id.encode()
    assert [claim.message.id for claim in room.desk.offered] == [given.id]
    assert line.session.messages == 1


async def test_what_comes_while_a_commit_is_out_waits_its_turn() -> None:
    room = Room()
    room.spool.by_hand = True
    line = room.connect()
    line.say(bdat(MESSAGE), bdat(MESSAGE) + b"QUIT\r\n")
    await settle()
    assert line.codes() == [250, 250]
    room.spool.answer()
    await settle()
    assert line.codes() == [250, 250, 250]
    room.spool.answer()
    await settle()
    assert line.codes() == [250, 221]
    assert line.wire.lost()
    assert len(room.spool.accepted) == 2


async def test_reading_pauses_when_too_much_waits_behind_a_commit() -> None:
    room = Room()
    room.spool.by_hand = True
    line = room.connect()
    behind = bdat(big(2 * PAUSE_AT) + b"last\r\n")
    line.say(bdat(MESSAGE), behind[:PAUSE_AT])
    assert not line.wire.paused()
    line.say(behind[PAUSE_AT : PAUSE_AT + 1])
    assert line.wire.paused()
    line.say(behind[PAUSE_AT + 1 : -9])
    assert line.wire.pauses == 1
    room.spool.answer()
    await settle()
    assert not line.wire.paused()
    line.say(behind[-9:])
    room.spool.answer()
    await settle()
    assert line.codes() == [250, 250, 250, 250, 250, 250]
    assert room.spool.content(room.spool.accepted[1].id).octets().endswith(b"last\r\n")


async def test_a_client_that_does_not_read_is_not_read_either() -> None:
    room = Room()
    room.spool.by_hand = True
    line = room.connect()
    line.session.pause_writing()
    assert line.wire.paused()
    line.say(OPEN, TEXT)
    await settle()
    room.spool.answer()
    await settle()
    assert line.wire.paused(), "a commit is no reason to write more to somebody who does not read"
    line.session.resume_writing()
    assert not line.wire.paused()


async def test_many_refused_messages_in_one_segment_are_refused_one_by_one() -> None:
    room = Room(trusted=False)
    room.settings = msgspec.structs.replace(SETTINGS, relay_to=(b"b.example",))
    line = room.connect()
    line.say(bdat(BARE) * 2000 + b"NOOP\r\n")
    codes = line.codes()
    assert codes == [250, 250, 550] * 2000 + [250]
    assert "session.fault" not in room.what_was_noted()
    assert room.budget.used == 0


# -- what is refused -----------------------------------------------------------------------------------


async def test_rights_routes_and_postmaster() -> None:
    room = Room(trusted=False)
    room.settings = msgspec.structs.replace(
        SETTINGS, relay_to=(b"b.example", b"*.c.example", b"nowhere.example")
    )
    line = room.connect()
    line.say(b"MAIL FROM:<>\r\n")
    for path, code in (
        (b"d@b.example", 250),
        (b"d@B.EXAMPLE", 250),
        (b"d@x.c.example", 250),
        (b"d@c.example", 550),
        (b"d@elsewhere.example", 550),
        (b"d@nowhere.example", 550),
        (b"postmaster", 250),
        (b"PostMaster@relay.example.com", 250),
        (b"postmaster@elsewhere.example", 550),
    ):
        line.heard()
        line.say(b"RCPT TO:<%s>\r\n" % path)
        assert line.codes() == [code], path
    line.say(b"DATA\r\n", TEXT)
    await settle()
    recipients = [r.address for r in room.spool.accepted[0].envelope.recipients]
    assert recipients.count(Address(b"admin@a.example")) == 1


async def test_a_full_disk_is_said_at_mail() -> None:
    room = Room()
    room.spool.room = False
    line = room.connect()
    line.say(ENVELOPE)
    assert line.codes() == [452, 503]


@pytest.mark.parametrize(
    ("error", "code"), [(SpoolFull("full"), 452), (SpoolFault("broken"), 451)], ids=["full", "broken"]
)
async def test_a_disk_that_fails_inside_the_content_is_answered_at_its_end(
    error: Exception, code: int
) -> None:
    room = Room()
    room.spool.write_error = error
    line = room.connect()
    line.say(OPEN, big(MEMORY_LIMIT + 1000), big(1000))
    assert line.codes() == [250, 250, 354]
    assert room.budget.used == 0, "what is refused is not kept in memory till its end"
    line.say(b".\r\n")
    assert line.codes() == [code]
    room.spool.write_error = None
    line.say(OPEN, TEXT)
    await settle()
    assert line.codes() == [250, 250, 354, 250]
    assert room.spool.bodies == 0


async def test_a_head_that_never_ends_is_refused_and_forgotten() -> None:
    room = Room()
    line = room.connect()
    line.say(OPEN, b"X-A: b\r\n" * (HEAD_LIMIT // 8 + 2))
    assert room.budget.used == 0
    line.say(b"X-A: b\r\n\r\nbody\r\n.\r\n")
    assert line.codes() == [250, 250, 354, 552]
    assert room.budget.used == 0


async def test_too_large_is_read_to_its_end() -> None:
    room = Room()
    line = room.connect()
    line.say(OPEN, big(2_100_000), b".\r\nNOOP\r\n")
    assert line.codes() == [250, 250, 354, 552, 250]
    assert (room.budget.used, room.spool.bodies) == (0, 0)


@pytest.mark.parametrize(("error", "code"), [(SpoolFull("full"), 452), (SpoolFault("broken"), 451)])
async def test_a_commit_that_fails_is_answered_and_its_body_removed(error: SpoolFault, code: int) -> None:
    room = Room()
    room.spool.fault = error
    line = room.connect()
    line.say(OPEN, big(MEMORY_LIMIT + 1000), b".\r\n")
    await settle()
    assert line.codes() == [250, 250, 354, code]
    assert (room.spool.accepted, room.desk.offered, room.spool.bodies) == ([], [], 0)
    assert line.session.messages == 0


async def test_nobody_is_verified_and_nobody_can_log_in() -> None:
    room = Room()
    line = room.connect()
    line.say(b"VRFY joe\r\n", b"AUTH PLAIN AGEAYg==\r\n")
    assert line.codes() == [252, 502]
    assert not any(b"AGEAYg" in octets for _, octets in room.scripts[0].lines)


# -- our own faults ------------------------------------------------------------------------------------


async def test_a_fault_of_ours_is_a_421_and_never_silence() -> None:
    room = Room()
    line = room.connect()
    room.fault = RuntimeError("a fault in the routes")
    line.say(ENVELOPE)
    assert line.codes() == [250, 421]
    await settle()
    assert line.wire.lost()
    assert ("session.fault", "RuntimeError: a fault in the routes") in room.noted_
    assert (room.open, room.timers) == (0, 0)


@pytest.mark.parametrize("octets", [100, MEMORY_LIMIT + 1000])
async def test_a_spool_that_raises_is_answered_451(octets: int) -> None:
    room = Room()
    room.spool.accept_error = UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates")
    line = room.connect()
    line.say(OPEN, big(octets), b".\r\n")
    await settle()
    assert line.codes() == [250, 250, 354, 451]
    assert (room.budget.used, room.spool.bodies) == (0, 0)


async def test_a_body_writer_with_a_fault_of_ours() -> None:
    room = Room()
    room.spool.write_error = RuntimeError("no such thing")
    line = room.connect()
    line.say(OPEN, big(MEMORY_LIMIT + 1000))
    assert line.codes() == [250, 250, 354, 421]
    await settle()
    assert (room.budget.used, room.spool.bodies, room.open) == (0, 0, 0)


async def test_a_refused_client_is_told_why_and_no_more() -> None:
    room = Room()
    room.refusal = reply(421, "4.7.0", "Too many connections")
    line = room.connect(greeted=False)
    line.say(b"EHLO copier\r\n")
    await settle()
    assert line.heard() == b"421 4.7.0 Too many connections\r\n"
    assert line.wire.lost()
    assert (room.open, room.timers) == (0, 0)


# -- lost connections ----------------------------------------------------------------------------------


async def test_a_connection_lost_while_the_commit_is_out_keeps_the_message() -> None:
    room = Room()
    room.spool.by_hand = True
    line = room.connect()
    line.say(OPEN, big(MEMORY_LIMIT + 1000), b".\r\n")
    line.wire.lose()
    await settle()
    assert room.open == 0
    room.spool.answer()
    await settle()
    assert len(room.spool.accepted) == len(room.desk.offered) == 1
    assert room.spool.discarded == 0
    assert (room.budget.used, room.timers) == (0, 0)


async def test_a_connection_lost_while_a_commit_fails_removes_the_body() -> None:
    room = Room()
    room.spool.by_hand = True
    line = room.connect()
    line.say(OPEN, big(MEMORY_LIMIT + 1000), b".\r\n")
    line.wire.lose()
    room.spool.answer(SpoolFault("broken"))
    await settle()
    assert (room.spool.bodies, room.spool.discarded, room.budget.used) == (0, 1, 0)


async def test_a_connection_lost_inside_a_message_leaves_nothing() -> None:
    room = Room()
    line = room.connect()
    line.say(OPEN, big(MEMORY_LIMIT + 1000))
    line.wire.lose()
    assert room.what_was_noted() == ["content.lost"]
    assert (room.spool.bodies, room.spool.discarded, room.budget.used, room.open) == (0, 1, 0, 0)
    line.session.connection_lost(None)
    assert room.open == 0, "told twice, counted once"


async def test_a_client_that_has_said_all_gets_its_reply_and_is_let_go() -> None:
    room = Room()
    room.spool.by_hand = True
    line = room.connect()
    line.say(OPEN, TEXT)
    assert line.session.eof_received() is True
    room.spool.answer()
    await settle()
    assert line.codes() == [250, 250, 354, 250]
    assert line.wire.lost()


# -- time ----------------------------------------------------------------------------------------------


async def test_a_silent_client_is_told_and_closed() -> None:
    room = Room()
    line = room.connect()
    await room.pass_time(SETTINGS.command_seconds - 1)
    assert line.heard() == b""
    await room.pass_time(2)
    assert line.codes() == [421]
    assert line.wire.lost()
    assert room.timers == 0


async def test_a_client_that_speaks_is_not() -> None:
    room = Room()
    line = room.connect()
    for _ in range(20):
        await room.pass_time(SETTINGS.command_seconds - 1)
        line.say(b"NOOP\r\n")
    assert set(line.codes()) == {250}


async def test_inside_a_message_the_time_for_content_holds() -> None:
    room = Room()
    line = room.connect()
    line.say(OPEN, MESSAGE)
    await room.pass_time(SETTINGS.data_seconds + 1)
    assert line.codes() == [250, 250, 354, 421]
    assert room.budget.used == 0


async def test_a_commit_may_last_as_long_as_it_does() -> None:
    room = Room()
    room.spool.by_hand = True
    line = room.connect()
    line.say(OPEN, TEXT)
    await room.pass_time(SETTINGS.session_seconds + 1000)
    assert line.codes() == [250, 250, 354]
    room.spool.answer()
    await settle()
    assert line.codes() == [250]


async def test_a_session_lasts_no_longer_than_it_may() -> None:
    room = Room()
    room.settings = msgspec.structs.replace(
        SETTINGS,
        options=ServerOptions(b"relay.example.com", limits=ServerLimits(idle_commands=10**6)),
        session_seconds=1000,
    )
    line = room.connect()
    for _ in range(10):
        await room.pass_time(99)
        line.say(b"NOOP\r\n")
    assert set(line.codes()) == {250}
    await room.pass_time(20)
    assert line.codes() == [421]


async def test_a_client_that_never_reads_its_last_reply_is_cut_off() -> None:
    room = Room()
    line = room.connect()
    line.wire.unread = 70_000
    line.say(b"QUIT\r\n")
    await settle()
    assert not line.wire.lost()
    await room.pass_time(CLOSE_SECONDS + 1)
    assert line.wire.lost()
    assert (room.open, room.timers) == (0, 0)


# -- the relay stops -----------------------------------------------------------------------------------


async def test_stop_tells_the_idle_and_waits_for_the_busy() -> None:
    room = Room()
    room.spool.by_hand = True
    idle, sending, committing = room.connect(), room.connect(), room.connect()
    sending.say(OPEN, MESSAGE)
    committing.say(OPEN, TEXT)
    assert [line.session.stop() for line in (idle, sending, committing)] == [True, False, False]
    assert idle.codes() == [421]
    sending.say(b".\r\n")
    room.spool.answer()
    room.spool.answer()
    await settle()
    assert sending.codes() == committing.codes() == [250, 250, 354, 250]
    assert [line.session.stop() for line in (idle, sending, committing)] == [True, True, True]
    await settle()
    assert room.open == 0


async def test_abort_cuts_the_line() -> None:
    room = Room()
    line = room.connect()
    line.say(OPEN, MESSAGE)
    line.session.abort()
    await settle()
    assert (room.open, room.budget.used, room.timers) == (0, 0, 0)


# -- facts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hello", "mail", "tls", "protocol"),
    [
        (b"HELO copier", b"MAIL FROM:<c@a.example>", False, "SMTP"),
        (b"EHLO copier", b"MAIL FROM:<c@a.example>", False, "ESMTP"),
        (b"ehlo copier", b"MAIL FROM:<c@a.example> SMTPUTF8", False, "UTF8SMTP"),
        (b"EHLO copier", b"MAIL FROM:<c@a.example>", True, "ESMTPS"),
        (b"EHLO copier", b"MAIL FROM:<c@a.example> SMTPUTF8", True, "UTF8SMTPS"),
    ],
)
async def test_how_it_came_is_kept(hello: bytes, mail: bytes, tls: bool, protocol: str) -> None:
    room = Room()
    extra: dict[str, object] = {"cipher": ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)} if tls else {}
    line = room.connect(greeted=False, extra=extra)
    line.say(hello + b"\r\n" + mail + b"\r\nRCPT TO:<d@b.example>\r\nDATA\r\n", TEXT)
    await settle()
    facts = room.spool.accepted[0].facts
    assert (facts.source, facts.listener, facts.client, facts.helo) == ("smtp", "in", "192.0.2.1", "copier")
    assert (facts.protocol, facts.trusted, facts.revision) == (protocol, True, "r1")
    assert facts.tls == ("TLSv1.3 TLS_AES_256_GCM_SHA384" if tls else "")
    assert facts.session == line.session.id
    assert facts.transcript is not None
    assert b"with " + protocol.encode() + b" " in room.spool.accepted[0].ledger[0].changes[0].octets  # type: ignore[union-attr]


async def test_the_transcript_has_commands_and_answers_but_no_content() -> None:
    room = Room()
    line = room.connect()
    line.say(OPEN, TEXT + b"QUIT\r\n")
    await settle()
    said = room.scripts[0].lines
    assert ("<", b"MAIL FROM:<c@a.example>") in said
    assert ("<", b"[%d octets of content]" % len(MESSAGE)) in said
    assert said[-1][1].endswith(b"\r\n221 2.0.0 Goodbye\r\n")
    assert not any(b"Subject" in octets for _, octets in said)


async def test_one_transaction_forgets_another() -> None:
    room = Room()
    line = room.connect()
    line.say(ENVELOPE + b"RSET\r\n")
    line.say(b"MAIL FROM:<e@a.example>\r\nRCPT TO:<f@b.example>\r\nRCPT TO:<f@B.example>\r\n")
    line.say(b"RCPT TO:<f@b.example>\r\nDATA\r\n", TEXT)
    await settle()
    (given,) = room.spool.accepted
    assert given.envelope.reverse_path == Address(b"e@a.example")
    assert [r.address.octets for r in given.envelope.recipients] == [b"f@b.example", b"f@B.example"]
    assert given.state is MessageState.QUEUED
    assert {r.status for r in given.recipients} == {RecipientStatus.WAITING}


# -- TLS -----------------------------------------------------------------------------------------------


def tls_room() -> Room:
    room = Room()
    options = msgspec.structs.replace(SETTINGS.options, tls_available=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    room.settings = msgspec.structs.replace(SETTINGS, options=options, tls=context)
    return room


class Handshake:
    """In the place of `loop.start_tls`: ends when the test says so."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.outcome: asyncio.Future[Wire | None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().start_tls = self  # type: ignore[method-assign]

    async def __call__(self, transport: object, protocol: object, *_: object, **__: object) -> Wire | None:
        assert transport is self.line.wire
        assert self.line.wire.paused(), "nothing may be read between our 220 and the handshake"
        return await self.outcome

    def succeed(self) -> Wire:
        secured = Wire(self.line.session, "192.0.2.1", {"cipher": ("AES", "TLSv1.3", 256)})
        self.outcome.set_result(secured)
        return secured


async def test_what_is_said_inside_tls_before_the_handshake_has_told_us_is_not_lost() -> None:
    room = tls_room()
    line = room.connect()
    shaking = Handshake(line)
    line.say(ENVELOPE + b"STARTTLS\r\n")
    assert line.codes() == [250, 250, 220]
    await settle()
    secured = shaking.succeed()
    line.say(b"EHLO cop", b"ier\r\n")
    assert secured.writes == []
    await settle()
    (answer,) = secured.writes
    assert answer.startswith(b"250-")
    assert b"STARTTLS" not in answer
    line.wire = secured
    line.say(OPEN, TEXT + b"QUIT\r\n")
    await settle()
    assert room.spool.accepted[0].facts.protocol == "ESMTPS"
    assert room.open == 0


async def test_plaintext_behind_starttls_ends_the_session() -> None:
    room = tls_room()
    line = room.connect()
    Handshake(line)
    line.say(b"STARTTLS\r\nEHLO attacker\r\n")
    await settle()
    assert line.codes()[0] >= 500
    assert line.wire.lost()
    assert room.open == 0


@pytest.mark.parametrize(
    "error", [ConnectionResetError(), ssl.SSLError(1, "no shared cipher"), TimeoutError()]
)
async def test_a_handshake_that_fails_gives_everything_back(error: Exception) -> None:
    room = tls_room()
    line = room.connect()
    shaking = Handshake(line)
    line.say(b"STARTTLS\r\n")
    await settle()
    shaking.outcome.set_exception(error)
    await settle()
    assert "tls.failed" in room.what_was_noted()
    assert (room.open, room.timers) == (0, 0)


@pytest.mark.parametrize("is_lost", [True, False])
async def test_a_connection_lost_during_the_handshake_gives_everything_back(is_lost: bool) -> None:
    room = tls_room()
    line = room.connect()
    shaking = Handshake(line)
    line.say(b"STARTTLS\r\n")
    await settle()
    if is_lost:
        line.wire.lose()
        shaking.succeed()
    else:
        shaking.outcome.set_result(None)
    await settle()
    assert (room.open, room.timers) == (0, 0)


async def test_half_a_close_is_no_state_inside_tls() -> None:
    room = Room()
    room.spool.by_hand = True
    line = room.connect(extra={"cipher": ("AES", "TLSv1.3", 256)})
    line.say(OPEN, TEXT)
    assert line.session.eof_received() is False
    room.spool.answer()
    await settle()
    assert len(room.spool.accepted) == 1
