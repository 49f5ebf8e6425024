"""Addresses that are written anew in the running relay: who is let in, what leaves, what is told of it."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lonedot.app import Relay
from lonedot.cli import run
from lonedot.spool.interface import MessageState, RecipientStatus
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import (
    MESSAGE,
    connected,
    eventually,
    finished,
    first_config,
    id_of,
    reports_of,
    strangers_only,
    submit,
)
from tests.unit.delivery.peer import Peer, running

REWRITE = """
[[rewrite]]
to = "boss@old.example"
into = "chief@local.example"
[[rewrite]]
from = "*@old.example"
to = ["*@old.example", "*@*.old.example"]
into = "*@local.example"
[[rewrite]]
to = "*@local.example"
into = "*@never.example"
"""
DOMAIN = """
[[domain]]
name = "local.example"
recipients = { file = "people" }
aliases = "aliases"
lists = "lists.toml"
"""
LISTS = """
[lists.staff]
owner = "owner@old.example"
members = ["anna", "bert@old.example"]
post = "local"
"""
ONWARD = REWRITE[: REWRITE.rindex("[[rewrite]]")]
MORE = DOMAIN + ONWARD


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "people").write_text("anna\nbert\n")
    (tmp_path / "aliases").write_text("chief: anna, far@away.example\n")
    (tmp_path / "lists.toml").write_text(LISTS)
    return tmp_path


@contextlib.asynccontextmanager
async def relaying(folder: Path, more: str, *, relay_to: str = "") -> AsyncIterator[tuple[Relay, StrictSink]]:
    with StrictSink() as receiver:
        toml = first_config(receiver.port, listener=relay_to, server='keep_content = "all"', more=more)
        async with running_relay(folder, strangers_only(toml) if relay_to else toml) as relay:
            yield relay, receiver


async def test_sender_and_recipients_leave_under_new_names_and_the_content_as_it_was(folder: Path) -> None:
    async with relaying(folder, REWRITE) as (relay, receiver):
        to = ("Joe@old.example", "eve@a.old.example", "carl@away.example", "dora@local.example")
        stored = await finished(relay, await submit(relay, MESSAGE, *to, sender="copier@OLD.example"))
        plain = await finished(relay, await submit(relay, MESSAGE, "carl@away.example"))
    first, second = receiver.arrivals
    assert first.reverse_path == b"copier@local.example"
    assert sorted(first.recipients) == [
        b"Joe@local.example",
        b"carl@away.example",
        b"dora@never.example",
        b"eve@local.example",
    ]
    assert first.content.endswith(MESSAGE)  # no field is changed
    assert (second.reverse_path, second.recipients) == (b"c@office.example", (b"carl@away.example",))
    assert [entry.event for entry in plain.ledger] == ["door"]
    assert [entry.event for entry in stored.ledger] == ["door", "rewrite"]
    entry = stored.ledger[-1]
    assert entry.binding == "lonedot" and entry.before == entry.after
    assert "sender copier@OLD.example is now copier@local.example (rewrite 2)" in entry.words
    assert "Joe@old.example is now Joe@local.example (rewrite 2)" in entry.words
    new = [state for state in stored.recipients if state.addressed]
    assert {state.recipient.orcpt for state in new} == {
        b"rfc822;Joe@old.example",
        b"rfc822;eve@a.old.example",
        b"rfc822;dora@local.example",
    }


async def test_what_is_written_anew_may_be_an_alias_or_a_list(folder: Path) -> None:
    async with relaying(folder, MORE) as (relay, receiver):
        id = await submit(relay, MESSAGE, "boss@old.example", "staff@old.example", sender="x@old.example")
        stored = await finished(relay, id)
        await eventually(lambda: len(receiver.arrivals) == 2)
    by_sender = {arrival.reverse_path: set(arrival.recipients) for arrival in receiver.arrivals}
    assert by_sender == {
        b"x@local.example": {b"anna@local.example", b"far@away.example"},
        # What an alias or a list says is not written anew: neither its owner, nor its members.
        b"owner@old.example": {b"anna@local.example", b"bert@old.example"},
    }
    assert [entry.event for entry in stored.ledger] == ["door", "rewrite", "resolve"]
    assert "chief@local.example leads to 2 addresses" in stored.ledger[-1].words
    assert stored.recipients[1].status is RecipientStatus.DELIVERED


async def test_a_stranger_is_let_in_by_the_address_given_and_answered_for_the_one_it_becomes(
    folder: Path,
) -> None:
    async with (
        relaying(folder, MORE, relay_to='relay_to = ["old.example"]') as (relay, _),
        connected(relay) as client,
    ):
        await client.say("MAIL FROM:<x@old.example>")
        for address, answer in (
            ("anna@old.example", "250"),
            ("boss@old.example", "250"),
            ("staff@old.example", "250"),  # its sender is local by what it becomes
            ("nobody@old.example", "550 5.1.1"),
            ("anna@local.example", "250"),
            ("anna@a.old.example", "550 5.7.1"),  # it would become local, and is not among relay_to
        ):
            assert (await client.say(f"RCPT TO:<{address}>")).startswith(answer), address


async def test_the_null_sender_stays_and_two_who_become_one_get_it_once(folder: Path) -> None:
    more = '[[rewrite]]\nfrom = "*"\nto = "*"\ninto = "test@office.example"\n'
    async with relaying(folder, more) as (relay, receiver):
        id = await submit(relay, MESSAGE, "a@x.example", "b@y.example", sender="")
        await finished(relay, id)
    (arrival,) = receiver.arrivals
    assert (arrival.reverse_path, arrival.recipients) == (b"", (b"test@office.example",))


async def test_two_addresses_that_change_places_both_get_it(folder: Path) -> None:
    more = "".join(
        f'[[rewrite]]\nto = "{one}@x.example"\ninto = "{other}@x.example"\n' for one, other in ("ab", "ba")
    )
    async with relaying(folder, more) as (relay, receiver):
        stored = await finished(relay, await submit(relay, MESSAGE, "a@x.example", "b@x.example"))
    (arrival,) = receiver.arrivals
    assert sorted(arrival.recipients) == [b"a@x.example", b"b@x.example"]
    assert {one.addressed for one in stored.recipients if one.addressed} == {b"a@x.example", b"b@x.example"}


async def test_a_report_goes_to_the_new_sender_and_names_the_address_that_was_given(folder: Path) -> None:
    peer = Peer(answers={b"RCPT": b"550 5.1.1 <joe@local.example> is unknown\r\n"})
    server = 'keep_content = "all"'
    async with (
        running(peer),
        running_relay(folder, first_config(peer.port, server=server, more=REWRITE)) as relay,
    ):
        id = await submit(relay, MESSAGE, "joe@old.example", sender="c@old.example")
        await finished(relay, id)
        (report,) = reports_of(relay, id)
        octets = b"".join(relay.spool.content(report.id).chunks())
    assert report.recipients[0].recipient.address.octets == b"c@local.example"
    assert b"Final-Recipient: rfc822; joe@old.example" in octets
    assert b"local.example" not in octets.partition(b"Final-Recipient")[2].partition(b"From: ")[0]


async def test_rules_of_a_reload_hold_for_what_comes_then(folder: Path) -> None:
    async with relaying(folder, "") as (relay, receiver):
        await finished(relay, await submit(relay, MESSAGE, "joe@old.example"))
        file = relay.config.file
        file.write_text(file.read_text() + REWRITE)
        assert (await relay.reload(0)).needs_restart == ()
        await finished(relay, await submit(relay, MESSAGE, "joe@old.example"))
    assert [arrival.recipients for arrival in receiver.arrivals] == [
        (b"joe@old.example",),
        (b"joe@local.example",),
    ]


async def test_why_tells_what_was_written_anew(folder: Path) -> None:
    async with relaying(folder, REWRITE) as (relay, _):
        id = await submit(relay, MESSAGE, "joe@old.example", sender="c@old.example")
        await finished(relay, id)
        file = relay.config.file
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert await asyncio.to_thread(run, ["why", id, "-c", str(file)]) == 0
    assert "joe@old.example is now joe@local.example (rewrite 2)" in out.getvalue()
    assert "Sender c@old.example is now c@local.example (rewrite 2)" in out.getvalue()


async def test_pickup_takes_what_becomes_routable(folder: Path) -> None:
    with StrictSink() as receiver:
        toml = first_config(receiver.port, more=ONWARD).replace('to = "*"', 'to = "local.example"')
        async with running_relay(folder, toml) as relay:
            pickup = relay.config.pickup.folder
            (pickup / "one.eml").write_bytes(
                b"x-sender: c@office.example\r\nx-receiver: joe@old.example\r\n" + MESSAGE
            )
            await eventually(lambda: receiver.arrivals)
            async with connected(relay) as client:
                await client.say("MAIL FROM:<c@office.example>")
                assert (await client.say("RCPT TO:<joe@old.example>")).startswith("250")
                assert (await client.say("RCPT TO:<joe@away.example>")).startswith("550 5.4.4")
                held = id_of(await client.content())
            stored = await finished(relay, held)
            assert stored.state is MessageState.FINISHED
    assert {arrival.recipients for arrival in receiver.arrivals} == {(b"joe@local.example",)}
