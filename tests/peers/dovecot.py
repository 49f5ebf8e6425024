"""A private Dovecot that takes mail by LMTP, on a Unix socket and on loopback, with users and Maildirs of its own.

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
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.need import find, need

__all__ = ["Dovecot", "DovecotError", "need_dovecot"]

START_SECONDS = 20.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.02
OWNER = "nobody"

CONFIGURATION = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols = lmtp
listen = 127.0.0.1
ssl = no
hostname = dovecot.example
first_valid_uid = 1
mail_location = maildir:~/Maildir
mail_plugins = quota
lmtp_rcpt_check_quota = no
passdb {{
  driver = passwd-file
  args = username_format=%u {folder}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {folder}/users
}}
plugin {{
  quota = maildir:Mailbox
  quota_rule = *:storage=1G
}}
service lmtp {{
  unix_listener {folder}/lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""


def need_dovecot() -> None:
    """Skip the running test where Dovecot cannot be started; fail it there when peers are required."""
    need("dovecot", "dovecot-lmtpd")
    need("/usr/lib/dovecot/lmtp", "dovecot-lmtpd")
    if os.geteuid() == 0:
        return
    reason = "a private Dovecot must be started by root"
    if os.environ.get("LONEDOT_PEERS") == "required":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


class DovecotError(Exception):
    """It did not start; the text ends with its log."""


class Dovecot:
    """One running instance; a context manager. A user in `full` has a mailbox that takes nothing more."""

    def __init__(self, users: Sequence[str], full: Sequence[str] = ()) -> None:
        self.folder = Path()
        self.port = 0
        self._users = tuple(users)
        self._full = frozenset(full)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> Path:
        return self.folder / "lmtp"

    def messages(self, user: str) -> list[bytes]:
        """What lies in a mailbox."""
        found = sorted((self.folder / "home" / user / "Maildir").glob("new/*"))
        return [path.read_bytes() for path in found]

    def log_text(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="dovecot-"))
        try:
            self._write()
            program = find("dovecot")
            assert program is not None
            self._process = subprocess.Popen(
                [program, "-F", "-c", self.folder / "dovecot.conf"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            self._await_greeting(self._process)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _write(self) -> None:
        self.folder.chmod(0o755)
        owner = pwd.getpwnam(OWNER)
        lines = []
        for user in self._users:
            home = self.folder / "home" / user
            home.mkdir(parents=True)
            os.chown(home, owner.pw_uid, owner.pw_gid)
            rule = "userdb_quota_rule=*:bytes=1" if user in self._full else ""
            lines.append(f"{user}:{{PLAIN}}x:{owner.pw_uid}:{owner.pw_gid}::{home}::{rule}\n")
        (self.folder / "users").write_text("".join(lines))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        text = CONFIGURATION.format(folder=self.folder, port=self.port)
        (self.folder / "dovecot.conf").write_text(text)

    def _await_greeting(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                assert process.stderr is not None
                said = process.stderr.read().decode(errors="replace")
                raise DovecotError(f"Dovecot ended: {said}{self.log_text()}")
            try:
                with socket.socket(socket.AF_UNIX) as one:
                    one.settimeout(1)
                    one.connect(str(self.socket))
                    if one.recv(100).startswith(b"220"):
                        return
            except OSError:
                time.sleep(POLL_SECONDS)
        raise DovecotError(f"Dovecot did not greet:\n{self.log_text()}")

    def _stop(self) -> None:
        process = self._process
        try:
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            if process is not None and process.stderr is not None:
                process.stderr.close()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
