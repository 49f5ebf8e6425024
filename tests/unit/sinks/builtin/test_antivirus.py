"""Antivirus against a scanner that a test writes: what is asked, what becomes of a find, and of what is not scanned."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from email import policy
from email.parser import BytesParser
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.content import Content
from lonedot.message.intake import content_from
from lonedot.message.ledger import Action
from lonedot.sinks.bindings import Binding, OnError, Role, Setting
from lonedot.sinks.builtin import antivirus_strip
from lonedot.sinks.builtin.antivirus import Antivirus, AntivirusSettings
from lonedot.sinks.builtin.antivirus_clamd import Place, ScannerFault, places_from, scan, streamed
from lonedot.sinks.calls import Decision, Dispatched
from lonedot.sinks.dispatch import dispatch_with, steps
from lonedot.sinks.hosts import Hosts
from lonedot.sinks.load import bind
from lonedot.spool.interface import Facts
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import SessionId
from lonedot.testing.clock import ManualClock
from tests.peers.filters import EICAR
from tests.unit.sinks.builtin.contract import Fault, Out, SocketBackend, Speak, both_loops
from tests.unit.sinks.builtin.rows.antivirus import SIGNATURE, speak

anyio_backend = both_loops

FACTS = Facts("smtp", SessionId("0000000000001"), client="192.0.2.1", helo="client.example")
HEAD = b"Received: from c.example\r\n\tby relay.example; now\r\nFrom: <a@example.com>\r\nSubject: s\r\n"
CLEAN = HEAD + b"\r\ntext\r\n"
INFECTED = HEAD + b"\r\n" + EICAR + b"\r\n"
ENVELOPE = Envelope(Address(b"a@example.com"), (Recipient(Address(b"b@example.org")),))
MIXED = HEAD + (
    b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
    b"preamble\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n"
    b"--b\r\nContent-Type: application/octet-stream\r\n"
    b'Content-Disposition: attachment; filename="bill%{x}.exe"\r\n\r\n' + EICAR + b"\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: within\r\n\r\n"
    + EICAR
    + b"\r\n--b--\r\nepilogue\r\n"
)


def binding(
    scanners: str, event: str = "end-of-data", deadline: float = 10.0, **settings: Setting
) -> Binding:
    return bind(
        Antivirus,
        sink_class="lonedot.sinks.builtin.antivirus:Antivirus",
        settings={"scanners": scanners, **settings},
        event=event,
        deadline_seconds=deadline,
    )


async def dispatched(bound: Binding, octets: bytes = CLEAN, content: Content | None = None) -> Dispatched:
    hosts = Hosts()
    try:
        whole = content or content_from(octets)
        chain = steps("2AB4C6D8E0F12", ENVELOPE, FACTS, whole, [bound], ManualClock())
        return await dispatch_with(chain, None, hosts, False)
    finally:
        await hosts.close()


@contextlib.asynccontextmanager
async def scanner(
    folder: Path, how: Speak = speak, fault: Fault = Fault.NONE
) -> AsyncIterator[SocketBackend]:
    folder.mkdir(exist_ok=True)
    backend = SocketBackend(folder, how)
    await backend.behave(fault)
    try:
        yield backend
    finally:
        await backend.close()


# --- what becomes of a find ---------------------------------------------------------------------------


async def test_clean_mail_goes_through_untouched(tmp_path: Path) -> None:
    async with scanner(tmp_path) as clamd:
        done = await dispatched(binding(clamd.address))
    assert done.decision is Decision.ACCEPT
    assert done.content.octets() == CLEAN
    assert done.entries[0].action is Action.UNCHANGED


@pytest.mark.parametrize(
    ("wanted", "event", "decision", "words"),
    [
        ("reject", "end-of-data", Decision.REJECT, f"infected with {SIGNATURE}"),
        ("hold", "end-of-data", Decision.HOLD, f"infected with {SIGNATURE}"),
        ("hold", "arrival", Decision.HOLD, f"infected with {SIGNATURE}"),
        ("quarantine", "arrival", Decision.HOLD, f"quarantine: infected with {SIGNATURE}"),
        ("discard", "end-of-data", Decision.DISCARD, f"infected with {SIGNATURE}"),
        ("discard", "arrival", Decision.DISCARD, f"infected with {SIGNATURE}"),
    ],
)
async def test_what_is_found_does_not_go_on(
    wanted: str, event: str, decision: Decision, words: str, tmp_path: Path
) -> None:
    async with scanner(tmp_path) as clamd:
        done = await dispatched(binding(clamd.address, event, on_infected=wanted), INFECTED)
    assert (done.decision, done.words) == (decision, words)
    if decision is Decision.REJECT:
        assert (done.code, done.enhanced) == (550, "5.7.1")
    assert done.content.octets() == INFECTED
    assert done.entries[0].binding == "Antivirus"


async def test_by_itself_it_refuses_at_the_end_of_data_and_protects(tmp_path: Path) -> None:
    bound = binding("unix:/nowhere")
    assert bound.event.value == "end-of-data"
    assert bound.role is Role.PROTECTIVE
    assert bound.on_error is OnError.DEFER
    assert AntivirusSettings("unix:/nowhere").on_infected.value == "reject"


async def test_a_signature_is_a_strangers_text(tmp_path: Path) -> None:
    async def odd(reader: asyncio.StreamReader, out: Out) -> None:
        await reader.readuntil(b"\0\0\0\0")
        out.write(b"stream: Bad\r\n250 ok \xff\x1b[2J" + b"x" * 1000 + b" FOUND\0")

    async with scanner(tmp_path, odd) as clamd:
        done = await dispatched(binding(clamd.address, connect_seconds=0.2))
    assert done.decision is Decision.REJECT
    assert done.words.startswith("infected with Bad 250 ok [2Jxxx")
    assert done.words.isprintable()
    assert len(done.words) < 200


# --- the infected part --------------------------------------------------------------------------------


async def test_infected_parts_are_replaced_by_a_note(tmp_path: Path) -> None:
    async with scanner(tmp_path) as clamd:
        bound = binding(clamd.address, on_infected="strip", header="X-Virus-Status")
        done = await dispatched(bound, MIXED)
    assert done.decision is Decision.ACCEPT, done.words
    after = done.content.octets()
    assert EICAR not in after
    read = BytesParser(policy=policy.default).parsebytes(after)
    assert read["X-Virus-Status"] == f"removed 2 infected with {SIGNATURE}"
    first, second, third = read.iter_parts()
    assert first.get_content() == "hello"
    assert SIGNATURE in second.get_content()
    assert "bill%{x}.exe" in second.get_content()
    within = third.get_content()
    assert within["Subject"] == "within"
    assert SIGNATURE in within.get_content()
    # All around the parts is as it was.
    assert after.endswith(b"\r\n--b--\r\nepilogue\r\n")
    assert MIXED[MIXED.index(b"preamble") : MIXED.index(b"--b\r\nContent-Type: application")] in after
    assert done.entries[0].action is Action.KEPT


async def test_a_message_that_is_the_infected_part_becomes_a_note(tmp_path: Path) -> None:
    octets = (
        HEAD
        + b"Content-Type: application/x-evil; name=x\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
        + EICAR
        + b"\r\n"
    )
    async with scanner(tmp_path) as clamd:
        done = await dispatched(binding(clamd.address, on_infected="strip"), octets)
    assert done.decision is Decision.ACCEPT, done.words
    read = BytesParser(policy=policy.default).parsebytes(done.content.octets())
    assert read["Subject"] == "s"
    assert read.get_content_type() == "text/plain"
    assert SIGNATURE in read.get_content()
    assert not read.defects


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (MIXED.replace(b"multipart/mixed", b"multipart/signed"), "it is signed or encrypted"),
        (MIXED.replace(b"application/octet-stream", b"application/pkcs7-mime"), "it is signed or encrypted"),
        (MIXED.replace(b"preamble", EICAR), "what is left of it is not clean"),
        (
            MIXED.replace(EICAR, b"fine").replace(b"preamble", EICAR),
            "none of its parts is infected by itself",
        ),
    ],
)
async def test_what_cannot_be_stripped_is_held_as_it_is(octets: bytes, why: str, tmp_path: Path) -> None:
    async with scanner(tmp_path) as clamd:
        done = await dispatched(binding(clamd.address, on_infected="strip"), octets)
    assert done.decision is Decision.HOLD
    assert done.words == f"infected with {SIGNATURE}, and not stripped: {why}"
    assert done.content.octets() == octets


async def test_many_parts_are_not_scanned_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(antivirus_strip, "PARTS_LIMIT", 2)
    async with scanner(tmp_path) as clamd:
        done = await dispatched(binding(clamd.address, on_infected="strip"), MIXED)
        assert clamd.calls == 2  # the message, and the version
    assert done.decision is Decision.HOLD
    assert "more than 2 parts" in done.words


async def test_a_scanner_that_dies_while_parts_are_looked_at_lets_nothing_pass(tmp_path: Path) -> None:
    async def once(reader: asyncio.StreamReader, out: Out) -> None:
        if clamd.calls <= 2:  # the message, and the version
            await speak(reader, out)

    async with scanner(tmp_path, once) as clamd:
        bound = binding(clamd.address, on_infected="strip", unreachable="pass")
        done = await dispatched(bound, MIXED)
    assert done.decision is Decision.HOLD
    assert done.words.startswith(f"infected with {SIGNATURE}, and not stripped: unix:")
    assert done.content.octets() == MIXED


# --- what is not scanned ------------------------------------------------------------------------------

POLICIES = [("defer", Decision.DEFER), ("hold", Decision.HOLD), ("pass", Decision.ACCEPT)]


@pytest.mark.parametrize(("wanted", "decision"), POLICIES)
async def test_too_large_for_us_is_not_sent_at_all(wanted: str, decision: Decision, tmp_path: Path) -> None:
    async with scanner(tmp_path) as clamd:
        bound = binding(clamd.address, oversize=wanted, largest=len(CLEAN) - 1, header="X-Virus-Status")
        done = await dispatched(bound)
        assert clamd.calls == 0
    assert done.decision is decision
    if decision is Decision.ACCEPT:
        assert done.content.octets() == b"X-Virus-Status: not scanned: too large\r\n" + CLEAN
    if decision is Decision.HOLD:
        assert f"at most {len(CLEAN) - 1} are scanned" in done.words


@pytest.mark.parametrize(("wanted", "decision"), POLICIES)
@pytest.mark.parametrize("size", [100, 3_000_000])
async def test_too_large_for_the_scanner(wanted: str, decision: Decision, size: int, tmp_path: Path) -> None:
    octets = HEAD + b"\r\n" + b"0123456789abcd\r\n" * (size // 16)
    async with scanner(tmp_path, partial(speak, largest=64)) as clamd:
        done = await dispatched(binding(clamd.address, oversize=wanted), octets)
    assert done.decision is decision, done.words
    if decision is not Decision.ACCEPT:
        assert "too large for the virus scanner" in done.words


async def test_what_the_scanner_did_not_look_at_is_too_large(tmp_path: Path) -> None:
    async def limited(reader: asyncio.StreamReader, out: Out) -> None:
        await reader.readuntil(b"\0\0\0\0")
        out.write(b"stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND\0")

    async with scanner(tmp_path, limited) as clamd:
        done = await dispatched(binding(clamd.address, connect_seconds=0.2))
    assert done.decision is Decision.HOLD
    assert "beyond the limits of the scanner" in done.words


@pytest.mark.parametrize(("wanted", "decision"), POLICIES)
async def test_no_scanner_answers(wanted: str, decision: Decision, tmp_path: Path) -> None:
    bound = binding(f"unix:{tmp_path}/none", unreachable=wanted, header="X-Virus-Status")
    done = await dispatched(bound)
    assert done.decision is decision
    match decision:
        case Decision.ACCEPT:
            assert done.content.octets() == b"X-Virus-Status: not scanned: scanner away\r\n" + CLEAN
        case Decision.DEFER:
            assert done.words == "no virus scanner answers; try again later"  # a client reads it
            assert (done.code, done.enhanced) == (451, "4.7.1")
        case _:
            assert f"unix:{tmp_path}/none: no connection: No such file or directory" in done.words


async def test_who_says_clean_before_all_was_read_is_not_believed(tmp_path: Path) -> None:
    async def hasty(reader: asyncio.StreamReader, out: Out) -> None:
        await reader.readuntil(b"\0")
        out.write(b"stream: OK\0")

    octets = HEAD + b"\r\n" + b"0123456789abcd\r\n" * 500_000
    async with scanner(tmp_path, hasty) as clamd:
        done = await dispatched(binding(clamd.address, unreachable="hold"), octets)
    assert done.decision is Decision.HOLD
    assert "did not read all" in done.words


@pytest.mark.parametrize(
    "answer",
    [
        b"stream: OKAY\0",
        b"stream: ok\0",
        b"OK\0",
        b"stream: \0",
        b"stream: OK",
        b"stream: OK\0x",
        b"PONG\0",
        b"stream: Can't allocate memory ERROR\0",
        b"stream:  FOUND\0",
        b"\0",
    ],
)
async def test_nothing_but_its_own_words_is_clean(answer: bytes, tmp_path: Path) -> None:
    async def says(reader: asyncio.StreamReader, out: Out) -> None:
        await reader.readuntil(b"\0\0\0\0")
        out.write(answer)

    async with scanner(tmp_path, says) as clamd:
        done = await dispatched(binding(clamd.address))
    assert done.decision is Decision.DEFER


async def test_a_body_that_cannot_be_read_is_no_fault_of_the_scanner(tmp_path: Path) -> None:
    async with scanner(tmp_path) as clamd:
        (place,) = places_from(clamd.address)

        async def pieces() -> AsyncGenerator[bytes, None]:
            yield b"one"
            raise OSError("the disk")

        with pytest.raises(OSError, match="the disk"):
            await scan(place, pieces(), 5, 5)


# --- several scanners ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [Fault.AWAY, Fault.CLOSED, Fault.TORN, Fault.GARBAGE, Fault.SILENT, Fault.ENDLESS]
)
async def test_the_next_scanner_is_asked(fault: Fault, tmp_path: Path) -> None:
    async with scanner(tmp_path / "1", fault=fault) as ill, scanner(tmp_path / "2") as well:
        both = f"{ill.address}, {well.address}"
        bound = binding(both, scan_seconds=0.3, connect_seconds=0.3)
        assert (await dispatched(bound, INFECTED)).decision is Decision.REJECT
        assert well.calls == 2  # and its version
        calls = ill.calls
        assert (await dispatched(bound, INFECTED)).decision is Decision.REJECT
        assert ill.calls == calls  # it rests
        await well.behave(Fault.AWAY)
        await ill.behave(Fault.NONE)
        assert (
            await dispatched(bound, INFECTED)
        ).decision is Decision.REJECT  # it is asked although it rests
        assert ill.calls > calls


async def test_with_random_choice_all_are_asked(tmp_path: Path) -> None:
    async with scanner(tmp_path / "1") as one, scanner(tmp_path / "2") as two:
        bound = binding(f"{one.address} {two.address}", choose="random")
        for _ in range(64):
            await dispatched(bound)
        assert one.calls > 8
        assert two.calls > 8


async def test_many_messages_at_once(tmp_path: Path) -> None:
    async with scanner(tmp_path) as clamd:
        bound = binding(clamd.address)
        done = await asyncio.gather(
            *(dispatched(bound, INFECTED if number % 2 else CLEAN) for number in range(100))
        )
    assert [one.decision for one in done] == [Decision.ACCEPT, Decision.REJECT] * 50


# --- settings and octets ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scanners": ""}, "scanners names none"),
        ({"scanners": "clamd"}, "'clamd' is not where clamd can be"),
        ({"scanners": "unix:relative"}, "is not where clamd can be"),
        ({"scanners": "host:0"}, "is not where clamd can be"),
        ({"scanners": "host:3310 tcp:host:3310"}, "names one twice"),
        ({"scanners": "host:1", "scan_seconds": 0}, "scan_seconds = 0"),
        ({"scanners": "host:1", "largest": 0}, "largest = 0"),
        ({"scanners": "host:1", "header": "X Virus"}, "not a field name"),
        ({"scanners": "host:1", "on_infected": "bounce"}, "bounce"),
        ({"scanners": "host:1", "oversize": "reject"}, "reject"),
        ({}, "scanners"),
    ],
)
def test_settings_that_cannot_be_are_told(settings: dict[str, Setting], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        bind(Antivirus, sink_class="x:y", settings=settings)


def test_places_are_read_in_their_order() -> None:
    assert places_from("unix:/run/clamd, 10.0.0.1:3310\t[::1]:3311 tcp:scanner.example:3310") == (
        Place("/run/clamd"),
        Place("", "10.0.0.1", 3310),
        Place("", "::1", 3311),
        Place("", "scanner.example", 3310),
    )
    assert [str(place) for place in places_from("unix:/a [::1]:1 h:2")] == ["unix:/a", "[::1]:1", "h:2"]


async def test_what_is_no_mail_at_first_sight_is_shown_as_mail() -> None:
    async def all_of(head: bytes) -> bytes:
        return b"".join([piece async for piece in streamed(head, iter([b"body"]), 4)])

    assert await all_of(b"X-Odd: 1\r\n\r\n") == b"Received: by lonedot\r\nX-Odd: 1\r\n\r\nbody"
    assert await all_of(CLEAN) == CLEAN + b"body"


@given(octets=st.binary(max_size=400))
def test_any_answer_is_an_answer_or_a_fault(octets: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    async def says(reader: asyncio.StreamReader, out: Out) -> None:
        await reader.readuntil(b"\0\0\0\0")
        out.write(octets)

    async def run() -> None:
        async with scanner(tmp_path_factory.mktemp("any"), says) as clamd:
            (place,) = places_from(clamd.address)
            answer = None
            with contextlib.suppress(ScannerFault):
                answer = await scan(place, streamed(CLEAN, iter(()), 0), 5, 5)
            assert (repr(answer) == "Clean()") == (octets == b"stream: OK\0")

    asyncio.run(run())


async def test_a_field_that_came_with_the_message_is_not_believed(tmp_path: Path) -> None:
    async with scanner(tmp_path) as clamd:
        bound = binding(clamd.address, header="X-Virus-Status")
        done = await dispatched(bound, b"X-Virus-Status: clean, promised\r\n" + CLEAN)
    assert done.content.octets() == b"X-Virus-Status: clean\r\n" + CLEAN
