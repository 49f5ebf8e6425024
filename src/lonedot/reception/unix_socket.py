"""Listening at the path of a unix socket: made, given away, found dead, removed.

Rules: who may connect is what the mode and the group of the file say, nothing else, and they never say more, not even
for a moment; a socket that somebody serves is never taken away.
"""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

__all__ = ["EVERYBODY", "bound_at", "give", "short_name"]

EVERYBODY = "*"
"""The group that is nobody's: every user of the machine."""
_LONGEST_PATH = 100
"""Octets that fit into the address of a socket, with some to spare."""


def bound_at(path: Path, group: str = "", backlog: int = 1024) -> socket.socket:
    """A new socket that listens there; one that a dead relay has left is replaced.

    Args:
        group: whose members may connect; empty: only root and our own user; `*`: everybody.

    Raises:
        OSError: it cannot be made, somebody serves it, or its group cannot be set; the words say which.
    """
    _remove_dead(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listening.fileno(), 0o600)  # before bind: on Linux the file is made with this mode
        with short_name(path) as name:
            listening.bind(name)
        give(path, group)
        listening.listen(backlog)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def give(path: Path, group: str) -> None:
    """Let those connect who may; where that is so already, nothing is done.

    Raises:
        OSError: the group is not known, or is not ours to give to.
    """
    number = _group_number(group)
    mode = 0o660 if number >= 0 else 0o666 if group == EVERYBODY else 0o600
    found = path.lstat()
    if number >= 0 and found.st_gid != number:
        path.chmod(0o600)
        os.chown(path, -1, number)
    if stat.S_IMODE(path.lstat().st_mode) != mode:
        path.chmod(mode)


@contextlib.contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name of `path` that fits into the address of a socket, good inside the `with`."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _group_number(name: str) -> int:
    if not name or name == EVERYBODY:
        return -1
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise OSError(f'there is no group "{name}"') from None


def _remove_dead(path: Path) -> None:
    """A socket that a dead relay has left behind is removed.

    Raises:
        OSError: something else has its place, or somebody still serves it.
    """
    try:
        there = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(there.st_mode):
        raise OSError(f"{path} is a file that is no socket; move it elsewhere")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, short_name(path) as name:
        probe.setblocking(False)
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            pass
        except BlockingIOError:
            raise OSError(f"{path} is served by another process") from None
        else:
            raise OSError(f"{path} is served by another process")
    path.unlink(missing_ok=True)
