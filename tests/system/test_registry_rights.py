"""Whoever registers a sink runs code with the rights of the relay: only its owner and root may, whatever the way."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lonedot import cli
from lonedot.sinks.registry_file import read_audit
from lonedot.testing.process import RelayProcess
from tests.system.talk import first_config

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")

OTHER = 65534
REGISTRY = '[[binding]]\nname = "a"\nsink = "lonedot.sinks.builtin.x_recipient:x_recipient"\n'
CONFIG = first_config(1, server='registry = "sinks.toml"')
CHANGES: list[tuple[str, ...]] = [
    ("sinks", "add", "b", "lonedot.sinks.builtin.x_recipient:x_recipient"),
    ("sinks", "disable", "a"),
    ("sinks", "remove", "a"),
    ("sinks", "set", "a", "priority", "3"),
    ("smtpreg", "/disable", "1", "OnArrival", "a"),
    ("smtpreg", "/add", "1", "OnArrival", "b", "lonedot.sinks.builtin.x_recipient:x_recipient", ""),
]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can look into, with a relay's files in it."""
    folder = Path(tempfile.mkdtemp(prefix="lonedot-rights-"))
    folder.chmod(0o755)
    (folder / "sinks.toml").write_text(REGISTRY)
    (folder / "sinks.toml").chmod(0o644)
    (folder / "lonedot.toml").write_text(CONFIG)
    yield folder
    shutil.rmtree(folder)


def run_as(uid: int, *words: str) -> tuple[int, str]:
    """Exit code and output of a command that another user gives."""
    read, write = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if not pid:
        code = 99
        try:
            os.close(read)
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            with os.fdopen(write, "w") as stream:
                sys.stdout = sys.stderr = stream
                code = cli.run(words)
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as stream:
        said = stream.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


@pytest.mark.parametrize("words", CHANGES, ids=lambda words: " ".join(words[:2]))
def test_a_registry_of_somebody_else(open_folder: Path, words: Sequence[str]) -> None:
    file = open_folder / "sinks.toml"
    assert cli.run(["sinks", "list", "--registry", str(file)]) == 0  # also loads what the child will need
    before = sorted(open_folder.iterdir()), file.read_bytes()
    code, said = run_as(OTHER, *words, "--registry", str(file))
    assert code == 1 and "may not change the registry: its file belongs to root" in said
    assert (sorted(open_folder.iterdir()), file.read_bytes()) == before
    code, said = run_as(OTHER, "sinks", "list", "--registry", str(file))
    assert code == 0 and "x_recipient" in said


def test_a_registry_that_is_not_there_yet_belongs_to_its_folder(open_folder: Path) -> None:
    file = open_folder / "new.toml"
    code, said = run_as(OTHER, "sinks", "add", "b", "m:s", "--disabled", "--registry", str(file))
    assert code == 1 and "its folder belongs to root" in said and not file.exists()


@pytest.mark.parametrize("is_reachable", [False, True], ids=["spool is shut", "socket stands open"])
def test_the_relay_of_somebody_else(open_folder: Path, is_reachable: bool) -> None:
    with RelayProcess(open_folder, CONFIG):
        assert cli.run(["sinks", "set", "a", "priority", "7", "-c", str(open_folder / "lonedot.toml")]) == 0
        before = (open_folder / "sinks.toml").read_bytes()
        spool = open_folder / "spool"
        if is_reachable:
            spool.chmod(0o711)
            (spool / "control.sock").chmod(0o666)
        refusal = (
            f"user {OTHER} may not control this relay" if is_reachable else "cannot be reached: permission"
        )
        for words in CHANGES:
            code, said = run_as(OTHER, *words, "-c", str(open_folder / "lonedot.toml"))
            assert code == 1
            assert refusal in said
        assert (open_folder / "sinks.toml").read_bytes() == before
    assert [line.uid for line in read_audit(open_folder / "sinks.toml")] == [0]
