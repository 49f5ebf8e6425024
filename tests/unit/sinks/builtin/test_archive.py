"""The archive: copies as received, to be sent and as sent, and what a folder that cannot be written does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin.archive import ArchiveAddressSettings, ArchiveSettings, archive, archive_address
from lonedot.sinks.calls import Decision
from lonedot.testing import make_message, make_outcomes, run_sink

LETTER = make_message(
    "Subject: a\n\ntext\n.dot\n", recipients=("b@example.org", "c@example.org"), sender="a@example.com"
)
ENVELOPE = b"X-Envelope-From: <a@example.com>\r\nX-Envelope-To: <b@example.org>\r\nX-Envelope-To: <c@example.org>\r\n"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_copy_as_it_came_is_a_file(tmp_path: Path) -> None:
    settings: dict[str, Setting] = {"folder": str(tmp_path / "kept")}
    run_sink(archive, LETTER, settings=settings).assert_untouched()
    (file,) = files(tmp_path)
    assert file.parent == tmp_path / "kept"
    assert file.name.startswith(LETTER.id) and file.suffix == ".eml"
    assert file.read_bytes() == ENVELOPE + LETTER.octets()
    assert file.stat().st_mode & 0o777 == 0o600


def test_octets_alone_with_the_line_ends_wanted(tmp_path: Path) -> None:
    settings: dict[str, Setting] = {"folder": str(tmp_path), "envelope": False}
    run_sink(archive, LETTER, settings=settings)
    assert files(tmp_path)[0].read_bytes() == LETTER.octets()
    run_sink(archive, LETTER, settings={**settings, "line_ends": "LF"})
    assert files(tmp_path)[0].read_bytes() == LETTER.octets().replace(b"\r\n", b"\n")


def test_into_a_maildir(tmp_path: Path) -> None:
    settings: dict[str, Setting] = {"maildir": str(tmp_path / "kept"), "line_ends": "LF"}
    run_sink(archive, LETTER, settings=settings).assert_untouched()
    (file,) = files(tmp_path)
    assert file.parent == tmp_path / "kept" / "new"
    assert file.read_bytes() == (ENVELOPE + LETTER.octets()).replace(b"\r\n", b"\n")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"tmp", "new", "cur"}


@pytest.mark.parametrize("kind", ["folder", "maildir"])
def test_shown_again_it_is_filed_once(tmp_path: Path, kind: str) -> None:
    for _ in range(3):
        run_sink(archive, LETTER, settings={kind: str(tmp_path / "kept")}).assert_untouched()
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("kind", ["folder", "maildir"])
@pytest.mark.parametrize(
    ("on_error", "role", "decision"),
    [
        ("defer", "protective", Decision.DEFER),
        ("hold", "protective", Decision.HOLD),
        ("skip", "cosmetic", Decision.ACCEPT),
    ],
)
def test_what_cannot_be_filed_goes_as_the_binding_says(
    tmp_path: Path, kind: str, on_error: str, role: str, decision: Decision
) -> None:
    settings: dict[str, Setting] = {kind: str(tmp_path / "not mounted" / "kept")}
    done = run_sink(archive, LETTER, settings=settings, on_error=on_error, role=role)
    assert done.decision is decision
    assert "could not be written: No such file" in str(done.error)
    assert not files(tmp_path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "kept").symlink_to(tmp_path / "elsewhere")
    assert run_sink(archive, LETTER, settings={"folder": str(tmp_path / "kept")}).decision is Decision.DEFER
    assert not files(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="about a relay that runs as root")
def test_as_root_files_belong_to_whom_the_folder_belongs(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    run_sink(archive, LETTER, settings={"maildir": str(tmp_path / "kept")})
    (file,) = files(tmp_path)
    assert file.stat().st_uid == file.parent.stat().st_uid == 65534


def test_what_is_about_to_be_sent(tmp_path: Path) -> None:
    done = run_sink(archive, LETTER, settings={"folder": str(tmp_path)}, event="message-start")
    assert done.decision is Decision.ACCEPT
    assert files(tmp_path)[0].read_bytes() == ENVELOPE + LETTER.octets()


@pytest.mark.parametrize(("result", "count"), [("delivered", 1), ("deferred", 0), ("failed", 0)])
def test_what_was_sent_is_what_somebody_took(tmp_path: Path, result: str, count: int) -> None:
    recipients = ("b@example.org",)
    outcomes = make_outcomes(recipients, result)
    message = make_message("Subject: a\n\n", recipients=recipients, event="outcome", outcomes=outcomes)
    done = run_sink(archive, message, settings={"folder": str(tmp_path)}, event="outcome")
    assert done.decision is Decision.ACCEPT
    assert len(files(tmp_path)) == count


def test_an_address_becomes_one_more_recipient() -> None:
    done = run_sink(archive_address, LETTER, settings={"address": "archive@example.net"})
    assert [one.address.text for one in done.after.envelope.recipients] == [
        "b@example.org",
        "c@example.org",
        "archive@example.net",
    ]
    assert done.octets == LETTER.octets()
    run_sink(archive_address, LETTER, settings={"address": "C@example.ORG"}).assert_untouched()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "one of folder and maildir"),
        ({"folder": "/a", "maildir": "/b"}, "one of folder and maildir"),
        ({"folder": "kept"}, "whole path"),
        ({"maildir": "/a/../b"}, "go up"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ArchiveSettings(**settings)  # type: ignore[arg-type]  # texts alone
    with pytest.raises(ValueError, match="domain"):
        ArchiveAddressSettings("archive")
