"""The figures and the health of all workers as one, for the endpoint of the first.

Rule: a worker that does not answer in time takes nothing from what the others say; `worker_up` names it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol, TypeVar

import msgspec

from lonedot.admin.merging_seeing import merge_health
from lonedot.admin.operations import Operation
from lonedot.admin.seeing import Health, Seer
from lonedot.admin.seeing_operations import FIGURES, HEALTH
from lonedot.admin.values import AdminError, NoArguments
from lonedot.app.colleagues import NotThere
from lonedot.observability.metrics import Figures, Metric, Sample, merge
from lonedot.observability.tally import Tally

__all__ = ["ANSWER_SECONDS", "Others", "Whole"]

ANSWER_SECONDS = 2.0
"""How long one of the others may take; who collects figures waits no longer than 10."""

A = TypeVar("A", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


class Others(Protocol):
    """Satisfied by `Colleagues`."""

    async def ask(self, number: int, operation: Operation[A, R], arguments: A) -> R: ...


class Whole:
    """All workers, seen from the first."""

    def __init__(
        self, own: Seer, others: Others, numbers: Sequence[int], patience: float = ANSWER_SECONDS
    ) -> None:
        """`numbers` are those of the others."""
        self._own = own
        self._others = others
        self._numbers = numbers
        self._patience = patience
        self._tally = Tally()

    async def begin(self) -> None:
        """Look at the counters of those that run already: the sum begins at 0, as this worker does."""
        for number, found in await self._asked(FIGURES):
            if isinstance(found, Figures):
                self._tally.begin(number, found)

    async def figures(self) -> Figures:
        parts = [self._own.figures(), _up(self._own.number, True)]
        for number, found in await self._asked(FIGURES):
            is_up = isinstance(found, Figures)
            parts.append(
                self._tally.take(number, found) if isinstance(found, Figures) else self._tally.kept(number)
            )
            parts.append(_up(number, is_up))
        return merge(parts)

    async def health(self) -> Health:
        """One that runs and does not answer leaves clients waiting; one that does not run takes no client."""
        parts = [self._own.health()]
        for number, found in await self._asked(HEALTH):
            if isinstance(found, Health):
                why = tuple(f"worker {number}: {words}" for words in found.why)
                parts.append(msgspec.structs.replace(found, why=why))
                continue
            is_down = isinstance(found, NotThere)
            words = (
                found.problem.what if is_down else f"worker {number} does not answer: {found.problem.what}"
            )
            parts.append(Health(True, is_down, (words,), 0.0, 0.0, 0))
        return merge_health(parts)

    async def _asked(self, operation: Operation[NoArguments, R]) -> list[tuple[int, R | AdminError]]:
        """All at the same time."""
        answers = await asyncio.gather(*[self._answer(number, operation) for number in self._numbers])
        return list(zip(self._numbers, answers, strict=True))

    async def _answer(self, number: int, operation: Operation[NoArguments, R]) -> R | AdminError:
        try:
            async with asyncio.timeout(self._patience):
                return await self._others.ask(number, operation, NoArguments())
        except TimeoutError:
            return AdminError(f"nothing within {self._patience:g} seconds")
        except AdminError as error:
            return error


def _up(number: int, is_up: bool) -> Figures:
    return Figures((Sample(Metric.WORKER_UP, (str(number),), float(is_up)),))
