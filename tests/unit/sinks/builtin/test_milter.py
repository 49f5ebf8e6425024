"""The milter bridge against a milter that a test writes: what it is told, what it may do, and what its faults cost."""

from __future__ import annotations

import asyncio
import struct
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from lonedot.message.content import Content, FileBody
from lonedot.message.intake import content_from
from lonedot.message.ledger import Action
from lonedot.message.measure import measure, measure_body
from lonedot.sinks.bindings import Binding, Isolation, Setting
from lonedot.sinks.builtin import milter as module
from lonedot.sinks.builtin.milter import Milter, MilterSession
from lonedot.sinks.builtin.milter_client import Say, Talk
from lonedot.sinks.builtin.milter_line import Line, MilterUnreachable, Patience
from lonedot.sinks.builtin.milter_wire import Reply
from lonedot.sinks.calls import Decision, Dispatched
from lonedot.sinks.dispatch import dispatch_with, steps
from lonedot.sinks.hosts import Hosts
from lonedot.sinks.load import bind
from lonedot.sinks.protocol import Judgement, Moment, Question, advance, ask_with, questions
from lonedot.spool.interface import Facts
from lonedot.terms.address import Address
from lonedot.terms.envelope import BodyType, Envelope, Recipient
from lonedot.terms.ids import SessionId
from lonedot.testing import make_session
from lonedot.testing.clock import ManualClock
from tests.peers.milter import CONTINUE, Answer, ScriptedMilter, change, pack, reply_text

ID = "2AB4C6D8E0F12"
TRACE = (
    b"Received: from c.example ([192.0.2.1])\r\n\tby relay.example with ESMTP id %b;\r\n\tnow\r\n"
    % ID.encode()
)
MAIL = (
    TRACE
    + b"From: <a@example.com>\r\n"
    + b"Subject: one\r\n\ttwo\r\n"
    + b"X-N: 1\r\nX-N:2\r\nX-N:  3\r\n"
    + b"\r\n"
    + b"text\r\n.dot\r\n"
)
SHOWN = [
    (b"From", b"<a@example.com>"),
    (b"Subject", b"one\n\ttwo"),
    (b"X-N", b"1"),
    (b"X-N", b"2"),
    (b"X-N", b" 3"),
]
FACTS = Facts(
    "smtp",
    SessionId("0000000000001"),
    listener="in",
    client="192.0.2.1",
    helo="c.example",
    protocol="ESMTPS",
    tls="TLSv1.3 TLS_AES_256_GCM_SHA384",
    login="anna",
)
ONE = "b@example.org"


def envelope(*recipients: str, body: BodyType = BodyType.UNSTATED) -> Envelope:
    return Envelope(
        Address(b"a@example.com"), tuple(Recipient(Address(one.encode())) for one in recipients), body
    )


def binding(milter: ScriptedMilter | str, split: bool | None = None, **settings: Setting) -> Binding:
    address = milter if isinstance(milter, str) else milter.address
    return bind(
        Milter,
        sink_class="lonedot.sinks.builtin.milter:Milter",
        settings={"address": address, "hostname": "relay.example", "reply_seconds": 5, **settings},
        split=split,
        effects=["header", "body"] if split else None,
    )


async def dispatched(
    bound: Binding,
    *recipients: str,
    octets: bytes = MAIL,
    content: Content | None = None,
    facts: Facts = FACTS,
    who: Envelope | None = None,
) -> Dispatched:
    """The message through the chain, as acceptance sends it."""
    assert bound.isolation is Isolation.TASK
    hosts = Hosts()
    try:
        told = who or envelope(*recipients or (ONE,))
        chain = steps(ID, told, facts, content or content_from(octets), [bound], ManualClock())
        return await dispatch_with(chain, None, hosts, False)
    finally:
        await hosts.close()


def after(done: Dispatched) -> bytes:
    return done.content.octets()


# --- what a milter is told ----------------------------------------------------------------------------


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


# --- what a milter says -------------------------------------------------------------------------------


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


# --- what a milter changes ----------------------------------------------------------------------------


def header_after(done: Dispatched) -> bytes:
    """What stands behind our own trace field."""
    assert done.content.head.startswith(TRACE)
    return done.content.head[len(TRACE) :]


HEAD = MAIL.partition(b"\r\n\r\n")[0][len(TRACE) :] + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        (change(b"h", b"X-New", b"v"), HEAD[:-2] + b"X-New: v\r\n\r\n"),
        (change(b"h", b"X-New", b"one\n\ttwo"), HEAD[:-2] + b"X-New: one\r\n\ttwo\r\n\r\n"),
        (change(b"h", b"X-New", b"one\r\n\ttwo\n"), HEAD[:-2] + b"X-New: one\r\n\ttwo\r\n\r\n"),
        (change(b"i", b"X-New", b"v", index=1), b"X-New: v\r\n" + HEAD),
        (change(b"i", b"X-New", b"v", index=2), HEAD.replace(b"Subject", b"X-New: v\r\nSubject")),
        (change(b"i", b"X-New", b"v", index=99), HEAD[:-2] + b"X-New: v\r\n\r\n"),
        (
            change(b"i", b"X-A", b"1", index=1) + change(b"i", b"X-B", b"2", index=1),
            b"X-B: 2\r\nX-A: 1\r\n" + HEAD,
        ),
        (change(b"m", b"x-n", b"w", index=2), HEAD.replace(b"X-N:2", b"x-n: w")),
        (change(b"m", b"X-N", b"", index=2), HEAD.replace(b"X-N:2\r\n", b"")),
        (change(b"m", b"X-N", b"", index=0), HEAD.replace(b"X-N: 1\r\n", b"")),
        (change(b"m", b"X-N", b"", index=9), HEAD),
        (change(b"m", b"X-N", b"w", index=9), HEAD[:-2] + b"X-N: w\r\n\r\n"),
        (change(b"m", b"X-Other", b"w", index=1), HEAD[:-2] + b"X-Other: w\r\n\r\n"),
        # Those behind one that is taken away move up.
        (
            change(b"m", b"X-N", b"", index=1) + change(b"m", b"X-N", b"", index=1),
            HEAD.replace(b"X-N: 1\r\nX-N:2\r\n", b""),
        ),
        (
            change(b"h", b"X-N", b"4") + change(b"m", b"X-N", b"five", index=4),
            HEAD[:-2] + b"X-N: five\r\n\r\n",
        ),
        # What says the same keeps its octets, folds and all.
        (change(b"m", b"Subject", b"one two", index=1), HEAD),
        # Our own trace field is neither shown nor counted.
        (change(b"m", b"Received", b"", index=1), HEAD),
        (change(b"m", b"Received", b"by x; now", index=1), HEAD[:-2] + b"Received: by x; now\r\n\r\n"),
    ],
)
async def test_header_fields(changes: bytes, wanted: bytes) -> None:
    with ScriptedMilter({b"E": changes + CONTINUE}) as milter:
        done = await dispatched(binding(milter))
    assert (done.decision, done.words) == (Decision.ACCEPT, "")
    assert header_after(done) == wanted
    assert done.content.body.octets() == b"text\r\n.dot\r\n"


async def test_index_0_is_above_our_own_trace_field() -> None:
    with ScriptedMilter({b"E": change(b"i", b"X-New", b"v", index=0) + CONTINUE}) as milter:
        done = await dispatched(binding(milter))
    assert after(done) == b"X-New: v\r\n" + MAIL


async def test_received_fields_above_and_below_ours() -> None:
    octets = TRACE + b"Received: old\r\n" + MAIL[len(TRACE) :]
    changes = change(b"i", b"Received", b"new", index=0) + change(b"m", b"Received", b"", index=2)
    with ScriptedMilter({b"E": changes + CONTINUE}) as milter:
        done = await dispatched(binding(milter), octets=octets)
    assert after(done) == b"Received: new\r\n" + MAIL


async def test_a_long_line_is_folded() -> None:
    value = b"word " * 300
    with ScriptedMilter({b"E": change(b"h", b"X-Long", value) + CONTINUE}) as milter:
        done = await dispatched(binding(milter))
    assert done.decision is Decision.ACCEPT
    assert max(map(len, done.content.head.split(b"\r\n"))) <= 78
    (field,) = done.content.head.split(b"X-Long")[1:]
    assert field.split() == [b":", *[b"word"] * 300]


@pytest.mark.parametrize("size", [10, 400_000])
async def test_another_body_comes_in_pieces(size: int) -> None:
    body = b"new line\r\n" * (size // 10)
    pieces = b"".join(pack(b"b", body[start : start + 65535]) for start in range(0, len(body), 65535))
    with ScriptedMilter({b"E": pieces + CONTINUE}) as milter:
        done = await dispatched(binding(milter), octets=MAIL + b"more\r\n" * 30_000)
    assert (done.decision, done.words) == (Decision.ACCEPT, "")
    assert done.content.body.octets() == body
    (entry,) = done.entries
    assert entry.action is Action.KEPT


@pytest.mark.parametrize("body", [b"text\r\n.dot\r\n", b"text\n.dot\n"])
async def test_the_same_body_is_no_change(body: bytes) -> None:
    with ScriptedMilter({b"E": pack(b"b", body) + CONTINUE}) as milter:
        done = await dispatched(binding(milter))
    assert after(done) == MAIL
    assert done.entries[0].changes == ()


async def test_a_body_with_lf_for_line_ends_is_put_right() -> None:
    with ScriptedMilter({b"E": pack(b"b", b"other\ntext\n") + CONTINUE}) as milter:
        done = await dispatched(binding(milter))
    assert (done.decision, done.content.body.octets()) == (Decision.ACCEPT, b"other\r\ntext\r\n")


async def test_a_body_that_is_damage_is_held() -> None:
    with ScriptedMilter({b"E": pack(b"b", b"other\r\ntext\nmore\0") + CONTINUE}) as milter:
        done = await dispatched(binding(milter))
    assert done.decision is Decision.HOLD
    assert after(done) == MAIL


async def test_the_envelope() -> None:
    changes = (
        change(b"+", b"<new@example.org>")
        + change(b"+", b"<b@example.org>")
        + change(b"2", b"<more@example.org>", b"NOTIFY=NEVER")
        + change(b"-", b"<C@example.org>")
        + change(b"-", b"<nobody@example.org>")
        + change(b"e", b"<bounces@example.com>", b"RET=HDRS")
    )
    with ScriptedMilter({b"E": changes + CONTINUE}) as milter:
        done = await dispatched(binding(milter), ONE, "c@example.org")
    assert done.envelope.reverse_path.octets == b"bounces@example.com"
    assert [one.address.local for one in done.envelope.recipients] == [b"b", b"new", b"more"]


async def test_the_null_sender() -> None:
    with ScriptedMilter({b"E": change(b"e", b"<>") + CONTINUE}) as milter:
        done = await dispatched(binding(milter))
    assert done.envelope.reverse_path.is_null


async def test_nobody_left_is_discarded() -> None:
    with ScriptedMilter({b"E": change(b"-", b"<b@example.org>") + CONTINUE}) as milter:
        done = await dispatched(binding(milter))
    assert (done.decision, done.words) == (Decision.DISCARD, "the milter has left no recipient")


async def test_a_refusal_takes_nothing_of_what_was_changed() -> None:
    with ScriptedMilter({b"E": change(b"h", b"X-New", b"v") + pack(b"r")}) as milter:
        done = await dispatched(binding(milter))
    assert done.decision is Decision.REJECT
    assert after(done) == MAIL


async def test_what_the_binding_does_not_declare_is_not_taken() -> None:
    with ScriptedMilter({b"E": pack(b"b", b"other\r\n") + CONTINUE}) as milter:
        bound = bind(
            Milter,
            sink_class="lonedot.sinks.builtin.milter:Milter",
            settings={"address": milter.address},
            effects=["header"],
        )
        done = await dispatched(bound)
    assert done.decision is Decision.HOLD
    assert after(done) == MAIL


# --- many and much ------------------------------------------------------------------------------------


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


# --- recipients ---------------------------------------------------------------------------------------


def refusing(octets: bytes, answer: bytes) -> Answer:
    def answers(letter: bytes, told: bytes) -> bytes:
        if letter == b"R" and octets in told:
            return answer
        return b"" if letter in b"DA" else CONTINUE

    return answers


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


# --- faults -------------------------------------------------------------------------------------------


GARBAGE = b"HTTP/1.1 400 Bad Request\r\n\r\n"


@pytest.mark.parametrize("letter", [b"C", b"H", b"M", b"R", b"T", b"L", b"N", b"B", b"E"])
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "has closed the connection"),
        (GARBAGE, "sent a packet of 1213486160 octets"),
        (b"\0\0\0\0", "sent a packet of 0 octets"),
        (b"\xff\xff\xff\xff", "sent a packet of 4294967295 octets"),
        (pack(b"?"), "sent a reply '?' that there is not"),
        (pack(b"c", b"extra"), "octets with a reply 'c' that has none"),
        (pack(b"O", struct.pack("!III", 6, 0, 0)), "out of order"),
        (pack(b"y", b"250 2.0.0 fine\0"), "that is none with 4xx or 5xx"),
        (pack(b"y", b"550"), "texts where 1 belong"),
    ],
    ids=["closes", "http", "empty", "huge", "unknown", "surplus", "late", "success", "cut"],
)
async def test_a_hostile_answer_at_each_stage(letter: bytes, answer: bytes | None, words: str) -> None:
    with ScriptedMilter({letter: answer}) as milter:
        done = await dispatched(binding(milter))
    assert done.decision is Decision.DEFER
    assert after(done) == MAIL
    assert milter.address in done.words
    assert words in done.words


@pytest.mark.parametrize("letter", [b"C", b"H", b"M", b"R", b"T", b"L", b"N", b"B"])
@pytest.mark.parametrize(
    "answer", [change(b"h", b"X", b"v"), pack(b"b", b"x"), change(b"+", b"<x@y.example>")], ids="hb+"
)
async def test_a_change_before_the_end_is_a_fault(letter: bytes, answer: bytes) -> None:
    with ScriptedMilter({letter: answer + CONTINUE}) as milter:
        done = await dispatched(binding(milter))
    assert done.decision is Decision.DEFER
    assert "out of order" in done.words


@pytest.mark.parametrize("letter", [b"C", b"H", b"M", b"R", b"T", b"L", b"N", b"B"])
async def test_an_answer_too_many_is_a_fault(letter: bytes) -> None:
    with ScriptedMilter({letter: CONTINUE + pack(b"a")}) as milter:
        done = await dispatched(binding(milter))
    assert done.decision is Decision.DEFER
    assert "spoke when nobody had asked" in done.words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (change(b"h", b"X New", b"v"), "not the name of one"),
        (change(b"h", b"", b"v"), "not the name of one"),
        (change(b"h", b"X" * 200, b"v"), "not the name of one"),
        (change(b"h", b"X", b"v\nBcc: x@y.example"), "does not begin as a fold does"),
        (change(b"h", b"X", b"v\rw"), "does not begin as a fold does"),
        (pack(b"h", b"X"), "texts where 2 belong"),
        (pack(b"m", b"\0\0"), "cut off"),
        (change(b"h", b"X", b"v" * 900_000) * 2, "more than 1048576 octets"),
        (change(b"h", b"X", b"v") * 10_001, "more than 10000 changes"),
        (pack(b"b", b"x" * 60_000) * 20, "a body of more than 1000000 octets"),
        (change(b"+", b"<a b@c.example>"), "is not a mail address"),
        (change(b"+", b""), "is not a mail address"),
        (change(b"e", b"nonsense"), "is not a mail address"),
        (pack(b"s"), "out of order"),
    ],
)
async def test_a_change_that_cannot_be(changes: bytes, words: str) -> None:
    with ScriptedMilter({b"E": changes + CONTINUE}) as milter:
        done = await dispatched(binding(milter, largest_body=1_000_000))
    assert done.decision is Decision.DEFER
    assert words in done.words
    assert after(done) == MAIL


@pytest.mark.parametrize(
    ("actions", "changes"),
    [
        (0x02, change(b"h", b"X", b"v")),
        (0x01, change(b"m", b"X", b"v", index=1)),
        (0x11, pack(b"b", b"x")),
        (0x11, change(b"+", b"<x@y.example>")),
        (0x04, change(b"-", b"<b@example.org>")),
        (0x0C, change(b"e", b"<x@y.example>")),
        (0x11, change(b"q", b"reason")),
    ],
)
async def test_a_change_that_was_not_agreed(actions: int, changes: bytes) -> None:
    with ScriptedMilter({b"E": changes + CONTINUE}, actions=actions) as milter:
        done = await dispatched(binding(milter))
    assert done.decision is Decision.DEFER
    assert "does what it may not, or has not asked for" in done.words
    assert after(done) == MAIL


async def test_a_milter_that_wants_more_than_it_may() -> None:
    answers = {b"E": change(b"h", b"X-New", b"v") + CONTINUE}
    with ScriptedMilter(answers) as milter:
        bound = binding(milter, actions="header quarantine")
        assert (await dispatched(bound)).decision is Decision.ACCEPT
        answers[b"E"] = pack(b"b", b"other\r\n") + CONTINUE
        done = await dispatched(bound)
    assert struct.unpack("!III", milter.told(b"O")[0]) == (6, 0x131, 0x1FF7FF)
    assert done.decision is Decision.DEFER
    assert "does what it may not, or has not asked for: change body" in done.words


@pytest.mark.parametrize(
    ("negotiation", "words"),
    [
        (pack(b"O", struct.pack("!III", 7, 0, 0)), "wants version 7"),
        (pack(b"O", struct.pack("!III", 1, 0, 0)), "wants version 1"),
        (pack(b"O", struct.pack("!II", 6, 0)), "cut off"),
        (pack(b"O", struct.pack("!III", 6, 0, 0x400000)), "which it was not offered"),
        (pack(b"O", struct.pack("!IIII", 6, 0, 0, 9) + b"i\0"), "macros at stage 9"),
        (pack(b"O", struct.pack("!IIII", 6, 0, 0, 1) + b"i"), "macros at stage 1"),
        (pack(b"O", struct.pack("!III", 6, 0, 0) + b"xy"), "octets left over"),
        (CONTINUE, "answered the negotiation with 'continue'"),
        (GARBAGE, "sent a packet of"),
    ],
)
async def test_a_negotiation_that_fails(negotiation: bytes, words: str) -> None:
    with ScriptedMilter(negotiation=negotiation) as milter:
        done = await dispatched(binding(milter))
    assert done.decision is Decision.DEFER
    assert words in done.words


async def test_a_milter_that_is_not_there(tmp_path: Path) -> None:
    done = await dispatched(binding(f"unix:{tmp_path}/none"))
    assert done.decision is Decision.DEFER
    assert "it takes no connection: " in done.words


async def test_a_milter_that_never_answers() -> None:
    with ScriptedMilter({b"R": b""}) as milter:
        done = await dispatched(binding(milter, reply_seconds=0.05))
    assert done.decision is Decision.DEFER
    assert done.words.endswith("it has not answered RCPT within 0.05 s")


async def test_the_deadline_of_the_binding_ends_it_all() -> None:
    """Whatever the milter's own times are. Nothing of the session is kept."""
    hosts = Hosts()
    with ScriptedMilter({b"R": b""}) as milter:
        bound = msgspec.structs.replace(early(milter, "rcpt"), deadline_seconds=0.1)
        judged = await asked(hosts, bound, moment("rcpt"))
        assert judged.decision is Decision.DEFER
        assert judged.notes[0].words == "no answer within 0.1 s"
        await hosts.close()
        assert len(module._sessions()._idle) == 0
    assert milter.letters() == b"OCHMR"


async def test_on_error_decides() -> None:
    with ScriptedMilter({b"E": None}) as milter:
        bound = bind(
            Milter,
            sink_class="x:y",
            settings={"address": milter.address},
            role="cosmetic",
            on_error="skip",
        )
        done = await dispatched(bound)
    assert (done.decision, after(done)) == (Decision.ACCEPT, MAIL)


@pytest.mark.parametrize(
    "settings",
    [
        {"address": "nonsense"},
        {"address": "inet:70000@localhost"},
        {"address": "unix:relative"},
        {"address": "unix:/x", "actions": "all"},
        {"address": "unix:/x", "reply_seconds": 0},
        {"address": "unix:/x", "largest_body": 0},
        {},
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Setting]) -> None:
    with pytest.raises(ValueError, match=r"address|actions|reply_seconds|largest_body"):
        bind(Milter, sink_class="x:y", settings=settings)


@pytest.mark.parametrize(
    "octets",
    [b"", b"\r\n", b"x", b"no header\r\n", b"Subject: s", b"Subject: s\r\nno field\r\n\r\nbody\r\n"],
)
async def test_scraps(octets: bytes) -> None:
    with ScriptedMilter({b"E": change(b"h", b"X-New", b"v") + CONTINUE}) as milter:
        done = await dispatched(binding(milter), octets=octets)
        assert b"".join(milter.told(b"B")).endswith(octets.partition(b"\r\n\r\n")[2])
    assert done.decision in (Decision.ACCEPT, Decision.HOLD)


# --- before there is a message ------------------------------------------------------------------------


def early(milter: ScriptedMilter, event: str, **settings: Setting) -> Binding:
    return bind(
        MilterSession,
        sink_class="lonedot.sinks.builtin.milter:MilterSession",
        event=event,
        settings={"address": milter.address, "hostname": "relay.example", "reply_seconds": 5, **settings},
    )


async def asked(hosts: Hosts, bound: Binding, moment: Moment) -> Judgement:
    chain = questions(moment, [bound])
    step = advance(chain)
    assert isinstance(step, Question)
    return await ask_with(chain, step, hosts)


def moment(
    event: str, recipient: str = ONE, before: Sequence[str] = (), sender: str = "a@example.com"
) -> Moment:
    return make_session(
        event, client="192.0.2.1", helo="c.example", recipient=recipient, before=before, sender=sender
    ).moment


async def test_all_stages_share_one_session() -> None:
    hosts = Hosts()
    with ScriptedMilter() as milter:
        for event in ("connect", "helo", "mail", "rcpt", "data"):
            judged = await asked(hosts, early(milter, event), moment(event))
            assert judged.decision is Decision.ACCEPT
        assert milter.letters() == b"OCHMRT"
        bound = binding(milter)
        facts = Facts("smtp", SessionId(moment("rcpt").id), client="192.0.2.1", helo="c.example")
        for _ in range(2):
            done = await dispatched(bound, facts=facts)
            assert done.decision is Decision.ACCEPT
        await hosts.close()
    # What it was told as a command is not told again; the second message is.
    assert milter.letters(0) == b"OCHMRTLLLLLNBEQ"
    assert len(milter.sessions) == 2, "closing a binding ends the sessions of its settings"


async def test_a_binding_at_rcpt_alone_tells_the_rest_as_well() -> None:
    hosts = Hosts()
    with ScriptedMilter(refusing(b"c@", reply_text("550 5.1.1 Not here"))) as milter:
        bound = early(milter, "rcpt")
        assert (await asked(hosts, bound, moment("rcpt"))).decision is Decision.ACCEPT
        refused = await asked(hosts, bound, moment("rcpt", "c@example.org", [ONE]))
        assert (refused.decision, refused.code, refused.words) == (Decision.REJECT, 550, "Not here")
        assert (await asked(hosts, bound, moment("rcpt", "d@example.org", [ONE]))).decision is Decision.ACCEPT
        assert milter.letters() == b"OCHMRRR"
        again = await asked(hosts, bound, moment("rcpt", ONE, [ONE, "d@example.org"]))
        assert again.decision is Decision.ACCEPT
        assert milter.letters() == b"OCHMRRR", "named twice is asked once"
        # The client has begun anew, and nobody has said so.
        assert (await asked(hosts, bound, moment("rcpt"))).decision is Decision.ACCEPT
        assert milter.letters() == b"OCHMRRRAMR"
        await hosts.close()
    assert len(milter.sessions) == 1


async def test_another_envelope_than_the_milter_has_heard_is_told_anew() -> None:
    """Some sink behind the milter refused a recipient: at the end of data the milter must not count it."""
    hosts = Hosts()
    facts = Facts("smtp", SessionId(moment("rcpt").id), client="192.0.2.1", helo="c.example")
    with ScriptedMilter() as milter:
        bound = early(milter, "rcpt")
        await asked(hosts, bound, moment("rcpt"))
        await asked(hosts, bound, moment("rcpt", "c@example.org", [ONE]))
        await dispatched(binding(milter), facts=facts)
        await hosts.close()
    assert milter.letters() == b"OCHMRRAMRTLLLLLNBEQ"


@pytest.mark.parametrize(
    ("letter", "event"), [(b"C", "connect"), (b"H", "helo"), (b"M", "mail"), (b"R", "rcpt"), (b"T", "data")]
)
@pytest.mark.parametrize(
    ("answer", "decision"), [(pack(b"r"), Decision.REJECT), (pack(b"t"), Decision.DEFER)]
)
async def test_a_refusal_at_its_own_stage(
    letter: bytes, event: str, answer: bytes, decision: Decision
) -> None:
    hosts = Hosts()
    with ScriptedMilter({letter: answer}) as milter:
        judged = await asked(hosts, early(milter, event), moment(event))
        await hosts.close()
    assert judged.decision is decision


async def test_a_refused_session_stays_refused() -> None:
    hosts = Hosts()
    with ScriptedMilter({b"H": pack(b"r")}) as milter:
        for event in ("helo", "mail", "rcpt"):
            assert (await asked(hosts, early(milter, event), moment(event))).decision is Decision.REJECT
        await hosts.close()
    assert milter.letters().startswith(b"OCH")
    assert b"M" not in milter.letters()


async def test_an_accepted_session_is_asked_no_more() -> None:
    hosts = Hosts()
    facts = Facts("smtp", SessionId(moment("rcpt").id), client="192.0.2.1", helo="c.example")
    with ScriptedMilter({b"C": pack(b"a")}) as milter:
        for event in ("connect", "helo", "mail", "rcpt", "data"):
            assert (await asked(hosts, early(milter, event), moment(event))).decision is Decision.ACCEPT
        assert (await dispatched(binding(milter), facts=facts)).decision is Decision.ACCEPT
        await hosts.close()
    assert milter.letters(0).rstrip(b"Q") == b"OC"


async def test_what_is_discarded_early_is_discarded_at_the_end() -> None:
    hosts = Hosts()
    facts = Facts("smtp", SessionId(moment("rcpt").id), client="192.0.2.1", helo="c.example")
    with ScriptedMilter({b"R": pack(b"d")}) as milter:
        assert (await asked(hosts, early(milter, "rcpt"), moment("rcpt"))).decision is Decision.ACCEPT
        assert (await dispatched(binding(milter), facts=facts)).decision is Decision.DISCARD
        await hosts.close()
    assert milter.letters().rstrip(b"Q") == b"OCHMR"


async def test_a_session_that_the_milter_has_closed_is_begun_anew() -> None:
    hosts = Hosts()
    closing: list[bool] = [True]

    def answers(letter: bytes, _: bytes) -> bytes | None:
        if letter == b"R" and closing.pop() if closing else False:
            return None
        return b"" if letter in b"DA" else CONTINUE

    with ScriptedMilter(answers) as milter:
        assert (await asked(hosts, early(milter, "mail"), moment("mail"))).decision is Decision.ACCEPT
        assert (await asked(hosts, early(milter, "rcpt"), moment("rcpt"))).decision is Decision.ACCEPT
        await hosts.close()
    assert [milter.letters(n) for n in range(2)] == [b"OCHMR", b"OCHMRQ"]


async def test_idle_sessions_end_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SESSIONS_LIMIT", 2)
    hosts = Hosts()
    with ScriptedMilter() as milter:
        for number in range(3):
            one = make_session("connect").moment
            await asked(hosts, early(milter, "connect"), msgspec.structs.replace(one, id=f"session {number}"))
        assert len(module._sessions()._idle) == 2
        await hosts.close()
        assert len(module._sessions()._idle) == 0


@pytest.mark.parametrize("event", ["auth", "verb"])
async def test_an_event_that_no_milter_knows_is_a_fault(event: str) -> None:
    hosts = Hosts()
    with ScriptedMilter() as milter:
        judged = await asked(hosts, early(milter, event), moment(event))
        await hosts.close()
    assert judged.decision is Decision.DEFER
    assert "bind it to one of connect, helo, mail, rcpt, data" in judged.notes[0].words
    assert milter.sessions == []


def test_on_the_loop_of_a_running_relay() -> None:
    """Its transports are of another make."""
    uvloop = pytest.importorskip("uvloop")

    async def all_of_it() -> None:
        hosts = Hosts()
        facts = Facts("smtp", SessionId(moment("rcpt").id), client="192.0.2.1", helo="c.example")
        for event in ("connect", "helo", "mail", "rcpt", "data"):
            assert (await asked(hosts, early(milter, event), moment(event))).decision is Decision.ACCEPT
        large = MAIL + b"more\r\n" * 100_000
        done = await dispatched(binding(milter), octets=large, facts=facts)
        assert (done.decision, after(done)) == (
            Decision.ACCEPT,
            large.replace(b"3\r\n\r\n", b"3\r\nX: v\r\n\r\n"),
        )
        await hosts.close()

    with (
        ScriptedMilter({b"E": change(b"h", b"X", b"v") + CONTINUE}, steps=0x80000) as milter,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(all_of_it())
    assert len(milter.sessions) == 1


async def test_who_is_away_defers_the_command(tmp_path: Path) -> None:
    hosts = Hosts()
    bound = bind(MilterSession, sink_class="x:y", settings={"address": f"unix:{tmp_path}/none"})
    judged = await asked(hosts, bound, moment("rcpt"))
    await hosts.close()
    assert judged.decision is Decision.DEFER
    assert judged.words == "", "what went wrong inside is not for strangers"
    assert "takes no connection" in judged.notes[0].words
