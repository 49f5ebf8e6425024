"""The page of events: its example works, its test passes, and its order is that of the table."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import cast

from lonedot import Accept, Edit, Message, Next
from lonedot.sinks.events import Event
from lonedot.sinks.load import load_file
from lonedot.testing import make_hop, make_message, make_session

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "events.md").read_text(encoding="utf-8")


EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_example_and_its_test(tmp_path: Path) -> None:
    example, test, *_ = EXAMPLES
    (tmp_path / "full_mailboxes.py").write_text(example, encoding="utf-8")
    (tmp_path / "test_full_mailboxes.py").write_text(test, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr


def test_the_example_of_logins(tmp_path: Path) -> None:
    (tmp_path / "devices.py").write_text(EXAMPLES[2], encoding="utf-8")
    devices = load_file(tmp_path / "devices.py")
    for login, verdict in (
        (("scanner", "a long password"), Accept()),
        (("scanner", "a password"), Next()),
        (("other", ""), Next()),
    ):
        shown = make_session("auth", login=login)
        assert devices.call_with({})(cast(Message, shown)) == verdict


def test_the_example_of_an_attempt(tmp_path: Path) -> None:
    (tmp_path / "stamp.py").write_text(EXAMPLES[3], encoding="utf-8")
    stamp = load_file(tmp_path / "stamp.py")
    message = make_message(event="message-start", hop=make_hop("message-start", route="partner"))
    assert stamp.call_with({})(message) == Next(edits=[Edit.add_field("X-Sent-Over", "partner")])


def test_every_event_is_named_before_the_table() -> None:
    prose = PAGE.split("## The table")[0]
    assert all(f"`{event.value}`" in prose for event in Event)
