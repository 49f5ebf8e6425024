"""A milter asked before there is a message: one session with it for one with the client."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from lonedot.sinks.builtin import milter as module
from lonedot.sinks.builtin.milter import MilterSession
from lonedot.sinks.calls import Decision
from lonedot.sinks.hosts import Hosts
from lonedot.sinks.load import bind
from lonedot.spool.interface import Facts
from lonedot.terms.ids import SessionId
from lonedot.testing import make_session
from tests.peers.milter import CONTINUE, ScriptedMilter, change, pack, reply_text
from tests.unit.sinks.builtin.milter_driver import (
    MAIL,
    ONE,
    after,
    asked,
    binding,
    dispatched,
    early,
    moment,
    refusing,
)


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
