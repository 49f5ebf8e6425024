"""Local domains in the running relay: who is let in, where aliases and lists lead, and who learns of whom."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lonedot.app import Relay
from lonedot.spool.interface import Filter, MessageState, Progress, RecipientStatus, Stored
from lonedot.spool.sqlite import CONTENT_LIMIT
from lonedot.terms.ids import MessageId
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

DOMAIN = """
[[domain]]
name = "local.example"
recipients = { file = "people" }
aliases = "aliases"
lists = "lists.toml"
"""
PEOPLE = "anna\nbert\nJoe\n"
ALIASES = (
    "chief: anna, far@away.example\nforward: far@away.example\nround: around\naround: round\njoe: joe, anna\n"
)
LISTS = """
[lists.staff]
owner = "owner@local.example"
members = ["anna", "blind@away.example", "crew"]
post = "anyone"

[lists.crew]
owner = "bosun@local.example"
members = ["bert", "joe"]

[lists.empty]
owner = "owner@local.example"
members = []
post = "anyone"

[lists.closed]
owner = "owner@local.example"
members = ["anna"]
post = ["@local.example"]
"""
KEPT = 'keep_content = "all"'
NOTHING = Progress()
LARGE = MESSAGE + (b"x" * 70 + b"\r\n") * (CONTENT_LIMIT // 60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "people").write_text(PEOPLE)
    (tmp_path / "aliases").write_text(ALIASES)
    (tmp_path / "lists.toml").write_text(LISTS)
    return tmp_path


def everything(relay: Relay) -> list[Stored]:
    """All messages, also those that are finished."""
    found = relay.spool.listing(Filter(states=tuple(MessageState)))
    return [relay.spool.show(MessageId(row.id)) for row in found]


async def all_over(relay: Relay, count: int) -> list[Stored]:
    """So many messages are there, and nothing waits any more."""

    def over() -> bool:
        found = everything(relay)
        return len(found) == count and all(one.state is MessageState.FINISHED for one in found)

    await eventually(over)
    return everything(relay)


async def rcpt(relay: Relay, address: str, sender: str = "c@office.example") -> str:
    async with connected(relay) as client:
        await client.say(f"MAIL FROM:<{sender}>")
        return await client.say(f"RCPT TO:<{address}>")


async def test_strangers_reach_who_is_there_and_nobody_else(folder: Path) -> None:
    with StrictSink() as receiver:
        async with running_relay(folder, strangers_only(first_config(receiver.port, more=DOMAIN))) as relay:
            for known in (
                "anna",
                "ANNA",
                "joe+news",
                "chief",
                "forward",
                "staff",
                "postmaster",
                "PostMaster",
            ):
                assert (await rcpt(relay, f"{known}@local.example")).startswith("250"), known
            for unknown in ("nobody", "anna-x", "an+na"):
                assert (await rcpt(relay, f"{unknown}@Local.Example")).startswith("550 5.1.1"), unknown
            assert (await rcpt(relay, "anna@away.example")).startswith("550 5.7.1")
            assert (await rcpt(relay, "closed@local.example")).startswith("550 5.7.2")
            assert (await rcpt(relay, "closed@local.example", "x@local.example")).startswith("250")
            assert (await rcpt(relay, "staff@local.example", "")).startswith("550 5.7.2")


async def test_a_source_that_cannot_be_read_refuses_nobody_for_good(folder: Path) -> None:
    with StrictSink() as receiver:
        async with running_relay(folder, first_config(receiver.port, more=DOMAIN)) as relay:
            (folder / "people").rename(folder / "gone")
            assert (await rcpt(relay, "nobody@local.example")).startswith("451 4.3.0")
            (folder / "gone").rename(folder / "people")
            assert (await rcpt(relay, "nobody@local.example")).startswith("550 5.1.1")
            (folder / "people").write_text(PEOPLE + "somebody-new\n")
            assert (await rcpt(relay, "somebody-new@local.example")).startswith("250")
            (folder / "aliases").write_text("no colon\n")
            assert (await rcpt(relay, "anna@local.example")).startswith("451 4.3.0")


async def test_an_alias_leads_on_under_the_senders_name(folder: Path) -> None:
    with StrictSink() as receiver:
        async with running_relay(folder, first_config(receiver.port, more=DOMAIN)) as relay:
            stored = await finished(relay, await submit(relay, MESSAGE, "chief@local.example"))
    (arrival,) = receiver.arrivals
    assert set(arrival.recipients) == {b"anna@local.example", b"far@away.example"}
    assert arrival.reverse_path == b"c@office.example"
    assert [entry.event for entry in stored.ledger] == ["door", "resolve"]
    replaced, *new = stored.recipients
    assert replaced.status is RecipientStatus.REPLACED
    assert {state.addressed for state in new} == {b"chief@local.example"}
    assert {state.recipient.orcpt for state in new} == {b"rfc822;chief@local.example"}


async def test_who_is_addressed_twice_gets_it_once(folder: Path) -> None:
    with StrictSink() as receiver:
        async with running_relay(folder, first_config(receiver.port, more=DOMAIN)) as relay:
            people = ("chief@local.example", "anna@local.example", "joe@local.example")
            await finished(relay, await submit(relay, MESSAGE, *people))
    found = [recipient for arrival in receiver.arrivals for recipient in arrival.recipients]
    assert sorted(found) == [b"anna@local.example", b"far@away.example", b"joe@local.example"]


@pytest.mark.parametrize("octets", [MESSAGE, LARGE], ids=["small", "in a file"])
async def test_a_list_sends_copies_from_its_owner_and_tells_of_no_member(folder: Path, octets: bytes) -> None:
    with StrictSink() as receiver:
        async with running_relay(folder, first_config(receiver.port, more=DOMAIN)) as relay:
            id = await submit(relay, octets, "staff@local.example", "bert@local.example")
            found = await all_over(relay, 3)
            stored = relay.spool.show(id)
            assert stored.recipients[0].status is RecipientStatus.DELIVERED
            assert {one.facts.parent for one in found if one.id != id} == {id}
    by_sender = {arrival.reverse_path: arrival for arrival in receiver.arrivals}
    assert by_sender.keys() == {b"c@office.example", b"owner@local.example", b"bosun@local.example"}
    assert by_sender[b"c@office.example"].recipients == (b"bert@local.example",)
    assert set(by_sender[b"owner@local.example"].recipients) == {b"anna@local.example", b"blind@away.example"}
    assert set(by_sender[b"bosun@local.example"].recipients) == {
        b"bert@local.example",
        b"joe@local.example",
        b"anna@local.example",
    }
    contents = {arrival.content for arrival in receiver.arrivals}
    assert len(contents) == 1
    assert b"blind" not in contents.pop()


@pytest.mark.parametrize("address", ["empty@local.example", "round@local.example"])
async def test_what_leads_to_nobody_waits_and_goes_out_when_it_is_mended(folder: Path, address: str) -> None:
    with StrictSink() as receiver:
        async with running_relay(folder, first_config(receiver.port, more=DOMAIN)) as relay:
            id = await submit(relay, MESSAGE, address, "anna@local.example")
            await eventually(lambda: (relay.spool.show(id).transport or NOTHING).deferrals == 1)
            waiting = relay.spool.show(id)
            assert waiting.state is MessageState.QUEUED
            assert waiting.transport is not None and address in waiting.transport.words
            assert receiver.arrivals == []
            (folder / "lists.toml").write_text(LISTS.replace("members = []", 'members = ["bert"]'))
            (folder / "aliases").write_text(ALIASES.replace("around: round", "around: bert"))
            await relay.spool.retry([id], relay.clock.now())
            relay.scheduler.kick()
            await eventually(lambda: relay.spool.show(id).state is MessageState.FINISHED)
            await eventually(lambda: len(relay.spool.listing(Filter())) == 0)
    found = {recipient for arrival in receiver.arrivals for recipient in arrival.recipients}
    assert found == {b"anna@local.example", b"bert@local.example"}


REFUSED = b"550 5.1.1 <far@away.example> is unknown at mx.away.example\r\n"


@pytest.mark.parametrize("parameters", ["", " RET=FULL"])
async def test_a_report_names_what_the_sender_addressed_alone(folder: Path, parameters: str) -> None:
    peer = Peer(answers={b"RCPT": REFUSED})
    async with (
        running(peer),
        running_relay(folder, first_config(peer.port, server=KEPT, more=DOMAIN)) as relay,
    ):
        id = await submit(relay, MESSAGE, "forward@local.example", parameters=parameters)
        await finished(relay, id)
        (report,) = reports_of(relay, id)
        octets = b"".join(relay.spool.content(report.id).chunks())
    assert b"Final-Recipient: rfc822; forward@local.example" in octets
    assert b"Original-Recipient: rfc822; forward@local.example" in octets
    assert b"5.1.1" in octets
    assert b"away" not in octets


async def test_what_fails_for_a_member_is_told_to_the_owner(folder: Path) -> None:
    peer = Peer(answers={b"RCPT": REFUSED})
    async with (
        running(peer),
        running_relay(folder, first_config(peer.port, server=KEPT, more=DOMAIN)) as relay,
    ):
        id = await submit(relay, MESSAGE, "closed@local.example", sender="x@local.example")
        await eventually(lambda: len(everything(relay)) == 3)
        found = everything(relay)
    assert reports_to(found) == {b"owner@local.example"}
    assert [one.facts.parent for one in found if one.facts.source == "smtp" and one.id != id] == [id]


async def test_success_is_told_for_the_list_and_never_for_its_members(folder: Path) -> None:
    with StrictSink() as receiver:
        async with running_relay(folder, first_config(receiver.port, server=KEPT, more=DOMAIN)) as relay:
            async with connected(relay) as client:
                await client.say("MAIL FROM:<c@office.example>")
                for address in ("staff@local.example", "chief@local.example"):
                    answer = await client.say(f"RCPT TO:<{address}> NOTIFY=SUCCESS")
                    assert answer.startswith("250")
                id = id_of(await client.content())
            found = await all_over(relay, 5)
            reports = [one for one in reports_of(relay, id) if one.facts.source == "dsn"]
            octets = b"".join(chunk for one in reports for chunk in relay.spool.content(one.id).chunks())
    assert len(reports) == 2
    assert reports_to(found) == {b"c@office.example"}
    assert b"Final-Recipient: rfc822; staff@local.example\r\nAction: delivered" in octets
    assert b"Final-Recipient: rfc822; chief@local.example\r\nAction: relayed" in octets
    for hidden in (b"blind", b"bert", b"far@", b"away", b"crew", b"owner@"):
        assert hidden not in octets


async def test_a_report_is_resolved_as_other_mail_is(folder: Path) -> None:
    peer = Peer(answers={b"RCPT": [REFUSED, b"250 2.1.5 Ok\r\n"]})
    async with (
        running(peer),
        running_relay(folder, first_config(peer.port, server=KEPT, more=DOMAIN)) as relay,
    ):
        id = await submit(relay, MESSAGE, "x@away.example", sender="chief@local.example")
        found = await all_over(relay, 2)
        (report,) = reports_of(relay, id)
        assert report.ledger[-1].event == "resolve"
        delivered = {
            one.recipient.address.octets
            for one in report.recipients
            if one.status is RecipientStatus.DELIVERED
        }
        assert delivered == {b"anna@local.example", b"far@away.example"}
        assert reports_to(found) == {b"chief@local.example"}


async def test_a_report_for_nobody_we_know_goes_to_badmail(folder: Path) -> None:
    peer = Peer(answers={b"RCPT": REFUSED})
    async with running(peer), running_relay(folder, first_config(peer.port, more=DOMAIN)) as relay:
        await submit(relay, MESSAGE, "x@away.example", sender="nobody@local.example")
        await all_over(relay, 2)
    assert [path.suffix for path in (folder / "spool" / "badmail").iterdir() if path.suffix == ".eml"]
    assert len(peer.messages) == 0


MAILDIRS = """
[[domain]]
name = "local.example"
recipients = {{ maildir = "{mail}/{{local}}" }}

[[route]]
to = "local.example"
maildir = "{mail}/{{local}}"
"""


async def test_what_is_taken_at_rcpt_finds_its_folder(folder: Path) -> None:
    mail = folder / "mail"
    for name in ("joe", "joe+own", "straße"):
        for part in ("tmp", "new", "cur"):
            (mail / name / part).mkdir(parents=True)
    before, route, after = first_config(1).partition("[[route]]")
    toml = strangers_only(before) + MAILDIRS.format(mail=mail) + route + after
    wanted = {
        "joe": "joe",
        "JOE+News": "joe",
        '"joe"': "joe",
        '"j\\oe+x"': "joe",
        "joe+own": "joe+own",
        "Joe+Own": "joe+own",
    }
    async with running_relay(folder, toml) as relay:
        for local, place in wanted.items():
            count = len(list((mail / place / "new").iterdir()))
            await finished(relay, await submit(relay, MESSAGE, f"{local}@local.example"))
            assert len(list((mail / place / "new").iterdir())) == count + 1, local
        for local in ("nobody", "nobody+joe", '"joe "', '".."', '"a/b"', "+joe", '""'):
            assert (await rcpt(relay, f"{local}@local.example"))[:3] in ("550", "501"), local
        async with connected(relay) as client:
            await client.say("MAIL FROM:<c@office.example> SMTPUTF8")
            assert (await client.say("RCPT TO:<STRAßE@local.example>".encode())).startswith("250")
            await finished(relay, id_of(await client.content()))
    assert len(list((mail / "straße" / "new").iterdir())) == 1


async def test_a_list_that_names_another_vouches_for_it(folder: Path) -> None:
    """Who may write to neither of two lists reaches the second through the first, if that takes from anybody."""
    with StrictSink() as receiver:
        async with running_relay(folder, strangers_only(first_config(receiver.port, more=DOMAIN))) as relay:
            assert (await rcpt(relay, "crew@local.example")).startswith("550 5.7.2")
            await submit(relay, MESSAGE, "staff@local.example")
            await eventually(lambda: len(receiver.arrivals) == 2)
    assert {arrival.reverse_path for arrival in receiver.arrivals} == {
        b"owner@local.example",
        b"bosun@local.example",
    }


async def test_a_reload_takes_local_domains(folder: Path) -> None:
    with StrictSink() as receiver:
        before = strangers_only(first_config(receiver.port, more=DOMAIN))
        async with running_relay(folder, before) as relay:
            assert (await rcpt(relay, "anna@second.example")).startswith("550 5.7.1")
            more = DOMAIN + DOMAIN.replace("local.example", "second.example")
            (folder / "lonedot.toml").write_text(strangers_only(first_config(receiver.port, more=more)))
            assert not (await relay.reload(os.getuid())).needs_restart
            assert (await rcpt(relay, "anna@second.example")).startswith("250")
            assert (await rcpt(relay, "nobody@second.example")).startswith("550 5.1.1")
            await finished(relay, await submit(relay, MESSAGE, "chief@second.example"))
            (folder / "lonedot.toml").write_text(before)
            await relay.reload(os.getuid())
            assert (await rcpt(relay, "anna@second.example")).startswith("550 5.7.1")
    (arrival,) = receiver.arrivals
    assert set(arrival.recipients) == {b"anna@second.example", b"far@away.example"}


def reports_to(found: list[Stored]) -> set[bytes]:
    reports = [one for one in found if one.facts.source == "dsn"]
    return {one.recipients[0].recipient.address.octets for one in reports}


@pytest.mark.parametrize(
    ("policy", "relays", "vrfy", "expn"),
    [
        ("none", True, "252", "252"),
        ("trusted", True, "250", "250"),
        ("trusted", False, "252", "252"),
        ("local", False, "250", "252"),
    ],
)
async def test_verify_tells_whom_the_listener_says(
    folder: Path, policy: str, relays: bool, vrfy: str, expn: str
) -> None:
    with StrictSink() as receiver:
        toml = first_config(receiver.port, listener=f'vrfy = "{policy}"', more=DOMAIN)
        async with (
            running_relay(folder, toml if relays else strangers_only(toml)) as relay,
            connected(relay) as client,
        ):
            assert (await client.say("VRFY <anna@local.example>")).startswith(vrfy)
            unknown = "550" if vrfy == "250" else "252"
            assert (await client.say("VRFY nobody@local.example")).startswith(unknown)
            assert (await client.say("VRFY somebody@away.example")).startswith("252")
            answer = await client.say("EXPN staff@local.example")
            assert answer.startswith(expn)
            assert ("blind@away.example" in answer) is (expn == "250")


async def test_what_vrfy_and_expn_say_of_each_kind_of_address(folder: Path) -> None:
    many = ", ".join(f'"m{number}@far.example"' for number in range(250))
    (folder / "lists.toml").write_text(f'{LISTS}\n[lists.many]\nowner = "anna"\nmembers = [{many}]\n')
    with StrictSink() as receiver:
        toml = first_config(receiver.port, listener='vrfy = "trusted"', more=DOMAIN)
        async with running_relay(folder, toml) as relay, connected(relay) as client:
            for asked, answer in {
                "VRFY joe+news@local.example": "250 2.1.5 <joe+news@local.example>",
                'VRFY "joe"@local.example': "501 5.1.3",
                "VRFY chief@local.example": "250 2.1.5",
                "VRFY closed@local.example": "250 2.1.5",
                "VRFY staff": "501 5.1.3",
                "EXPN anna@local.example": "550 5.1.1",
                "EXPN empty@local.example": "451 4.3.0",
                "EXPN round@local.example": "451 4.3.0",
                "EXPN staff@away.example": "252 2.5.0",
            }.items():
                assert (await client.say(asked)).startswith(answer), asked
            assert await client.say("EXPN chief@local.example") == (
                "250-2.1.5 <anna@local.example>\n250 2.1.5 <far@away.example>"
            )
            staff = (await client.say("EXPN staff@local.example")).split("\n")
            assert [line[11:-1] for line in staff] == [
                "anna@local.example",
                "blind@away.example",
                "bert@local.example",
                "joe@local.example",
                "anna@local.example",
            ]
            shown = (await client.say("EXPN many@local.example")).split("\n")
            assert (len(shown), shown[-1]) == (101, "250 2.1.5 and 150 more")
            (folder / "aliases").write_text("no colon\n")
            assert (await client.say("VRFY anna@local.example")).startswith("451 4.3.0")
            assert (await client.say("EXPN staff@local.example")).startswith("451 4.3.0")
            assert (await client.envelope("x@away.example"))[-1].startswith("250"), "the session goes on"


async def test_a_catch_all_gets_what_is_for_nobody_else(folder: Path) -> None:
    more = DOMAIN + 'catch_all = "anna@local.example"\n'
    with StrictSink() as receiver:
        async with running_relay(folder, strangers_only(first_config(receiver.port, more=more))) as relay:
            people = ("bert@local.example", "whoever@local.example", "postmaster@local.example")
            await finished(relay, await submit(relay, MESSAGE, *people))
    (arrival,) = receiver.arrivals
    assert sorted(arrival.recipients) == [b"anna@local.example", b"bert@local.example"]
