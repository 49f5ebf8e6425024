"""Recipients in a database: a real file of SQLite; yes, no, and what is neither."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lonedot.directory.faults import DirectoryFault
from lonedot.directory.sql import Database, SqlRecipients, fault_of_query, fault_of_url

QUERY = "select 1 from users where address = :address"
ENDLESS = (
    "with recursive n(x) as (select 1 union all select x + 1 from n) select max(x) from n where :local <> ''"
)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users with blanks.db"
    with sqlite3.connect(path) as database:
        database.execute("create table users (address text, local text, active int)")
        database.executemany(
            "insert into users values (?, ?, ?)",
            [
                ("anna@here.example", "anna", 1),
                ("bert@here.example", "bert", 0),
                ("o'neil@here.example", "o'neil", 1),
            ],
        )
    database.close()
    return path


def source(
    path: Path, query: str = QUERY, domain: str = "here.example", seconds: float = 15.0
) -> SqlRecipients:
    return SqlRecipients(Database(f"sqlite:///{path}", seconds=seconds), query, domain)


async def test_a_row_is_a_yes_and_what_is_bound_is_never_syntax(users: Path) -> None:
    asked = source(users)
    assert await asked.has("anna")
    assert await asked.has("o'neil")
    for name in ("nobody", "' or '1'='1", "anna' --", "%", ":address", "", "an\x00na", "x" * 10_000):
        assert not await asked.has(name), name
    assert not await source(users, domain="there.example").has("anna")


@pytest.mark.parametrize(
    "query",
    [
        "select active from users where local = :local",
        "select exists(select 1 from users where local = :local and active)",
        "select count(*) from users where local = :local and active and :domain = 'here.example'",
    ],
)
async def test_null_false_and_zero_are_no(users: Path, query: str) -> None:
    asked = source(users, query)
    assert await asked.has("anna")
    assert not await asked.has("bert")
    assert not await asked.has("nobody")


@given(st.text(max_size=70))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_client_says_is_answered(users: Path, local: str) -> None:
    known = {"anna", "bert", "o'neil"}
    try:
        local.encode()
    except UnicodeEncodeError:
        return  # a key is made of octets
    assert asyncio.run(source(users).has(local)) is (local in known)


async def test_nothing_is_written_and_no_file_is_made(users: Path, tmp_path: Path) -> None:
    with pytest.raises(DirectoryFault, match="readonly"):
        await source(users, "delete from users where local = :local returning 1").has("anna")
    assert await source(users).has("anna")
    missing = tmp_path / "missing.db"
    with pytest.raises(DirectoryFault, match="unable to open"):
        await source(missing).has("anna")
    assert not missing.exists()


@pytest.mark.parametrize("query", ["select 1 from nothing where x = :local", "not sql :local"])
async def test_a_fault_of_the_database_is_not_a_no(users: Path, query: str) -> None:
    with pytest.raises(DirectoryFault) as caught:
        await source(users, query).has("secret-name")
    assert "secret-name" not in str(caught.value)
    assert "sqlalche.me" not in str(caught.value)


async def test_a_file_that_comes_back_is_asked_again(users: Path) -> None:
    asked, gone = source(users), users.with_name("gone")
    users.rename(gone)
    with pytest.raises(DirectoryFault):
        await asked.has("anna")
    gone.rename(users)
    assert await asked.has("anna")


async def test_a_question_ends_in_its_time_and_frees_its_thread(users: Path) -> None:
    database = Database(f"sqlite:///{users}", seconds=0.1)
    endless = SqlRecipients(database, ENDLESS, "here.example")
    began = time.monotonic()
    found = await asyncio.gather(*(endless.has("anna") for _ in range(8)), return_exceptions=True)
    assert all(isinstance(one, DirectoryFault) for one in found), found
    assert time.monotonic() - began < 20
    assert await SqlRecipients(database, QUERY, "here.example").has("anna")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (QUERY, ""),
        ("select x::int from t where y = :local", ""),
        ("select 1 from t where d = :domain", "asks for nobody"),
        ("select 1 from t", "asks for nobody"),
        ("select 1 from t where a = :user", ":user"),
    ],
)
def test_what_a_query_names_is_judged(query: str, words: str) -> None:
    assert words in fault_of_query(query)
    assert bool(words) is bool(fault_of_query(query))


def test_an_address_is_judged_without_being_reached() -> None:
    assert fault_of_url("postgresql+psycopg://relay@192.0.2.1/mail") == ""
    assert "cannot be used" in fault_of_url("nosuch://x/y")
