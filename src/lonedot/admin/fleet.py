"""All workers of a running relay as one: which of them an operation is asked of, and how answers become one.

Rules:
1. Every operation has its row in `WAYS`; one that has none is refused.
2. A worker that does not answer fails nobody who asks for something else: it is named in `missing`, and what is asked
   of it alone says so.
3. Ids that are parts are made whole before anything is changed.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar, cast

import msgspec

from lonedot.admin import (
    backup_operations,
    hold_rules,
    hops,
    import_operations,
    operations,
    pop3_operations,
    queue_operations,
    reload_operations,
    route_operations,
    seeing_operations,
    sinks_operations,
)
from lonedot.admin.merging import (
    asked_of_each,
    by_shard,
    merge_changed,
    merge_listings,
    merge_selected,
    merge_status,
    merge_taken,
)
from lonedot.admin.merging_seeing import merge_health, merge_hops, merge_log_lines, merge_screens
from lonedot.admin.operations import Operation, StreamOperation
from lonedot.admin.values import (
    AdminError,
    Changed,
    ExportArguments,
    IdArguments,
    Left,
    ListArguments,
    OctetsArguments,
    Piece,
    Selected,
)
from lonedot.observability import metrics

__all__ = ["WAYS", "Fleet", "Way", "WorkerCaller"]

A = TypeVar("A", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)

NO_MESSAGE = "there is no message "
"""How the words begin with which `show` and its like refuse an id that they do not know."""
NO_SUCH_MESSAGE = "there is no such message"
"""Why a change leaves an id that it does not know."""
_SOON = "it is being started again: try again in a moment; its log says why it ended"


class WorkerCaller(Protocol):
    """One worker. Both raise AdminError."""

    async def call(self, operation: Operation[A, R], arguments: A) -> R: ...

    def stream(self, operation: StreamOperation[A], arguments: A) -> AsyncIterator[Piece]: ...


class Way(enum.Enum):
    """Which workers are asked."""

    FIRST = "first"
    """The first one, which answers for all."""
    BY_ID = "by id"
    """The one that has the message."""
    BY_IDS = "by ids"
    """Each for the messages that it has."""
    EACH = "each"
    """All; what they answer is merged."""


WAYS: Mapping[str, Way] = {
    operations.LIST.name: Way.EACH,
    operations.SELECT.name: Way.EACH,
    operations.SHOW.name: Way.BY_ID,
    operations.WHY.name: Way.BY_ID,
    operations.HOLD.name: Way.BY_IDS,
    operations.RELEASE.name: Way.BY_IDS,
    operations.RETRY.name: Way.BY_IDS,
    operations.DELETE.name: Way.BY_IDS,
    operations.STATUS.name: Way.EACH,
    operations.OCTETS.name: Way.BY_ID,
    operations.EXPORT.name: Way.BY_IDS,
    queue_operations.BOUNCE.name: Way.BY_IDS,
    queue_operations.REROUTE.name: Way.BY_IDS,
    hops.HOPS.name: Way.EACH,
    hold_rules.RULES.name: Way.FIRST,
    hold_rules.ADD.name: Way.FIRST,
    hold_rules.REMOVE.name: Way.FIRST,
    hold_rules.TAKE.name: Way.EACH,
    import_operations.IMPORT.name: Way.FIRST,
    backup_operations.BACKUP.name: Way.EACH,
    sinks_operations.BINDINGS.name: Way.FIRST,
    sinks_operations.APPLY.name: Way.FIRST,
    sinks_operations.RELOAD.name: Way.FIRST,
    reload_operations.RELOAD.name: Way.FIRST,
    route_operations.ROUTE.name: Way.FIRST,
    pop3_operations.POP3_LIST.name: Way.FIRST,
    pop3_operations.POP3_POLL.name: Way.FIRST,
    seeing_operations.FIGURES.name: Way.EACH,
    seeing_operations.HEALTH.name: Way.EACH,
    seeing_operations.SCREEN.name: Way.EACH,
    seeing_operations.LOGS.name: Way.EACH,
}


def _merge_hops(parts: Sequence[hops.Hops]) -> hops.Hops:
    found = hops.order_by_trouble(merge_hops([hop for part in parts for hop in part.hops]))
    return hops.Hops(True, max(part.asked_at for part in parts), found)


_MERGES: Mapping[str, Callable[[Sequence[msgspec.Struct]], msgspec.Struct]] = {
    operations.STATUS.name: cast(Callable[..., msgspec.Struct], merge_status),
    hops.HOPS.name: cast(Callable[..., msgspec.Struct], _merge_hops),
    hold_rules.TAKE.name: cast(Callable[..., msgspec.Struct], merge_taken),
    seeing_operations.FIGURES.name: cast(Callable[..., msgspec.Struct], metrics.merge),
    seeing_operations.HEALTH.name: cast(Callable[..., msgspec.Struct], merge_health),
    seeing_operations.SCREEN.name: cast(Callable[..., msgspec.Struct], merge_screens),
    seeing_operations.LOGS.name: cast(Callable[..., msgspec.Struct], merge_log_lines),
}
"""Of what is asked of each. Listings are merged by what was asked for."""


class Fleet:
    """Satisfies `client.Caller`.

    Args:
        workers: those that answer, by number; at least one.
        shards: by number of the worker, the shards that it has.
        missing: by number of the worker that does not answer, why.
    """

    def __init__(
        self,
        workers: Mapping[int, WorkerCaller],
        shards: Mapping[int, Iterable[int]],
        missing: Mapping[int, str],
    ) -> None:
        self._workers = dict(sorted(workers.items()))
        self._owners = {shard: number for number, some in shards.items() for shard in some}
        self._missing = dict(missing)
        self._count = len(workers) + len(missing)

    @property
    def missing(self) -> tuple[str, ...]:
        """A sentence for each worker that does not answer."""
        return tuple(f"worker {number} does not answer ({why})" for number, why in self._missing.items())

    async def call(self, operation: Operation[A, R], arguments: A) -> R:
        match _way_of(operation.name):
            case Way.FIRST:
                return await self._first().call(operation, arguments)
            case Way.BY_ID:
                return await self._by_id(operation, arguments)
            case Way.BY_IDS:
                return cast(R, await self._by_ids(cast(Operation[A, Changed], operation), arguments))
            case Way.EACH:
                return await self._of_each(operation, arguments)

    async def stream(self, operation: StreamOperation[A], arguments: A) -> AsyncIterator[Piece]:
        match _way_of(operation.name):
            case Way.FIRST:
                workers = [(self._first(), arguments)]
            case Way.BY_ID:
                assert isinstance(arguments, OctetsArguments)
                number, id = await self._find(arguments.id)
                workers = [(self._workers[number], _replaced(arguments, id=id))]
            case Way.BY_IDS if isinstance(arguments, ExportArguments) and arguments.ids:
                found = [await self._find(id) for id in arguments.ids]
                by_worker: dict[int, list[str]] = {}
                for number, id in found:
                    by_worker.setdefault(number, []).append(id)
                workers = [
                    (self._workers[number], _replaced(arguments, ids=tuple(ids)))
                    for number, ids in by_worker.items()
                ]
            case _:
                workers = [(worker, arguments) for worker in self._workers.values()]
        for worker, asked in workers:
            async for piece in worker.stream(operation, asked):
                yield piece

    # -- one -----------------------------------------------------------------------------------------

    def _first(self) -> WorkerCaller:
        if 0 not in self._workers:
            raise AdminError("the first worker, which is asked for this, does not answer", "relay", _SOON)
        return self._workers[0]

    def _likely(self, id: str) -> int:
        """Number of the worker that has messages with such an id; -1 when the id is not whole."""
        (shard,) = by_shard((id,))
        return -1 if shard < 0 else self._owners.get(shard, shard % self._count)

    async def _by_id(self, operation: Operation[A, R], arguments: A) -> R:
        assert isinstance(arguments, IdArguments)
        likely = self._likely(arguments.id)
        if likely in self._workers:
            try:
                return await self._workers[likely].call(operation, arguments)
            except AdminError as error:
                if not error.problem.what.startswith(NO_MESSAGE):
                    raise
        number, id = await self._find(arguments.id, but=likely)
        return await self._workers[number].call(operation, _replaced(arguments, id=id))

    async def _find(self, text: str, but: int = -1) -> tuple[int, str]:
        """Who has the message that is meant, and its whole id.

        Args:
            but: this one was asked already, and does not have it.

        Raises:
            AdminError: nobody has it, or several may be meant.
        """
        likely = self._likely(text)
        asked = [number for number in self._workers if number != but]
        answers = await asyncio.gather(
            *[self._workers[number].call(operations.SHOW, IdArguments(text)) for number in asked],
            return_exceptions=True,
        )
        found: list[tuple[int, str]] = []
        faults: list[AdminError] = []
        for number, answer in zip(asked, answers, strict=True):
            if isinstance(answer, AdminError):
                faults.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found.append((number, answer.id))
        several = [fault for fault in faults if "may mean" in fault.problem.what]
        if several:
            raise several[0]
        if len(found) == 1 or (found and likely >= 0):
            return found[0]
        if found:
            names = ", ".join(id for _, id in found)
            raise AdminError(f"{text!r} may mean {names}", "id", "give more of its signs")
        if likely in self._missing:
            raise AdminError(f"worker {likely}, which has {text}, does not answer", "relay", _SOON)
        if faults:
            raise faults[0]
        raise AdminError(f"{NO_MESSAGE}{text[:40]}", "spool", "lonedot queue list names those that are there")

    # -- some ----------------------------------------------------------------------------------------

    async def _by_ids(self, operation: Operation[A, Changed], arguments: A) -> Changed:
        given: tuple[str, ...] = getattr(arguments, "ids", ())
        if not given:
            return await self._workers[min(self._workers)].call(operation, arguments)
        places: dict[str, int] = {}
        by_worker: dict[int, list[str]] = {}
        for text in given:
            number = self._likely(text)
            id = text.strip().lower()
            if number < 0:
                number, id = await self._find(text)
            if id not in places:
                places[id] = len(places)
                by_worker.setdefault(number, []).append(id)
        changed = await self._change(operation, arguments, by_worker)
        unknown = [one.id for one in changed.left if one.why == NO_SUCH_MESSAGE]
        if unknown:
            # Restored or imported, they may lie elsewhere than their ids say.
            changed = await self._change_elsewhere(operation, arguments, changed, unknown)
        order = places.__getitem__
        return msgspec.structs.replace(
            changed,
            done=tuple(sorted(changed.done, key=order)),
            left=tuple(sorted(changed.left, key=lambda one: order(one.id))),
        )

    async def _change(
        self, operation: Operation[A, Changed], arguments: A, by_worker: Mapping[int, Sequence[str]]
    ) -> Changed:
        there = [number for number in by_worker if number in self._workers]
        parts = await asyncio.gather(
            *[
                self._workers[number].call(operation, _replaced(arguments, ids=tuple(by_worker[number])))
                for number in there
            ],
            return_exceptions=True,
        )
        changed: list[Changed] = []
        for number, part in zip(there, parts, strict=True):
            match part:
                case Changed():
                    changed.append(part)
                case AdminError() if len(by_worker) > 1:
                    # What the others did is done: this one's messages were left, and why is said of each.
                    changed.append(Changed((), tuple([Left(id, str(part)) for id in by_worker[number]])))
                case BaseException():
                    raise part
        for number in by_worker:
            if number not in self._workers:
                why = f"worker {number}, which has it, does not answer"
                changed.append(Changed((), tuple([Left(id, why) for id in by_worker[number]])))
        return merge_changed(changed)

    async def _change_elsewhere(
        self, operation: Operation[A, Changed], arguments: A, changed: Changed, unknown: Sequence[str]
    ) -> Changed:
        by_worker: dict[int, list[str]] = {}
        for id in unknown:
            try:
                number, _ = await self._find(id, but=self._likely(id))
            except AdminError:
                continue
            by_worker.setdefault(number, []).append(id)
        found = {id for ids in by_worker.values() for id in ids}
        if not found:
            return changed
        more = await self._change(operation, arguments, by_worker)
        kept = msgspec.structs.replace(
            changed, left=tuple([one for one in changed.left if one.id not in found])
        )
        return merge_changed((kept, more))

    # -- all -----------------------------------------------------------------------------------------

    async def _of_each(self, operation: Operation[A, R], arguments: A) -> R:
        workers = tuple(self._workers.values())
        if operation.name == operations.LIST.name:
            assert isinstance(arguments, ListArguments)
            wanted = asked_of_each(arguments)
            pages = await asyncio.gather(
                *[_pages(worker, operations.LIST, wanted) for worker in workers],
            )
            return cast(R, merge_listings(arguments, pages))
        parts = await asyncio.gather(*[worker.call(operation, arguments) for worker in workers])
        if operation.name == operations.SELECT.name:
            assert isinstance(arguments, ListArguments)
            return cast(R, merge_selected(arguments, cast(Sequence[Selected], parts)))
        return cast(R, _MERGES[operation.name](parts))


async def _pages(
    worker: WorkerCaller, operation: Operation[ListArguments, R], wanted: Sequence[ListArguments]
) -> list[R]:
    return [await worker.call(operation, page) for page in wanted]


def _replaced(arguments: A, **fields: object) -> A:
    return msgspec.structs.replace(arguments, **fields)


def _way_of(name: str) -> Way:
    way = WAYS.get(name)
    if way is None:
        raise AdminError(f"nobody knows which worker is asked for {name!r}", "relay")
    return way
