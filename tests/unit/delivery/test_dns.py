"""Questions to DNS: what a server says, what is kept, what is a fault."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from lonedot.delivery.dns import (
    FAULT_SECONDS,
    LONGEST_SECONDS,
    SHORTEST_SECONDS,
    Answer,
    Dns,
    DnsFault,
    Kind,
    NameServer,
    Record,
    ServerAsker,
    Status,
    ascii_name,
)
from lonedot.testing.clock import ManualClock
from tests.unit.delivery.name_server import Fails, ScriptedNameServer, name_server

ZONE = {
    "example.test": ["MX 10 a.test", "MX 20 B.Test"],
    "a.test": ["A 127.0.0.1", "A 127.0.0.2", "AAAA ::1"],
    "alias.test": ["CNAME example.test"],
    "round.test": ["CNAME trip.test"],
    "trip.test": ["CNAME round.test"],
    "null.test": ["MX 0 ."],
    "bare.test": [],
}


def asker(server: ScriptedNameServer, seconds: float = 1.0) -> ServerAsker:
    return ServerAsker([server.address], timeout_seconds=seconds / 2, lifetime_seconds=seconds)


class TestServerAsker:
    @pytest.mark.parametrize(
        ("name", "kind", "status", "values"),
        [
            ("example.test", Kind.MX, Status.FOUND, {(10, "a.test"), (20, "b.test")}),
            ("alias.test", Kind.MX, Status.FOUND, {(10, "a.test"), (20, "b.test")}),
            ("a.test", Kind.A, Status.FOUND, {(0, "127.0.0.1"), (0, "127.0.0.2")}),
            ("a.test", Kind.AAAA, Status.FOUND, {(0, "::1")}),
            ("null.test", Kind.MX, Status.FOUND, {(0, "")}),
            ("bare.test", Kind.MX, Status.NO_DATA, set()),
            ("nobody.test", Kind.MX, Status.NO_NAME, set()),
        ],
    )
    async def test_what_a_server_says(
        self, name: str, kind: Kind, status: Status, values: set[tuple[int, str]]
    ) -> None:
        async with name_server(ZONE, ttl=77) as server:
            answer = await asker(server).ask(name, kind)
        assert answer.status is status
        assert {(record.preference, record.value) for record in answer.records} == values
        assert answer.ttl_seconds == 77

    async def test_a_truncated_answer_is_fetched_over_tcp(self) -> None:
        async with name_server(ZONE, {"example.test": Fails.TRUNCATED}) as server:
            answer = await asker(server).ask("example.test", Kind.MX)
            assert len(answer.records) == 2
            assert server.over_tcp["example.test"] == 1

    @pytest.mark.parametrize(
        "fault", [Fails.SERVFAIL, Fails.SILENT, Fails.WRONG_ID, Fails.WRONG_QUESTION, Fails.GARBAGE]
    )
    async def test_a_server_at_fault_says_nothing_of_the_name(self, fault: Fails) -> None:
        async with name_server(ZONE, {"example.test": fault}) as server:
            with pytest.raises(DnsFault, match=r"example\.test MX"):
                await asker(server).ask("example.test", Kind.MX)

    async def test_names_that_point_at_each_other_are_a_fault(self) -> None:
        async with name_server(ZONE) as server:
            with pytest.raises(DnsFault, match="round"):
                await asker(server).ask("round.test", Kind.MX)

    async def test_the_second_server_is_asked_when_the_first_fails(self) -> None:
        async with name_server({}, {"example.test": Fails.SERVFAIL}) as sour, name_server(ZONE) as good:
            both = ServerAsker([sour.address, good.address], timeout_seconds=0.5, lifetime_seconds=2)
            assert (await both.ask("example.test", Kind.MX)).status is Status.FOUND

    async def test_the_file_of_the_system_is_read_when_there_is_one(self, tmp_path: Path) -> None:
        file = tmp_path / "resolv.conf"
        system = ServerAsker(system_file=str(file))
        with pytest.raises(DnsFault, match=r"resolv\.conf"):
            await system.ask("example.test", Kind.MX)
        file.write_text("nameserver 127.0.0.1\n")
        assert [str(s) for s in system._current().nameservers] == ["127.0.0.1"]


class Scripted:
    """Answers in turn, each when it is let go."""

    def __init__(self, *answers: Answer | DnsFault) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.most = 0
        self.now = 0

    async def ask(self, name: str, kind: Kind) -> Answer:
        self.asked.append(name)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gate.wait()
        finally:
            self.now -= 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, DnsFault):
            raise answer
        return answer


def found(ttl: float) -> Answer:
    return Answer(Status.FOUND, (Record(0, "127.0.0.1"),), ttl)


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (found(60), 60.0),
        (found(0), SHORTEST_SECONDS),
        (found(10**9), LONGEST_SECONDS),
        (Answer(Status.NO_NAME, (), 10**9), 900.0),
        (Answer(Status.NO_DATA, (), 30), 30.0),
    ],
)
async def test_an_answer_is_kept_as_long_as_it_says_within_bounds(answer: Answer, seconds: float) -> None:
    clock, scripted = ManualClock(), Scripted(answer)
    dns = Dns(scripted, clock)
    assert not (await dns.look_up("a.test", Kind.A)).from_cache
    clock.advance(seconds - 0.5)
    assert (await dns.look_up("a.test", Kind.A)).from_cache
    assert len(scripted.asked) == 1
    clock.advance(1)
    assert not (await dns.look_up("a.test", Kind.A)).from_cache
    assert len(scripted.asked) == 2


async def test_a_fault_is_kept_for_seconds_only() -> None:
    clock, scripted = ManualClock(), Scripted(DnsFault("no answer"), found(60))
    dns = Dns(scripted, clock)
    for _ in range(2):
        with pytest.raises(DnsFault, match="no answer"):
            await dns.look_up("a.test", Kind.A)
    assert len(scripted.asked) == 1
    clock.advance(FAULT_SECONDS + 1)
    assert (await dns.look_up("a.test", Kind.A)).status is Status.FOUND


async def test_who_asks_the_same_at_once_shares_the_question_and_may_give_up() -> None:
    scripted = Scripted(found(60))
    scripted.gate.clear()
    dns = Dns(scripted, ManualClock())
    waiting = [asyncio.ensure_future(dns.look_up("a.test", Kind.A)) for _ in range(5)]
    other = asyncio.ensure_future(dns.look_up("a.test", Kind.AAAA))
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    scripted.gate.set()
    said = await asyncio.gather(*waiting, other, return_exceptions=True)
    assert isinstance(said[0], asyncio.CancelledError)
    assert all(isinstance(one, Answer) for one in said[1:])
    assert scripted.asked == ["a.test", "a.test"]  # A and AAAA


async def test_questions_at_once_and_answers_kept_are_bounded() -> None:
    scripted = Scripted(found(60))
    scripted.gate.clear()
    dns = Dns(scripted, ManualClock(), kept=3, at_once=4)
    waiting = [asyncio.ensure_future(dns.look_up(f"{n}.test", Kind.A)) for n in range(10)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert scripted.now == 4
    scripted.gate.set()
    await asyncio.gather(*waiting)
    assert scripted.most == 4
    assert not (await dns.look_up("0.test", Kind.A)).from_cache
    assert (await dns.look_up("9.test", Kind.A)).from_cache


async def test_what_is_on_its_way_ends_with_the_relay() -> None:
    scripted = Scripted(found(60))
    scripted.gate.clear()
    dns = Dns(scripted, ManualClock())
    waiting = asyncio.ensure_future(dns.look_up("a.test", Kind.A))
    await asyncio.sleep(0)
    await dns.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize(
    ("name", "ascii"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_names_in_the_form_of_dns(name: str, ascii: str) -> None:
    assert ascii_name(name) == ascii


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64 + ".test", "\udcff.test"])
def test_names_that_cannot_stand_in_dns(name: str) -> None:
    with pytest.raises(ValueError):
        ascii_name(name)


def test_a_name_server_has_the_usual_port() -> None:
    assert NameServer("192.0.2.1").port == 53
