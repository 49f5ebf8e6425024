"""Intersite: mail for an exact address is handed over and consumed, once, and never lost."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lonedot.message.intake import content_from
from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin.intersite import Intersite, IntersiteSettings
from lonedot.sinks.calls import Decision, Dispatched
from lonedot.sinks.dispatch import dispatch_with, steps
from lonedot.sinks.hosts import Hosts
from lonedot.sinks.load import bind
from lonedot.spool.interface import Facts
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import SessionId
from lonedot.testing.clock import ManualClock

USER = "nobody" if os.geteuid() == 0 else ""
EXACT = "_IsmService@5f3c._msdcs.example.com"
OCTETS = b"Subject: Intersite message\r\nContent-Type: image/gif\r\n\r\nAAAA\r\n.dot\r\n"
FACTS = Facts("smtp", SessionId("0000000000001"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a program may write, whoever it is: pytest's own folders are open to one user alone."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o777)
        yield path


async def dispatched(
    *recipients: str,
    split: bool | None = None,
    rule: str | None = None,
    octets: bytes = OCTETS,
    **settings: Setting,
) -> Dispatched:
    """The message through the chain, from custody."""
    bound = bind(
        Intersite,
        sink_class="lonedot.sinks.builtin.intersite:Intersite",
        settings=settings,
        split=split,
        rule=rule,
    )
    told = Envelope(
        Address(b"a@example.com"), tuple(Recipient(Address(one.encode())) for one in recipients or (EXACT,))
    )
    hosts = Hosts()
    try:
        chain = steps(
            "2AB4C6D8E0F12",
            told,
            FACTS,
            content_from(octets),
            [bound],
            ManualClock(),
            until_custody=False,
            routes=frozenset({"store"}),
        )
        return await dispatch_with(chain, None, hosts, False)
    finally:
        await hosts.close()


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.eml"))


async def test_into_a_folder(tmp_path: Path) -> None:
    done = await dispatched(folder=str(tmp_path / "taken"))
    (file,) = files(tmp_path)
    assert file.read_bytes() == OCTETS
    assert (done.decision, done.words) == (Decision.DISCARD, f"filed as {file}")
    assert done.entries[0].words == f"filed as {file}"
    await dispatched(folder=str(tmp_path / "taken"))
    assert files(tmp_path) == [file]


async def test_others_get_their_copies(tmp_path: Path) -> None:
    done = await dispatched("b@example.org", EXACT, "c@example.org", folder=str(tmp_path))
    assert done.decision is Decision.ACCEPT
    assert done.discarded == (1,)
    assert len(files(tmp_path)) == 1


async def test_its_rule_is_an_exact_name(tmp_path: Path) -> None:
    for address in ("x_IsmService@example.com", "_IsmServices@example.com", "b@_IsmService.example.com"):
        done = await dispatched(address, folder=str(tmp_path))
        assert (done.decision, done.entries) == (Decision.ACCEPT, ())
    done = await dispatched("b@example.org", rule="RCPT TO=b@example.org", folder=str(tmp_path))
    assert done.decision is Decision.DISCARD


async def test_a_message_of_several_is_consumed_for_nobody(tmp_path: Path) -> None:
    done = await dispatched("b@example.org", EXACT, split=False, folder=str(tmp_path))
    assert done.decision is Decision.DEFER
    assert "split = true" in done.words
    assert not files(tmp_path)


async def test_to_a_program(folder: Path) -> None:
    command = (
        f"/bin/sh -c 'cat >{folder}/got; echo $LONEDOT_RECIPIENTS >>{folder}/to; echo stored as $LONEDOT_KEY'"
    )
    done = await dispatched(command=command, user=USER)
    assert (folder / "got").read_bytes() == OCTETS
    assert (folder / "to").read_text() == EXACT + "\n"
    assert done.decision is Decision.DISCARD
    found = re.fullmatch("taken by /bin/sh under the key ([0-9a-f]{32}): stored as (.*)", done.words)
    assert found
    assert found[1] == found[2]


@pytest.mark.parametrize(
    ("text", "decision", "words"),
    [
        ("cat >/dev/null; echo no >&2; exit 77", Decision.REJECT, "no"),
        ("cat >/dev/null; echo full; exit 75", Decision.DEFER, "full"),
        ("cat >/dev/null; exit 1", Decision.DEFER, "status 1"),
        ("kill -9 $$", Decision.DEFER, "SIGKILL"),
    ],
)
async def test_a_program_that_does_not_take_it(text: str, decision: Decision, words: str) -> None:
    done = await dispatched(command=f"/bin/sh -c '{text}'", user=USER)
    assert done.decision is decision
    assert words in done.words
    assert not done.discarded


async def test_what_was_not_read_is_not_taken() -> None:
    large = OCTETS + b"AAAA\r\n" * 100_000  # more than a pipe holds
    done = await dispatched(command="/bin/sh -c 'exit 0'", user=USER, octets=large)
    assert done.decision is Decision.DEFER
    assert "has not read the whole message" in done.words


class Endpoint:
    """Answers each request with the next status, and keeps what it was asked."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self.heads.append(head)
        self.bodies.append(await reader.readexactly(size))
        status = self.statuses.pop(0)
        if status:
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 9\r\nConnection: close\r\n\r\nreceipt 7" % status)
            await writer.drain()
        writer.close()


async def posted(endpoint: Endpoint) -> Dispatched:
    server = await asyncio.start_server(endpoint, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        return await dispatched(url=f"http://127.0.0.1:{port}/take?secret=x")
    finally:
        server.close()


async def test_to_an_endpoint_once_by_its_key() -> None:
    endpoint = Endpoint(0, 200)
    done = await posted(endpoint)
    assert done.decision is Decision.DISCARD
    assert done.words.endswith("200: receipt 7")
    assert "secret" not in done.words
    assert endpoint.bodies == [OCTETS, OCTETS]
    keys = {head.partition(b"Idempotency-Key: ")[2].partition(b"\r\n")[0] for head in endpoint.heads}
    assert len(keys) == 1
    assert keys.pop().decode() in done.words
    assert f"X-Lonedot-Recipient: {EXACT}".encode() in endpoint.heads[0]


@pytest.mark.parametrize("status", [301, 400, 404, 429, 500, 503])
async def test_an_endpoint_that_does_not_take_it(status: int) -> None:
    done = await posted(Endpoint(status))
    assert done.decision is Decision.DEFER
    assert not done.discarded


async def test_over_a_route() -> None:
    done = await dispatched("b@example.org", EXACT, route="store")
    assert done.decision is Decision.ACCEPT
    assert done.redirects == ((1, "store"),)
    done = await dispatched(route="none such")
    assert done.decision is Decision.DEFER
    assert "none such" in done.words


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "write one of"),
        ({"folder": "/a", "route": "b"}, "write one of"),
        ({"folder": "a"}, "whole path"),
        ({"command": "cat"}, "whole path"),
        ({"url": "x"}, "write https"),
        ({"folder": "/a", "environment": "x"}, "has no ="),
        ({"folder": "/a", "memory": 1}, "write octets"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        IntersiteSettings(**settings)  # type: ignore[arg-type]  # some are numbers
