"""Runs of a program of the administrator's: a message on its standard input, what it says, and how it ended.

Rules: no shell, and no part of an argument is ever put together from an address; the program has the rights of one
user, no way to more, only the variables that are stated, limits, and a deadline behind which its whole process group
is killed. What it says is bounded. A program that reads no more is no fault of anybody's.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

from lonedot.sinks import launch

__all__ = [
    "NOT_STARTED",
    "PLACEHOLDERS",
    "Program",
    "Run",
    "Runs",
    "Unfit",
    "arguments_of",
    "fault_of_command",
    "plain",
    "signal_name",
]

NOT_STARTED = launch.NOT_STARTED
PLACEHOLDERS = ("{sender}", "{recipient}", "{id}")
SAID_LIMIT = 4096
"""Octets of what a program says for people that are kept: the last ones."""

_READS_AT_END = 32
"""Pieces of what it said last that are read when it has ended."""
_WORDS_LIMIT = 300
"""Characters of them in the words of an outcome."""
_LAUNCHER = str(Path(launch.__file__))
_NOT_PLAIN = re.compile(r"[^ -~\u00a0-\ud7ff\ue000-\ufffd]+")


class Unfit(Exception):
    """This message cannot be given to the program, or the program cannot be run here."""

    def __init__(self, words: str, status: str) -> None:
        super().__init__(words)
        self.words = words
        self.status = status
        """Enhanced status code."""


class Program(msgspec.Struct, frozen=True):
    """A program, and whose rights it has."""

    command: tuple[str, ...]
    """Whole path and arguments; `PLACEHOLDERS` as whole arguments."""
    user: str = ""
    """Needed where the relay runs as root, which lends its own rights to nobody."""
    memory: int = 1024 * 1024 * 1024
    """Octets of address space."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables besides PATH and LANG; nothing else is passed on."""


class Run(msgspec.Struct):
    """What came of one run."""

    status: int = 0
    """Exit status; below 0 the signal that ended it."""
    said: bytes = b""
    """The last octets of what it said for people: standard error, and standard output where that is no answer."""
    answer: bytes = b""
    """Standard output, where that is asked for."""
    is_answer_too_long: bool = False
    took_all: bool = False
    """It was given the whole of its input."""
    is_late: bool = False
    cause: BaseException | None = None
    """Why its input could not be read to the end."""


def fault_of_command(command: Sequence[str]) -> str:
    """What is wrong with a command, in words; empty when nothing is."""
    if not command or not command[0].startswith("/"):
        return "a command begins with the whole path of a program"
    for argument in command:
        if "\0" in argument:
            return "an argument must not hold NUL"
        known = next((one for one in PLACEHOLDERS if one in argument), "")
        if known and argument != known:
            return f"{known} must be an argument of its own, not a part of {argument}"
    if command[0] in PLACEHOLDERS:
        return "the program cannot be chosen by a message"
    return ""


def arguments_of(command: Sequence[str], sender: bytes, recipient: bytes, id: str) -> list[bytes]:
    """The command with the values of a message.

    Raises:
        Unfit: an address would be taken for an option.
    """
    values = {"{sender}": sender, "{recipient}": recipient, "{id}": id.encode()}
    arguments: list[bytes] = []
    for argument in command:
        value = values.get(argument)
        if value is None:
            arguments.append(os.fsencode(argument))
            continue
        if value.startswith(b"-") or b"\0" in value:
            status = "5.1.7" if argument == "{sender}" else "5.1.3"
            raise Unfit("an address that begins with - would be taken for an option", status)
        arguments.append(value)
    return arguments


class Runs:
    """Runs that are under way, and may be stopped together. For threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[int] = set()
        """Process groups."""
        self._is_stopped = False

    @property
    def is_stopped(self) -> bool:
        with self._lock:
            return self._is_stopped

    def stop(self) -> None:
        """Kill what runs; nothing is started any more."""
        with self._lock:
            self._is_stopped = True
            for group in self._running:
                _kill(group)

    def run(
        self,
        program: Program,
        arguments: Sequence[bytes],
        chunks: Iterator[bytes],
        seconds: float,
        answer_limit: int = -1,
    ) -> Run:
        """Start it, feed it, hear it, and wait for its end or the deadline. Blocks.

        `answer_limit`: octets of standard output that are kept as its answer; -1: what it prints is for people.

        Raises:
            Unfit: it cannot be run as this user, or `stop` was called.
            OSError: no process can be started.
        """
        ends_at = time.monotonic() + seconds
        given = {
            "user": _rights(program.user),
            "memory": program.memory,
            "environment": {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **dict(program.environment)},
        }
        python = [os.fsencode(sys.executable), b"-I", b"-S", os.fsencode(_LAUNCHER)]
        with self._lock:
            if self._is_stopped:
                raise Unfit("the relay stops", "4.3.0")
            process = subprocess.Popen(  # noqa: S603  # the administrator's own program, without a shell
                [*python, json.dumps(given).encode("ascii"), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if answer_limit < 0 else subprocess.PIPE,
                env={},
                cwd="/",
                start_new_session=True,
            )
            self._running.add(process.pid)
        run = _Conversation(process, chunks, answer_limit)
        try:
            run.hold(ends_at)
        finally:
            # Nobody has waited for it yet, so that its number is still its own.
            if process.returncode is None:
                _kill(process.pid)
            with self._lock:
                self._running.discard(process.pid)
            run.run.status = process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        return run.ended()


def _rights(name: str) -> tuple[int, int, str] | None:
    """Whose rights a program is given; None: those that we have.

    Raises:
        Unfit: they cannot be given.
    """
    if not name:
        if os.geteuid() == 0:
            raise Unfit(
                "the relay runs as root, and its configuration names no `user` for the program", "4.3.5"
            )
        return None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise Unfit(f"there is no user {name}, who is named for the program", "4.3.5") from None
    if os.geteuid() == entry.pw_uid:
        return None
    if os.geteuid() != 0:
        raise Unfit(f"the relay does not run as root and cannot become {name}", "4.3.5")
    return entry.pw_uid, entry.pw_gid, name


class _Conversation:
    """One run, once it is started."""

    def __init__(self, process: subprocess.Popen[bytes], chunks: Iterator[bytes], answer_limit: int) -> None:
        assert process.stdin is not None and process.stdout is not None
        self.run = Run()
        self._process = process
        self._stdin = process.stdin
        self._feed = _Feed(process.stdin.fileno(), chunks)
        self._limit = answer_limit
        self._answer: list[bytes] = []
        self._answered = 0
        self._ears: list[IO[bytes]] = [pipe for pipe in (process.stdout, process.stderr) if pipe is not None]
        for pipe in (process.stdin, *self._ears):
            os.set_blocking(pipe.fileno(), False)

    def hold(self, ends_at: float) -> None:
        """Until it has ended, the deadline has come, or its input cannot be read."""
        ending = os.pidfd_open(self._process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(ending, selectors.EVENT_READ)
                for pipe in self._ears:
                    selector.register(pipe, selectors.EVENT_READ)
                selector.register(self._stdin, selectors.EVENT_WRITE)
                while True:
                    ready = {key.fd for key, _ in selector.select(max(0.0, ends_at - time.monotonic()))}
                    for pipe in [pipe for pipe in self._ears if pipe.fileno() in ready]:
                        if self._hear(pipe) == b"":
                            selector.unregister(pipe)
                            self._ears.remove(pipe)
                    if ending in ready:
                        # It has ended well or badly by itself: what it has left behind goes too.
                        _kill(self._process.pid)
                        for pipe in self._ears:
                            self._drain(pipe)
                        self.run.took_all = self._feed.is_done
                        return
                    if self.run.is_answer_too_long:
                        return
                    if time.monotonic() >= ends_at:
                        self.run.is_late = True
                        return
                    if not self._stdin.closed and self._stdin.fileno() in ready:
                        try:
                            goes_on = self._feed.go_on()
                        except Exception as error:  # whatever reading the message raises
                            self.run.cause = error
                            return
                        if not goes_on:
                            selector.unregister(self._stdin)
                            self._stdin.close()
        finally:
            os.close(ending)

    def ended(self) -> Run:
        self.run.answer = b"".join(self._answer)
        return self.run

    def _drain(self, pipe: IO[bytes]) -> None:
        """What lies in it; a program that has left its group may go on writing for ever."""
        for _ in range(_READS_AT_END):
            if self.run.is_answer_too_long or not self._hear(pipe):
                return

    def _hear(self, pipe: IO[bytes]) -> bytes | None:
        """Keep some of what it says; empty at its end, None when nothing is there."""
        try:
            octets = os.read(pipe.fileno(), 65536)
        except BlockingIOError:
            return None
        if self._limit >= 0 and pipe is self._process.stdout:
            self._answered += len(octets)
            if self._answered > self._limit:
                self.run.is_answer_too_long = True
            else:
                self._answer.append(octets)
        else:
            self.run.said = (self.run.said + octets)[-SAID_LIMIT:]
        return octets


class _Feed:
    """Writes the message into a pipe as far as it takes it."""

    def __init__(self, pipe: int, chunks: Iterator[bytes]) -> None:
        self._pipe = pipe
        self._chunks = chunks
        self._left = memoryview(b"")
        self.is_done = False
        """All of it was written."""

    def go_on(self) -> bool:
        """False: nothing more is to be written, the pipe is to be closed.

        Raises what reading the message raises; a program that reads no more is no fault.
        """
        if not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                self.is_done = True
                return False
            self._left = memoryview(chunk)
        try:
            self._left = self._left[os.write(self._pipe, self._left) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            return False
        return True


def plain(said: bytes) -> str:
    """What a program said, on one line, for people: the last of it."""
    text = _NOT_PLAIN.sub(" ", said.decode("utf-8", "replace")).strip()
    return text if len(text) <= _WORDS_LIMIT else "…" + text[-_WORDS_LIMIT:]


def signal_name(number: int) -> str:
    """As `SIGKILL`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
