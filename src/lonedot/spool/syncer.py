"""Our side of the process that syncs (`sync_process`). One for each open shard; it dies with us.

Why a process and not a thread: a thread has the disk's answer while it still has to wait for the interpreter lock,
and a loop that makes many short system calls hands that lock back to itself. Answers through a pipe come in turn.

Orders go through a socket, answers come through a pipe, and the end of the process is the end of its answers: a socket
whose other end died with something unread is in error, and the reader of such a socket is called by uvloop once more
and then never again, though an answer may have been all that it found.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lonedot.spool import sync_process
from lonedot.spool.disk import Checkpointed

__all__ = ["ProcessSyncer"]

END_SECONDS = 5.0
REMOVE_AT_ONCE = 500
"""Paths in one order: a line stays short."""


class ProcessSyncer:
    """A `Syncer` over a small process. Needs the running loop."""

    def __init__(self, database: Path) -> None:
        self._loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        answers, write_end = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 — our own program, by its path
                [sys.executable, "-I", sync_process.__file__, str(database)],
                stdin=theirs.fileno(),
                stdout=write_end,
            )
        except OSError:
            ours.close()
            os.close(answers)
            raise
        finally:
            theirs.close()
            os.close(write_end)
        ours.setblocking(False)
        os.set_blocking(answers, False)
        self._socket = ours
        self._answers = answers
        self._is_closed = False
        self._unsent = bytearray()
        self._received = b""
        self._number = 0
        self._log_done: Callable[[OSError | None], None] | None = None
        self._bodies_done: dict[int, Callable[[OSError | None], None]] = {}
        self._checkpoint_done: dict[int, Callable[[Checkpointed], None]] = {}
        self.has_ended = False
        self._loop.add_reader(answers, self._read)

    def sync_log(self, done: Callable[[OSError | None], None]) -> None:
        assert self._log_done is None
        self._log_done = done
        self._send(sync_process.LOG + b"\n")

    def sync_bodies(self, paths: Sequence[Path], done: Callable[[OSError | None], None]) -> None:
        self._bodies_done[self._order(sync_process.BODIES, paths)] = done

    def checkpoint(self, done: Callable[[Checkpointed], None]) -> None:
        self._checkpoint_done[self._order(sync_process.CHECKPOINT, ())] = done

    def remove(self, paths: Iterable[Path]) -> None:
        left = list(paths)
        for start in range(0, len(left), REMOVE_AT_ONCE):
            self._order(sync_process.REMOVE, left[start : start + REMOVE_AT_ONCE])

    def close(self) -> None:
        """End the process; nobody who waits is answered any more."""
        self._log_done = None
        self._bodies_done.clear()
        self._checkpoint_done.clear()
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._answers)
        self._loop.remove_writer(self._socket)
        if not self.has_ended and self._unsent:
            self._socket.settimeout(END_SECONDS)
            try:
                self._socket.sendall(self._unsent)
            except OSError:
                pass
        self.has_ended = True
        self._socket.close()
        os.close(self._answers)
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                pass  # the kernel does not give it back from a disk that does not answer

    # -- the wire ------------------------------------------------------------------------------------

    def _order(self, order: str, paths: Sequence[Path]) -> int:
        self._number += 1
        self._send(json.dumps([self._number, order, [str(path) for path in paths]]).encode() + b"\n")
        return self._number

    def _send(self, line: bytes) -> None:
        if self.has_ended:
            self._loop.call_soon(self._fail)
            return
        if not self._unsent:
            try:
                line = line[self._socket.send(line) :]
            except BlockingIOError:
                pass
            except OSError:
                return  # it has ended: the reader is about to find out
        if line:
            if not self._unsent:
                self._loop.add_writer(self._socket, self._write)
            self._unsent += line

    def _write(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            received = os.read(self._answers, 65536)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self.has_ended = True
            self._loop.remove_reader(self._answers)
            self._fail()
            return
        *lines, self._received = (self._received + received).split(b"\n")
        for line in lines:
            if line.startswith(sync_process.LOG_DONE):
                done, self._log_done = self._log_done, None
                if done is not None:
                    done(_error(*json.loads(line[1:])) if len(line) > 1 else None)
                continue
            number, first, words = json.loads(line)
            if (body := self._bodies_done.pop(number, None)) is not None:
                body(_error(first, words))
            elif (point := self._checkpoint_done.pop(number, None)) is not None:
                point(Checkpointed(complete=first, error=words))

    def _fail(self) -> None:
        """The process has ended: everybody who waits is told."""
        words = "the process that syncs has ended"
        log, self._log_done = self._log_done, None
        bodies, self._bodies_done = self._bodies_done, {}
        points, self._checkpoint_done = self._checkpoint_done, {}
        for body in bodies.values():
            body(OSError(errno.EIO, words))
        for point in points.values():
            point(Checkpointed(complete=False, error=words))
        if log is not None:
            log(OSError(errno.EIO, words))


def _error(code: int, words: str) -> OSError | None:
    return OSError(code, words) if code else None
