"""The registry on disk: one change at a time, whole files only, and nobody but the owner."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lonedot.sinks.registry_file import RegistryFault, RegistryFile, read_audit

OLD, NEW = b"# old\n" * 1000, b"# new\n" * 2000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "sinks.toml"
    file.write_bytes(OLD)
    return file


def replace(file: RegistryFile, octets: bytes = NEW) -> None:
    with file.locked():
        file.replace(octets, ("set a of b",), "111", "222", os.getuid())


class TestReplace:
    def test_the_new_file_has_the_mode_of_the_old_one(self, path: Path) -> None:
        path.chmod(0o640)
        replace(RegistryFile(path))
        assert path.read_bytes() == NEW
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert sorted(file.name for file in path.parent.iterdir()) == [
            "sinks.toml",
            "sinks.toml.audit",
            "sinks.toml.lock",
        ]

    def test_a_first_file_is_the_owner_s_alone(self, tmp_path: Path) -> None:
        file = RegistryFile(tmp_path / "fresh.toml")
        assert file.read() == b""
        replace(file)
        assert stat.S_IMODE((tmp_path / "fresh.toml").stat().st_mode) == 0o600

    def test_a_link_stays_a_link(self, path: Path) -> None:
        link = path.with_name("link.toml")
        link.symlink_to(path)
        replace(RegistryFile(link))
        assert link.is_symlink() and path.read_bytes() == NEW

    def test_what_a_crash_left_behind_is_written_over(self, path: Path) -> None:
        path.with_name(".sinks.toml.new").write_bytes(b"half")
        replace(RegistryFile(path))
        assert path.read_bytes() == NEW

    def test_the_audit_says_when_who_what_and_from_where_to_where(self, path: Path) -> None:
        file = RegistryFile(path, now=lambda: 1234.5)
        replace(file)
        with file.audit_path.open("ab") as audit:
            audit.write(b'{"at": 12')  # a crash in the middle of a line
        (line,) = read_audit(path)
        assert (line.at, line.uid, line.what) == (1234.5, os.getuid(), ("set a of b",))
        assert (line.before, line.after) == ("111", "222") and line.user
        assert stat.S_IMODE(file.audit_path.stat().st_mode) == 0o600

    def test_no_audit_of_a_registry_that_was_never_changed(self, path: Path) -> None:
        assert read_audit(path) == []

    @pytest.mark.parametrize("step", ["open", "write", "fsync", "fchmod"])
    def test_a_disk_that_fails_leaves_the_old_file(
        self, path: Path, step: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = RegistryFile(path)

        def fail(*_: object, **__: object) -> int:
            raise OSError(28, "No space left on device")

        with pytest.raises(RegistryFault, match="no space left on device"), file.locked():
            monkeypatch.setattr(os, step, fail)
            file.replace(NEW, (), "", "", 0)
        monkeypatch.undo()
        assert path.read_bytes() == OLD
        replace(file)
        assert path.read_bytes() == NEW

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        file = RegistryFile(tmp_path / "none" / "sinks.toml")
        with pytest.raises(RegistryFault, match="make its folder"), file.locked():
            pass


KILLED = """
import os, signal, sys
from pathlib import Path
from lonedot.sinks.registry_file import RegistryFile

file, step, count = RegistryFile(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
holder = Path if step in ("replace", "unlink") else os
real = getattr(holder, step)

def dies(*arguments, **named):
    global count
    count -= 1
    if count < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **named)

with file.locked():
    setattr(holder, step, dies)
    file.replace(b"# new\\n" * 2000, ("a change",), "1", "2", 0)
print("done")
"""


@pytest.mark.parametrize(
    ("step", "count", "is_new"),
    [
        ("unlink", 0, False),
        ("write", 0, False),
        ("fsync", 0, False),
        ("write", 1, False),  # the line of the audit
        ("fsync", 1, False),
        ("replace", 0, False),
        ("fsync", 2, True),  # of the folder
    ],
)
def test_killed_at_any_step_the_file_is_the_old_or_the_new_one(
    path: Path, step: str, count: int, is_new: bool
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), step, str(count)], capture_output=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert path.read_bytes() == (NEW if is_new else OLD)
    # The lock went with the process, and nothing that it left is in the way.
    replace(RegistryFile(path), b"# next\n")
    assert path.read_bytes() == b"# next\n"


class TestOneAtATime:
    def test_a_second_one_waits_and_nothing_is_lost(self, path: Path) -> None:
        path.write_bytes(b"0")

        def count_up() -> None:
            for _ in range(25):
                file = RegistryFile(path)
                with file.locked(60):
                    file.replace(b"%d" % (int(file.read()) + 1), (), "", "", 0)

        threads = [threading.Thread(target=count_up) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert path.read_bytes() == b"100"
        assert len(read_audit(path)) == 100

    def test_one_that_does_not_let_go(self, path: Path) -> None:
        with (
            RegistryFile(path).locked(),
            pytest.raises(RegistryFault, match="another command is changing the registry"),
            RegistryFile(path).locked(0),
        ):
            pass


class TestOwner:
    @pytest.fixture
    def as_user(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
        return lambda uid: monkeypatch.setattr(os, "geteuid", lambda: uid)

    def test_another_user_may_not_change_it(self, path: Path, as_user: Callable[[int], None]) -> None:
        as_user(path.stat().st_uid + 4242)
        with pytest.raises(RegistryFault, match=r"may not change the registry: its file belongs to"):
            replace(RegistryFile(path))
        assert path.read_bytes() == OLD and read_audit(path) == []

    def test_nor_make_one_in_a_folder_of_somebody_else(
        self, tmp_path: Path, as_user: Callable[[int], None]
    ) -> None:
        as_user(tmp_path.stat().st_uid + 4242)
        with pytest.raises(RegistryFault, match="its folder belongs to"):
            replace(RegistryFile(tmp_path / "sinks.toml"))

    def test_root_may(self, path: Path, as_user: Callable[[int], None]) -> None:
        as_user(0)
        replace(RegistryFile(path))

    @pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
    def test_what_root_writes_stays_the_owner_s(self, path: Path) -> None:
        os.chown(path, 4242, 4243)
        file = RegistryFile(path)
        replace(file)
        for made in (path, file.audit_path, path.with_name("sinks.toml.lock")):
            assert (made.stat().st_uid, made.stat().st_gid) == (4242, 4243)
