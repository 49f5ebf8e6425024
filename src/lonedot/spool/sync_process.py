"""The program of the process that syncs: run by its path, with the path of the database as its argument.

It reads orders on standard input and answers on standard output. `L` syncs the log of the database; the others are
JSON lines `[number, order, paths]`. It ends when standard input ends. It imports nothing of this package, so that it
starts quickly and stays small; signals that a terminal or a service manager sends to all are left to its parent.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable

import apsw

LOG = b"L"
BODIES = "bodies"
CHECKPOINT = "checkpoint"
REMOVE = "remove"
LOG_DONE = b"L"

Work = Callable[[], None]
_sync_data = getattr(os, "fdatasync", os.fsync)


class _Log:
    """The log, kept open; opened anew when another file has taken its name."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._identity: tuple[int, int] = (0, 0)

    def sync(self) -> None:
        status = os.stat(self._path)
        if (status.st_dev, status.st_ino) != self._identity:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            status = os.fstat(self._descriptor)
            self._identity = (status.st_dev, status.st_ino)
        _sync_data(self._descriptor)


class _Answers:
    def __init__(self) -> None:
        self._lock = threading.Lock()

    def write(self, line: bytes) -> None:
        with self._lock:
            while line:
                line = line[os.write(1, line) :]

    def send(self, number: int, *words: object) -> None:
        self.write(json.dumps([number, *words]).encode() + b"\n")


def _sync(path: str, flags: int, sync: Callable[[int], None]) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def _sync_bodies(answers: _Answers, number: int, paths: list[str]) -> None:
    code, words = 0, ""
    try:
        for path in paths:
            _sync(path, os.O_RDONLY, _sync_data)
        for folder in {os.path.dirname(path) for path in paths}:
            _sync(folder, os.O_RDONLY | os.O_DIRECTORY, os.fsync)
    except OSError as error:
        code, words = error.errno or 5, str(error)
    answers.send(number, code, words)


def _remove(paths: list[str]) -> None:
    for path in paths:
        try:
            os.unlink(path)
        except OSError:
            pass


def _checkpoint(answers: _Answers, number: int, database: str) -> None:
    complete, words = False, ""
    try:
        connection = apsw.Connection(database, flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.pragma("synchronous", "FULL")
            frames, copied = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            complete = frames == copied
        finally:
            connection.close()
    except apsw.Error as error:
        words = str(error) or type(error).__name__
    answers.send(number, complete, words)


def _worker(waiting: queue.SimpleQueue[Work]) -> None:
    while True:
        waiting.get()()


def main(database: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    answers = _Answers()
    log = _Log(database + "-wal")
    bodies: queue.SimpleQueue[Work] = queue.SimpleQueue()
    others: queue.SimpleQueue[Work] = queue.SimpleQueue()
    # A large body must not keep the log waiting, nor a checkpoint the bodies.
    for waiting in (bodies, bodies, others):
        threading.Thread(target=_worker, args=(waiting,), daemon=True).start()
    rest = b""
    while received := os.read(0, 65536):
        *lines, rest = (rest + received).split(b"\n")
        for line in lines:
            if line == LOG:
                try:
                    log.sync()
                except OSError as error:
                    answers.write(LOG_DONE + json.dumps([error.errno or 5, str(error)]).encode() + b"\n")
                else:
                    answers.write(LOG_DONE + b"\n")
                continue
            number, order, paths = json.loads(line)
            if order == BODIES:
                bodies.put(lambda number=number, paths=paths: _sync_bodies(answers, number, paths))  # type: ignore[misc]
            elif order == CHECKPOINT:
                others.put(lambda number=number: _checkpoint(answers, number, database))  # type: ignore[misc]
            else:
                others.put(lambda paths=paths: _remove(paths))  # type: ignore[misc]


if __name__ == "__main__":
    main(sys.argv[1])
