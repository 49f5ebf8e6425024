"""The socket by which programs of this machine hand over mail: SMTP over a unix socket.

Rules: who may connect is what the mode and the group of the socket say, nothing else; who has connected is what the
kernel says (SO_PEERCRED), and is written down as the login of every message. Whoever is let in may send anywhere in any
name, as with every sendmail. Bcc fields are taken out, in the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import pwd
import socket
import stat
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from lonedot.message.edits import AnyEdit, Edit
from lonedot.reception.listener import Listener

__all__ = ["BCC_EDITS", "EVERYBODY", "SubmitPlace", "SubmitSocket"]

BCC_EDITS: tuple[AnyEdit, ...] = (Edit.remove_field("Bcc"), Edit.remove_field("Resent-Bcc"))
EVERYBODY = "*"
"""The group that is nobody's: every user of the machine."""
_LONGEST_PATH = 100
"""Octets that fit into the address of a socket, with some to spare."""


class SubmitPlace(msgspec.Struct, frozen=True):
    """Where the socket is and who may connect."""

    path: Path
    group: str = ""
    """Its members may; empty: only root and our own user; `*`: everybody."""


class SubmitSocket(Listener):
    """A listener of local programs. Make it with settings whose face offers neither TLS nor logins."""

    at: SubmitPlace
    _inode = 0
    _accepting: asyncio.Server | None = None

    async def start(self, listening: Sequence[socket.socket] = ()) -> None:
        """Bind and listen; no socket is given. Not while another process serves the same path.

        Raises:
            OSError: the socket cannot be made, or its group cannot be set; the words say which.
        """
        del listening
        loop = asyncio.get_running_loop()
        self._accepting = await loop.create_unix_server(self._new_session, sock=self._bind(), backlog=256)

    def _bind(self) -> socket.socket:
        place = self.at
        group = _group_number(place.group)
        _remove_dead(place.path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(listening.fileno(), 0o600)  # before bind: on Linux the file is made with this mode
            with _short_name(place.path) as name:
                listening.bind(name)
            place.path.chmod(0o600)
            if group >= 0:
                os.chown(place.path, -1, group)
                place.path.chmod(0o660)
            elif place.group == EVERYBODY:
                place.path.chmod(0o666)
            self._inode = place.path.lstat().st_ino
            listening.listen(256)
            listening.setblocking(False)
        except OSError as error:
            listening.close()
            reason = error.strerror or str(error)
            raise OSError(f"the socket of local programs {place.path} cannot be made: {reason}") from error
        return listening

    @property
    def address(self) -> tuple[str, int]:
        return str(self.at.path), 0

    def close(self) -> None:
        """Take no more connections; the file goes when it is still ours."""
        if self._accepting is not None:
            self._accepting.close()
        with contextlib.suppress(OSError):
            if self._inode and self.at.path.lstat().st_ino == self._inode:
                self.at.path.unlink()
        self._inode = 0

    def is_trusted(self, client: str) -> bool:
        return True

    def login_of(self, transport: asyncio.BaseTransport) -> str:
        peer = transport.get_extra_info("socket")
        try:
            credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return "unknown"
        user: int = struct.unpack("3i", credentials)[1]
        try:
            return pwd.getpwuid(user).pw_name
        except (KeyError, OverflowError):
            return f"uid-{user}"


def _group_number(name: str) -> int:
    if not name or name == EVERYBODY:
        return -1
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise OSError(f'[sendmail] group: there is no group "{name}"') from None


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
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, _short_name(path) as name:
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


@contextlib.contextmanager
def _short_name(path: Path) -> Iterator[str]:
    """A name of `path` that fits into the address of a socket, good inside the `with`."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
