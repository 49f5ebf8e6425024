"""A next hop that is dead, silent or slow, with nine tenths of the queue, costs the others nothing worth speaking of.

Time passes by hand, timer by timer; what a next hop takes for a message is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from lonedot.queue.courier import Delivery
from lonedot.spool.interface import Attempt, Claim, MessageState, RecipientState
from lonedot.terms.ids import MessageId
from lonedot.terms.outcome import Outcome, Result, Stage
from tests.unit.queue.workshop import Workshop, settle

HEALTHY = (b"one.example", b"two.example", b"three.example", b"four.example")
SICK = b"sick.example"
MESSAGES = 400
"""For the healthy hops together."""
SECONDS = 0.05
"""What a healthy hop takes for one message."""

REFUSES = (0.001, "no connection: connection refused")
TIMES_OUT = (30.0, "no connection within 30 seconds")
SLOW = (20.0, "")


class Town(Workshop):
    """Next hops that take their time. `sick`: seconds, and what is met there; nothing is met: it is only slow."""

    def __init__(self, sick: tuple[float, str]) -> None:
        super().__init__(limit=40)
        self.sick = sick
        self.destinations = {domain: domain.decode() for domain in (*HEALTHY, SICK)}
        self.scheduler._choose = lambda address, stored: "a"
        self.ended_at: dict[MessageId, float] = {}

    def deliver(
        self,
        claim: Claim,
        recipients: Sequence[RecipientState],
        route: str,
        done: Callable[[Delivery], None],
    ) -> None:
        is_sick = recipients[0].recipient.address.domain == SICK
        seconds, words = self.sick if is_sick else (SECONDS, "")
        outcome = Outcome(Result.DELIVERED, Stage.DATA, "taken", status="2.0.0")
        if words:
            outcome = Outcome(Result.DEFERRED, Stage.CONNECT, words, status="4.4.1")

        def end() -> None:
            now = self.clock.now()
            if not is_sick:
                self.ended_at[claim.message.id] = now
            outcomes = tuple((recipient.index, outcome) for recipient in recipients)
            done(Delivery((Attempt(now - seconds, now, "hop", route, "", outcomes),)))

        self.timers.call_later(seconds, end)

    async def fill(self, sick: int) -> None:
        """The queue, in the spool: so many for the sick hop, evenly between the others."""
        between = sick // MESSAGES
        for number in range(MESSAGES):
            for other in range(between):
                await self.leave(f"s{number:06}{other:06}", f"x@{SICK.decode()}")
            await self.leave(f"h{number:012}", f"x@{HEALTHY[number % len(HEALTHY)].decode()}")

    async def run(self) -> float:
        """Seconds until the healthy hops have all theirs."""
        self.scheduler.start()
        began = self.clock.now()
        while len(self.ended_at) < MESSAGES:
            await self.pass_time(0.5)
            assert self.clock.now() - began < 3600
        return max(self.ended_at.values()) - began


async def alone() -> float:
    town = Town(REFUSES)
    await town.fill(0)
    return await town.run()


@pytest.mark.parametrize("sick", [REFUSES, TIMES_OUT, SLOW], ids=["refuses", "times out", "slow"])
async def test_throughput_of_healthy_hops(sick: tuple[float, str]) -> None:
    town = Town(sick)
    await town.fill(9 * MESSAGES)
    seconds = await town.run()
    assert await alone() / seconds >= 0.9


@pytest.mark.parametrize("sick", [REFUSES, TIMES_OUT, SLOW], ids=["refuses", "times out", "slow"])
async def test_a_fresh_message_for_a_healthy_hop_goes_at_once(sick: tuple[float, str]) -> None:
    town = Town(sick)
    for number in range(3000):
        await town.leave(f"s{number:012}", f"x@{SICK.decode()}")
    town.scheduler.start()
    await town.pass_time(65)  # the sick hop has been met, and met again
    for number in range(20):
        assert town.scheduler.has_room
        await town.offer(f"h{number:012}", f"x@{HEALTHY[0].decode()}")
        await town.pass_time(SECONDS)
        await settle()
        assert town.spool.state_of(f"h{number:012}") is MessageState.FINISHED
