"""Whatever lies where a configuration points: it is read, or a fault of that line; nothing raises, nothing waits."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from lonedot.config.faults import Severity
from lonedot.config.load import examine, keys_of
from lonedot.config.reference import TABLES

SECONDS = 10
"""In which a file is judged; a pipe that nobody writes would be waited for for ever."""

TABLE = {
    "server": 'hostname = "relay.example.com"\n',
    "listener": 'address = "127.0.0.1:2525"\n',
    "route": 'to = "*"\nsmarthost = "127.0.0.1:2526"\nlogin = "relay"\n',
    "sink": 'name = "x"\n',
    "source": "number = 2\n",
    "domain": 'name = "example.com"\n',
    "pop3": 'name = "a"\nhost = "pop.example.com"\nuser = "u"\nmailbox = "joe@example.com"\n',
}
BESIDE = {
    "tls_certificate": 'tls = "starttls"\ntls_key = "empty"\n',
    "tls_key": 'tls = "starttls"\ntls_certificate = "empty"\n',
    "tls_ca": 'tls = "verified"\n',
    "pop3 tls_ca": 'tls = "implicit"\n',
}
THINGS = ["empty", "binary", "text", "folder", "pipe", "circle", "endless", "none/none", "text/below"]
NEVER_A_FILE = {"folder", "pipe", "endless"}
MUST_BE_FILES = {"tls_certificate", "tls_key", "logins", "password_file", "tls_ca", "aliases", "lists"}

_SQL = '{{ sql = "postgresql://x/y", query = "select 1 from a where b = :address", password_file = "{}" }}'
_WRITTEN = {
    "recipients": ['{{ file = "{}" }}', '{{ maildir = "{}/{{{{local}}}}" }}', _SQL],
    "password_command": ['["./{}"]'],
    "pipe": ['["./{}"]'],
}


class Waited(BaseException):
    """No OSError: nothing may take it for a file that cannot be read."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "empty").touch(0o600)
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "text").write_text("a: b\nc\n")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "endless").symlink_to("/dev/zero")

    def ended(_signal: int, _frame: FrameType | None) -> None:
        raise Waited

    before = signal.signal(signal.SIGALRM, ended)
    yield tmp_path
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def text_of(header: str, line: str, key: str) -> str:
    """A configuration whose table of that header has one line more."""
    parts: list[str] = []
    for one in ("[server]", "[[listener]]", "[[route]]", header):
        name = one.strip("[]")
        if one == header and name in ("server", "listener", "route") and len(parts) == 3:
            continue  # it stands there already
        own = TABLE.get(name, "")
        parts.append(
            f"{one}\n{own}"
            + (BESIDE.get(f"{name} {key}", BESIDE.get(key, "")) + line if one == header else "")
        )
    return "\n".join(parts)


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize(("header", "kind"), TABLES, ids=[header.strip("[]") for header, _ in TABLES])
def test_what_a_key_names(folder: Path, header: str, kind: type, thing: str) -> None:
    file = folder / "lonedot.toml"
    for key in keys_of(kind):
        if TABLE.get(header.strip("[]"), "").startswith(f"{key} ="):
            continue
        for form in _WRITTEN.get(key, ['"{}"']):
            line = f"{key} = {form.format(thing)}\n"
            file.write_text(text_of(header, line, key))
            file.chmod(0o600)
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            examined = examine(file)
            signal.setitimer(signal.ITIMER_REAL, 0)
            faults = [fault for fault in examined.faults if fault.severity is Severity.FAULT]
            assert (examined.config is None) is bool(faults)
            if key in MUST_BE_FILES and thing in NEVER_A_FILE:
                number = file.read_text().split("\n").index(line.rstrip("\n")) + 1
                assert any(fault.line == number or fault.where.endswith(f": {key}") for fault in faults), line


@pytest.mark.parametrize("thing", THINGS)
def test_what_is_included(folder: Path, thing: str) -> None:
    file = folder / "lonedot.toml"
    file.write_text(f'include = ["{thing}"]\n' + text_of("[server]", "", ""))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    examined = examine(file)
    signal.setitimer(signal.ITIMER_REAL, 0)
    faults = [fault for fault in examined.faults if fault.severity is Severity.FAULT]
    if thing in NEVER_A_FILE:
        assert [fault.line for fault in faults if fault.where == "include"] == [1]
    assert all(fault.what and fault.do for fault in examined.faults)
