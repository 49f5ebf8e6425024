"""`lonedot smtpreg`: the old arguments in their old order, and the old shape of the listing."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest

from lonedot.cli import run
from lonedot.sinks.bindings import guid_for
from lonedot.sinks.registry_file import read_audit

X_RECIPIENT = "lonedot.sinks.builtin.x_recipient:x_recipient"
FAULTY = "lonedot.sinks.builtin.faulty:x_recipient_list"
STORY = str(files("lonedot.sinks.examples") / "story.toml")

SHAPE = """\
Source {1B3C0666-E470-11D0-AA67-80C04FA345F6} {
  DisplayName = smtpsvc 1
  OnArrival Sinks {
    Binding %s {
      DisplayName = one
      SinkClass = lonedot.sinks.builtin.x_recipient:x_recipient
      Status = Enabled
      SourceProperties {
        Rule = RCPT TO=*
        Priority = 0
        ScriptName = a.vbs
      }
      SinkProperties {
        Header = X-A
      }
    }
  }
}
"""


class Shell:
    """Runs the tool on one registry file."""

    def __init__(self, file: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.file = file
        self._capture = capture
        self.error = ""

    def smtpreg(self, *words: str, code: int = 0) -> str:
        got = run(["smtpreg", *words, "--registry", str(self.file)])
        said, self.error = self._capture.readouterr()
        assert got == code, (said, self.error)
        return said


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path / "sinks.toml", capsys)


class TestEnum:
    def test_the_shape(self, shell: Shell) -> None:
        shell.smtpreg("/add", "1", "OnArrival", "one", X_RECIPIENT, "RCPT TO=*")
        shell.smtpreg("/setprop", "1", "OnArrival", "one", "Source", "ScriptName", "a.vbs")
        shell.smtpreg("/setprop", "1", "OnArrival", "one", "Sink", "Header", "X-A")
        assert shell.smtpreg("/enum") == SHAPE % guid_for("one")

    def test_nothing(self, shell: Shell) -> None:
        assert shell.smtpreg("/enum") == (
            "Source {1B3C0666-E470-11D0-AA67-80C04FA345F6} {\n"
            "  DisplayName = smtpsvc 1\n  OnArrival Sinks {\n  }\n}\n"
        )

    def test_other_events_and_sources_have_blocks_of_their_own(self, shell: Shell) -> None:
        shell.file.write_text('[[source]]\nnumber = 2\nname = "second"\n')
        shell.smtpreg("/add", "1", "_EOD", "one", X_RECIPIENT, "")
        shell.file.write_text(
            shell.file.read_text()
            + '[[binding]]\nname = "x"\nsource = 2\nsink = "A.B"\nstatus = "disabled"\n'
        )
        text = shell.smtpreg("/enum")
        assert text.count("Source {") == 2 and text.count("{") == text.count("}")
        assert "  _EOD Sinks {\n" in text and "DisplayName = second" in text

    def test_the_story_s_five_bindings(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["smtpreg", "/enum", "--registry", STORY]) == 0
        text = capsys.readouterr().out
        assert text.startswith("Source {1B3C0666-E470-11D0-AA67-80C04FA345F6} {\n  DisplayName = smtpsvc 1\n")
        assert text.count("{") == text.count("}")  # each GUID has a pair of its own
        assert "" not in text.splitlines()
        blocks = {}
        for block in re.split(r"    Binding ", text)[1:]:
            values = dict(re.findall(r"^ +(\w+) = (.*)$", block, re.MULTILINE))
            blocks[values["DisplayName"]] = (values["SinkClass"], int(values["Priority"]), values.get("Rule"))
        assert blocks == {
            "XRecipientList": ("XRecipientList.AddXHeaders", 28010, None),
            "POP3 Connector Event Sink": (
                "Imbdlvres.IMBDeliveryEventSink",
                0,
                "RCPT TO=*mspop3connector.*",
            ),
            "Exchange Transport XEXCH50 Submission": ("peexch50.submit", 100, None),
            "Exchange Transport AntiVirus API": ("Exchange.TransportAVAPI", 28000, None),
            "ISM SMTP Transport": (
                "CDO2EventSink.IsmSink1",
                8192,
                "RCPT TO=_IsmService@01234567-89ab-cdef-0123-456789abcdef._msdcs.example.com",
            ),
        }

    def test_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["smtpreg", "/enum", "--registry", STORY, "--json"]) == 0
        bindings = json.loads(capsys.readouterr().out)["bindings"]
        assert [one["priority"] for one in bindings] == [0, 100, 8192, 28000, 28010]


class TestAdd:
    def test_the_priority_is_the_highest_plus_ten_and_said(self, shell: Shell) -> None:
        assert "priority 0: it is the first" in shell.smtpreg("/add", "1", "onarrival", "a", X_RECIPIENT, "")
        said = shell.smtpreg("/add", "1", "OnTransportSubmission", "b", FAULTY, "MAIL FROM=*")
        assert "priority 10: the highest in use, 0, plus 10: it fires last" in said
        said = shell.smtpreg("/add", "1", "OnArrival", "c", FAULTY, "", "28000")
        assert "priority 28000" in said
        assert "priority 28010: " in shell.smtpreg("/add", "1", "OnArrival", "d", X_RECIPIENT, "")

    def test_above_the_range_it_is_the_default(self, shell: Shell) -> None:
        shell.smtpreg("/add", "1", "OnArrival", "a", X_RECIPIENT, "", "32760")
        said = shell.smtpreg("/add", "1", "OnArrival", "b", FAULTY, "")
        assert "priority 24575, the default: the highest in use is 32760" in said

    def test_a_name_in_use_is_refused(self, shell: Shell) -> None:
        shell.smtpreg("/add", "1", "OnArrival", "a", X_RECIPIENT, "")
        shell.smtpreg("/add", "1", "OnArrival", "a", FAULTY, "", code=1)
        assert "there is a binding 'a' already" in shell.error

    @pytest.mark.parametrize(
        ("words", "error"),
        [
            (("1", "OnArival", "a", X_RECIPIENT, ""), "did you mean OnArrival?"),
            (("0", "OnArrival", "a", X_RECIPIENT, ""), "instance '0' is no number of a virtual server"),
            (("x", "OnArrival", "a", X_RECIPIENT, ""), "instance 'x'"),
            (("2", "OnArrival", "a", X_RECIPIENT, ""), "there is no source 2"),
            (("1", "OnArrival", "a", "Not.Registered", ""), "neither an import path"),
            (("1", "OnArrival", "a", X_RECIPIENT, "RCPT=*"), "write `RCPT TO=…`"),
            (("1", "OnArrival", "a", X_RECIPIENT, "", "40000"), "40000 is out of range"),
            (("1", "OnArrival", "a", X_RECIPIENT, "", "low"), "priority 'low' is no number"),
        ],
    )
    def test_what_is_wrong_is_said_and_nothing_is_written(
        self, shell: Shell, words: tuple[str, ...], error: str
    ) -> None:
        shell.smtpreg("/add", *words, code=1)
        assert error in shell.error
        assert not shell.file.exists()


class TestNamed:
    @pytest.fixture
    def stocked(self, shell: Shell) -> Shell:
        shell.smtpreg("/add", "1", "OnArrival", "XRecipientList", X_RECIPIENT, "")
        shell.smtpreg("/add", "1", "OnArrival", "guilty", FAULTY, "")
        return shell

    @pytest.mark.parametrize("sign", ["/", "-"])
    def test_disable_and_enable_echo_name_and_guid(self, stocked: Shell, sign: str) -> None:
        said = stocked.smtpreg(f"{sign}disable", "1", "ONARRIVAL", "guilty")
        assert said == f"disabled 'guilty' {guid_for('guilty')}\n"
        assert "Status = Disabled" in stocked.smtpreg(f"{sign}enum")
        assert stocked.smtpreg(f"{sign}ENABLE", "1", "OnArrival", guid_for("guilty")).startswith(
            "enabled 'guilty'"
        )

    @pytest.mark.parametrize("verb", ["/enable", "/disable", "/remove"])
    def test_names_are_exact_and_a_wrong_one_is_no_success(self, stocked: Shell, verb: str) -> None:
        before = stocked.file.read_bytes()
        stocked.smtpreg(verb, "1", "OnArrival", "xrecipientlist", code=1)
        assert "there is no binding 'xrecipientlist'" in stocked.error
        assert "did you mean 'XRecipientList'?" in stocked.error
        stocked.smtpreg(verb, "1", "OnRcptCommand", "guilty", code=1)
        stocked.smtpreg(verb, "2", "OnArrival", "guilty", code=1)
        assert stocked.file.read_bytes() == before

    def test_remove(self, stocked: Shell) -> None:
        stocked.smtpreg("/remove", "1", "OnArrival", "guilty")
        assert "guilty" not in stocked.smtpreg("/enum")
        assert read_audit(stocked.file)[-1].what == (f"removed 'guilty' {guid_for('guilty')}",)

    @pytest.mark.parametrize("name", ["Priority", "priority"])
    def test_a_priority_becomes_a_number(self, stocked: Shell, name: str) -> None:
        stocked.smtpreg("/setprop", "1", "OnArrival", "guilty", "source", name, "344")
        assert "priority = 344" in stocked.file.read_text()
        stocked.smtpreg("/setprop", "1", "OnArrival", "guilty", "Source", name, "40000", code=1)
        stocked.smtpreg("/setprop", "1", "OnArrival", "guilty", "Source", name, "first", code=1)
        assert "        Priority = 344\n" in stocked.smtpreg("/enum")

    def test_other_values_are_text(self, stocked: Shell) -> None:
        stocked.smtpreg("/setprop", "1", "OnArrival", "guilty", "Sink", "limit", "5")
        assert 'limit = "5"' in stocked.file.read_text()
        stocked.smtpreg("/setprop", "1", "OnArrival", "guilty", "Sink", "LIMIT", "-6")
        assert 'limit = "-6"' in stocked.file.read_text()

    def test_the_rule_and_deleting_it(self, stocked: Shell) -> None:
        stocked.smtpreg("/setprop", "1", "OnArrival", "guilty", "Source", "Rule", "RCPT TO=a@b")
        assert "        Rule = RCPT TO=a@b\n" in stocked.smtpreg("/enum")
        stocked.smtpreg("/delprop", "1", "OnArrival", "guilty", "Source", "RULE")
        assert "Rule =" not in stocked.smtpreg("/enum")
        stocked.smtpreg("/delprop", "1", "OnArrival", "guilty", "Source", "Rule", code=1)
        assert "does not set rule" in stocked.error
        stocked.smtpreg("/delprop", "1", "OnArrival", "guilty", "Other", "Rule", code=1)
        assert "there is no property bag 'Other'" in stocked.error


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ((), "no command is given"),
        (("/enumerate",), "there is no command '/enumerate'; did you mean /enum?"),
        (("enum",), "there is no command 'enum'; did you mean /enum?"),
        (("/enum", "1"), "/enum takes no arguments; 1 given"),
        (("/add", "1", "OnArrival", "a"), "/add takes INSTANCE EVENT NAME CLASS RULE [PRIORITY]; 3 given"),
        (("/setprop", "1", "OnArrival", "a", "Sink", "x"), "5 given"),
        (("/remove",), "/remove takes INSTANCE EVENT NAME; 0 given"),
    ],
)
def test_usage(shell: Shell, words: tuple[str, ...], error: str) -> None:
    shell.smtpreg(*words, code=2)
    assert error in shell.error
