"""The socket by which programs of this machine hand over mail: SMTP over a unix socket.

Rules: who may connect is what the mode and the group of the socket say, nothing else; who has connected is what the
kernel says (SO_PEERCRED), and is written down as the login of every message. Whoever is let in may send anywhere in any
name, as with every sendmail. Bcc fields are taken out, in the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import pwd
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

import msgspec

from lonedot.message.edits import AnyEdit, Edit
from lonedot.reception.listener import Listener
from lonedot.reception.unix_socket import bound_at

__all__ = ["BCC_EDITS", "SubmitPlace", "SubmitSocket"]

BCC_EDITS: tuple[AnyEdit, ...] = (Edit.remove_field("Bcc"), Edit.remove_field("Resent-Bcc"))


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

    async def start(self, listening: Sequence[socket.socket] = (), *, shares: bool = False) -> None:
        """Bind and listen; no socket is given. Not while another process serves the same path.

        Raises:
            OSError: the socket cannot be made, or its group cannot be set; the words say which.
        """
        del listening, shares
        loop = asyncio.get_running_loop()
        self._accepting = await loop.create_unix_server(self._new_session, sock=self._bind(), backlog=256)

    def _bind(self) -> socket.socket:
        place = self.at
        try:
            listening = bound_at(place.path, place.group, 256)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(f"the socket of local programs {place.path} cannot be made: {reason}") from error
        self._inode = place.path.lstat().st_ino
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
