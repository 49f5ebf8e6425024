"""The connection under a session: what goes out and into the transcript, when reading pauses, how it is closed.

Rules: what the client was told stands in the transcript; nothing is written to a connection that is lost.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from lonedot.spool.interface import TranscriptRef

__all__ = ["Connection", "Transcript"]


class Transcript(Protocol):
    """What is said, for the record."""

    def note(self, direction: str, octets: bytes) -> None: ...

    def flush(self) -> TranscriptRef | None:
        """Write what was noted since the last call; None when nothing was."""
        ...


class Connection:
    """The transport of one session, from `connection_made` to `connection_lost`."""

    __slots__ = ("_is_choked", "_is_paused", "transcript", "transport")

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        """None before the connection and when it is lost. The handshake puts another in its place."""
        self.transcript: Transcript | None = None
        self._is_paused = False
        self._is_choked = False
        """The client does not read its replies."""

    def write(self, octets: bytes) -> None:
        if self.transcript is not None:
            self.transcript.note(">", octets)
        if self.transport is not None:
            self.transport.write(octets)

    def lost(self) -> None:
        if self.transcript is not None:
            self.transcript.flush()
        self.transport = None

    def pause(self) -> None:
        """Read no more."""
        if not self._is_paused and self.transport is not None:
            self._is_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on, unless the client does not read its replies."""
        if self._is_paused and not self._is_choked and self.transport is not None:
            self._is_paused = False
            self.transport.resume_reading()

    def choke(self) -> None:
        """A client that does not read its replies gets no more commands answered."""
        self._is_choked = True
        self.pause()

    def unchoke(self) -> None:
        """It has read them. Whoever is free to take more calls `resume`."""
        self._is_choked = False
