"""How a session asks: its sinks, and whatever else takes time while its client waits.

Rules: one question at a time; while one is out the session handles no event. What is asked in this process is answered
before `ask` returns. When the connection is lost its question is dropped, and nobody is told the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Protocol, TypeVar, cast

from lonedot.reception.acceptance import Acceptor
from lonedot.reception.session_sinks import INTERRUPTED, UNSAID, Seen, Word, moment_of, start, word_from
from lonedot.reception.transaction import Transaction
from lonedot.sinks.bindings import Chains
from lonedot.sinks.events import Event
from lonedot.sinks.protocol import Command, Credentials, Judgement, Note
from lonedot.terms.envelope import Recipient

__all__ = ["Asker", "Asking"]

T = TypeVar("T")


class Asking(Seen, Protocol):
    """The session that asks."""

    is_busy: bool
    """A decision is out: events wait."""

    def note_sink(self, what: str, words: str, note: Note, /) -> object: ...

    def go_on(self) -> None:
        """What was waited for is there."""
        ...

    def break_off(self, error: BaseException) -> None:
        """Our own fault, while an answer was taken."""
        ...


class Asker:
    """What one session has asked and waits for."""

    __slots__ = ("_acceptor", "_listener", "_session", "_task")

    def __init__(self, session: Asking, acceptor: Acceptor, listener: str) -> None:
        self._session = session
        self._acceptor = acceptor
        self._listener = listener
        self._task: asyncio.Task[object] | None = None
        """A sink is being asked in its own process, or a password is being checked."""

    def ask(
        self,
        chains: Chains,
        event: Event,
        then: Callable[[Word], None],
        transaction: Transaction | None = None,
        recipient: Recipient | None = None,
        command: Command | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        """Ask the sinks of an event; `then` gets what they say, now or when all have answered."""
        sinks = chains.session
        bindings = sinks.get(event) if sinks is not None else None
        if bindings is None:
            then(UNSAID)
            return
        session = self._session
        envelope = None if transaction is None else transaction.envelope()
        moment = moment_of(event, session, self._listener, envelope, recipient, command, credentials)
        started = start(moment, bindings, self._acceptor.elsewhere)
        if isinstance(started, Judgement):
            then(word_from(started, event, session.note_sink))
        else:
            self.wait(started, lambda said: then(word_from(said, event, session.note_sink)), INTERRUPTED)

    def wait(self, work: Coroutine[None, None, T], then: Callable[[T], None], interrupted: T) -> None:
        """Handle no event until the work is done; `then` gets its result, or `interrupted` when the relay stops."""
        self._session.is_busy = True
        task = asyncio.get_running_loop().create_task(work)
        self._task = cast("asyncio.Task[object]", task)
        task.add_done_callback(partial(self._done, then, interrupted))

    def _done(self, then: Callable[[T], None], interrupted: T, task: asyncio.Task[T]) -> None:
        if self._task is not task:
            return  # the connection was lost meanwhile
        session = self._session
        self._task = None
        session.is_busy = False
        try:
            then(interrupted if task.cancelled() else task.result())
        except Exception as error:
            session.break_off(error)
            return
        session.go_on()

    def drop(self) -> None:
        """Nobody waits for the answer any more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            self._session.is_busy = False
