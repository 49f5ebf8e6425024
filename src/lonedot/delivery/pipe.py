"""Delivery to a program: one message for one recipient on its standard input, its exit status is the outcome.

Rules: no shell, and no part of an argument is ever put together from an address; the program has the rights of one
user, no way to more, only the variables that the route states, and a deadline behind which its whole process group is
killed; it sees the end of its input only when our octets were those that were accepted. A status that is not in the
table, a signal, or a deadline defers: a program that breaks down says nothing against a message.
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
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from lonedot.delivery import launch
from lonedot.delivery.deposit import Deposit, DepositReport, refused
from lonedot.delivery.routing import Pipe
from lonedot.delivery.transcript import NOTE, Line
from lonedot.message.encode import StoredAltered
from lonedot.message.filed import FileEncoder
from lonedot.terms.address import Address
from lonedot.terms.outcome import Outcome, Result, Stage

__all__ = ["TAKEN", "PipeCarrier", "fault_of_command"]

TAKEN = "taken by the program"

_OUTPUT_LIMIT = 4096
"""Octets of what a program says that are kept: the last ones."""
_WORDS_LIMIT = 300
"""Characters of them in the words of an outcome."""
_PLACEHOLDERS = ("{sender}", "{recipient}", "{id}")
_LAUNCHER = str(Path(launch.__file__))
_NOT_PLAIN = re.compile(r"[^ -~\u00a0-\ud7ff\ue000-\ufffd]+")

# sysexits.h, with the enhanced status code that it means; what is not here defers with 4.3.0.
_STATUS: dict[int, tuple[str, str]] = {
    64: ("5.3.0", "EX_USAGE"),
    65: ("5.6.0", "EX_DATAERR: it cannot use the message"),
    66: ("4.3.0", "EX_NOINPUT"),
    67: ("5.1.1", "EX_NOUSER: it does not know the recipient"),
    68: ("5.1.2", "EX_NOHOST"),
    69: ("5.3.0", "EX_UNAVAILABLE"),
    70: ("4.3.0", "EX_SOFTWARE"),
    71: ("4.3.0", "EX_OSERR"),
    72: ("4.3.0", "EX_OSFILE"),
    73: ("4.2.0", "EX_CANTCREAT"),
    74: ("4.3.0", "EX_IOERR"),
    75: ("4.3.0", "EX_TEMPFAIL"),
    76: ("5.5.0", "EX_PROTOCOL"),
    77: ("5.7.0", "EX_NOPERM: it does not accept the message"),
    78: ("4.3.5", "EX_CONFIG"),
}


def fault_of_command(command: tuple[str, ...]) -> str:
    """What is wrong with the command of a route, in words; empty when nothing is."""
    if not command or not command[0].startswith("/"):
        return "a command begins with the whole path of a program"
    for argument in command:
        if "\0" in argument:
            return "an argument must not hold NUL"
        known = next((one for one in _PLACEHOLDERS if one in argument), "")
        if known and argument != known:
            return f"{known} must be an argument of its own, not a part of {argument}"
    if command[0] in _PLACEHOLDERS:
        return "the program cannot be chosen by a message"
    return ""


class _Unfit(Exception):
    """This message cannot be given to the program, or the program cannot be run here."""

    def __init__(self, words: str, status: str) -> None:
        super().__init__(words)
        self.words = words
        self.status = status


class _Run(msgspec.Struct):
    """What came of one run."""

    status: int = 0
    """Exit status; below 0 the signal that ended it."""
    output: bytes = b""
    took_all: bool = False
    is_late: bool = False
    cause: BaseException | None = None


class PipeCarrier:
    """Runs the program of one route."""

    def __init__(self, target: Pipe) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._running: set[int] = set()
        """Process groups."""
        self._is_stopped = False

    def place(self, recipient: Address) -> str:
        return f"pipe:{self._target.command[0]}"

    def stop(self) -> None:
        with self._lock:
            self._is_stopped = True
            for group in self._running:
                _kill(group)

    def put(self, deposit: Deposit) -> DepositReport:
        place = self.place(deposit.recipient)
        encoder = FileEncoder(deposit.canonical, self._target.line_end)
        began = time.monotonic()
        try:
            run = self._run(self._command(deposit), encoder, began + self._target.seconds)
        except _Unfit as error:
            return DepositReport(refused(place, error.words, error.status))
        except OSError as error:
            return DepositReport(refused(place, f"the program could not be started: {error}", "4.3.0"))
        said = _plain(run.output)
        lines: list[Line] = [(time.monotonic() - began, NOTE, f"exit status {run.status}".encode())]
        if run.output:
            lines.append((time.monotonic() - began, NOTE, b"it said: " + run.output))
        if run.cause is not None:
            return DepositReport(refused(place, str(run.cause), "4.3.0"), lines=lines, cause=run.cause)
        sent = encoder.record() if run.took_all else None
        return DepositReport(self._outcome(place, run, said), sent, lines)

    def _outcome(self, place: str, run: _Run, said: str) -> Outcome:
        behind = f": {said}" if said else ""
        if run.is_late:
            words = f"the program was killed: it ran longer than {self._target.seconds:g} seconds{behind}"
            return refused(place, words, "4.3.0")
        if run.status == 0:
            words = TAKEN if run.took_all else f"{TAKEN}, which did not read all of it"
            return Outcome(Result.DELIVERED, Stage.CONTENT, words, None, place, "2.0.0")
        if run.status < 0:
            with self._lock:
                if self._is_stopped:
                    return refused(place, "the relay stopped while the program ran", "4.3.0")
            return refused(place, f"the program was ended by {_signal_name(-run.status)}{behind}", "4.3.0")
        status, meaning = _STATUS.get(run.status, ("4.3.0", ""))
        words = f"the program ended with status {run.status}{f' ({meaning})' if meaning else ''}{behind}"
        return refused(place, words, status)

    def _command(self, deposit: Deposit) -> list[bytes]:
        """The arguments of the launcher, then those of the program.

        Raises:
            _Unfit: an address would be taken for an option, or the user is not there.
        """
        sender, recipient = deposit.sender.octets, deposit.recipient.octets
        values = {"{sender}": sender, "{recipient}": recipient, "{id}": deposit.id.encode()}
        arguments: list[bytes] = []
        for argument in self._target.command:
            value = values.get(argument)
            if value is None:
                arguments.append(os.fsencode(argument))
                continue
            if value.startswith(b"-") or b"\0" in value:
                status = "5.1.7" if argument == "{sender}" else "5.1.3"
                raise _Unfit("an address that begins with - would be taken for an option", status)
            arguments.append(value)
        given = {
            "user": self._user(),
            "memory": self._target.memory,
            "environment": {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **dict(self._target.environment)},
        }
        python = [os.fsencode(sys.executable), b"-I", b"-S", os.fsencode(_LAUNCHER)]
        return [*python, json.dumps(given).encode("ascii"), *arguments]

    def _user(self) -> tuple[int, int, str] | None:
        """Whose rights the program is given; None: those that we have.

        Raises:
            _Unfit: they cannot be given.
        """
        name = self._target.user
        if not name:
            if os.geteuid() == 0:
                raise _Unfit("the relay runs as root and the route names no `user` for its program", "4.3.5")
            return None
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise _Unfit(f"there is no user {name}, whom the route names for its program", "4.3.5") from None
        if os.geteuid() == entry.pw_uid:
            return None
        if os.geteuid() != 0:
            raise _Unfit(f"the relay does not run as root and cannot become {name}", "4.3.5")
        return entry.pw_uid, entry.pw_gid, name

    # --- one run ------------------------------------------------------------------------------------------

    def _run(self, command: list[bytes], encoder: FileEncoder, ends_at: float) -> _Run:
        """Start it, feed it, hear it, and wait for its end or the deadline."""
        with self._lock:
            if self._is_stopped:
                raise _Unfit("the relay stops", "4.3.0")
            process = subprocess.Popen(  # noqa: S603  # the administrator's own program, without a shell
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={},
                cwd="/",
                start_new_session=True,
            )
            self._running.add(process.pid)
        run = _Run()
        try:
            _converse(process, encoder, ends_at, run)
        finally:
            # Nobody has waited for it yet, so that its number is still its own.
            if process.returncode is None:
                _kill(process.pid)
            with self._lock:
                self._running.discard(process.pid)
            run.status = process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        return run


def _converse(process: subprocess.Popen[bytes], encoder: FileEncoder, ends_at: float, run: _Run) -> None:
    """Until it has ended, the deadline has come, or our octets turn out not to be those that were accepted."""
    assert process.stdin is not None and process.stdout is not None
    os.set_blocking(process.stdin.fileno(), False)
    os.set_blocking(process.stdout.fileno(), False)
    stdin = process.stdin.fileno()
    feed = _Feed(stdin, encoder.chunks())
    ending = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(ending, selectors.EVENT_READ)
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.register(process.stdin, selectors.EVENT_WRITE)
            while True:
                ready = {key.fd for key, _ in selector.select(max(0.0, ends_at - time.monotonic()))}
                if process.stdout.fileno() in ready and not _hear(process.stdout, run):
                    selector.unregister(process.stdout)
                if ending in ready:
                    _hear(process.stdout, run)
                    run.took_all = feed.is_done
                    # It has ended well or badly by itself: what it has left behind goes too.
                    _kill(process.pid)
                    return
                if time.monotonic() >= ends_at:
                    run.is_late = True
                    return
                if stdin in ready:
                    try:
                        goes_on = feed.go_on()
                    except (OSError, StoredAltered) as error:
                        run.cause = error
                        return
                    if not goes_on:
                        selector.unregister(stdin)
                        process.stdin.close()
    finally:
        os.close(ending)


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


def _hear(pipe: IO[bytes], run: _Run) -> bool:
    """Keep the last octets of what it says; False at its end."""
    try:
        octets = os.read(pipe.fileno(), 65536)
    except BlockingIOError:
        return True
    run.output = (run.output + octets)[-_OUTPUT_LIMIT:]
    return bool(octets)


def _plain(output: bytes) -> str:
    text = _NOT_PLAIN.sub(" ", output.decode("utf-8", "replace")).strip()
    return text if len(text) <= _WORDS_LIMIT else "…" + text[-_WORDS_LIMIT:]


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
