"""The other workers, as one of them reaches them: over their control sockets, one connection for each question."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec

from lonedot.admin.client import RelayDown, connect
from lonedot.admin.operations import Operation
from lonedot.admin.values import AdminError
from lonedot.app.workers import Post
from lonedot.spool.interface import SpoolPaths

__all__ = ["Colleagues", "NotThere"]

A = TypeVar("A", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


class NotThere(AdminError):
    """That worker does not run at present."""


class Colleagues:
    """Those of one worker; none where it is the only one."""

    def __init__(self, paths: SpoolPaths, post: Post) -> None:
        self._paths = paths
        self._post = post

    async def call(self, operation: Operation[A, R], arguments: A) -> list[tuple[int, R | AdminError]]:
        """Ask all others at the same time: number of each, and what it answered or why it did not."""
        others = self._post.others
        answers = await asyncio.gather(*[self._asked(number, operation, arguments) for number in others])
        return list(zip(others, answers, strict=True))

    async def ask(self, number: int, operation: Operation[A, R], arguments: A) -> R:
        """Ask one of them.

        Raises:
            AdminError: it refuses or does not answer; `NotThere`: it does not run.
        """
        try:
            client = await connect(self._paths, worker=number)
        except RelayDown as error:
            raise NotThere(f"worker {number} does not run", "relay", "it is being started again") from error
        try:
            return await client.call(operation, arguments)
        finally:
            await client.close()

    async def _asked(self, number: int, operation: Operation[A, R], arguments: A) -> R | AdminError:
        try:
            return await self.ask(number, operation, arguments)
        except AdminError as error:
            return error
