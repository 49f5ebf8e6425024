"""The time-outs of a session: one timer, which no event moves.

The timer looks when something was last heard and comes again when it may be too late; so a command costs nothing here.
It must not ring later than the shortest time that may begin meanwhile. All times in seconds of the loop's clock.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from lonedot.reception.settings import ListenerSettings
from lonedot.terms.reply import Reply, reply

__all__ = ["CLOSE_SECONDS", "SessionClock", "Timed"]

CLOSE_SECONDS = 30.0
"""So long a client may take to read its last replies; then the connection is cut."""

IDLE = reply(421, "4.4.2", "Nothing heard for too long; closing")
LONG_SESSION = reply(421, "4.4.2", "The session has lasted too long; closing")


class Timed(Protocol):
    """A session, as its clock sees it."""

    @property
    def is_busy(self) -> bool:
        """A decision is out: the client is not the one who keeps us waiting."""
        ...

    @property
    def in_content(self) -> bool: ...

    @property
    def in_transaction(self) -> bool: ...

    def say_goodbye(self, answer: Reply) -> None:
        """Its time is over."""
        ...


class SessionClock:
    """Tells one session when its time is over."""

    __slots__ = ("_began_at", "_loop", "_session", "_settings", "_timer", "heard_at", "now")

    def __init__(self, session: Timed, settings: ListenerSettings, loop: asyncio.AbstractEventLoop) -> None:
        self._session = session
        self._settings = settings
        self._loop = loop
        self.now = loop.time
        self._timer: asyncio.TimerHandle | None = None
        self._began_at = 0.0
        self.heard_at = 0.0
        """When the client said something last; whoever hears it writes it here."""

    def begin(self) -> None:
        """The session begins now."""
        self._began_at = self.heard_at = self.now()

    def watch(self) -> None:
        """From here on the time-outs hold."""
        self._arm(self._settings.command_seconds)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self, transport: asyncio.Transport) -> None:
        """Close after what was written has gone out; a client that does not read it is not waited for for ever."""
        self.stop()
        transport.close()
        if transport.get_write_buffer_size():
            self._timer = self._loop.call_later(CLOSE_SECONDS, transport.abort)

    def _tick(self) -> None:
        session, settings = self._session, self._settings
        now = self.now()
        allowed = settings.data_seconds if session.in_content else settings.command_seconds
        left = self.heard_at + allowed - now
        is_busy = session.is_busy
        if is_busy:
            left = max(left, 1.0)
        is_over = now - self._began_at > settings.session_seconds
        if is_over and not session.in_transaction and not is_busy:
            session.say_goodbye(LONG_SESSION)
        elif left <= 0:
            session.say_goodbye(IDLE)
        else:
            self._arm(left)

    def _arm(self, left: float) -> None:
        settings = self._settings
        session_left = self._began_at + settings.session_seconds - self.now()
        if session_left > 0:
            left = min(left, session_left + 0.001)
        self._timer = self._loop.call_later(min(left, settings.data_seconds), self._tick)
