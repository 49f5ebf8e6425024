"""`lonedot top` at a terminal: it fits the window, follows its size, ends by a key, and leaves all as it was."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lonedot.testing.relay import running_relay
from tests.system.talk import PATIENCE, first_config, submit, until

pytestmark = pytest.mark.anyio

_STEER = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]")
LEFT = "\x1b[?1049l"
"""The screen of before is shown again."""


class Screen:
    """The terminal of one program, and what it wrote there."""

    def __init__(self, folder: Path, columns: int) -> None:
        self.master, self.slave = pty.openpty()
        os.set_blocking(self.master, False)
        self.resize(columns)
        self.before = termios.tcgetattr(self.slave)
        self.written = ""
        asyncio.get_running_loop().add_reader(self.master, self._read)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lonedot", "top", "--interval", "0.2", "-c", str(folder / "lonedot.toml")],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={**os.environ, "TERM": "xterm", "LINES": "", "COLUMNS": ""},
        )

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            self.written += os.read(self.master, 65536).decode()

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))

    def press(self, key: str) -> None:
        os.write(self.master, key.encode())

    async def shows(self, claim: Callable[[str], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not claim(self.written):
                assert self.process.poll() is None, self.written
                await asyncio.sleep(0.02)

    async def ended(self) -> int:
        code = await asyncio.to_thread(self.process.wait, PATIENCE)
        await asyncio.sleep(0)
        self._read()
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        asyncio.get_running_loop().remove_reader(self.master)
        os.close(self.master)
        os.close(self.slave)


@contextlib.contextmanager
def top(folder: Path, columns: int = 80) -> Iterator[Screen]:
    screen = Screen(folder, columns)
    try:
        yield screen
    finally:
        screen.close()


def lines_of(written: str) -> list[str]:
    """As they stand on the screen; a path of the test that is longer than the window may be a command's."""
    placed = written.replace("\x1b[H", "\n")  # the next drawing begins at the top
    return [line.rstrip() for line in _STEER.sub("", placed).replace("\r", "").split("\n")]


async def test_it_fits_the_window_and_follows_its_size(tmp_path: Path) -> None:
    async with running_relay(tmp_path, first_config(1)) as relay:
        id = await submit(relay)
        await until(relay, id, lambda stored: bool(stored.attempts))
        with top(tmp_path) as screen:
            await screen.shows(lambda said: "per second" in said and f"queue retry {id}" in said)
            assert max(map(len, lines_of(screen.written))) <= 80
            screen.resize(60)
            screen.process.send_signal(signal.SIGWINCH)
            mark = len(screen.written)
            await screen.shows(lambda said: said[mark:].count("per second") >= 3)
            late = screen.written[mark:].split("per second")[2]
            assert max(map(len, lines_of(late))) <= 60
            screen.press("q")
            assert await screen.ended() == 0
            assert screen.written.count(LEFT) == 1
            assert termios.tcgetattr(screen.slave) == screen.before


@pytest.mark.parametrize("key", ["q", "\x04", "\x1b", ""], ids=["q", "Ctrl-D", "Escape", "Ctrl-C"])
async def test_keys_that_end_it(tmp_path: Path, key: str) -> None:
    async with running_relay(tmp_path, first_config(1)):
        with top(tmp_path) as screen:
            await screen.shows(lambda said: "Waits:" in said)
            screen.press("x\x1bOQ")  # other keys do nothing: F2 sends the last
            mark = len(screen.written)
            await screen.shows(lambda said: "Waits:" in said[mark:])
            screen.press(key) if key else screen.process.send_signal(signal.SIGINT)
            assert await screen.ended() == 0
            assert LEFT in screen.written
            assert termios.tcgetattr(screen.slave) == screen.before


async def test_a_relay_that_stops_ends_it_with_a_reason(tmp_path: Path) -> None:
    async with running_relay(tmp_path, first_config(1)):
        screen = Screen(tmp_path, 80)
        await screen.shows(lambda said: "Waits:" in said)
    try:
        assert await screen.ended() == 1
        assert "lonedot: " in screen.written.rpartition(LEFT)[2]
        assert termios.tcgetattr(screen.slave) == screen.before
    finally:
        screen.close()
