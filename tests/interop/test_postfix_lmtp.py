"""A real Postfix hands mail over by LMTP, over a unix socket and over loopback: a reply for each recipient."""

from __future__ import annotations

import asyncio
import re
import smtplib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lonedot.testing.relay import running_relay
from tests.peers.postfix import Postfix, PostfixSettings, need_postfix
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, eventually, first_config, strangers_only

LISTENER = 'protocol = "lmtp"\n'
DOMAIN = """
[[domain]]
name = "dest.example"
recipients = { file = "people" }
lists = "lists.toml"
"""
LISTS = '[lists.closed]\nowner = "anna"\nmembers = ["anna"]\npost = ["@dest.example"]\n'
PEOPLE = ("anna", "nobody", "bert", "closed")
_STATUS = re.compile(r"lmtp\[\d+\].* to=<(\w+)@dest\.example>.* dsn=([\d.]+), status=(\w+) \((.*)\)")


@asynccontextmanager
async def relay_at(folder: Path, over: str, port: int) -> AsyncIterator[str]:
    """A relay that speaks LMTP there: what Postfix calls it."""
    (folder / "people").write_text("anna\nbert\n")
    (folder / "lists.toml").write_text(LISTS)
    toml = first_config(port, listener=LISTENER, more=DOMAIN)
    with tempfile.TemporaryDirectory(prefix="lonedot-") as place:
        Path(place).chmod(0o755)
        if over == "socket":
            where = f'address = "unix:{place}/lmtp"\ngroup = "postfix"'
            toml = strangers_only(toml).replace('address = "127.0.0.1:0"', where)
        async with running_relay(folder, toml) as relay:
            host, bound = relay.addresses["in"]
            yield f"unix:{host}" if over == "socket" else f"inet:[{host}]:{bound}"


def hand_in(postfix: Postfix, octets: bytes, *people: str) -> None:
    with smtplib.SMTP(*postfix.address) as client:
        assert client.sendmail("c@office.example", [f"{one}@dest.example" for one in people], octets) == {}


def said(postfix: Postfix) -> dict[str, tuple[str, str, str]]:
    """What its log says of each recipient: enhanced code, status, words."""
    return {name: (dsn, status, words) for name, dsn, status, words in _STATUS.findall(postfix.log_text())}


@pytest.mark.parametrize("over", ["socket", "host"])
async def test_postfix_hears_a_reply_for_each_recipient(tmp_path: Path, over: str) -> None:
    need_postfix()
    with StrictSink() as receiver:
        async with relay_at(tmp_path, over, receiver.port) as where:
            settings = PostfixSettings(
                parameters={
                    "default_transport": f"lmtp:{where}",
                    "relay_transport": f"lmtp:{where}",
                    "defer_transports": "",
                }
            )
            with Postfix(settings) as postfix:
                await asyncio.to_thread(hand_in, postfix, MESSAGE, *PEOPLE)
                await eventually(lambda: len(said(postfix)) == len(PEOPLE))
                found = said(postfix)
            await eventually(lambda: receiver.arrivals)
    assert found["anna"][:2] == found["bert"][:2] == ("2.0.0", "sent")
    assert "Ok: queued as" in found["anna"][2]
    assert found["anna"][2] == found["bert"][2], "one message, and a reply for each"
    assert found["nobody"][:2] == ("5.1.1", "bounced")
    assert "No such mailbox" in found["nobody"][2]
    assert found["closed"][:2] == ("5.7.2", "bounced")
    (arrival,) = [one for one in receiver.arrivals if one.reverse_path == b"c@office.example"]
    assert set(arrival.recipients) == {b"anna@dest.example", b"bert@dest.example"}
    assert receiver.faults == []


async def test_what_cannot_be_said_now_stays_with_postfix(tmp_path: Path) -> None:
    need_postfix()
    with StrictSink() as receiver:
        async with relay_at(tmp_path, "socket", receiver.port) as where:
            (tmp_path / "people").unlink()
            settings = PostfixSettings(
                parameters={"default_transport": f"lmtp:{where}", "defer_transports": ""}
            )
            with Postfix(settings) as postfix:
                await asyncio.to_thread(hand_in, postfix, MESSAGE, "anna", "bert")
                await eventually(lambda: len(said(postfix)) == 2)
                assert {one[:2] for one in said(postfix).values()} == {("4.3.0", "deferred")}
                (tmp_path / "people").write_text("anna\nbert\n")
                await asyncio.to_thread(postfix.flush)
                await eventually(lambda: {one[:2] for one in said(postfix).values()} == {("2.0.0", "sent")})
                await eventually(lambda: receiver.arrivals)
    (arrival,) = receiver.arrivals
    assert set(arrival.recipients) == {b"anna@dest.example", b"bert@dest.example"}
