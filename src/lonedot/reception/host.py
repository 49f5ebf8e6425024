"""What a session needs of the relay around it. `reception.listener` is one."""

from __future__ import annotations

import asyncio
from typing import Protocol, TypeVar

from lonedot.reception.acceptance import Acceptor
from lonedot.reception.connection import Transcript
from lonedot.reception.settings import ListenerSettings
from lonedot.sinks.protocol import Note
from lonedot.terms.address import Address
from lonedot.terms.ids import SessionId
from lonedot.terms.reply import Reply

__all__ = ["Host"]

S_contra = TypeVar("S_contra", contravariant=True)


class Host(Protocol[S_contra]):
    """Where sessions of the type `S_contra` live."""

    settings: ListenerSettings
    acceptor: Acceptor
    revision: str

    def opened(self, session: S_contra) -> Reply | None:
        """A client connected; a reply refuses it."""
        ...

    def closed(self, session: S_contra) -> None: ...

    def transcript(self, session: SessionId, client: str) -> Transcript: ...

    def is_trusted(self, client: str) -> bool: ...

    def login_of(self, transport: asyncio.BaseTransport) -> str:
        """Who the system says is at the other end; empty when it does not."""
        ...

    def has_route(self, address: Address) -> bool: ...

    def take_memory(self, octets: int) -> bool:
        """Count octets held in memory; False when the budget is used up."""
        ...

    def give_memory(self, octets: int) -> None: ...

    def noted(self, session: S_contra, what: str, words: str, note: Note | None = None, /) -> None:
        """For the log; `note` says which sink it is about."""
        ...
