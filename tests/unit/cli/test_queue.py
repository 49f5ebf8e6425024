"""`lonedot queue`, from its arguments to what it prints and its exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lonedot.admin.operations import Desk
from lonedot.cli import run
from lonedot.spool.interface import MessageState
from lonedot.terms.ids import MessageId
from tests.unit.admin.spool_double import DoubleSpool, FixedClock, Hooks
from tests.unit.cli.relay_thread import control_socket
from tests.unit.diagnosis.stories import BEGAN, BODY, HEAD, content, deferred, stored, the_story

DONE = the_story().id
QUEUED = MessageId("1jkq0b0000000")
HELD = MessageId("1jkq0c0000000")
DAMAGED = MessageId("1jkq0d0000000")


class Shell:
    """Runs commands against one spool."""

    def __init__(self, folder: Path, spool: DoubleSpool, capture: pytest.CaptureFixture[bytes]) -> None:
        self.folder = folder
        self.spool = spool
        self._capture = capture
        self.error = ""
        self.octets = b""

    def queue(self, *arguments: str, code: int = 0) -> str:
        """Standard output of `lonedot queue …`; its exit code must be `code`."""
        assert run(["queue", *arguments, "--spool", str(self.folder)]) == code
        self.octets, error = self._capture.readouterr()
        self.error = error.decode()
        return self.octets.decode("utf-8", "replace")


@pytest.fixture
def shell(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Iterator[Shell]:
    spool = DoubleSpool(
        (the_story(), content()),
        (stored(id=QUEUED, attempts=(deferred(BEGAN + 1),), next_at=BEGAN + 70), content()),
        (
            stored(MessageState.HELD, id=HELD, reason="the scanner failed", recipients=("a@b", "c@d")),
            content(),
        ),
        (stored(MessageState.DAMAGED, id=DAMAGED, reason="another digest"), None),
    )
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    desk = Desk(spool, FixedClock(BEGAN + 10), hooks=Hooks(), since=BEGAN)
    with control_socket(desk, folder / "control.sock"):
        yield Shell(folder, spool, capsysbinary)


class TestList:
    def test_columns_reasons_and_what_to_do_next(self, shell: Shell) -> None:
        lines = shell.queue("list").splitlines()
        assert re.split(r"  +", lines[0]) == ["ID", "STATE", "AGE", "SIZE", "FROM", "TO", "WHAT IS KNOWN"]
        assert re.split(r"  +", lines[1])[:2] == [QUEUED, "queued"]
        assert "tried 1x, next in 1 minutes: 450 4.2.1 mailbox busy" in lines[1].replace(
            "60 seconds", "1 minutes"
        )
        assert "a@b and 1 more" in lines[2] and lines[2].endswith("the scanner failed")
        assert lines[3].endswith("another digest")
        assert lines[4] == "3 messages. In the spool: 1 queued, 1 held, 1 finished, 1 damaged."
        assert f"lonedot why {QUEUED}" in lines[5]
        assert f"lonedot queue release {HELD}" in lines[6]
        assert f"lonedot queue export --to FOLDER {DAMAGED}" in lines[7]

    def test_filters(self, shell: Shell) -> None:
        assert DONE in shell.queue("list", "--state", "finished")
        assert HELD in shell.queue("list", "--recipient", "c@d")
        assert QUEUED not in shell.queue("list", "--recipient", "c@d")
        assert "No message matches" in shell.queue("list", "--sender", "nobody@example.com")
        assert "there may be more" in shell.queue("list", "--state", "all", "--limit", "2")

    def test_json(self, shell: Shell) -> None:
        listing = json.loads(shell.queue("list", "--json"))
        assert [row["id"] for row in listing["rows"]] == [QUEUED, HELD, DAMAGED]
        assert listing["rows"][1]["state"] == "held"

    def test_wrong_usage(self, shell: Shell) -> None:
        shell.queue("list", "--state", "nonsense", code=2)
        assert shell.error.startswith("lonedot: ")


class TestShow:
    def test_the_record(self, shell: Shell) -> None:
        text = shell.queue("show", DONE)
        assert text.startswith(f"{DONE}  finished\n")
        assert (
            "XRecipientList (faulty)  arrival  reduced: added X-Faulty: yes; no-final-newline in body at 102"
            in text
        )
        assert "250 2.0.0 Ok: queued as 4F1" in text
        assert f"lonedot why {DONE}" in text

    def test_json(self, shell: Shell) -> None:
        record = json.loads(shell.queue("show", DONE, "--json"))
        assert record["ledger"][2]["findings"][0]["code"] == "no-final-newline"

    def test_octets_as_they_are(self, shell: Shell) -> None:
        shell.queue("show", DONE, "--octets", "arrival")
        assert shell.octets == HEAD + BODY

    def test_octets_escaped(self, shell: Shell) -> None:
        text = shell.queue("show", "kq0a", "--octets", "sent", "--escaped")
        assert text.endswith("..dots<CR><LF>\n--b--<CR><LF>\n.<CR><LF>\n")
        assert "the same octets as were sent to mx.example.net" in shell.error

    def test_octets_of_one_recipients_copy(self, shell: Shell) -> None:
        record = json.loads(shell.queue("show", DONE, "--json"))
        address = record["recipients"][0]["address"]
        shell.queue("show", DONE, "--octets", "sent", "--recipient", address)
        assert "the same octets as were sent" in shell.error
        shell.queue("show", DONE, "--octets", "queued", "--recipient", "nobody@example.net", code=1)
        assert "nobody@example.net is not a recipient of it" in shell.error
        assert address in shell.error
        shell.queue("show", DONE, "--recipient", address, code=2)

    def test_octets_as_json(self, shell: Shell) -> None:
        answer = json.loads(shell.queue("show", DONE, "--octets", "queued", "--json"))
        assert answer["form"] == "queued" and answer["octets"]

    def test_octets_that_are_damaged(self, shell: Shell) -> None:
        shell.queue("show", DAMAGED, "--octets", "queued", code=1)
        assert "another digest" in shell.error

    def test_an_unknown_id(self, shell: Shell) -> None:
        shell.queue("show", "1jkq0v0000000", code=1)
        assert shell.error == (
            "lonedot: there is no message 1jkq0v0000000; spool; lonedot queue list names those that are there\n"
        )

    def test_escaped_without_octets(self, shell: Shell) -> None:
        shell.queue("show", DONE, "--escaped", code=2)


class TestChanging:
    def test_hold_and_release(self, shell: Shell) -> None:
        assert shell.queue("hold", QUEUED, "--reason", "to look at").startswith(f"{QUEUED}: held")
        assert shell.spool.show(QUEUED).reason == "to look at"
        assert shell.queue("release", QUEUED) == f"{QUEUED}: released\n"
        assert shell.spool.show(QUEUED).state is MessageState.QUEUED

    def test_by_filter(self, shell: Shell) -> None:
        text = shell.queue("release", "--recipient", "c@d", "--dry-run")
        assert text.splitlines()[-1] == "1 message would be released. Nothing was changed."
        assert HELD in text and shell.spool.show(HELD).state is MessageState.HELD
        assert shell.queue("release", "--recipient", "c@d") == "1 message released\n"
        assert shell.spool.show(HELD).state is MessageState.QUEUED
        assert shell.queue("hold", "--sender", "nobody@example.com") == "0 messages held\n"

    def test_dry_run_as_json(self, shell: Shell) -> None:
        answer = json.loads(shell.queue("retry", "--all", "--dry-run", "--json"))
        assert answer["would_change"] == 1 and answer["first"][0]["id"] == QUEUED

    def test_ids_and_a_filter_are_too_much(self, shell: Shell) -> None:
        shell.queue("retry", QUEUED, "--older", "2h", code=2)
        assert "not both" in shell.error

    def test_what_is_left_is_said_and_exits_1(self, shell: Shell) -> None:
        assert shell.queue("retry", QUEUED, HELD, code=1) == f"{QUEUED}: due now\n"
        assert shell.error == f"{HELD}: left as it is: it is held; release it first\n"

    def test_delete_asks_nobody_when_nobody_is_there(
        self, shell: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
        shell.queue("delete", QUEUED, code=2)
        assert "add --yes" in shell.error
        assert shell.spool.show(QUEUED).state is MessageState.QUEUED

    def test_delete(self, shell: Shell) -> None:
        assert shell.queue("delete", QUEUED, DAMAGED, "--yes") == f"{QUEUED}: deleted\n{DAMAGED}: deleted\n"
        assert shell.spool.show(QUEUED).state is MessageState.FINISHED

    def test_json(self, shell: Shell) -> None:
        changed = json.loads(shell.queue("release", HELD, "--json"))
        assert changed == {"done": [HELD], "left": [], "later": False}

    def test_an_id_is_needed(self, shell: Shell) -> None:
        shell.queue("hold", code=2)
        assert "name messages, give options that select some, or --all" in shell.error


class TestExport:
    def test_files_and_what_could_not_be_saved(self, shell: Shell, tmp_path: Path) -> None:
        folder = tmp_path / "out"
        assert shell.queue("export", "--to", str(folder), code=1) == f"7 files in {folder}\n"
        assert "has no .eml" in shell.error
        names = sorted(path.name for path in folder.iterdir())
        whole = [f"{id}.{kind}" for id in (QUEUED, HELD) for kind in ("eml", "json", "message")]
        assert names == [*whole, f"{DAMAGED}.json"]
        assert (folder / f"{QUEUED}.eml").read_bytes().endswith(HEAD + BODY)
        assert (folder / f"{QUEUED}.eml").stat().st_mode & 0o777 == 0o600

    def test_files_that_are_there_stay(self, shell: Shell, tmp_path: Path) -> None:
        target = tmp_path / f"{DONE}.eml"
        target.write_text("mine")
        shell.queue("export", DONE, "--to", str(tmp_path), code=1)
        assert target.read_text() == "mine" and "--force" in shell.error
        shell.queue("export", DONE, "--to", str(tmp_path), "--force")
        assert target.read_bytes().endswith(BODY)

    def test_a_folder_that_cannot_be_made(self, shell: Shell, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        shell.queue("export", DONE, "--to", str(tmp_path / "file" / "below"), code=1)
        assert "cannot be saved" in shell.error


class TestPlace:
    def test_no_configuration(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["queue", "list", "-c", str(tmp_path / "none.toml")]) == 1
        assert "there is no configuration" in capsys.readouterr().err

    def test_a_faulty_configuration_says_where(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "lonedot.toml").write_text(
            '[server]\nhostname = "relay.example.com"\nmax_size = "many"\n'
        )
        assert run(["queue", "list", "-c", str(tmp_path / "lonedot.toml")]) == 1
        error = capsys.readouterr().err
        assert "lonedot.toml:3" in error and "lonedot check" in error

    def test_the_spool_of_the_configuration(
        self, shell: Shell, capsysbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        config = shell.folder.parent / "lonedot.toml"
        config.write_text(
            '[server]\nhostname = "relay.example.com"\nspool = "spool"\n'
            '[[listener]]\naddress = "127.0.0.1:2525"\nrelay_from = ["127.0.0.0/8"]\n'
            '[[route]]\nto = "*"\nsmarthost = "127.0.0.1:2526"\n'
        )
        assert run(["queue", "list", "-c", str(config)]) == 0
        assert QUEUED.encode() in capsysbinary.readouterr().out

    def test_no_spool(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["queue", "list", "--spool", str(tmp_path / "none")]) == 1
        assert "there is no spool" in capsys.readouterr().err


@pytest.mark.parametrize("width", [80, 100, 140])
def test_a_terminal_gets_a_table_with_every_word(
    width: int, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))
    text = re.sub(r"\x1b\[[0-9;]*m", "", shell.queue("list"))
    assert all(len(line) <= width for line in text.splitlines()[:-4])
    for word in (QUEUED, HELD, DAMAGED, "scanner@example.com", "another digest"):
        assert word in text
