"""How outcomes reach the spool.

Rules: an outcome is never forgotten: a settlement that the disk refuses is kept and tried again, and its message is
not tried by anybody meanwhile. The settlements of one message go to the spool one after the other, each when the one
before is durable, so that the last, which gives the claim back, is never there first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lonedot.queue.courier import Observer
from lonedot.queue.work import Settle, Work
from lonedot.spool.interface import Settlement, Spool, SpoolFault

__all__ = ["Settlements"]

SETTLE_AGAIN_SECONDS = 5.0


class Settlements:
    """Of one scheduler."""

    def __init__(self, spool: Spool, observer: Observer, settled: Settle) -> None:
        """`settled` is called when a settlement is durable, with the next of its message on the way."""
        self._spool = spool
        self._observer = observer
        self._settled = settled
        self._refused: list[tuple[Work, Settlement]] = []
        """Settlements that the disk refused, and what was decided since, in order."""
        self._timer: asyncio.TimerHandle | None = None

    def put(self, work: Work, settlement: Settlement) -> None:
        work.settling += 1
        if work.settling > 1:
            work.behind.append(settlement)
        else:
            self._hand_in(work, settlement)

    def try_refused(self) -> None:
        """Everything that was decided since the disk refused, in its order. Each by itself: one may be to blame."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        batch = self._refused
        self._refused = []
        for work, settlement in batch:
            self._submit(work, settlement)

    def _hand_in(self, work: Work, settlement: Settlement) -> None:
        if self._refused:
            self._refused.append((work, settlement))
        else:
            self._submit(work, settlement)

    def _submit(self, work: Work, settlement: Settlement) -> None:
        try:
            future = self._spool.settle((settlement,))
        except Exception as error:
            self._not_settled(work, settlement, error)
        else:
            future.add_done_callback(lambda done: self._done(work, settlement, done))

    def _done(self, work: Work, settlement: Settlement, future: asyncio.Future[Sequence[bool]]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self._not_settled(work, settlement, error)
            return
        work.settling -= 1
        if work.settled is not None and not work.settled.done():
            work.settled.set_result(all(future.result()))
        if work.behind:
            self._hand_in(work, work.behind.popleft())
        self._settled(work, settlement)

    def _not_settled(self, work: Work, settlement: Settlement, error: BaseException) -> None:
        self._observer.spool_failed(
            "settle", error if isinstance(error, Exception) else SpoolFault(str(error))
        )
        self._refused.append((work, settlement))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_AGAIN_SECONDS, self.try_refused)
