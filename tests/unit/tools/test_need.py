"""A test without its peer is skipped with the line that installs it, or fails where peers are required."""

from pathlib import Path

import pytest

from tests.need import find, need


def test_a_program_that_is_there_is_found() -> None:
    assert need("sh", "dash").name == "sh"


def test_system_folders_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert find("ldconfig") in {Path("/usr/sbin/ldconfig"), Path("/sbin/ldconfig")}


def test_a_missing_program_skips_with_the_apt_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LONEDOT_PEERS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install -y no-package"):
        need("no-such-program", "no-package")


def test_a_missing_program_fails_where_peers_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONEDOT_PEERS", "required")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        need("no-such-program", "no-package")
