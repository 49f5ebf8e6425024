"""`lonedot route` beside a running relay, and without one: rewriting, aliases, lists, and what of DNS is kept."""

from __future__ import annotations

import asyncio
import contextlib
import io
from pathlib import Path

import msgspec
import pytest

from lonedot.admin.routed import Routed
from lonedot.app import Relay
from lonedot.cli import run
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, finished, submit
from tests.unit.delivery.name_server import name_server

CONFIG = """
[server]
hostname = "relay.example.com"
nameservers = ["127.0.0.1:{names}"]
[[listener]]
name = "in"
address = "127.0.0.1:0"
relay_from = ["127.0.0.0/8"]
[[route]]
name = "own"
to = "local.example"
hold = "to be looked at"
[[route]]
name = "reports"
to = "*.far.example"
from = "owner@local.example"
discard = true
[[route]]
name = "world"
to = "*"
mx = true
mx_port = {mx}
[[domain]]
name = "local.example"
recipients = {{ file = "people" }}
aliases = "aliases"
lists = "lists.toml"
[[rewrite]]
from = "*@old.example"
to = "*@old.example"
into = "*@local.example"
"""
LISTS = """
[lists.staff]
owner = "owner@local.example"
members = ["anna", "bert@x.far.example"]
post = ["@local.example"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "people").write_text("anna\n")
    (tmp_path / "aliases").write_text("chief: anna, carl@dest.example, nobody@gone.example\n")
    (tmp_path / "lists.toml").write_text(LISTS)
    return tmp_path


async def told(file: Path, *arguments: str) -> tuple[int, str]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = await asyncio.to_thread(run, ["route", *arguments, "-c", str(file)])
    return code, out.getvalue()


async def both(relay: Relay, *arguments: str) -> tuple[int, list[str]]:
    """What the running relay says; by its file it is the same, but for what is kept of DNS."""
    file = relay.config.file
    of_relay = await told(file, *arguments)
    of_file = await told(file, *arguments, "--from-file")
    assert (of_file[0], of_file[1].replace("from DNS", "kept")) == (
        of_relay[0],
        of_relay[1].replace("from DNS", "kept"),
    )
    return of_relay[0], of_relay[1].splitlines()


async def test_rewriting_aliases_and_lists(folder: Path) -> None:
    zone = {"dest.example": ["MX 10 host.example"], "host.example": ["A 127.0.0.1"]}
    async with (
        name_server(zone) as names,
        running_relay(folder, CONFIG.format(names=names.port, mx=2526)) as relay,
    ):
        code, lines = await both(relay, "anna@old.example", "--from", "x@old.example")
        assert (code, lines) == (
            0,
            [
                "x@old.example is now x@local.example (rewrite 1)",
                "anna@old.example is now anna@local.example (rewrite 1)",
                "route own: hold: to be looked at",
            ],
        )
        code, lines = await both(relay, "chief@old.example")
        assert code == 1
        assert lines[:4] == [
            "chief@old.example is now chief@local.example (rewrite 1)",
            "chief@local.example leads to 3 addresses",
            "  anna@local.example",
            "    route own: hold: to be looked at",
        ]
        assert lines[4] == "  carl@dest.example"
        assert lines[5].startswith("    route world: mx of dest.example (")
        assert lines[-1] == (
            "returned to the sender (5.1.2): 1 of 3 would not arrive: the domain gone.example does not exist"
        )
        code, lines = await both(relay, "staff@local.example", "--from", "x@old.example")
        assert (code, lines) == (
            0,
            [
                "x@old.example is now x@local.example (rewrite 1)",
                "staff@local.example leads to 2 addresses",
                "list staff@local.example: 2 members, in the name of owner@local.example",
                "  anna@local.example, of the list staff@local.example",
                "    route own: hold: to be looked at",
                "  bert@x.far.example, of the list staff@local.example",
                "    route reports: discard: it counts as delivered, and is gone",
            ],
        )
        code, lines = await both(relay, "staff@local.example", "--from", "x@else.example")
        assert code == 1 and lines[-1].startswith("returned to the sender (5.7.2): ")
        code, lines = await both(relay, "nobody@local.example")
        assert code == 1 and lines[-1].startswith("returned to the sender (5.1.1): ")


async def test_what_a_delivery_has_asked_of_dns_is_told_as_kept(folder: Path) -> None:
    zone = {"dest.example": ["MX 10 host.example"], "host.example": ["A 127.0.0.1"]}
    with StrictSink() as hop:
        async with name_server(zone) as names:
            toml = CONFIG.format(names=names.port, mx=hop.port)
            async with running_relay(folder, toml) as relay:
                file = relay.config.file
                await finished(relay, await submit(relay, MESSAGE, "carl@dest.example"))
                asked = names.asked.total()
                code, text = await told(file, "carl@dest.example", "--json")
                routed = msgspec.json.decode(text, type=Routed)
                assert names.asked.total() == asked
                assert code == 0
                assert (routed.from_cache, routed.hosts[0].from_cache) == (True, True)
                assert 0 < routed.ttl_seconds <= 300 and 0 < routed.hosts[0].ttl_seconds <= 300
                assert routed.revision == relay.config.revision
                file.write_text(file.read_text().replace("to be looked at", "another"))
                code, text = await told(file, "anna@local.example")
                assert f"the relay runs {relay.config.revision}" in text
                assert "hold: to be looked at" in text
                code, text = await told(file, "anna@local.example", "--from-file")
                assert "hold: another" in text
            code, text = await told(file, "carl@dest.example", "--json")
            assert msgspec.json.decode(text, type=Routed).from_cache is False
