"""What a person does at a terminal while a command draws on it: keys, and another size of the window.

Rule: the terminal is left as it was found, whatever happens.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import os
import re
import signal
import sys
import termios
import tty
from collections.abc import Callable
from types import TracebackType
from typing import Self

__all__ = ["Terminal", "Wake"]

_LEAVE = frozenset(b"qQ\x03\x04")
"""q, Ctrl-C where it is no signal, Ctrl-D; besides them Escape, alone."""

_FUNCTION_KEY = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]")


class Wake(enum.Enum):
    """Why waiting ended."""

    TIME = "time"
    RESIZED = "resized"
    LEFT = "left"


class Terminal:
    """Keys of standard input, when it is a terminal, and changes of the window's size, inside a `with`."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self._why = Wake.TIME
        self._restore: Callable[[], None] | None = None
        self._fd = -1

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, self._wake, Wake.RESIZED)
        if sys.stdin is not None and sys.stdin.isatty():
            self._fd = sys.stdin.fileno()
            before = termios.tcgetattr(self._fd)
            self._restore = functools.partial(termios.tcsetattr, self._fd, termios.TCSADRAIN, before)
            tty.setcbreak(self._fd, termios.TCSANOW)
            loop.add_reader(self._fd, self._read)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_signal_handler(signal.SIGWINCH)
        if self._restore is not None:
            loop.remove_reader(self._fd)
            self._restore()

    async def wait(self, seconds: float) -> Wake:
        """Return after so many seconds, or as soon as something happens."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return Wake.TIME
        why, self._why = self._why, Wake.TIME
        self._woken.clear()
        return why

    def _read(self) -> None:
        try:
            typed = os.read(self._fd, 64)
        except OSError:
            typed = b""
        keys = _FUNCTION_KEY.sub(b"", typed)
        if not typed or keys == b"\x1b" or not _LEAVE.isdisjoint(keys):
            self._wake(Wake.LEFT)

    def _wake(self, why: Wake) -> None:
        if self._why is not Wake.LEFT:
            self._why = why
        self._woken.set()
