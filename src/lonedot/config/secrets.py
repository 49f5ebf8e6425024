"""Secrets that a program tells: `password_command = ["pass", "show", "smarthost"]`.

Rules:
1. The program is run when a relay takes its configuration, or when a person asks for it with `check --load`; a command
   that only wants to know where the spool is must not open a person's password store.
2. No shell. What it writes is bounded, and so is its time; it and its children end at the deadline.
3. What it says on standard error is not kept: nobody knows what a password store writes there.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from lonedot.config.values import Secret, Unfit, show, text

__all__ = ["COMMAND_SECONDS", "MAX_SECRET", "ask", "first_line", "program_of", "secret_command"]

MAX_SECRET = 4096
"""Octets of a password, and of all that stands behind it."""

COMMAND_SECONDS = 10.0
"""How long a program may take to tell one."""

_MAX_ARGUMENTS = 50


def secret_command(value: object, folder: Path) -> tuple[str, ...]:
    """A program and its arguments; one with a slash is counted from the folder of the file."""
    if isinstance(value, str):
        raise Unfit(f"{show(value)} is not a list", 'write it as ["pass", "show", "smarthost"]')
    if not isinstance(value, list) or not 1 <= len(value) <= _MAX_ARGUMENTS:
        raise Unfit(f"{show(value)} is not a program with arguments", 'write ["pass", "show", "smarthost"]')
    words = [text(word, folder) for word in value]
    if "/" in words[0]:
        words[0] = str(folder / words[0])
    return tuple(words)


def program_of(command: Sequence[str]) -> Path | Unfit:
    """The program that would be run, or why it would not."""
    found = shutil.which(command[0])
    if found is None:
        return Unfit(f"there is no program {show(command[0])}", "install it, or name it by its whole path")
    try:
        state = os.stat(found)
    except OSError as error:
        return Unfit(f"{found} cannot be looked at: {error.strerror}", "name it by its whole path")
    if state.st_mode & stat.S_IWOTH:
        words = f"anybody may write {found} (mode {stat.S_IMODE(state.st_mode):04o}), and it is run"
        return Unfit(words, f"run chmod o-w {found}")
    return Path(found)


def ask(command: Sequence[str], seconds: float = COMMAND_SECONDS) -> Secret | Unfit:
    """The first line that the program writes. It blocks, for `seconds` at most."""
    name = show(command[0])
    program = program_of(command)
    if isinstance(program, Unfit):
        return program
    try:
        child = subprocess.Popen(  # noqa: S603 — the administrator's own program, without a shell
            [str(program), *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return Unfit(f"{name} cannot be run: {error}"[:300], "run it by hand")
    octets, is_late = b"", False
    until = time.monotonic() + seconds
    try:
        octets, is_late = _read(child, until)
        if not is_late and len(octets) <= MAX_SECRET:
            child.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        is_late = True
    finally:
        _end(child)
    if is_late:
        return Unfit(
            f"{name} did not end within {seconds:g} seconds", "run it by hand: does it ask something?"
        )
    if len(octets) > MAX_SECRET:
        return Unfit(f"{name} wrote more than {MAX_SECRET} octets", "have it write the password alone")
    if child.returncode:
        how = f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
        return Unfit(f"{name} ended with {how}", "run it by hand, as the relay's user")
    return first_line(octets, f"what {name} wrote")


def first_line(octets: bytes, whose: str) -> Secret | Unfit:
    """The password in what a file or a program holds."""
    try:
        line = octets.split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        return Unfit(f"{whose} is not UTF-8", "write the password on its first line")
    if not line:
        return Unfit(f"the first line of {whose} is empty", "write the password there")
    return Secret(line)


def _read(child: subprocess.Popen[bytes], until: float) -> tuple[bytes, bool]:
    """What it writes, up to a little more than a secret has; and whether time ran out."""
    assert child.stdout is not None
    fd = child.stdout.fileno()
    octets = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLHUP)
    while len(octets) <= MAX_SECRET:
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            return octets, True
        piece = os.read(fd, MAX_SECRET)
        if not piece:
            break
        octets += piece
    return octets, False


def _end(child: subprocess.Popen[bytes]) -> None:
    """Nothing of it stays: neither the program, nor what it started, nor the pipe."""
    if child.stdout is not None:
        child.stdout.close()
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()
