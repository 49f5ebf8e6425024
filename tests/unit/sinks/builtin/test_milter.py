"""The milter bridge against a milter that a test writes: what it is told, and what becomes of its word."""

from __future__ import annotations

import asyncio
import struct
import tracemalloc
from pathlib import Path

import pytest

from lonedot.message.content import Content, FileBody
from lonedot.message.intake import content_from
from lonedot.message.measure import measure, measure_body
from lonedot.sinks.builtin.milter_client import Say, Talk
from lonedot.sinks.builtin.milter_line import Line, MilterUnreachable, Patience
from lonedot.sinks.builtin.milter_wire import Reply
from lonedot.sinks.calls import Decision, Dispatched
from lonedot.sinks.dispatch import dispatch_with, steps
from lonedot.sinks.hosts import Hosts
from lonedot.spool.interface import Facts
from lonedot.terms.envelope import BodyType
from lonedot.terms.ids import SessionId
from lonedot.testing.clock import ManualClock
from tests.peers.milter import CONTINUE, ScriptedMilter, change, pack, reply_text
from tests.unit.sinks.builtin.milter_driver import (
    FACTS,
    ID,
    MAIL,
    ONE,
    SHOWN,
    TRACE,
    after,
    binding,
    dispatched,
    envelope,
    refusing,
)


async def test_a_milter_is_told_the_whole_session() -> None:
    with ScriptedMilter() as milter:
        done = await dispatched(
            binding(milter), who=envelope(ONE, "c@example.org", body=BodyType.EIGHT_BIT_MIME)
        )
    assert done.decision is Decision.ACCEPT
    assert after(done) == MAIL
    assert milter.letters() == b"OCHMRRTLLLLLNBEQ"
    assert milter.told(b"C") == [b"[192.0.2.1]\x004\0\x00192.0.2.1\0"]
    assert milter.told(b"H") == [b"c.example\0"]
    assert milter.told(b"M") == [b"<a@example.com>\0BODY=8BITMIME\0"]
    assert milter.told(b"R") == [b"<b@example.org>\0", b"<c@example.org>\0"]
    assert milter.headers() == SHOWN
    assert milter.told(b"B") == [b"text\r\n.dot\r\n"]


async def test_macros_go_with_their_stage() -> None:
    with ScriptedMilter() as milter:
        await dispatched(binding(milter))
    connected = milter.macros(b"C")
    assert connected[b"j"] == b"relay.example"
    assert connected[b"{daemon_name}"] == b"relay.example"
    assert connected[b"_"] == b"[192.0.2.1]"
    assert connected[b"{client_addr}"] == b"192.0.2.1"
    assert milter.macros(b"H") == {b"{tls_version}": b"TLSv1.3", b"{cipher}": b"TLS_AES_256_GCM_SHA384"}
    mail = milter.macros(b"M")
    assert (mail[b"i"], mail[b"{mail_addr}"], mail[b"{auth_authen}"]) == (
        ID.encode(),
        b"a@example.com",
        b"anna",
    )
    assert milter.macros(b"R")[b"{rcpt_addr}"] == b"b@example.org"
    assert milter.macros(b"E")[b"i"] == ID.encode()


async def test_a_milter_chooses_its_macros() -> None:
    lists = struct.pack("!I", 2) + b"{client_addr} i unknown_one\0" + struct.pack("!I", 5) + b"\0"
    with ScriptedMilter(lists=lists) as milter:
        await dispatched(binding(milter))
    assert milter.macros(b"M") == {b"{client_addr}": b"192.0.2.1", b"i": ID.encode()}
    assert milter.macros(b"E") == {}
    assert milter.macros(b"R")[b"i"] == ID.encode()


@pytest.mark.parametrize(
    ("step", "letters"),
    [
        (0x01, b"OHMRTLLLLLNBEQ"),
        (0x02, b"OCMRTLLLLLNBEQ"),
        (0x04, b"OCHRTLLLLLNBEQ"),
        (0x08, b"OCHMTLLLLLNBEQ"),
        (0x10, b"OCHMRTLLLLLNEQ"),
        (0x20, b"OCHMRTNBEQ"),
        (0x40, b"OCHMRTLLLLLBEQ"),
        (0x200, b"OCHMRLLLLLNBEQ"),
        (0x27F, b"OEQ"),
        # Flags by which it does not answer: were one not obeyed, the wait would end in a fault.
        (0x1000, b"OCHMRTLLLLLNBEQ"),
        (0x2000, b"OCHMRTLLLLLNBEQ"),
        (0x4000, b"OCHMRTLLLLLNBEQ"),
        (0x8000, b"OCHMRTLLLLLNBEQ"),
        (0x10000, b"OCHMRTLLLLLNBEQ"),
        (0x40000, b"OCHMRTLLLLLNBEQ"),
        (0x80000, b"OCHMRTLLLLLNBEQ"),
        (0x80, b"OCHMRTLLLLLNBEQ"),
        (0xDF080, b"OCHMRTLLLLLNBEQ"),
    ],
)
async def test_the_negotiation_is_obeyed_flag_by_flag(step: int, letters: bytes) -> None:
    with ScriptedMilter(steps=step) as milter:
        done = await dispatched(binding(milter))
    assert (done.decision, done.words) == (Decision.ACCEPT, "")
    assert milter.letters() == letters


async def test_values_with_the_space_in_front() -> None:
    answers = {b"E": change(b"h", b"X-New", b" v") + change(b"m", b"X-N", b"w", index=2) + CONTINUE}
    with ScriptedMilter(answers, steps=0x100000) as milter:
        done = await dispatched(binding(milter))
    assert milter.headers()[:3] == [
        (b"From", b" <a@example.com>"),
        (b"Subject", b" one\n\ttwo"),
        (b"X-N", b" 1"),
    ]
    assert after(done) == MAIL.replace(b"X-N:2\r\n", b"X-N:w\r\n").replace(
        b"3\r\n\r\n", b"3\r\nX-New: v\r\n\r\n"
    )


async def test_an_old_milter_is_not_told_of_data() -> None:
    with ScriptedMilter(version=2) as milter:
        done = await dispatched(binding(milter))
    assert done.decision is Decision.ACCEPT
    assert milter.letters() == b"OCHMRLLLLLNBEQ"


async def test_a_body_goes_in_pieces_until_the_milter_has_enough() -> None:
    large = TRACE + b"Subject: s\r\n\r\n" + (b"x" * 70 + b"\r\n") * 4000
    with ScriptedMilter() as milter:
        await dispatched(binding(milter), octets=large)
    pieces = milter.told(b"B")
    assert b"".join(pieces) == large.partition(b"\r\n\r\n")[2]
    assert max(map(len, pieces)) == 65535
    with ScriptedMilter({b"B": pack(b"s")}, steps=0x400) as milter:
        done = await dispatched(binding(milter), octets=large)
    assert (done.decision, milter.letters()) == (Decision.ACCEPT, b"OCHMRTLNBEQ")


async def test_mail_from_pickup_comes_from_this_machine() -> None:
    facts = Facts("pickup", SessionId(""), client="letter.eml")
    with ScriptedMilter() as milter:
        await dispatched(binding(milter), facts=facts)
    assert milter.told(b"C") == [b"localhost\x004\0\x00127.0.0.1\0"]
    assert milter.told(b"H") == [b"relay.example\0"]
    assert b"{auth_authen}" not in milter.macros(b"M")


async def test_a_client_with_an_address_of_version_6(tmp_path: Path) -> None:
    facts = Facts("smtp", SessionId("0000000000001"), client="2001:db8::1", helo="c.example")
    with ScriptedMilter(path=tmp_path / "milter") as milter:
        await dispatched(binding(milter), facts=facts)
    assert milter.told(b"C") == [b"[2001:db8::1]\x006\0\0IPv6:2001:db8::1\0"]


@pytest.mark.parametrize(
    "form", ["inet:{port}@127.0.0.1", "inet:127.0.0.1:{port}", "inet:{port}@[127.0.0.1]"]
)
async def test_ways_to_write_where_it_is(form: str) -> None:
    with ScriptedMilter() as milter:
        done = await dispatched(binding(form.format(port=milter.port)))
    assert done.decision is Decision.ACCEPT


@pytest.mark.parametrize("letter", [b"C", b"H", b"M", b"R", b"T", b"L", b"N", b"B", b"E"])
@pytest.mark.parametrize(
    ("answer", "decision", "code", "words"),
    [
        (pack(b"r"), Decision.REJECT, 550, "Refused by a filter"),
        (pack(b"t"), Decision.DEFER, 451, "A filter says: try again later"),
        (reply_text("554 5.7.9 no %%1"), Decision.REJECT, 554, "no %1"),
        (reply_text("450 4.2.1 later"), Decision.DEFER, 450, "later"),
        (reply_text("421 4.7.0 closing"), Decision.DEFER, 421, "closing"),
        (pack(b"4"), Decision.DEFER, 421, "A filter says: try again later"),
        (pack(b"a"), Decision.ACCEPT, 0, ""),
    ],
    ids=["reject", "tempfail", "replycode 5xx", "replycode 4xx", "replycode 421", "shutdown", "accept"],
)
async def test_a_word_at_each_stage(
    letter: bytes, answer: bytes, decision: Decision, code: int, words: str
) -> None:
    with ScriptedMilter({letter: answer}) as milter:
        done = await dispatched(binding(milter))
    assert (done.decision, done.code, done.words) == (decision, code, words)
    assert milter.letters().rstrip(b"QA").endswith(letter), "nothing is told after that"


@pytest.mark.parametrize("letter", [b"M", b"R", b"T", b"L", b"N", b"B", b"E"])
async def test_discard(letter: bytes) -> None:
    with ScriptedMilter({letter: pack(b"d")}) as milter:
        done = await dispatched(binding(milter))
    assert done.decision is Decision.DISCARD


@pytest.mark.parametrize(
    ("text", "code", "enhanced", "words"),
    [
        ("550 5.7.1 one", 550, "5.7.1", "one"),
        ("550-5.7.1 one\r\n550 5.7.1 two", 550, "5.7.1", "one two"),
        ("550-5.7.1 one\n550 5.7.1 two", 550, "5.7.1", "one two"),
        ("550 4.7.1 not ours", 550, "5.7.1", "not ours"),
        ("550 plain", 550, "5.7.1", "plain"),
        ("550", 550, "5.7.1", "Refused by a filter"),
        ("550 100%% and %", 550, "5.7.1", "100% and %"),
    ],
)
async def test_a_reply_in_its_own_words(text: str, code: int, enhanced: str, words: str) -> None:
    with ScriptedMilter({b"E": reply_text(text)}) as milter:
        done = await dispatched(binding(milter))
    assert (done.code, done.enhanced, done.words) == (code, enhanced, words)


async def test_quarantine_holds() -> None:
    answers = {b"E": change(b"q", b"looks odd") + change(b"h", b"X-Odd", b"yes") + CONTINUE}
    with ScriptedMilter(answers) as milter:
        done = await dispatched(binding(milter))
    assert (done.decision, done.words) == (Decision.HOLD, "looks odd")
    assert done.content.head.endswith(b"X-Odd: yes\r\n\r\n")


async def test_signs_of_life_extend_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each comes within the time; all of them together do not."""
    now = 0.0
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda: now)

    def talk() -> Talk[object]:
        return (yield Say(b"x", True, "the end of the message", True))

    async def turns() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    line = Line(Patience(1, 1, 5))
    line.connection_made(Mute())
    task = asyncio.create_task(line.drive(talk()))
    await turns()
    for _ in range(3):
        now += 4
        line.data_received(pack(b"p"))
        await turns()
    assert not task.done()
    line.data_received(CONTINUE)
    assert await task is Reply.CONTINUE
    late = asyncio.create_task(line.drive(talk()))
    await turns()
    now += 6
    with pytest.raises(MilterUnreachable, match="has not answered the end of the message within 5 s"):
        await late


class Mute(asyncio.Transport):
    """Takes everything."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def abort(self) -> None:
        pass


async def test_one_refused_recipient_refuses_the_message() -> None:
    with ScriptedMilter(refusing(b"c@", reply_text("550 5.1.1 Not here"))) as milter:
        done = await dispatched(binding(milter), ONE, "c@example.org", "d@example.org")
    assert (done.decision, done.code, done.words) == (Decision.REJECT, 550, "Not here")
    assert milter.letters() == b"OCHMRRRAQ"


async def test_refused_recipients_are_taken_out_where_the_binding_says_so() -> None:
    with ScriptedMilter(refusing(b"c@", pack(b"r"))) as milter:
        bound = binding(milter, refused_recipients="remove")
        done = await dispatched(bound, ONE, "c@example.org", "d@example.org")
        assert [one.address.local for one in done.envelope.recipients] == [b"b", b"d"]
        assert milter.letters().rstrip(b"Q") == b"OCHMRRRTLLLLLNBE"
        alone = await dispatched(bound, "c@example.org")
        assert alone.decision is Decision.REJECT


async def test_refused_recipients_stay_out_when_the_milter_then_accepts() -> None:
    def answers(letter: bytes, told: bytes) -> bytes:
        if letter == b"R":
            return pack(b"r") if b"c@" in told else pack(b"a")
        return b"" if letter in b"DA" else CONTINUE

    with ScriptedMilter(answers) as milter:
        bound = binding(milter, refused_recipients="remove")
        done = await dispatched(bound, "c@example.org", ONE)
    assert [one.address.local for one in done.envelope.recipients] == [b"b"]


async def test_with_split_each_recipient_has_a_result() -> None:
    with ScriptedMilter(refusing(b"c@", pack(b"d"))) as milter:
        done = await dispatched(binding(milter, split=True), ONE, "c@example.org")
    assert done.decision is Decision.ACCEPT
    assert done.discarded == (1,)


@pytest.mark.parametrize("flags", [0, 0x80000], ids=["answered", "silent"])
async def test_a_large_message_is_never_in_memory(flags: int, tmp_path: Path) -> None:
    size = 64 * 1024 * 1024
    line = b"x" * 1022 + b"\r\n"
    path = tmp_path / "body"
    with path.open("wb") as file:
        for _ in range(size // (1024 * 1024)):
            file.write(line * 1024)
    head = b"Subject: s\r\n\r\n"
    body = FileBody(path, size)
    content = Content(head, body, measure(head), measure_body(body))
    with ScriptedMilter(steps=flags, forgets=b"B") as milter:
        bound = binding(milter)
        tracemalloc.start()
        try:
            done = await dispatched(bound, content=content)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert done.decision is Decision.ACCEPT
    assert milter.letters().count(b"B") >= size // 65535
    assert peak < 4 * 1024 * 1024


@pytest.mark.parametrize("flags", [0, 0x8000], ids=["answered", "silent"])
async def test_ten_thousand_recipients(flags: int) -> None:
    people = [f"r{number}@example.org" for number in range(10_000)]
    with ScriptedMilter(steps=flags) as milter:
        done = await dispatched(binding(milter), *people)
    assert (done.decision, len(done.envelope.recipients)) == (Decision.ACCEPT, 10_000)
    assert milter.letters().count(b"R") == 10_000


async def test_many_messages_at_once() -> None:
    with ScriptedMilter({b"E": change(b"h", b"X-New", b"v") + CONTINUE}) as milter:
        bound = binding(milter)
        hosts = Hosts()

        async def one() -> Dispatched:
            chain = steps(ID, envelope(ONE), FACTS, content_from(MAIL), [bound], ManualClock())
            return await dispatch_with(chain, None, hosts, False)

        done = await asyncio.gather(*(one() for _ in range(100)))
        await hosts.close()
    assert all(one.content.head.endswith(b"X-New: v\r\n\r\n") for one in done)
    assert [milter.letters(number) for number in range(100)] == [b"OCHMRTLLLLLNBEQ"] * 100
