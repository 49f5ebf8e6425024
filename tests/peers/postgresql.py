"""A private PostgreSQL on loopback, with a role that must give its password.

Rules: nothing of the machine's own clusters is read or written, all is in one temporary folder. The server refuses to
be run by root, so root starts it as `postgres`.
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
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.need import find, need

__all__ = ["PASSWORD", "ROLE", "PostgreSQL", "need_postgresql"]

ROLE = "relay"
PASSWORD = "hush: not a word"
START_SECONDS = 30.0
POLL_SECONDS = 0.02


def _program(name: str) -> Path | None:
    """Debian keeps the programs of the server in a folder of their version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return found[-1] if found else find(name)


def need_postgresql() -> None:
    """Skip the running test where PostgreSQL cannot be started; fail it there when peers are required."""
    if _program("initdb") is None:
        need("initdb", "postgresql")


class PostgreSQL:
    """One running server; a context manager. `stop` and `start` in between keep its data and its port."""

    def __init__(self) -> None:
        self.folder = Path()
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._user = "postgres" if os.geteuid() == 0 else None

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://{ROLE}@127.0.0.1:{self.port}/{database}"

    def run(self, statement: str) -> None:
        """As the owner of everything, over the socket."""
        self._call("psql", "-h", self.folder, "-p", self.port, "-U", "owner", "-qXc", statement, "postgres")

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        if self._user is not None:
            owner = pwd.getpwnam(self._user)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        try:
            self._call(
                "initdb", "-D", self.folder / "data", "-U", "owner", "-E", "UTF8", "--no-sync", "--auth=trust"
            )
            (self.folder / "data" / "pg_hba.conf").write_text(
                "local all owner trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
            )
            self.start()
            self.run(f"create role {ROLE} login password '{PASSWORD}'")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    def start(self) -> None:
        program = _program("postgres")
        assert program is not None
        places = ["-D", f"{self.folder}/data", "-k", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, *places, "-p", str(self.port), "-h", "127.0.0.1", "-F"],
                stdout=log,
                stderr=log,
                user=self._user,
                cwd="/",
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.run("select 1")
            except subprocess.CalledProcessError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(POLL_SECONDS)
            else:
                return

    def stop(self) -> None:
        """At once; open connections are cut."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(START_SECONDS)

    def _call(self, name: str, *words: object) -> None:
        program = _program(name)
        assert program is not None
        subprocess.run(
            [program, *map(str, words)], check=True, capture_output=True, user=self._user, cwd="/", timeout=60
        )

    def _remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
