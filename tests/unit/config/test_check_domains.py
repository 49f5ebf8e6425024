"""`[[domain]]` with recipients in a database: what check says, and what nobody is shown."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from lonedot.config.domains import recipient_source
from lonedot.config.effective import toml_of
from lonedot.config.faults import Severity
from lonedot.config.load import examine
from lonedot.config.values import Unfit
from tests.system.talk import first_config

QUERY = 'query = "select 1 from users where address = :address"'
DOMAIN = '\n[[domain]]\nname = "here.example"\nrecipients = {{ {} }}\n'


def faults(folder: Path, recipients: str) -> list[str]:
    """What is wrong with the key, in the words of check."""
    file = folder / "lonedot.toml"
    file.write_text(first_config(2526, more=DOMAIN.format(recipients)))
    file.chmod(0o600)
    found = [one for one in examine(file).faults if one.severity is Severity.FAULT]
    line = file.read_text().split("\n").index(DOMAIN.format(recipients).split("\n")[3]) + 1
    assert all(one.line == line for one in found), found
    return [f"{one.what}; {one.do}" for one in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    sqlite3.connect(tmp_path / "users.db").close()
    return tmp_path


@pytest.mark.parametrize(
    "recipients",
    [
        f'sql = "sqlite:///users.db", {QUERY}',
        f'sql = "postgresql://relay@db.example.com/mail", {QUERY}',
        f'sql = "postgresql+psycopg:///mail?host=/run/postgresql", {QUERY}',
    ],
)
def test_a_database_that_may_be_reached_has_no_fault(folder: Path, recipients: str) -> None:
    assert faults(folder, recipients) == []


@pytest.mark.parametrize(
    ("recipients", "words"),
    [
        ('sql = "sqlite:///users.db"', "no query"),
        (f'sql = "sqlite:///missing.db", {QUERY}', "no file"),
        (f'sql = "sqlite://", {QUERY}', "not the address"),
        (f'sql = "sqlite:///:memory:", {QUERY}', "no file of SQLite"),
        (f'sql = "mysql://x/y", {QUERY}', "not the address"),
        ('sql = "sqlite:///users.db", query = "select 1 from users"', "nobody"),
        ('sql = "sqlite:///users.db", query = "select 1 where :user = 1"', ":user"),
        (f'sql = "sqlite:///users.db", {QUERY}, table = "x"', "table"),
        (f'sql = "postgresql://r:hushhush@db/x", {QUERY}', "password"),
        (f'sql = "postgresql://db/x?user=r&password=hushhush", {QUERY}', "password"),
        (f'sql = "mysql://r:hushhush@db/x", {QUERY}', "not the address"),
        (f'sql = "postgresql://[::1/x", {QUERY}', "PostgreSQL"),
        (f'sql = "postgresql://r@db/x", {QUERY}, password_file = "missing"', "missing"),
        (f'sql = "postgresql://r@db/x", {QUERY}, password_env = "NO_SUCH_VARIABLE"', "NO_SUCH_VARIABLE"),
        (f'sql = "postgresql://r@db/x", {QUERY}, password_command = ["no-such-program"]', "no-such-program"),
        (f'sql = "postgresql://r@db/x", {QUERY}, password_env = "A", password_file = "b"', "keep one"),
    ],
)
def test_each_fault_says_what_to_write(folder: Path, recipients: str, words: str) -> None:
    (found,) = faults(folder, recipients)
    assert words in found
    assert "hushhush" not in found


def test_a_password_that_everybody_can_read_is_a_fault(folder: Path) -> None:
    (folder / "db.password").write_text("hush\n")
    (folder / "db.password").chmod(0o644)
    recipients = f'sql = "postgresql://r@db/x", {QUERY}, password_file = "db.password"'
    (found,) = faults(folder, recipients)
    assert "chmod 600" in found
    (folder / "db.password").chmod(0o600)
    assert faults(folder, recipients) == []


def test_the_configuration_is_shown_as_it_is_written(folder: Path) -> None:
    value = {"sql": "sqlite:///users.db", "query": "select :local", "password_command": ["./tell", "db"]}
    shown = toml_of(recipient_source(value, folder))
    assert shown == (
        f'{{ sql = "sqlite:///{folder}/users.db", query = "select :local", '
        f'password_command = ["{folder}/tell", "db"] }}'
    )
    assert toml_of(recipient_source({"lmtp": "unix:/run/x"}, folder)) == '{ lmtp = "unix:/run/x" }'


@pytest.mark.parametrize("value", [{}, {"sql": 1, "query": "x"}, {"sql": "", "query": "x"}, {"query": "x"}])
def test_what_is_no_source_is_unfit(folder: Path, value: dict[str, object]) -> None:
    with pytest.raises(Unfit):
        recipient_source(value, folder)


def test_each_line_of_a_file_of_aliases_is_a_fault_of_its_own(folder: Path) -> None:
    (folder / "aliases").write_text("root: anna\nnobody: /dev/null\nall: :include:/etc/all\n")
    (folder / "people").write_text("anna\nb c\nd e\n")
    (folder / "lonedot.toml").write_text(
        first_config(2526, more=DOMAIN.format('file = "people"') + 'aliases = "aliases"\n')
    )
    found = {one.what.partition(": ")[0]: one for one in examine(folder / "lonedot.toml").faults}
    places = [f"{folder}/{name}" for name in ("people:2", "people:3", "aliases:2", "aliases:3")]
    assert set(places) <= found.keys()
    assert found[places[2]].do == 'write [[route]] with to = "nobody@here.example" and discard = true'
    assert {found[place].where.rpartition(" ")[2] for place in places} == {"recipients", "aliases"}
