"""A private Postfix on loopback, with its own configuration, queue, data folder, log and free port.

Rules:
1. Nothing of the machine's own Postfix is read or written: every path that Postfix writes to is in one
   temporary folder, which goes away with the instance.
2. The instance listens on 127.0.0.1 alone and asks no name server.
3. No chroot, and the log is a file of its own (postlogd): neither syslog nor a service manager matters.

Postfix must be started by root: its master opens the queue as root and its daemons give the rights up.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import pytest

from tests.need import find, need

PACKAGE = "postfix"
STARTS_TRIED = 3  # a free port may be taken between the look and the start
START_SECONDS = 20.0
STOP_SECONDS = 10.0
DAEMONS_SECONDS = 3.0
POLL_SECONDS = 0.02
SOCKET_PATH_LIMIT = 107  # octets, unix(7)
QUEUES = ("maildrop", "incoming", "active", "deferred", "hold", "corrupt")
QUEUE_FOLDERS = (
    *("active", "bounce", "corrupt", "defer", "deferred", "flush"),
    *("hold", "incoming", "private", "saved", "trace"),
)

# Columns: service, type, private, unprivileged, chroot, wake-up, process limit, command. See master(5).
SERVICES = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def need_postfix() -> None:
    """Skip the running test where Postfix cannot be started; fail it there when peers are required."""
    need("postfix", PACKAGE)
    if os.geteuid() == 0:
        return
    reason = "a private Postfix must be started by root"
    if os.environ.get("LONEDOT_PEERS") == "required":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


class PostfixError(Exception):
    """The instance did not start or stop; the text ends with the tail of its log."""


class PostfixSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance is to be; `parameters` are main.cf lines that win over everything else here."""

    hostname: str = "postfix.example.net"
    networks: tuple[str, ...] = ("127.0.0.0/8",)  # clients that may relay
    relayhost: str | None = None  # in Postfix's form, "[127.0.0.1]:2526"; None keeps all mail in the queue
    process_limit: int = 20
    message_size_limit: int = 64 * 1024 * 1024  # octets
    parameters: Mapping[str, str] = {}


class Postfix:
    """One running instance; a context manager that starts it on entry and stops it on exit."""

    def __init__(self, settings: PostfixSettings | None = None, *, parent: Path | None = None) -> None:
        """Prepare an instance whose folder is made below `parent` (the system's temporary folder by default).

        Every folder above must be open to the user `postfix`, which pytest's `tmp_path` is not.
        """
        self.settings = settings if settings is not None else PostfixSettings()
        self.port = 0
        self.folder = Path()
        self._parent = parent
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, as `smtplib` and sockets want it."""
        return ("127.0.0.1", self.port)

    @property
    def log_path(self) -> Path:
        """The log that all its daemons write."""
        return self.folder / "log" / "maillog"

    @property
    def master_pid(self) -> int:
        """The process id of the master, the parent of all the daemons."""
        return int((self._queue / "pid" / "master.pid").read_text().split()[0])

    @property
    def _queue(self) -> Path:
        return self.folder / "queue"

    def log_text(self) -> str:
        """All that was logged up to now."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def queue_files(self) -> int:
        """How many messages wait in its queues."""
        return sum(1 for name in QUEUES for entry in (self._queue / name).rglob("*") if entry.is_file())

    def flush(self) -> None:
        """Ask the queue manager to try all deferred mail now."""
        subprocess.run([_program("postqueue"), "-c", self.folder / "etc", "-f"], check=True)

    def start(self) -> None:
        """Start the instance and return when it greets with 220.

        Raises:
            PostfixError: not root, not installed, or it did not come up; the text says which.
        """
        if os.geteuid() != 0:
            raise PostfixError("a private Postfix must be started by root")
        for attempt in range(1, STARTS_TRIED + 1):
            try:
                self._start_once()
            except PostfixError as error:
                if attempt == STARTS_TRIED or "Address already in use" not in str(error):
                    raise
            else:
                return

    def stop(self) -> None:
        """Stop the instance, wait until the master is gone, and remove its folder."""
        try:
            self._end_process()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _start_once(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="postfix-", dir=self._parent))
        try:
            self._write_configuration()
            console = self.folder / "log" / "console"
            with console.open("wb") as output:
                # A session of its own: a Ctrl-C at the terminal is for us, who then stop it in order.
                self._process = subprocess.Popen(
                    [_program("postfix"), "-c", self.folder / "etc", "start-fg"],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._await_greeting(self._process)
        except BaseException:
            self.stop()
            raise

    def _write_configuration(self) -> None:
        owner = pwd.getpwnam("postfix")
        self.folder.chmod(0o755)
        if len(str(self._queue / "public" / "postlog")) > SOCKET_PATH_LIMIT:
            raise PostfixError(f"the path of {self.folder} is too long for Postfix's sockets")
        for name in ("etc", "queue", "data", "log"):
            (self.folder / name).mkdir(mode=0o755)
        os.chown(self.folder / "data", owner.pw_uid, owner.pw_gid)
        self._make_queue(owner.pw_uid, grp.getgrnam("postdrop").gr_gid)
        self.port = _free_port()
        lines = "".join(f"{name} = {value}\n" for name, value in self._parameters().items())
        for name, text in (("main.cf", lines), ("master.cf", SERVICES.format(port=self.port))):
            path = self.folder / "etc" / name
            path.write_text(text)
            # Postfix waits until a configuration file is some seconds old, lest it is being edited.
            written_at = time.time() - 60
            os.utime(path, (written_at, written_at))

    def _make_queue(self, owner: int, group: int) -> None:
        for name in QUEUE_FOLDERS:
            (self._queue / name).mkdir(mode=0o700)
            os.chown(self._queue / name, owner, 0)
        for name, mode in (("maildrop", 0o730), ("public", 0o710)):
            (self._queue / name).mkdir()
            (self._queue / name).chmod(mode)
            os.chown(self._queue / name, owner, group)
        (self._queue / "pid").mkdir(mode=0o755)
        # Leaves out the check of the whole installation, more than a second of shell, most of a start.
        (self._queue / "quick-start").touch()

    def _parameters(self) -> dict[str, str]:
        settings = self.settings
        return {
            "compatibility_level": "3.6",
            "queue_directory": str(self._queue),
            "data_directory": str(self.folder / "data"),
            "maillog_file": str(self.log_path),
            "maillog_file_prefixes": str(self.folder / "log"),
            "mail_owner": "postfix",
            "setgid_group": grp.getgrnam("postdrop").gr_name,
            "myhostname": settings.hostname,
            "mydestination": "",
            "local_recipient_maps": "",
            "alias_maps": "",
            "alias_database": "",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "mynetworks": " ".join(settings.networks),
            "relayhost": settings.relayhost or "",
            # Without a relayhost no server is asked: the mail is accepted and waits in the queue.
            "defer_transports": "" if settings.relayhost else "smtp relay",
            "smtp_dns_support_level": "disabled",
            "smtpd_peername_lookup": "no",
            "biff": "no",
            "default_process_limit": str(settings.process_limit),
            "message_size_limit": str(settings.message_size_limit),
            "mailbox_size_limit": "0",
            **settings.parameters,
        }

    def _await_greeting(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise PostfixError(f"Postfix ended as it started ({process.returncode}): {self._tail()}")
            with contextlib.suppress(OSError), socket.create_connection(self.address, timeout=1.0) as peer:
                if peer.recv(512).startswith(b"220 "):
                    return
            time.sleep(POLL_SECONDS)
        raise PostfixError(f"Postfix did not greet within {START_SECONDS:.0f} s: {self._tail()}")

    def _end_process(self) -> None:
        process = self._process
        self._process = None
        if process is None:
            return
        # The shell of start-fg, our child, ends when the master does; the master signals its daemons, which
        # share its process group, and leaves without waiting for them.
        master: int | None = None
        with contextlib.suppress(OSError, ValueError, IndexError):
            master = self.master_pid
            os.kill(master, signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise PostfixError(f"Postfix did not stop within {STOP_SECONDS:.0f} s: {self._tail()}") from None
        finally:
            if master is not None:
                _await_group_end(master)

    def _tail(self) -> str:
        console = self.folder / "log" / "console"
        text = (console.read_text(errors="replace") if console.exists() else "") + self.log_text()
        return text[-2000:].strip() or "nothing was logged"


def _program(name: str) -> Path:
    found = find(name)
    if found is None:
        raise PostfixError(f"{name} is not installed: apt-get install {PACKAGE}")
    return found


def _await_group_end(group: int) -> None:
    """Wait until no process of the group is left, and kill what is left in the end."""
    deadline = time.monotonic() + DAEMONS_SECONDS
    while _group_lives(group):
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
            return
        time.sleep(POLL_SECONDS)


def _group_lives(group: int) -> bool:
    """Whether a process of the group runs; one that waits to be reaped holds nothing and does not count."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _parent, its_group = stat.read_text().rpartition(")")[2].split()[:3]  # proc(5)
            if int(its_group) == group and state != "Z":
                return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
