"""How several workers stay the same: configuration, bindings and their standing come into force in all of them.

One object in each worker. In the first it leads: whatever changes goes through it, and is answered when the others have
it too. In the others it follows. With one worker it passes everything on and costs nothing.

Rules:
1. A configuration is taken by every worker that runs, or by none; what is decided is decided by the first alone.
2. A worker that does not run is left out: it reads the files when it starts, and then asks the first where it is.
3. A fault of a binding counts where it happens at once, and with the first, for all, a moment later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Protocol

from lonedot.admin.colleague import Align, Bearing, Booked, Faults, Prepare
from lonedot.admin.colleague_operations import ABANDON, ALIGN, BOOK, COMMIT, JOIN, PREPARE
from lonedot.admin.reload import Reloaded
from lonedot.admin.sinks import Bindings, Taken
from lonedot.admin.values import AdminError, NoArguments
from lonedot.app.colleagues import Colleagues, NotThere
from lonedot.app.registry import RegistryKeeper
from lonedot.app.reload import Prepared
from lonedot.app.standing import StandingDesk
from lonedot.app.workers import Post
from lonedot.config.model import Config
from lonedot.observability import log
from lonedot.observability.levels import LogLevel
from lonedot.sinks.registry import Change

__all__ = ["Crew", "CrewKeeper", "Hand"]

PREPARED_SECONDS = 300.0
"""What was prepared and never taken is let go of after this."""
_OWN_UID = -1


class Hand(Protocol):
    """This worker, as far as it takes a configuration."""

    config: Config

    async def prepare(self) -> Prepared | Reloaded:
        """Judge the configuration as its file says now, and make ready all that may fail; with a fault, what it is.

        Raises:
            AdminError: it has no fault, and still cannot be taken; nothing has changed.
        """
        ...

    async def take(self, prepared: Prepared, uid: int) -> Reloaded:
        """Put it in force.

        Raises:
            AdminError: it is in force, but for what the words say.
        """
        ...

    def let_go(self, prepared: Prepared) -> None: ...


class Crew:
    """Satisfies `admin.reload.Reloader` and `admin.colleague.Colleague`."""

    def __init__(
        self,
        post: Post,
        colleagues: Colleagues,
        hand: Hand,
        keeper: RegistryKeeper,
        standing: StandingDesk,
    ) -> None:
        self._post = post
        self._colleagues = colleagues
        self._hand = hand
        self._keeper = keeper
        self._standing = standing
        self._prepared: Prepared | None = None
        self._forgetting: asyncio.TimerHandle | None = None
        self._telling: set[asyncio.Task[None]] = set()
        self.changing = asyncio.Lock()
        """Held while something changes; a worker that starts holds it until it is where the first is."""

    # -- what commands ask of the first ----------------------------------------------------------------

    async def reload(self, uid: int) -> Reloaded:
        self._must_lead()
        async with self.changing:
            prepared = await self._hand.prepare()
            if isinstance(prepared, Reloaded):
                return prepared
            try:
                await self._have_prepared(prepared.config.revision)
            except BaseException:
                self._hand.let_go(prepared)
                raise
            own_fault: AdminError | None = None
            done: Reloaded | None = None
            try:
                done = await self._hand.take(prepared, uid)
            except AdminError as error:
                own_fault = error
            await self._have_committed()
            if done is None:
                assert own_fault is not None
                raise own_fault
            return done

    async def bindings(self) -> Bindings:
        return await self._keeper.bindings()

    async def apply(self, changes: Sequence[Change], uid: int) -> Taken:
        self._must_lead()
        async with self.changing:
            taken = await self._keeper.apply(changes, uid)
            await self._bring_others(anew=False)
        return taken

    async def reload_bindings(self, uid: int) -> Taken:
        """Take the registry and the code of sinks as they are now."""
        self._must_lead()
        async with self.changing:
            taken = await self._keeper.reload(uid)
            await self._bring_others(anew=True)
        return taken

    def _must_lead(self) -> None:
        if not self._post.is_first:
            raise AdminError("only the first worker changes anything", "relay", "ask it")

    # -- the first leads -------------------------------------------------------------------------------

    async def _have_prepared(self, revision: str) -> None:
        """Raises AdminError when one that runs cannot take it; then nobody does."""
        answers = await self._colleagues.call(PREPARE, Prepare(revision))
        refused = [(number, answer) for number, answer in answers if _is_fault(answer)]
        if refused:
            await self._colleagues.call(ABANDON, NoArguments())
            number, answer = refused[0]
            assert isinstance(answer, AdminError)
            problem = answer.problem
            do = problem.do or "mend it and reload again; nothing has changed"
            raise AdminError(f"worker {number} cannot take it: {problem.what}", problem.where, do)

    async def _have_committed(self) -> None:
        answers = await self._colleagues.call(COMMIT, NoArguments())
        if any(_is_fault(answer) for _, answer in answers):
            await self._bring_others(anew=False)

    async def _bring_others(self, *, anew: bool) -> None:
        """Have the others be where this one is.

        Raises:
            AdminError: it is in force here, and not in one of them that runs.
        """
        answers = await self._colleagues.call(ALIGN, Align(self.bearing(), anew))
        failed = [f"worker {number} ({answer})" for number, answer in answers if _is_fault(answer)]
        if failed:
            raise AdminError(
                f"it is in force, but not in {', '.join(failed)}", "relay", "mend that, then: lonedot reload"
            )

    def tell_standing(self) -> None:
        """Other bindings are called than before: the others shall know soon."""
        if self._post.is_first and self._post.count > 1:
            self._tell(self._tell_others())

    async def _tell_others(self) -> None:
        try:
            await self._bring_others(anew=False)
        except AdminError as error:
            log.event("worker.not-aligned", LogLevel.WARNING, words=str(error))

    def _tell(self, telling: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(telling)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    # -- the others follow -----------------------------------------------------------------------------

    async def start(self) -> None:
        """The worker listens now, or is about to: be where the first is. The caller holds `changing`."""
        if self._post.count == 1:
            return
        if self._post.is_first:
            # Those that ran on while it did not: it has read the files anew, and the standing with them.
            self._tell(self._tell_others())
            return
        try:
            bearing = await self._colleagues.ask(0, JOIN, NoArguments())
            await self._align(bearing, anew=False)
        except NotThere:
            pass  # it tells us when it starts
        except AdminError as error:
            log.event("worker.not-aligned", LogLevel.WARNING, worker=self._post.number, words=str(error))

    async def stop(self) -> None:
        self.abandon()
        for task in tuple(self._telling):
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    async def prepare(self, revision: str) -> None:
        async with self.changing:
            self.abandon()
            prepared = await self._hand.prepare()
            if isinstance(prepared, Reloaded):
                fault = prepared.faults[0] if prepared.faults else "it has a fault"
                raise AdminError(fault, prepared.file)
            if prepared.config.revision != revision:
                self._hand.let_go(prepared)
                raise AdminError("the configuration was changed meanwhile", str(prepared.config.file))
            self._prepared = prepared
            loop = asyncio.get_running_loop()
            self._forgetting = loop.call_later(PREPARED_SECONDS, self.abandon)

    async def commit(self) -> None:
        async with self.changing:
            prepared = self._forget()
            if prepared is None:
                raise AdminError("nothing was prepared", "relay")
            await self._hand.take(prepared, _OWN_UID)

    def abandon(self) -> None:
        prepared = self._forget()
        if prepared is not None:
            self._hand.let_go(prepared)

    def _forget(self) -> Prepared | None:
        if self._forgetting is not None:
            self._forgetting.cancel()
            self._forgetting = None
        prepared, self._prepared = self._prepared, None
        return prepared

    async def align(self, bearing: Bearing, anew: bool) -> None:
        async with self.changing:
            await self._align(bearing, anew=anew)

    async def _align(self, bearing: Bearing, *, anew: bool) -> None:
        if bearing.revision != self._hand.config.revision:
            prepared = await self._hand.prepare()
            if isinstance(prepared, Reloaded):
                raise AdminError(next(iter(prepared.faults), "the configuration has a fault"), prepared.file)
            await self._hand.take(prepared, _OWN_UID)
        elif anew:
            await self._keeper.reload(_OWN_UID)
        elif bearing.bindings != self._keeper.revision:
            await self._keeper.take_file(_OWN_UID)
        self._standing.adopt(bearing.standings)
        here = self._keeper.revision
        if here != bearing.bindings:
            raise AdminError(
                f"it runs {here}, and the first worker {bearing.bindings}: a file was changed meanwhile",
                "relay",
                "lonedot reload",
            )

    # -- standing --------------------------------------------------------------------------------------

    def bearing(self) -> Bearing:
        return Bearing(self._hand.config.revision, self._keeper.revision, self._standing.all())

    def book(self, faults: tuple[Booked, ...]) -> None:
        for one in faults:
            self._standing.book(one.guid, one.fault, one.words, one.id)

    def send_faults(self) -> None:
        """Called every now and then: tell the first of the faults that were booked here."""
        if self._standing.has_unsent and not self._telling:
            self._tell(self._send())

    async def _send(self) -> None:
        faults = self._standing.take_unsent()
        try:
            await self._colleagues.ask(0, BOOK, Faults(faults))
        except AdminError:
            self._standing.put_back(faults)  # it is started again, and told then


class CrewKeeper:
    """Satisfies `admin.sinks.Keeper`: what commands do to bindings, done in all workers."""

    def __init__(self, crew: Crew) -> None:
        self.bindings = crew.bindings
        self.apply = crew.apply
        self.reload = crew.reload_bindings


def _is_fault(answer: object) -> bool:
    """It runs, and could not."""
    return isinstance(answer, AdminError) and not isinstance(answer, NotThere)
