"""`lonedot config` as a person and a program see it."""

import json
from pathlib import Path

import pytest

from lonedot.cli import run
from tests.unit.config.conftest import LISTENER, ROUTE, SERVER


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "lonedot.toml"
    path.write_text(SERVER + LISTENER + ROUTE)
    return path


def test_values_with_their_lines(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", "-c", str(file)]) == 0
    said = capsys.readouterr().out
    assert f"# {file}:2" in said and "hop_limit = 30" in said and "# default" in said


def test_one_table_and_only_what_was_changed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", "-c", str(file), "--changed", "--json", "route"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [table["table"] for table in answer["tables"]] == ["[[route]]"]
    assert {value["key"] for value in answer["tables"][0]["values"]} >= {"to", "smarthost"}
    assert all(value["origin"] != "default" for value in answer["tables"][0]["values"])


def test_faults_come_instead_of_values(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(SERVER + "x = 1\n" + LISTENER + ROUTE)
    assert run(["config", "show", "-c", str(file)]) == 1
    said = capsys.readouterr()
    assert f"{file}:4:1: fault" in said.err and not said.out
    assert run(["config", "show", "-c", str(file), "nonsense"]) == 2


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["properties"]["server"]["additionalProperties"] is False
