"""`lonedot sinks` on a registry file, from its arguments to what it prints and its exit code."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from lonedot.cli import run
from lonedot.sinks.bindings import guid_for
from lonedot.sinks.events import Event

X_RECIPIENT = "lonedot.sinks.builtin.x_recipient:x_recipient"
FAULTY = "lonedot.sinks.builtin.faulty:x_recipient_list"
MESSAGE = b"From: <a@b.example>\r\nSubject: hello\r\n\r\none line\r\n"


class Shell:
    """Runs commands on one registry file."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.file = folder / "sinks.toml"
        self.message = folder / "message.eml"
        self.message.write_bytes(MESSAGE)
        self._capture = capture
        self.error = ""

    def sinks(self, *words: str, code: int = 0) -> str:
        """Standard output of `lonedot sinks …`; its exit code must be `code`."""
        return self.run(["sinks", *words, "--registry", str(self.file)], code)

    def run(self, words: Sequence[str], code: int = 0) -> str:
        got = run(words)
        said, self.error = self._capture.readouterr()
        assert got == code, (said, self.error)
        return said

    def json(self, *words: str, code: int = 0) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.sinks(*words, "--json", code=code))
        return found


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


@pytest.fixture
def stocked(shell: Shell) -> Shell:
    on_arrival = ("--event", "arrival")
    rule = ("--rule", "RCPT TO=*@a.example")
    shell.sinks("add", "stamp", X_RECIPIENT, "--priority", "10", *rule, "--group", "g", *on_arrival)
    shell.sinks("add", "scanner", FAULTY, "--priority", "5", "--group", "g", "--disabled", *on_arrival)
    shell.sinks("add", "last", FAULTY, "--priority", "20", *on_arrival)
    return shell


class TestList:
    def test_firing_order_and_columns(self, stocked: Shell) -> None:
        lines = stocked.sinks("list").splitlines()
        assert lines[0] == "arrival"
        assert lines[1].split() == ["PRIORITY", "NAME", "STATUS", "EFFECTS", "ROLE", "RULE", "SINK"]
        assert [line.split()[1] for line in lines[2:5]] == ["scanner", "stamp", "last"]
        assert lines[2].split()[:3] == ["5", "scanner", "disabled"]
        assert lines[6].startswith(f"{stocked.file}, revision ")

    def test_none(self, shell: Shell) -> None:
        assert "no bindings" in shell.sinks("list")

    def test_a_priority_that_the_code_would_say_is_marked(self, shell: Shell) -> None:
        shell.sinks("add", "a", X_RECIPIENT)
        assert shell.sinks("list").splitlines()[2].split()[0] == "24575?"

    def test_json(self, stocked: Shell) -> None:
        found = stocked.json("list")
        bindings = found["bindings"]
        assert isinstance(bindings, list)
        assert [(one["name"], one["priority"]) for one in bindings] == [
            ("scanner", 5),
            ("stamp", 10),
            ("last", 20),
        ]
        assert found["running"] is False

    def test_no_code_of_a_registry_file_is_run_to_list_it(self, shell: Shell, tmp_path: Path) -> None:
        (tmp_path / "bad.py").write_text(
            "from lonedot import sink\n@sink('a')\ndef a(message): ...\nopen('ran', 'w')\n"
        )
        shell.file.write_text('[[binding]]\nname = "a"\nsink = "bad.py:a"\n')
        listed = shell.sinks("list")
        assert "bad.py:a" in listed and listed.startswith("?\n")  # its event is what its code says
        assert not (tmp_path / "ran").exists()


class TestShow:
    def test_everything(self, stocked: Shell) -> None:
        stocked.sinks("set", "stamp", "sink_properties.header", "X-Stamp")
        text = stocked.sinks("show", "stamp")
        assert f"guid            {guid_for('stamp')}" in text
        assert "priority        10" in text and "rule            RCPT TO=*@a.example" in text
        assert 'sink_properties.header = "X-Stamp"' in text

    def test_by_guid(self, stocked: Shell) -> None:
        assert stocked.json("show", guid_for("stamp").lower())["name"] == "stamp"

    def test_a_name_that_is_not_there(self, stocked: Shell) -> None:
        stocked.sinks("show", "Stamp", code=1)
        assert stocked.error == "lonedot: there is no binding 'Stamp'; did you mean 'stamp'?\n"


class TestChange:
    def test_add_with_everything(self, shell: Shell) -> None:
        done = shell.json(
            *("add", "a", FAULTY, "--event", "OnArrival", "--priority", "3", "--rule", "MAIL FROM=*"),
            *("--effects", "header,envelope", "--role", "protective", "--on-damage", "reject"),
            *("--on-error", "hold", "--isolation", "inline", "--group", "g", "--source", "1"),
            *("--guid", guid_for("other"), "--property", "header=X-A", "--property", "limit=3"),
        )
        assert done["done"] == [f"added 'a' {guid_for('other')}"]
        shown = shell.json("show", "a")
        assert shown["effects"] == ["header", "envelope"]
        assert shown["sink_properties"] == {"header": "X-A", "limit": 3}
        assert (shown["role"], shown["on_damage"], shown["on_error"]) == ("protective", "reject", "hold")

    @pytest.mark.parametrize(
        ("words", "error"),
        [
            (("add", "stamp", X_RECIPIENT), "there is a binding 'stamp' already"),
            (("add", "b", "Old.Class"), 'sink: "Old.Class" is neither an import path nor'),
            (("add", "b", "lonedot.sinks.builtin.x_recipient:nothing"), "has no 'nothing'"),
            (("add", "b", "lonedot.sinks.bindings:Role"), "is not a sink"),
            (("add", "b", X_RECIPIENT, "--priority", "32768"), "32768 is out of range"),
            (("add", "b", X_RECIPIENT, "--rule", "HELO=x"), "rule"),
            (("enable", "scaner"), "did you mean 'scanner'?"),
            (("disable", "--group", "h"), "there is no group 'h'"),
            (("remove", "Stamp"), "did you mean 'stamp'?"),
            (("set", "stamp", "priority", "high"), '"high" is not a whole number'),
            (("set", "stamp", "prio", "3"), "did you mean priority?"),
            (("set", "stamp", "bag.name", "3"), "'bag.name' is not a key of a binding"),
            (("unset", "stamp", "role"), "does not set role"),
            (("order", "--event", "OnNothing"), "there is no event 'OnNothing'"),
        ],
    )
    def test_what_cannot_be_done_changes_nothing(
        self, stocked: Shell, words: tuple[str, ...], error: str
    ) -> None:
        before = stocked.file.read_bytes()
        stocked.sinks(*words, code=1)
        assert error in stocked.error and stocked.error.count("\n") == 1
        assert stocked.file.read_bytes() == before

    @pytest.mark.parametrize(
        "words",
        [("enable",), ("remove",), ("reload",), ("add", "b", X_RECIPIENT, "--property", "x"), ("test",)],
    )
    def test_usage(self, shell: Shell, words: tuple[str, ...]) -> None:
        shell.sinks(*words, code=2)

    def test_enable_and_disable_a_group(self, stocked: Shell) -> None:
        assert stocked.sinks("disable", "--group", "g").count("disabled '") == 2
        assert stocked.sinks("enable", "--group", "g").count("enabled '") == 2
        assert stocked.json("show", "scanner")["status"] == "enabled"

    def test_remove(self, stocked: Shell) -> None:
        stocked.sinks("remove", "stamp", guid_for("last"))
        assert [line.split()[1] for line in stocked.sinks("list").splitlines()[2:3]] == ["scanner"]

    @pytest.mark.parametrize(
        ("value", "kept"),
        [("3", 3), ("0.5", 0.5), ("true", True), ("007", "007"), ("1e5", "1e5"), ("X-A", "X-A")],
    )
    def test_values_of_properties(self, stocked: Shell, value: str, kept: object) -> None:
        stocked.sinks("set", "last", "sink_properties.v", value)
        assert stocked.json("show", "last")["sink_properties"] == {"v": kept}
        stocked.sinks("set", "last", "sink_properties.v", value, "--text")
        assert stocked.json("show", "last")["sink_properties"] == {"v": value}

    def test_unset_and_a_list(self, stocked: Shell) -> None:
        stocked.sinks("set", "stamp", "effects", "header, body")
        assert stocked.json("show", "stamp")["effects"] == ["header", "body"]
        stocked.sinks("unset", "stamp", "effects")
        assert stocked.json("show", "stamp")["effects"] is None


class TestOrder:
    def test_of_every_message(self, stocked: Shell) -> None:
        assert stocked.sinks("order").splitlines() == [
            "arrival",
            "    1     10  stamp  RCPT TO=*@a.example",
            "    2     20  last",
        ]

    def test_for_an_address(self, stocked: Shell) -> None:
        assert stocked.sinks("order", "--to", "x@b.example").splitlines() == [
            "arrival",
            "    -     10  stamp  not called: RCPT TO=*@a.example",
            "    1     20  last",
        ]
        found = stocked.json("order", "--to", "x@A.example", "--event", "OnArrival")
        order = found["order"]
        assert isinstance(order, list)
        assert [one["name"] for one in order] == ["stamp", "last"] and found["not_called"] == []

    def test_at_an_event_without_bindings(self, stocked: Shell) -> None:
        assert stocked.sinks("order", "--event", "rcpt") == "no binding fires\n"


class TestTest:
    def test_one(self, stocked: Shell) -> None:
        text = stocked.sinks("test", "stamp", str(stocked.message), "--to", "x@a.example")
        assert "    added X-Recipient: x@a.example\n" in text
        assert text.endswith(f"accept; {len(MESSAGE)} octets before, {len(MESSAGE) + 26} after\n")

    def test_one_that_the_rule_leaves_out(self, stocked: Shell) -> None:
        assert "stamp: not called" in stocked.sinks("test", "stamp", str(stocked.message))

    def test_one_that_is_disabled_and_does_harm(self, stocked: Shell) -> None:
        text = stocked.sinks("test", "scanner", str(stocked.message), code=1)
        assert "damage: " in text and "scanner (arrival): reduced" in text

    def test_all_that_are_enabled(self, stocked: Shell) -> None:
        found = stocked.json("test", "--all", str(stocked.message), "--to", "x@a.example", code=1)
        steps = found["steps"]
        assert isinstance(steps, list)
        assert [(step["binding"], step["is_fault"]) for step in steps] == [("stamp", False), ("last", True)]
        assert found["decision"] == "accept"

    def test_line_ends_are_mended_first(self, stocked: Shell) -> None:
        stocked.message.write_bytes(MESSAGE.replace(b"\r\n", b"\n"))
        assert stocked.sinks("test", "stamp", str(stocked.message)).startswith("line ends mended")

    def test_one_in_a_process_of_its_own(self, stocked: Shell) -> None:
        stocked.sinks("set", "stamp", "isolation", "process")
        text = stocked.sinks("test", "stamp", str(stocked.message), "--to", "x@a.example")
        assert "added X-Recipient: x@a.example" in text

    def test_one_that_needs_a_message(self, stocked: Shell) -> None:
        stocked.sinks("test", "stamp", code=2)
        assert "'stamp' is shown a message; write NAME FILE" in stocked.error

    @pytest.mark.parametrize("isolation", ["inline", "process"])
    @pytest.mark.parametrize("event", [event.value for event in Event])
    def test_at_every_event(self, shell: Shell, tmp_path: Path, event: str, isolation: str) -> None:
        (tmp_path / "one.py").write_text(
            f"from lonedot import Next, sink\n@sink('one', on={event!r})\ndef one(shown):\n    return Next()\n"
        )
        shell.sinks("add", "one", "one.py:one", "--isolation", isolation)
        stdin = io.StringIO("secret\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdin", stdin)
            text = shell.sinks("test", "one", str(shell.message))
        assert text.startswith(f"one ({event}): ") and text.splitlines()[-1].startswith("accept")

    def test_what_a_sink_of_a_session_says(self, shell: Shell, tmp_path: Path) -> None:
        (tmp_path / "door.py").write_text(
            "from lonedot import Next, Reject, sink\n"
            "@sink('door', on='rcpt')\n"
            "def door(session):\n"
            "    if session.recipient.address.text.startswith('x@'):\n"
            "        return Reject('not ' + session.recipient.address.text)\n"
            "    return Next()\n"
            "@sink('broken', on='session-start')\n"
            "def broken(hop):\n"
            "    raise RuntimeError(hop.host)\n"
        )
        shell.sinks("add", "door", "door.py:door")
        shell.sinks("add", "broken", "door.py:broken")
        text = shell.sinks(
            "test", "door", "--to", "a@b.example", "--to", "x@b.example", "--to", "c@b.example"
        )
        lines = [line.partition(", 0")[0] for line in text.splitlines()]
        assert lines == [
            "door (rcpt): asked, next",
            "door (rcpt): asked, reject",
            "    not x@b.example",
            "reject: not x@b.example",
        ]
        text = shell.sinks("test", "broken", code=1)
        assert "broken (session-start): asked, error" in text and "RuntimeError: mx.example.org" in text
        found = shell.json("test", "--all", str(shell.message), code=1)
        steps = found["steps"]
        assert isinstance(steps, list)
        assert [step["binding"] for step in steps] == ["door", "broken"] and found["decision"] == "defer"

    def test_nobody_logs_in_and_no_report_is_made_of_the_message_of_all(
        self, shell: Shell, tmp_path: Path
    ) -> None:
        (tmp_path / "one.py").write_text(
            "from lonedot import Next, sink\n@sink('one', on='auth')\ndef one(s):\n    return Next()\n"
            "@sink('two', on='dsn')\ndef two(m):\n    return Next()\n"
        )
        shell.sinks("add", "one", "one.py:one")
        shell.sinks("add", "two", "one.py:two")
        assert shell.json("test", "--all", str(shell.message))["steps"] == []

    def test_a_file_that_is_not_there(self, stocked: Shell) -> None:
        stocked.sinks("test", "stamp", "nowhere.eml", code=1)
        assert "nowhere.eml" in stocked.error

    def test_nothing_is_kept(self, stocked: Shell, tmp_path: Path) -> None:
        before = sorted(tmp_path.rglob("*"))
        stocked.sinks("test", "stamp", str(stocked.message))
        assert sorted(tmp_path.rglob("*")) == before


class TestDiff:
    def test_two_files(self, stocked: Shell, tmp_path: Path) -> None:
        other = tmp_path / "other.toml"
        other.write_bytes(stocked.file.read_bytes())
        assert stocked.run(["sinks", "diff", str(stocked.file), str(other)]) == "no difference\n"
        stocked.sinks("set", "stamp", "priority", "11")
        stocked.sinks("remove", "last")
        stocked.sinks("add", "new", X_RECIPIENT)
        lines = stocked.run(["sinks", "diff", str(other), str(stocked.file)], 1).splitlines()
        assert "~ stamp: priority: 10 -> 11" in lines
        assert [line.split()[:2] for line in lines] == [["~", "stamp:"], ["+", "new"], ["-", "last"]]

    def test_a_file_that_is_not_there(self, shell: Shell) -> None:
        shell.run(["sinks", "diff", "nowhere.toml", "nowhere.toml"], 1)
        assert "there is no such registry; nowhere.toml" in shell.error


def test_without_a_configuration_the_command_says_what_to_name(shell: Shell, tmp_path: Path) -> None:
    shell.run(["sinks", "list", "-c", str(tmp_path / "none.toml")], 1)
    assert shell.error.startswith("lonedot: there is no configuration; ")
    assert "--registry" in shell.error
