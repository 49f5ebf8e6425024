"""All workers seen from the first: one that is silent, gone or started anew takes nothing from the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

import msgspec
import pytest

from lonedot.admin.operations import Operation
from lonedot.admin.seeing import Health, Screen
from lonedot.admin.values import AdminError
from lonedot.app.colleagues import NotThere
from lonedot.app.whole import Whole
from lonedot.observability.metrics import Figures, Metric, Sample

pytestmark = pytest.mark.anyio

A = TypeVar("A", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

WELL = Health(True, True, (), 0.25, 5.0)


def counted(accepted: int, started: float = 1.0, age: float = 0.0) -> Figures:
    return Figures(
        (
            Sample(Metric.ACCEPTED, ("smtp",), accepted),
            Sample(Metric.STARTED, (), started),
            Sample(Metric.OLDEST, (), age),
        )
    )


class Own:
    number = 0

    def figures(self) -> Figures:
        return counted(10, 1.0, 5.0)

    def health(self) -> Health:
        return WELL

    def screen(self, bare: Screen) -> Screen:
        return bare

    def lines(self, words: bytes, after: int, limit: int) -> tuple[int, Sequence[tuple[int, bytes]]]:
        return 0, ()


class Others:
    """Answers by number: a value, a fault, or None for one that says nothing."""

    def __init__(self, answers: dict[int, object]) -> None:
        self.answers = answers

    async def ask(self, number: int, operation: Operation[A, R], arguments: A) -> R:
        answer = self.answers[number]
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, AdminError):
            raise answer
        assert isinstance(answer, operation.result)
        return answer


def whole(**answers: object) -> tuple[Whole, Others]:
    others = Others({int(name[1:]): answer for name, answer in answers.items()})
    return Whole(Own(), others, tuple(others.answers), patience=0.05), others


GONE = NotThere("worker 2 does not run", "relay", "it is being started again")


async def test_figures_are_added_up_and_each_worker_is_named() -> None:
    one, others = whole(w1=counted(3, 2.0, 9.0), w2=counted(4, 3.0, 1.0))
    found = await one.figures()
    assert found.of(Metric.ACCEPTED) == 17 and found.of(Metric.OLDEST) == 9
    assert [found.of(Metric.WORKER_UP, number) for number in "012"] == [1, 1, 1]
    others.answers = {1: None, 2: GONE}
    found = await one.figures()
    assert found.of(Metric.ACCEPTED) == 17 and found.of(Metric.OLDEST) == 5
    assert [found.of(Metric.WORKER_UP, number) for number in "012"] == [1, 0, 0]


async def test_what_the_others_counted_before_is_left_out() -> None:
    one, others = whole(w1=counted(100))
    await one.begin()
    others.answers[1] = counted(103)
    assert (await one.figures()).of(Metric.ACCEPTED) == 13


async def test_health_of_all() -> None:
    one, others = whole(w1=WELL)
    assert await one.health() == Health(True, True, (), 0.25, 5.0, 2)
    others.answers[1] = Health(True, False, ("the disk is nearly full",), 7.0, 6.0)
    found = await one.health()
    assert (found.ready, found.why) == (False, ("worker 1: the disk is nearly full",))
    assert (found.loop_lag_seconds, found.last_commit_at) == (7.0, 6.0)


async def test_one_that_hangs_leaves_clients_waiting_and_one_that_is_gone_does_not() -> None:
    one, others = whole(w2=GONE)
    found = await one.health()
    assert (found.ready, found.why, found.workers) == (True, ("worker 2 does not run",), 1)
    others.answers[2] = None
    found = await one.health()
    assert not found.ready and found.why[0].startswith("worker 2 does not answer: nothing within")
