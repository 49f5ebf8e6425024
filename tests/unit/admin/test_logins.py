"""Changing a file of logins."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from lonedot.admin.logins import LoginsFile
from lonedot.admin.values import AdminError
from lonedot.reception.logins import read_logins


def test_a_first_login_makes_the_file_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "logins.txt"
    assert LoginsFile(path).names() == ()
    assert LoginsFile(path).put("anna", b"secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_logins(path.read_text())["anna"].fits(b"secret")
    assert [found.name for found in tmp_path.iterdir()] == ["logins.txt"]


def test_everything_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "logins.txt"
    logins = LoginsFile(path)
    logins.put("anna", b"1")
    path.write_text(f"# the copier\n\n{path.read_text()}# below\n")
    path.chmod(0o644)
    assert not logins.put("anna", b"2")
    logins.put("bob", b"3")
    lines = path.read_text().split("\n")
    assert [line.partition(":")[0] for line in lines] == ["# the copier", "", "anna", "# below", "bob", ""]
    assert read_logins(path.read_text())["anna"].fits(b"2")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640, "others cannot read it any more"
    logins.remove("anna")
    assert logins.names() == ("bob",)


def test_a_link_stays_one(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    LoginsFile(real).put("anna", b"1")
    link.symlink_to(real)
    LoginsFile(link).put("bob", b"1")
    assert link.is_symlink() and LoginsFile(real).names() == ("anna", "bob")


@pytest.mark.parametrize(
    ("name", "password", "words"),
    [("a:b", b"x", "cannot be a login"), ("#a", b"x", "cannot be a login"), ("a", b"", "a password has")],
)
def test_what_cannot_be_a_login_changes_nothing(
    tmp_path: Path, name: str, password: bytes, words: str
) -> None:
    with pytest.raises(AdminError, match=words):
        LoginsFile(tmp_path / "logins.txt").put(name, password)
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_a_fault_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "logins.txt"
    path.write_text("anna:plain\n")
    with pytest.raises(AdminError, match="line 1: not name:scrypt"):
        LoginsFile(path).put("bob", b"x")
    assert path.read_text() == "anna:plain\n"
    with pytest.raises(AdminError, match="no login 'carl'"):
        LoginsFile(path).remove("carl")


def test_changes_at_one_time_are_all_there(tmp_path: Path) -> None:
    path = tmp_path / "logins.txt"
    names = [f"device{number}" for number in range(6)]
    threads = [threading.Thread(target=LoginsFile(path).put, args=(name, b"x")) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(LoginsFile(path).names()) == names
