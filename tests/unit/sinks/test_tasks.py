"""Coroutines as sinks: called at once, late ones cancelled, watched step by step, let go when replaced."""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import AsyncIterator
from typing import cast

import msgspec
import pytest

from lonedot import Edit, Hold, Message, Next, Reject, Session, Verdict, sink
from lonedot.message.intake import content_from
from lonedot.sinks import board, tasks
from lonedot.sinks.bindings import Binding, Isolation, chains_of
from lonedot.sinks.calls import Answer, Call, Decision, Dispatched
from lonedot.sinks.dispatch import dispatch_with, steps
from lonedot.sinks.hosts import Hosts
from lonedot.sinks.load import bind
from lonedot.sinks.process import DeadlineExceeded
from lonedot.sinks.protocol import advance, ask_with, questions
from lonedot.sinks.watch import Watch
from lonedot.testing import ask_sink, make_message, make_session, run_sink
from lonedot.testing.clock import ManualClock

MESSAGE = make_message("Subject: one\n\nbody\n")


@pytest.fixture
async def hosts() -> AsyncIterator[Hosts]:
    made = Hosts()
    yield made
    await made.close()


@sink("Asks", effects={"header"})
async def asks(message: Message) -> Verdict:
    await asyncio.sleep(0)
    return Next(edits=[Edit.add_field("X-Asked", "yes")])


def bound(code: object, **options: object) -> Binding:
    return bind(code, sink_class="test:sink", **options)  # type: ignore[arg-type]  # as a test gives them


async def judged(hosts: Hosts, *bindings: Binding) -> Dispatched:
    chain = steps(
        MESSAGE.id,
        MESSAGE.envelope,
        MESSAGE.facts,
        content_from(MESSAGE.octets()),
        chains_of(bindings).received,
        ManualClock(),
    )
    return await dispatch_with(chain, None, hosts, in_thread=False)


def test_a_coroutine_in_the_relay_is_a_task() -> None:
    assert bound(asks).isolation is Isolation.TASK
    assert bound(asks, isolation="process").isolation is Isolation.PROCESS


def test_only_a_coroutine_can_be_a_task() -> None:
    @sink("Plain")
    def plain(message: Message) -> Verdict:
        return Next()

    with pytest.raises(ValueError, match="isolation 'task' is for a coroutine"):
        bound(plain, isolation="task")


async def test_what_it_returns_counts(hosts: Hosts) -> None:
    dispatched = await judged(hosts, bound(asks))
    assert dispatched.content.head.startswith(b"X-Asked: yes\r\n")
    assert [entry.binding for entry in dispatched.entries] == ["Asks"]


async def test_it_is_called_after_custody() -> None:
    assert chains_of([bound(asks)]).waits
    assert chains_of([bound(asks)]).has_apart


async def test_what_it_raises_is_an_error_of_the_sink(hosts: Hosts) -> None:
    @sink("Raises", on_error="hold")
    async def raises(message: Message) -> Verdict:
        raise SystemExit(3)

    dispatched = await judged(hosts, bound(raises))
    assert dispatched.decision is Decision.HOLD
    assert "SystemExit" in dispatched.words


async def test_many_calls_are_under_way_at_once(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AT_ONCE", 3)
    under_way: list[int] = []
    most = 0
    go, are_three = asyncio.Event(), asyncio.Event()

    @sink("Waits")
    async def waits(message: Message) -> Verdict:
        nonlocal most
        under_way.append(1)
        most = max(most, len(under_way))
        if most == 3:
            are_three.set()
        await go.wait()
        under_way.pop()
        return Next()

    binding = bound(waits)
    calls = [hosts(Call(binding, MESSAGE)) for _ in range(10)]
    await are_three.wait()
    go.set()
    answers = await asyncio.gather(*calls)
    assert most == 3
    assert all(answer.error is None for answer in answers)


async def test_one_that_is_late_is_answered_for_and_cancelled(hosts: Hosts) -> None:
    cancelled = asyncio.Event()

    @sink("Late")
    async def late(message: Message) -> Verdict:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return Next()

    answer: Answer = await hosts(Call(bound(late, deadline_seconds=0.05), MESSAGE))
    assert isinstance(answer.error, DeadlineExceeded)
    assert answer.took_seconds >= 0.05
    await asyncio.wait_for(cancelled.wait(), 5)


async def test_one_that_will_not_be_cancelled_holds_up_nobody(hosts: Hosts) -> None:
    go = asyncio.Event()

    @sink("Stubborn")
    async def stubborn(message: Message) -> Verdict:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        return Hold("too late")

    answer: Answer = await hosts(Call(bound(stubborn, deadline_seconds=0.05), MESSAGE))
    assert isinstance(answer.error, DeadlineExceeded)
    go.set()


async def test_a_session_is_asked(hosts: Hosts) -> None:
    @sink("Refuses", on="rcpt")
    async def refuses(session: Session) -> Verdict:
        await asyncio.sleep(0)
        return Reject(f"not {session.recipient.address.text}")

    shown = make_session("rcpt", recipient="joe@example.com")
    chain = questions(shown.moment, [bound(refuses)])
    step = advance(chain)
    judgement = await ask_with(chain, step, hosts)  # type: ignore[arg-type]  # nobody has answered yet
    assert judgement.decision is Decision.REJECT
    assert judgement.words == "not joe@example.com"


@sink("Keeps")
class Keeps:
    def __init__(self) -> None:
        self.is_open = False
        self.go = asyncio.Event()

    async def __call__(self, message: Message) -> Verdict:
        self.is_open = True
        await self.go.wait()
        return Next()

    async def close(self) -> None:
        self.is_open = False


async def test_what_it_keeps_open_is_let_go_behind_its_last_call(hosts: Hosts) -> None:
    first, second = bound(Keeps), bound(Keeps)
    kept = cast("object", first.call)
    assert isinstance(kept, Keeps)
    hosts.use([first])
    call = hosts(Call(first, MESSAGE))
    await asyncio.sleep(0)
    assert kept.is_open
    hosts.use([second])
    await asyncio.sleep(0)
    assert kept.is_open, "a call is under way"
    kept.go.set()
    assert (await call).error is None
    await hosts.close()
    assert not kept.is_open


async def test_a_relay_that_stops_cancels_what_waits() -> None:
    made = Hosts()
    binding = bound(Keeps)
    call = made(Call(binding, MESSAGE))
    await asyncio.sleep(0)
    await made.close()
    assert call.cancelled() or (await asyncio.wait([call]))[0]
    assert made(Call(binding, MESSAGE)).cancelled()


# -- the watch -----------------------------------------------------------------------------------------


@pytest.fixture
def watch() -> Watch:
    memory = os.memfd_create("board")
    os.ftruncate(memory, max(board.SIZE, mmap.PAGESIZE))
    return Watch(board.Board(memory))


async def test_each_step_is_noted_and_no_wait(hosts: Hosts, watch: Watch) -> None:
    seen: list[int] = []
    go, has_begun = asyncio.Event(), asyncio.Event()

    @sink("Steps")
    async def in_steps(message: Message) -> Verdict:
        seen.append(len(watch.board.running()))
        has_begun.set()
        await go.wait()
        seen.append(len(watch.board.running()))
        return Next()

    (binding,) = watch.over([bound(in_steps)])
    call = hosts(Call(binding, MESSAGE))
    await has_begun.wait()
    await asyncio.sleep(0)
    assert watch.board.running() == [], "it waits"
    go.set()
    assert (await call).returned == Next()
    assert seen == [1, 1]
    assert watch.board.running() == []


async def test_a_watched_one_is_cancelled_like_any_other(hosts: Hosts, watch: Watch) -> None:
    cancelled = asyncio.Event()

    @sink("Late")
    async def late(message: Message) -> Verdict:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return Next()

    (binding,) = watch.over([bound(late, deadline_seconds=0.05)])
    answer: Answer = await hosts(Call(binding, MESSAGE))
    assert isinstance(answer.error, DeadlineExceeded)
    await asyncio.wait_for(cancelled.wait(), 5)
    assert watch.board.running() == []


# -- the kit of authors ----------------------------------------------------------------------------------


def test_the_kit_runs_it() -> None:
    ran = run_sink(asks, MESSAGE)
    ran.assert_sound()
    assert ran.after.headers.get("X-Asked") == b"yes"


def test_the_kit_asks_it() -> None:
    @sink("Refuses", on="rcpt")
    async def refuses(session: Session) -> Verdict:
        await asyncio.sleep(0)
        return Reject("no")

    ask_sink(refuses, make_session("rcpt")).assert_refused("no")


async def test_the_kit_has_a_deadline() -> None:
    @sink("Late", on_error="hold")
    async def late(message: Message) -> Verdict:
        await asyncio.Event().wait()
        return Next()

    ran = run_sink(bind(late, sink_class="test:late", deadline_seconds=0.05), MESSAGE)
    assert isinstance(ran.error, TimeoutError)
    assert ran.decision is Decision.HOLD


def test_bindings_are_values() -> None:
    binding = bound(asks)
    assert msgspec.structs.replace(binding) == binding
