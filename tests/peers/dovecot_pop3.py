"""A private Dovecot that serves one mailbox by POP3, POP3S and STLS on loopback; it can be killed and started again.

Rules: nothing of the machine's own Dovecot is read or written, every path is in one temporary folder; it listens on
loopback alone. Its master must be started by root.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme

from tests.need import find, need
from tests.peers.dovecot import DovecotError, need_dovecot

__all__ = ["PASSWORD", "USER", "DovecotPop3", "need_dovecot_pop3"]

START_SECONDS = 20.0
POLL_SECONDS = 0.02
OWNER = "nobody"
USER = "anna@example.org"
PASSWORD = "a secret"

CONFIGURATION = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = pop3
listen = 127.0.0.1
ssl = yes
ssl_cert = <{folder}/cert.pem
ssl_key = <{folder}/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain
first_valid_uid = 1
mail_location = maildir:~/Maildir
passdb {{
  driver = passwd-file
  args = username_format=%u {folder}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {folder}/users
}}
service pop3-login {{
  inet_listener pop3 {{
    address = 127.0.0.1
    port = {port}
  }}
  inet_listener pop3s {{
    address = 127.0.0.1
    port = {tls_port}
    ssl = yes
  }}
}}
"""


def need_dovecot_pop3() -> None:
    """Skip the running test where it cannot be started; fail it there when peers are required."""
    need_dovecot()
    need("/usr/lib/dovecot/pop3", "dovecot-pop3d")


class DovecotPop3:
    """One running instance; a context manager."""

    def __init__(self) -> None:
        self.folder = Path()
        self.port = 0
        self.tls_port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def ca(self) -> Path:
        """PEM file of the issuer of its certificate, which names `localhost` and 127.0.0.1."""
        return self.folder / "ca.pem"

    @property
    def maildir(self) -> Path:
        return self.folder / "home" / "Maildir"

    def put(self, messages: Iterable[bytes]) -> None:
        """Into the mailbox, as a delivery would."""
        owner = pwd.getpwnam(OWNER)
        for folder in ("", "tmp", "new", "cur"):
            path = self.maildir / folder
            path.mkdir(exist_ok=True)
            os.chown(path, owner.pw_uid, owner.pw_gid)
        for number, octets in enumerate(messages):
            path = self.maildir / "new" / f"{int(time.time())}.{time.monotonic_ns()}_{number}.here"
            path.write_bytes(octets)
            os.chown(path, owner.pw_uid, owner.pw_gid)

    def left(self) -> int:
        """Messages in the mailbox."""
        return sum(1 for part in ("new", "cur") for _ in (self.maildir / part).glob("*"))

    def log_text(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="dovecot-pop3-"))
        try:
            self._write()
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    def start(self) -> None:
        """Raises DovecotError."""
        program = find("dovecot")
        assert program is not None
        (self.folder / "run" / "master.pid").unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [program, "-F", "-c", self.folder / "dovecot.conf"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as one:
                    one.settimeout(2)
                    if one.recv(100).startswith(b"+OK"):
                        return
            except OSError:
                time.sleep(POLL_SECONDS)
        raise DovecotError(f"Dovecot did not greet:\n{self.log_text()}")

    def kill(self) -> None:
        """SIGKILL to all of it: sessions break in the middle, nothing is deleted that QUIT has not."""
        process, self._process = self._process, None
        if process is None:
            return
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        for child in children:
            try:
                os.kill(int(child), signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()

    def _write(self) -> None:
        self.folder.chmod(0o755)
        home = self.folder / "home"
        home.mkdir()
        owner = pwd.getpwnam(OWNER)
        os.chown(home, owner.pw_uid, owner.pw_gid)
        (self.folder / "users").write_text(
            f"{USER}:{{PLAIN}}{PASSWORD}:{owner.pw_uid}:{owner.pw_gid}::{home}::\n"
        )
        self.maildir.mkdir()
        self.put(())
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        authority.cert_pem.write_to_path(self.ca)
        certificate.private_key_pem.write_to_path(self.folder / "key.pem")
        (self.folder / "cert.pem").write_bytes(b"".join(one.bytes() for one in certificate.cert_chain_pems))
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            self.port, self.tls_port = one.getsockname()[1], other.getsockname()[1]
        text = CONFIGURATION.format(folder=self.folder, port=self.port, tls_port=self.tls_port)
        (self.folder / "dovecot.conf").write_text(text)

    def _remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
