"""What `docs/sink-author.md` shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lonedot.config.load import load
from lonedot.message.edits import Effect
from lonedot.message.intake import content_from
from lonedot.message.ledger import Action
from lonedot.sinks.dispatch import Decision, dispatch
from lonedot.sinks.load import bind, load_file
from lonedot.sinks.sink import Sink
from lonedot.spool.interface import Facts
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import SessionId
from lonedot.testing.clock import ManualClock

PAGE = Path(__file__).parents[4] / "docs" / "sink-author.md"
MAIL = b"Subject: an order\r\n\r\nten crates\r\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def department(tmp_path: Path) -> Sink:
    (tmp_path / "sinks").mkdir()
    (tmp_path / "sinks" / "department.py").write_text(blocks("python")[0])
    return load_file(tmp_path / "sinks" / "department.py")


def envelope(*recipients: bytes) -> Envelope:
    return Envelope(Address(b"a@example.com"), tuple(Recipient(Address(octets)) for octets in recipients))


@pytest.mark.parametrize(
    ("recipients", "largest", "decision", "lead"),
    [
        ((b"sales@example.com",), 1000, Decision.ACCEPT, b"X-Department: sales\r\n"),
        ((b"sales@example.com", b"it@example.com"), 1000, Decision.ACCEPT, b""),
        ((b"sales@example.org",), 1, Decision.ACCEPT, b""),
        ((b"sales@example.com",), 10, Decision.HOLD, b""),
    ],
)
def test_the_example_runs(
    department: Sink, recipients: tuple[bytes, ...], largest: int, decision: Decision, lead: bytes
) -> None:
    binding = bind(department, sink_class="department.py", settings={"largest": largest})
    facts = Facts("test", SessionId("0000000000000"))
    done = dispatch("id", envelope(*recipients), facts, content_from(MAIL), [binding], ManualClock())
    assert done.decision is decision
    assert done.content.octets() == lead + MAIL
    assert [entry.action for entry in done.entries if lead] == [Action.KEPT] * bool(lead)


def test_the_configuration_takes_it(department: Sink, tmp_path: Path) -> None:
    file = tmp_path / "lonedot.toml"
    file.write_text(
        '[server]\nhostname = "relay.example.com"\nspool = "spool"\n'
        '[[listener]]\naddress = "127.0.0.1:2525"\n'
        '[[route]]\nto = "*"\nsmarthost = "127.0.0.1:2526"\n' + blocks("toml")[0]
    )
    (entry,) = load(file).sinks
    assert entry.name == department.name == "Department"
    assert department.effects == {Effect.HEADER}
    assert dict(entry.settings) == {"largest": 20_000_000}


def test_its_test_passes(department: Sink) -> None:
    names: dict[str, object] = {"department": department}
    exec(blocks("python")[1], names)  # noqa: S102  # the page's own code
    test = names["test_the_department_is_noted"]
    assert callable(test)
    test()
