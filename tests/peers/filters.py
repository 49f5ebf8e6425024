"""Filters that speak the milter protocol, each private to a test: rspamd, opendkim, and clamav-milter with its clamd.

Rules: nothing of the machine is read but programs and what came with their packages; each listens on
a unix socket in one temporary folder, asks no name server and loads nothing; it goes away with its folder.
"""

from __future__ import annotations

import os
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

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.need import find, need

__all__ = ["ClamavMilter", "Filter", "FilterError", "OpenDkim", "Rspamd", "need_clamav_milter"]

START_SECONDS = 90.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.05
EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"

RSPAMD = """\
lua = "$RULESDIR/rspamd.lua";
.include "$CONFDIR/actions.conf"
.include "$CONFDIR/groups.conf"
modules {{ path = "$PLUGINSDIR/milter_headers.lua"; }}
options {{
    pidfile = "{folder}/rspamd.pid";
    control_socket = "{folder}/control mode=0600";
    url_tld = "{folder}/tld";
    disable_hyperscan = true;
    dns {{ nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 1; }}
    filters = "chartable,regexp";
    tempdir = "{folder}";
    history_file = "{folder}/history";
    cache_file = "{folder}/cache";
}}
logging {{ type = "file"; filename = "{folder}/log"; level = "info"; }}
worker "rspamd_proxy" {{
    bind_socket = "{folder}/milter mode=0666";
    milter = yes;
    timeout = 60s;
    upstream "local" {{ default = yes; self_scan = yes; }}
    count = 1;
}}
milter_headers {{
    use = ["x-spamd-result", "x-spam-level", "remove-header"];
    skip_local = false;
    skip_authenticated = false;
    routines {{ remove-header {{ }} }}
    remove_headers {{ "X-Spam-Old" = 0; }}
}}
"""

OPENDKIM = """\
Socket local:{folder}/milter
UMask 000
Mode {mode}
Syslog no
Background no
AutoRestart no
RequireSafeKeys no
Domain {domain}
Selector test
KeyFile {folder}/key
TestPublicKeys {folder}/keys
Canonicalization {canonicalization}
InternalHosts {folder}/internal
OversignHeaders From
AlwaysAddARHeader yes
AuthservID mx.example
SoftwareHeader yes
"""

CLAMD = """\
Foreground yes
LocalSocket {folder}/clamd
LocalSocketMode 666
DatabaseDirectory {folder}/database
LogFile {folder}/clamd.log
"""

CLAMAV_MILTER = """\
Foreground yes
MilterSocket unix:{folder}/milter
MilterSocketMode 666
FixStaleSocket yes
ClamdSocket unix:{folder}/clamd
OnInfected {infected}
OnClean Accept
OnFail Defer
AddHeader Replace
LogFile {folder}/log
RejectMsg "Virus %v found"
TemporaryDirectory {folder}
"""


class FilterError(Exception):
    """It did not start; the text ends with its log."""


class Filter:
    """A program that listens on `socket`; a context manager."""

    def __init__(self) -> None:
        self.folder = Path()
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def socket(self) -> Path:
        return self.folder / "milter"

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"

    def log_text(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Write what it needs into `folder`, and start it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="filter-"))
        self.folder.chmod(0o777)
        try:
            self.start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()

    def _run(self, arguments: Sequence[str | Path], awaited: Path) -> None:
        """Start a program and wait until somebody can connect to that socket."""
        program = find(str(arguments[0]))
        assert program is not None
        with (self.folder / "console").open("ab") as console:
            process = subprocess.Popen(
                [program, *arguments[1:]],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                cwd=self.folder,
            )
        self._processes.append(process)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise FilterError(f"{program} ended as it started ({process.returncode}): {self._tail()}")
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(str(awaited))
                except OSError:
                    time.sleep(POLL_SECONDS)
                else:
                    return
        raise FilterError(f"{program} did not listen within {START_SECONDS:.0f} s: {self._tail()}")

    def _tail(self) -> str:
        console = self.folder / "console"
        return ((console.read_text(errors="replace") if console.exists() else "") + self.log_text())[-2000:]

    def _stop(self) -> None:
        for process in reversed(self._processes):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        self._processes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


class Rspamd(Filter):
    """Scans by itself, with its own rules and without any that ask the network."""

    def start(self) -> None:
        (self.folder / "tld").write_text("com\nnet\norg\nexample\n")
        (self.folder / "local").mkdir()
        (self.folder / "rspamd.conf").write_text(RSPAMD.format(folder=self.folder))
        places = [
            f"--var={name}={self.folder / place}"
            for name, place in (("LOCAL_CONFDIR", "local"), ("DBDIR", ""), ("RUNDIR", ""), ("LOGDIR", ""))
        ]
        self._run(["rspamd", "-f", "-i", "-c", self.folder / "rspamd.conf", *places], self.socket)


class OpenDkim(Filter):
    """Signs for one domain (`mode` s) or verifies (v); it knows the key without asking DNS."""

    def __init__(self, mode: str, domain: str, canonicalization: str = "relaxed/simple") -> None:
        super().__init__()
        self._mode = mode
        self._domain = domain
        self._canonicalization = canonicalization

    def start(self) -> None:
        key = rsa.generate_private_key(65537, 2048)
        (self.folder / "key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        self.use_key(key.public_key())
        # It signs what these bring, and verifies what others do.
        (self.folder / "internal").write_text("127.0.0.1\n" if self._mode == "s" else "192.0.2.99\n")
        values = {"mode": self._mode, "domain": self._domain, "canonicalization": self._canonicalization}
        (self.folder / "opendkim.conf").write_text(OPENDKIM.format(folder=self.folder, **values))
        self._run(["opendkim", "-f", "-x", self.folder / "opendkim.conf"], self.socket)

    def use_key(self, key: rsa.RSAPublicKey) -> None:
        """The key that it finds in place of one in DNS."""
        octets = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        text = b"".join(octets.splitlines()[1:-1]).decode()
        (self.folder / "keys").write_text(f"test._domainkey.{self._domain} v=DKIM1; k=rsa; p={text}\n")


def need_clamav_milter() -> None:
    need("clamd", "clamav-daemon")
    need("clamav-milter", "clamav-milter")


class ClamavMilter(Filter):
    """clamav-milter and its own clamd, which knows one signature: that of EICAR."""

    def __init__(self, infected: str = "Reject") -> None:
        super().__init__()
        self._infected = infected

    def start(self) -> None:
        database = self.folder / "database"
        database.mkdir()
        (database / "eicar.ndb").write_text(f"Eicar-Test:0:*:{EICAR.hex()}\n")
        (self.folder / "clamd.conf").write_text(CLAMD.format(folder=self.folder))
        (self.folder / "milter.conf").write_text(
            CLAMAV_MILTER.format(folder=self.folder, infected=self._infected)
        )
        self._run(["clamd", "-c", self.folder / "clamd.conf"], self.folder / "clamd")
        self._run(["clamav-milter", "-c", self.folder / "milter.conf"], self.socket)
