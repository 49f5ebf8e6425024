"""Milters that are hostile, broken, late or away: an error of the sink each time, and the message as it was."""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec
import pytest

from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin import milter as module
from lonedot.sinks.builtin.milter import Milter
from lonedot.sinks.calls import Decision
from lonedot.sinks.hosts import Hosts
from lonedot.sinks.load import bind
from tests.peers.milter import CONTINUE, ScriptedMilter, change, pack
from tests.unit.sinks.builtin.milter_driver import (
    MAIL,
    after,
    asked,
    binding,
    dispatched,
    early,
    moment,
)

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
