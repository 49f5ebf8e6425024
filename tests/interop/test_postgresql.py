"""Recipients in a real PostgreSQL: in a running relay, over its restarts, without a word of the password."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lonedot.directory.faults import DirectoryFault
from lonedot.directory.sql import Database, SqlRecipients
from lonedot.observability import log
from lonedot.observability.levels import LogKind, LogLevel
from lonedot.testing.relay import running_relay
from tests.peers.postgresql import PASSWORD, ROLE, PostgreSQL, need_postgresql
from tests.peers.strict_sink import StrictSink
from tests.system.talk import connected, first_config, strangers_only

OTHER = "another: hush"
QUERY = "select 1 from users where lower(address) = :address and active::bool"
DOMAIN = """
[[domain]]
name = "here.example"
recipients = {{ sql = "{url}", query = "{query}", {password} }}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    need_postgresql()
    with PostgreSQL() as one:
        one.run("create table users (address text, active int)")
        one.run("insert into users values ('Anna@here.example', 1), ('bert@here.example', 0)")
        one.run("insert into users values ('jürgen@here.example', 1)")
        one.run(f"grant all on users to {ROLE}")
        yield one


def source(
    server: PostgreSQL, query: str = QUERY, password: str = PASSWORD, seconds: float = 15.0
) -> SqlRecipients:
    return SqlRecipients(Database(server.url(), lambda: password, seconds), query, "here.example")


async def test_who_is_there_and_who_is_not(server: PostgreSQL) -> None:
    asked = source(server)
    found = await asyncio.gather(
        *(asked.has(name) for name in ("anna", "bert", "nobody", "jürgen", "' or 1=1 --"))
    )
    assert found == [True, False, False, True, False]


async def test_nothing_is_written(server: PostgreSQL) -> None:
    with pytest.raises(DirectoryFault, match="read-only"):
        await source(server, "delete from users where address = :address returning 1").has("anna")


async def test_a_wrong_password_is_a_fault_that_does_not_show_it(server: PostgreSQL) -> None:
    with pytest.raises(DirectoryFault, match="password authentication failed") as caught:
        await source(server, password="wrong-word").has("anna")
    assert "wrong-word" not in str(caught.value)


async def test_the_server_ends_a_question_whose_time_is_over(server: PostgreSQL) -> None:
    database = Database(server.url(), lambda: PASSWORD, seconds=0.2)
    sleeping = SqlRecipients(database, "select pg_sleep(60) where :local <> ''", "here.example")
    began = time.monotonic()
    found = await asyncio.gather(*(sleeping.has("anna") for _ in range(8)), return_exceptions=True)
    assert {str(one).partition(": ")[2] for one in found} == {"canceling statement due to statement timeout"}
    assert time.monotonic() - began < 20
    assert await SqlRecipients(database, QUERY, "here.example").has("anna")


@pytest.mark.parametrize(
    "key", ['password_file = "db.password"', 'password_command = ["cat", "db.password"]']
)
async def test_a_relay_outlives_the_restart_of_the_database(
    server: PostgreSQL, tmp_path: Path, key: str
) -> None:
    secret = tmp_path / "db.password"
    secret.write_text(f"{PASSWORD}\n")
    secret.chmod(0o600)
    key = key.replace('["cat", "db.password"]', f'["cat", "{secret}"]')
    more = DOMAIN.format(url=server.url(), query=QUERY, password=key)
    stream = io.BytesIO()
    log.configure(LogKind.JSON, LogLevel.WARNING, stream)
    with StrictSink() as receiver:
        async with (
            running_relay(tmp_path, strangers_only(first_config(receiver.port, more=more))) as relay,
            connected(relay) as client,
        ):

            async def rcpt(name: str) -> str:
                return (await client.say(f"RCPT TO:<{name}@here.example>"))[:9]

            await client.say("MAIL FROM:<c@office.example>")
            assert await rcpt("anna") == "250 2.1.5"
            assert await rcpt("nobody") == "550 5.1.1"
            await asyncio.to_thread(server.stop)
            assert await rcpt("anna") == "250 2.1.5", "it is remembered"
            assert await rcpt("somebody") == "451 4.3.0"
            await asyncio.to_thread(server.start)
            server.run(f"alter role {ROLE} password '{OTHER}'")
            assert await rcpt("somebody") == "451 4.3.0"
            secret.write_text(f"{OTHER}\n")
            assert await rcpt("somebody") == "550 5.1.1", "the password is read for each connection"
            server.run(f"alter role {ROLE} password '{PASSWORD}'")
            events = [event.words for event in relay.events.read()]
    log.flush()
    said = "\n".join(events) + stream.getvalue().decode()
    assert "directory.fault" in said and "password authentication failed" in said
    assert PASSWORD not in said and OTHER not in said
