"""The built-in sinks: each is listed, bound as its first configuration says, and has a page that names all of it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import cast

import pytest

import lonedot.sinks.builtin
from bench.builtin import BUILTIN
from bench.builtin_sessions import measured_names
from lonedot.cli import run
from lonedot.sinks.bindings import Role
from lonedot.sinks.catalogue import FIRST_SETTINGS, BuiltIn, built_ins
from lonedot.sinks.events import Event
from lonedot.sinks.load import bind, load_import
from tests.unit.sinks.builtin.dkim_keys import Keys

ROOT = Path(__file__).resolve().parents[3]
ALL = {one.name: one for one in built_ins()}
BY_PATH = {"lonedot.sinks.builtin.faulty:x_recipient_list"}
"""Those that have no short name, because nobody should bind them without meaning to."""

every_one = pytest.mark.parametrize("one", ALL.values(), ids=ALL)


def test_every_module_is_listed() -> None:
    """Those that declare a sink, by their text."""
    declaring = {
        path.stem
        for path in Path(lonedot.sinks.builtin.__path__[0]).glob("*.py")
        if re.search(r"^@sink\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {one.code.partition(":")[0].rpartition(".")[2] for one in ALL.values()} == declaring
    assert {"milter", "milter-session", "x-recipient"} <= set(ALL)


def test_names_and_titles_are_told_apart() -> None:
    assert {name for name in ALL if "." in name} == BY_PATH
    assert len({one.title for one in ALL.values()}) == len(ALL)
    assert set(FIRST_SETTINGS) <= set(ALL)


@every_one
def test_it_can_be_bound_as_its_first_configuration_says(one: BuiltIn, tmp_path: Path) -> None:
    (entry,) = tomllib.loads(one.first)["sink"]
    if "key" in entry.get("settings", {}):  # it is read when the binding is made
        entry["settings"]["key"] = str(Keys().write_ed25519(tmp_path))
    binding = bind(
        load_import(entry["import"]),
        sink_class=entry["import"],
        name=entry["name"],
        settings=entry.get("settings", {}),
    )
    assert (binding.event, binding.priority, binding.role) == (one.event, one.priority, one.role)


@every_one
def test_what_is_said_of_it(one: BuiltIn) -> None:
    assert one.about.endswith(".") and len(one.about) < 200
    unsaid = {setting.name for setting in one.settings if setting.is_required and not setting.meaning}
    assert not unsaid, "a setting without a default says what it is: a text behind the field"


@every_one
def test_it_has_a_page_that_names_its_settings(one: BuiltIn) -> None:
    page = (ROOT / one.page).read_text(encoding="utf-8")
    assert one.name in page
    assert [setting.name for setting in one.settings if f"`{setting.name}`" not in page] == []


def test_what_each_costs_is_measured() -> None:
    """A coroutine of a session is measured with the sink of messages that has its settings."""
    lines = [line.replace("_", "-") for line in BUILTIN]
    unmeasured = {
        name
        for name in set(ALL) - BY_PATH - measured_names() - {"milter-session"}
        if not any(line.startswith(name) for line in lines)
    }
    assert not unmeasured, "add a line to BUILTIN in bench/builtin.py"


def test_one_of_them() -> None:
    one = ALL["milter"]
    assert (one.event, one.role, one.title) == (Event.END_OF_DATA, Role.PROTECTIVE, "Milter")
    settings = {setting.name: setting for setting in one.settings}
    assert settings["address"].is_required and settings["address"].meaning.startswith("`unix:/path`")
    assert settings["refused_recipients"].choices == ("refuse", "remove")
    assert (settings["refused_recipients"].default, settings["reply_seconds"].default) == ("refuse", 30.0)


def said(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert run(("sinks", "builtin", *words)) == code
    captured = capsys.readouterr()
    return captured.err if code else captured.out


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    listed = said(capsys)
    assert all(name in listed for name in ALL)
    shown = said(capsys, "milter")
    assert "address: text; required" in shown and 'import = "milter"' in shown
    rows = cast("list[dict[str, object]]", json.loads(said(capsys, "--json")))
    assert [row["name"] for row in rows] == list(ALL)
    assert json.loads(said(capsys, "X-Recipient", "--json"))["name"] == "x-recipient"


def test_a_name_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean milter?" in said(capsys, "mitler", code=1)
