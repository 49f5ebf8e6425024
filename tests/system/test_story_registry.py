"""The registry of the story in a running relay: five bindings, the faulty one between them, managed by the old tool."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import cast

import pytest

from lonedot.testing.process import RelayProcess
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, first_config
from tests.system.test_commands import run, send, value

STORY = files("lonedot.sinks.examples").joinpath("story.toml").read_text()
POP3 = "POP3 Connector Event Sink"
XEXCH50 = "Exchange Transport XEXCH50 Submission"
ISM = "ISM SMTP Transport"
ANTIVIRUS = "Exchange Transport AntiVirus API"
GUILTY = "XRecipientList"
IN_ORDER = [POP3, XEXCH50, ISM, ANTIVIRUS, GUILTY]
ALL = (
    "anna@dest.example",
    "mspop3connector.anna@dest.example",
    "_IsmService@01234567-89ab-cdef-0123-456789abcdef._msdcs.example.com",
)
"""Recipients that every rule of the story matches."""

SINKS = """
from lonedot import Edit, Next, sink

@sink("mark", on="arrival", effects={"header"})
def mark(message):
    return Next([Edit.add_field("X-Mark", "yes")])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The story's registry, with code that runs here under the old names."""
    (tmp_path / "marks.py").write_text(SINKS)
    text = re.sub(r'sink = "[^"]*"', 'sink = "marks.py:mark"', STORY)
    text = text.replace(
        'event = "OnArrival"\nsink = "marks.py:mark"',
        'event = "OnArrival"\nsink = "lonedot.sinks.builtin.faulty:x_recipient_list"',
        1,
    )
    assert text.index("faulty") < text.index(POP3)  # in the file it stands first
    (tmp_path / "sinks.toml").write_text(text)
    return tmp_path


def listed(folder: Path) -> dict[str, str]:
    """Display name to status, as the old tool prints them."""
    text = run(folder, "smtpreg", "/enum").decode()
    assert text.startswith("Source {1B3C0666-E470-11D0-AA67-80C04FA345F6} {\n  DisplayName = smtpsvc 1\n")
    assert text.count("{") == text.count("}")
    depth = 0
    for line in text.splitlines():
        depth -= line.strip() == "}"
        assert line.startswith("  " * depth) and not line.startswith("  " * depth + " "), line
        depth += line.endswith(" {")
    assert depth == 0
    names = re.findall(r"^      DisplayName = (.*)$", text, re.MULTILINE)
    return dict(zip(names, re.findall(r"^      Status = (\w+)$", text, re.MULTILINE), strict=True))


def called(folder: Path, id: str) -> list[str]:
    """The sinks of a message in the order of its ledger."""
    entries = cast("list[dict[str, object]]", value(folder, "queue", "show", id)["ledger"])
    return [str(entry["binding"]) for entry in entries if entry["binding"] in IN_ORDER]


def test_listed_switched_and_blamed_while_mail_flows(folder: Path) -> None:
    with StrictSink() as receiver:
        config = first_config(receiver.port, server='registry = "sinks.toml"\nkeep_content = "all"')
        with RelayProcess(folder, config) as relay:
            assert listed(folder) == dict.fromkeys(IN_ORDER, "Disabled")
            for number, name in enumerate(IN_ORDER):
                said = run(folder, "smtpreg", "/enable", "1", "OnArrival", name).decode()
                assert said.startswith(f"enabled {name!r} {{")
                assert listed(folder)[name] == "Enabled"
                id = send(relay.ports["in"], MESSAGE, *ALL)
                assert called(folder, id) == IN_ORDER[: number + 1]
            assert firing(folder) == IN_ORDER
            # The rules of two of them leave other mail alone.
            id = send(relay.ports["in"])
            assert called(folder, id) == [XEXCH50, ANTIVIRUS, GUILTY]
            arrivals = receiver.wait_for(6)
            assert not any(arrival.bare_octets for arrival in arrivals)
            assert all(arrival.content.endswith(b"\r\n\r\nfirst\r\n.second\r\n") for arrival in arrivals)
            assert arrivals[-1].content.count(b"X-Mark: yes\r\n") == 2
            assert GUILTY in run(folder, "why", id).decode()
            (entry,) = [
                entry
                for entry in cast("list[dict[str, object]]", value(folder, "queue", "show", id)["ledger"])
                if entry["binding"] == GUILTY
            ]
            assert entry["action"] in ("reduced", "undone") and "damage" in json.dumps(entry["findings"])
            # Each is switched off by its name, and the others go on in their order.
            for name in IN_ORDER:
                run(folder, "smtpreg", "/disable", "1", "OnArrival", name)
                assert listed(folder)[name] == "Disabled"
                others = [other for other in IN_ORDER if other != name]
                assert called(folder, send(relay.ports["in"], MESSAGE, *ALL)) == others
                run(folder, "smtpreg", "/enable", "1", "OnArrival", name)
            receiver.wait_for(11)
            run(folder, "sinks", "disable", "--group", "XEXCH50")
            assert called(folder, send(relay.ports["in"])) == [ANTIVIRUS, GUILTY]


def firing(folder: Path) -> list[str]:
    """Names by `sinks order`, for a message that all are called for."""
    text = run(folder, "sinks", "order", *(word for to in ALL for word in ("--to", to))).decode()
    return re.findall(r"^ +\d +\d+  (.*?)(?:  .*)?$", text, re.MULTILINE)
