"""What a client meets at the door: keywords, limits, rights, time, and devices that do it their own way."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from lonedot.config.model import Config, Listener
from lonedot.message.ledger import Action
from lonedot.spool.interface import Filter, MessageState
from lonedot.terms.envelope import BodyType, Notify, Ret
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import (
    MESSAGE,
    PATIENCE,
    Client,
    connected,
    eventually,
    finished,
    first_config,
    id_of,
    strangers_only,
    submit,
)

SMALL = b"Subject: s\r\n\r\ntext\r\n"
NOBODY = first_config(1)
"""Nothing is ever delivered with it."""


def listener(**values: object) -> Callable[[Config], Config]:
    """Change values of every listener."""

    def change(config: Config) -> Config:
        changed = tuple(msgspec.structs.replace(one, **values) for one in config.listeners)
        return msgspec.structs.replace(config, listeners=changed)

    assert set(values) <= set(Listener.__struct_fields__)
    return change


def limits(**values: object) -> Callable[[Config], Config]:
    """Change values of the server."""

    def change(config: Config) -> Config:
        return msgspec.structs.replace(config, server=msgspec.structs.replace(config.server, **values))

    return change


# --- keywords ------------------------------------------------------------------------------------

GATED = {
    "8BITMIME": ("MAIL FROM:<a@b.example> BODY=8BITMIME", "555"),
    "SIZE": ("MAIL FROM:<a@b.example> SIZE=10", "555"),
    "SMTPUTF8": ("MAIL FROM:<a@b.example> SMTPUTF8", "555"),
    "DSN": ("MAIL FROM:<a@b.example> RET=FULL", "555"),
    "CHUNKING": ("BDAT 0 LAST", "502"),
}


@pytest.mark.parametrize("keyword", [*GATED, "PIPELINING", "ENHANCEDSTATUSCODES"])
async def test_a_keyword_that_is_switched_off_is_not_offered_and_its_parameters_are_refused(
    tmp_path: Path, keyword: str
) -> None:
    toml = first_config(1, listener=f'ehlo_off = ["{keyword}"]')
    async with running_relay(tmp_path, toml) as relay, connected(relay) as client:
        words = {line[4:].split()[0] for line in (await client.say("EHLO again.example")).split("\n")[1:]}
        assert keyword not in words
        assert words >= {*GATED, "PIPELINING", "ENHANCEDSTATUSCODES"} - {keyword}
        if keyword in GATED:
            command, code = GATED[keyword]
            assert (await client.say(command)).startswith(code)
        answer = await client.say("MAIL FROM:<c@office.example>")
        assert answer == ("250 Ok" if keyword == "ENHANCEDSTATUSCODES" else "250 2.1.0 Ok")


async def test_eight_bit_switched_off_for_a_route_makes_every_copy_seven_bit(tmp_path: Path) -> None:
    octets = (
        b"From: <c@office.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
        b"Content-Transfer-Encoding: 8bit\r\n\r\ncaf\xe9\r\n"
    )
    with StrictSink() as sink:
        assert "8BITMIME" in sink.extensions
        toml = first_config(sink.port, route='ehlo_off = ["8BITMIME"]')
        async with running_relay(tmp_path, toml) as relay:
            id = await submit(relay, octets, parameters=" BODY=8BITMIME")
            stored = await finished(relay, id)
    assert stored.envelope.body is BodyType.EIGHT_BIT_MIME
    assert sink.arrivals[0].wire.isascii()
    assert b"caf=E9" in sink.arrivals[0].wire
    assert b"BODY=" not in sink.arrivals[0].mail
    assert [entry.event for entry in stored.attempts[0].suffix] == ["downgrade"]


# --- size ----------------------------------------------------------------------------------------


async def test_a_declared_size_over_the_limit_is_refused_at_mail(tmp_path: Path) -> None:
    async with (
        running_relay(tmp_path, first_config(1, server="max_size = 65536")) as relay,
        connected(relay) as client,
    ):
        assert (await client.say("MAIL FROM:<a@b.example> SIZE=65537")).startswith("552 5.3.4")
        assert (await client.say("MAIL FROM:<a@b.example> SIZE=65536")).startswith("250")


async def test_over_the_limit_is_read_to_its_end_refused_and_the_session_goes_on(tmp_path: Path) -> None:
    """What looks like commands inside it stays text."""
    too_large = SMALL + b"RSET\r\n" * 12000
    async with running_relay(tmp_path, first_config(1, server="max_size = 65536")) as relay:
        async with connected(relay) as client:
            await client.envelope()
            client.write(b"DATA\r\n")
            assert (await client.reply()).startswith("354")
            client.write(too_large + b".\r\nNOOP\r\n")
            assert (await client.reply()).startswith("552 5.3.4")
            assert (await client.reply()).startswith("250")
            await client.envelope()
            assert (await client.content(SMALL)).startswith("250 2.0.0 Ok: queued")
        assert list((tmp_path / "spool").rglob("*.body")) == []


async def test_twice_the_limit_ends_the_session(tmp_path: Path) -> None:
    async with running_relay(tmp_path, first_config(1, server="max_size = 65536")) as relay:
        async with connected(relay) as client:
            await client.envelope()
            assert (await client.say("DATA")).startswith("354")
            client.write(b"x" * 70 + b"\r\n")
            client.write((b"y" * 70 + b"\r\n") * 1850)
            assert (await client.reply()).startswith("552 5.3.4")
            await client.ended()
        assert relay.spool.listing(Filter()) == []


# --- limits --------------------------------------------------------------------------------------


async def test_connections_in_all_are_bounded(tmp_path: Path) -> None:
    async with (
        running_relay(tmp_path, first_config(1, listener="max_connections = 2")) as relay,
        connected(relay),
        connected(relay) as second,
    ):
        async with connected(relay, ehlo=False) as third:
            assert (await third.reply()).startswith("421 4.7.0")
            await third.ended()
        await second.say("QUIT")
        await second.ended()
        async with connected(relay) as fourth:
            assert (await fourth.say("NOOP")).startswith("250")


async def test_connections_of_one_stranger_are_bounded_and_those_of_devices_are_not(tmp_path: Path) -> None:
    toml = first_config(1, listener="max_connections_per_client = 1")
    async with running_relay(tmp_path, toml) as relay, connected(relay), connected(relay) as second:
        assert (await second.say("NOOP")).startswith("250")
    (tmp_path / "strangers").mkdir()
    async with (
        running_relay(tmp_path / "strangers", strangers_only(toml)) as relay,
        connected(relay),
        connected(relay, ehlo=False) as second,
    ):
        assert (await second.reply()).startswith("421 4.7.0 Too many connections from your address")
        await second.ended()


async def test_recipients_are_bounded(tmp_path: Path) -> None:
    async with running_relay(tmp_path, NOBODY, change=listener(max_recipients=2)) as relay:
        async with connected(relay) as client:
            replies = await client.envelope("a@d.example", "b@d.example", "c@d.example")
            assert [reply[:9] for reply in replies] == ["250 2.1.0", "250 2.1.5", "250 2.1.5", "452 4.5.3"]
            id = id_of(await client.content())
        assert [r.recipient.address.text for r in relay.spool.show(id).recipients] == [
            "a@d.example",
            "b@d.example",
        ]


async def test_too_many_errors_end_the_session(tmp_path: Path) -> None:
    async with (
        running_relay(tmp_path, first_config(1, listener="max_errors = 3")) as relay,
        connected(relay) as client,
    ):
        replies = [await client.say("NONSENSE") for _ in range(4)]
        assert [reply[:3] for reply in replies] == ["500", "500", "500", "421"]
        await client.ended()


async def test_a_line_too_long_is_one_error_and_the_session_is_in_step(tmp_path: Path) -> None:
    async with running_relay(tmp_path, NOBODY) as relay, connected(relay) as client:
        client.write(b"NOOP " + b"x" * 20000 + b"\r\nNOOP\r\n")
        assert (await client.reply()).startswith("500 5.5.2 Line too long")
        assert (await client.reply()).startswith("250")
        for command in (
            b"MAIL FROM:<a\x00@b.example>",
            b"MAIL FROM:<a\n@b.example>",
            b"MAIL FROM:<a\r@b.example>",
        ):
            async with connected(relay) as other:
                assert (await other.say(command)).startswith("500 5.5.2")
                await other.ended()


async def test_a_head_that_never_ends_is_refused(tmp_path: Path) -> None:
    async with running_relay(tmp_path, NOBODY) as relay, connected(relay) as client:
        await client.envelope()
        assert (await client.content(b"X-Field: " + b"x" * 60 + b"\r\n" + b"Y: z\r\n" * 60000)).startswith(
            "552 5.3.4"
        )
        assert (await client.say("NOOP")).startswith("250")


# --- time ----------------------------------------------------------------------------------------


async def test_a_silent_client_is_told_and_closed(tmp_path: Path) -> None:
    short = listener(command_timeout=timedelta(seconds=0.2))
    async with running_relay(tmp_path, NOBODY, change=short) as relay, connected(relay) as client:
        assert (await client.reply()).startswith("421 4.4.2")
        await client.ended()


async def test_a_client_silent_inside_a_message_is_told_and_the_message_dropped(tmp_path: Path) -> None:
    short = listener(data_timeout=timedelta(seconds=0.2), command_timeout=timedelta(seconds=PATIENCE))
    async with running_relay(tmp_path, NOBODY, change=short) as relay:
        async with connected(relay) as client:
            await client.envelope()
            assert (await client.say("DATA")).startswith("354")
            client.write(SMALL)
            assert (await client.reply()).startswith("421 4.4.2")
            await client.ended()
        assert relay.spool.listing(Filter()) == []


async def test_a_client_that_drips_is_told_between_messages(tmp_path: Path) -> None:
    short = listener(session_timeout=timedelta(seconds=0.3))
    async with running_relay(tmp_path, NOBODY, change=short) as relay, connected(relay) as client:
        answer = "250"
        while answer.startswith("250"):
            await asyncio.sleep(0.02)
            answer = await client.say("NOOP")
        assert answer.startswith("421 4.4.2 The session has lasted too long"), answer
        await client.ended()


# --- who may send where --------------------------------------------------------------------------


async def test_relay_rights_by_network_and_domain(tmp_path: Path) -> None:
    toml = strangers_only(
        first_config(
            1, listener='relay_from = ["127.0.0.2/32"]\nrelay_to = ["own.example", "*.below.example"]'
        )
    )
    async with running_relay(tmp_path, toml) as relay:
        host, port = relay.addresses["in"]

        async def rights(source: str) -> list[str]:
            reader, writer = await asyncio.open_connection(host, port, local_addr=(source, 0))
            async with Client(reader, writer) as client:
                await client.reply()
                await client.say("EHLO x.example")
                replies = await client.envelope(
                    "a@own.example", "a@OWN.example", "a@x.below.example", "a@below.example", "a@else.example"
                )
                return [reply[:9] for reply in replies[1:]]

        ok, denied = "250 2.1.5", "550 5.7.1"
        assert await rights("127.0.0.2") == [ok] * 5
        assert await rights("127.0.0.1") == [ok, ok, ok, denied, denied]


async def test_no_trick_in_an_address_relays_for_a_stranger(tmp_path: Path) -> None:
    toml = strangers_only(first_config(1, listener='relay_to = ["own.example"]'))
    tricks = [
        "victim%else.example@own.example.",
        "@own.example:victim@else.example",
        '"victim@else.example"@else.example',
        "victim@else.example@else.example",
        "victim@own.example@else.example",
    ]
    async with running_relay(tmp_path, toml) as relay:
        for trick in tricks:
            async with connected(relay) as client:
                await client.say("MAIL FROM:<x@y.example>")
                assert (await client.say(f"RCPT TO:<{trick}>"))[0] == "5", trick


async def test_mail_without_a_route_is_refused_at_rcpt(tmp_path: Path) -> None:
    toml = first_config(1).replace('to = "*"', 'to = "own.example"')
    async with running_relay(tmp_path, toml) as relay, connected(relay) as client:
        replies = await client.envelope("a@own.example", "a@else.example")
        assert [reply[:9] for reply in replies] == ["250 2.1.0", "250 2.1.5", "550 5.4.4"]


@pytest.mark.parametrize(
    "path", ["Postmaster", "postmaster@relay.example.com", "POSTMASTER@Relay.Example.COM"]
)
async def test_postmaster_is_accepted_from_anybody_and_gets_there(tmp_path: Path, path: str) -> None:
    with StrictSink() as sink:
        toml = strangers_only(first_config(sink.port, server='postmaster = "admin@office.example"'))
        async with running_relay(tmp_path, toml) as relay, connected(relay) as client:
            await client.envelope(path)
            await finished(relay, id_of(await client.content()))
    assert sink.arrivals[0].recipients == (b"admin@office.example",)


async def test_the_same_recipient_twice_gets_one_copy(tmp_path: Path) -> None:
    with StrictSink() as sink:
        async with running_relay(tmp_path, first_config(sink.port)) as relay:
            stored = await finished(relay, await submit(relay, MESSAGE, "a@d.example", "a@d.example"))
    assert len(stored.recipients) == 1
    assert sink.arrivals[0].recipients == (b"a@d.example",)


# --- envelope parameters -------------------------------------------------------------------------


async def test_dsn_parameters_are_kept_and_handed_on(tmp_path: Path) -> None:
    with StrictSink() as sink:
        async with running_relay(tmp_path, first_config(sink.port)) as relay, connected(relay) as client:
            await client.say("MAIL FROM:<c@office.example> RET=HDRS ENVID=QQ+2B314159")
            await client.say("RCPT TO:<a@d.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;first+2Blast@d.example")
            await client.say("RCPT TO:<b@d.example> NOTIFY=NEVER")
            id = id_of(await client.content())
            stored = await finished(relay, id)
    envelope = stored.envelope
    assert (envelope.ret, envelope.envid) == (Ret.HEADERS, b"QQ+2B314159")
    assert [recipient.notify for recipient in envelope.recipients] == [
        Notify.SUCCESS | Notify.DELAY,
        Notify.NEVER,
    ]
    assert envelope.recipients[0].orcpt == b"rfc822;first+2Blast@d.example"
    arrival = sink.arrivals[0]
    assert b"RET=HDRS ENVID=QQ+2B314159" in arrival.mail
    assert arrival.rcpts == (
        b"TO:<a@d.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;first+2Blast@d.example",
        b"TO:<b@d.example> NOTIFY=NEVER",
    )


async def test_an_international_address_reaches_a_hop_that_can_take_it(tmp_path: Path) -> None:
    with StrictSink() as sink:
        async with running_relay(tmp_path, first_config(sink.port)) as relay, connected(relay) as client:
            await client.say("MAIL FROM:<jörg@office.example> SMTPUTF8")
            assert (await client.say("RCPT TO:<anna@bücher.example>")).startswith("250")
            await finished(relay, id_of(await client.content("Subject: grüße\r\n\r\nx\r\n".encode())))
    assert sink.arrivals[0].reverse_path == "jörg@office.example".encode()
    assert b"SMTPUTF8" in sink.arrivals[0].mail
    assert b"with UTF8SMTP id" in sink.arrivals[0].content


async def test_an_international_address_and_a_hop_without_smtputf8_end_in_a_report(tmp_path: Path) -> None:
    with StrictSink(extensions=("PIPELINING", "8BITMIME")) as sink:
        async with running_relay(tmp_path, first_config(sink.port)) as relay, connected(relay) as client:
            await client.say("MAIL FROM:<c@office.example> SMTPUTF8")
            await client.say("RCPT TO:<änna@dest.example>")
            await client.say("RCPT TO:<anna@dest.example>")
            stored = await finished(relay, id_of(await client.content()))
            await asyncio.to_thread(sink.wait_for, 2, PATIENCE)
    assert [r.status.value for r in stored.recipients] == ["failed", "delivered"]
    report = next(arrival for arrival in sink.arrivals if not arrival.reverse_path)
    assert report.recipients == (b"c@office.example",)
    assert b"SMTPUTF8" in report.content
    assert b"Action: failed" in report.content


# --- devices -------------------------------------------------------------------------------------


async def test_spaces_and_missing_brackets_of_devices_are_tolerated(tmp_path: Path) -> None:
    with StrictSink() as sink:
        async with (
            running_relay(tmp_path, first_config(sink.port)) as relay,
            connected(relay, ehlo=False) as client,
        ):
            await client.reply()
            assert (await client.say("HELO copier")).startswith("250")
            assert (await client.say("mail from: <c@office.example>")).startswith("250")
            assert (await client.say("RCPT TO: anna@dest.example")).startswith("250")
            await finished(relay, id_of(await client.content()))
    assert sink.arrivals[0].recipients == (b"anna@dest.example",)
    assert sink.arrivals[0].reverse_path == b"c@office.example"


async def test_a_device_that_closes_hard_behind_its_250_loses_nothing(tmp_path: Path) -> None:
    with StrictSink() as sink:
        async with running_relay(tmp_path, first_config(sink.port)) as relay:
            async with connected(relay) as client:
                await client.envelope()
                id = id_of(await client.content())
                raw = client.writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await finished(relay, id)
    assert len(sink.arrivals) == 1


@pytest.mark.parametrize("quit", [b"", b"QUIT\r\n"])
async def test_a_device_that_sends_all_and_closes_its_side_gets_its_replies(
    tmp_path: Path, quit: bytes
) -> None:
    """No PIPELINING asked for, no reply read: everything in one write, then a half-close. The relay closes too."""
    with StrictSink() as sink:
        async with running_relay(tmp_path, first_config(sink.port)) as relay:
            async with connected(relay) as client:
                client.write(
                    b"MAIL FROM:<c@office.example>\r\nRCPT TO:<anna@dest.example>\r\nBDAT %d LAST\r\n"
                    % len(MESSAGE)
                )
                client.write(MESSAGE + quit)
                client.writer.write_eof()
                said = (await client.ended()).decode().split("\r\n")
            assert [line[:3] for line in said if line] == ["250", "250", "250", *(["221"] if quit else [])]
            await asyncio.to_thread(sink.wait_for, 1, PATIENCE)


async def test_a_connection_lost_inside_a_message_leaves_nothing(tmp_path: Path) -> None:
    async with running_relay(tmp_path, NOBODY) as relay:
        async with connected(relay) as client:
            await client.envelope()
            await client.say("DATA")
            client.write(SMALL + b"x" * 600_000)
            await client.writer.drain()
        await eventually(lambda: not any(listener.sessions for listener in relay._entrances._listeners))
        assert relay.spool.listing(Filter()) == []
        assert list((tmp_path / "spool").rglob("*.body")) == []


@pytest.mark.parametrize("trusted", [True, False])
async def test_date_and_message_id_are_added_for_devices_alone(tmp_path: Path, trusted: bool) -> None:
    with StrictSink() as sink:
        toml = first_config(sink.port)
        if not trusted:
            toml = strangers_only(first_config(sink.port, listener='relay_to = ["dest.example"]'))
        async with running_relay(tmp_path, toml) as relay:
            stored = await finished(relay, await submit(relay, SMALL))
    head = sink.arrivals[0].content.partition(b"\r\n\r\n")[0]
    assert (b"\r\nDate: " in head, b"\r\nMessage-ID: " in head) == (trusted, trusted)
    assert stored.ledger[0].event == "door"
    assert len(stored.ledger[0].changes) == (3 if trusted else 1)
    assert stored.facts.trusted is trusted


@pytest.mark.parametrize("trusted", [True, False])
async def test_long_lines_are_encoded_for_devices_and_refused_for_strangers(
    tmp_path: Path, trusted: bool
) -> None:
    octets = b"Subject: s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n" + b"x" * 2000 + b"\r\n"
    with StrictSink() as sink:
        toml = first_config(sink.port)
        if not trusted:
            toml = strangers_only(first_config(sink.port, listener='relay_to = ["dest.example"]'))
        async with running_relay(tmp_path, toml) as relay, connected(relay) as client:
            await client.envelope()
            answer = await client.content(octets)
            if not trusted:
                assert answer.startswith("550 5.6.0")
                assert "998" in answer
                return
            stored = await finished(relay, id_of(answer))
    assert stored.ledger[0].action is Action.REPAIRED
    assert "octet" in stored.ledger[0].words
    wire = sink.arrivals[0].wire
    assert max(len(line) for line in wire.split(b"\r\n")) <= 998
    assert b"quoted-printable" in wire


@pytest.mark.parametrize(("octet", "kind"), [(b"\n", "bare LF"), (b"\r", "bare CR"), (b"\0", "NUL")])
async def test_a_stranger_is_told_the_octet_and_its_place(tmp_path: Path, octet: bytes, kind: str) -> None:
    toml = strangers_only(first_config(1, listener='relay_to = ["dest.example"]'))
    async with running_relay(tmp_path, toml) as relay, connected(relay) as client:
        await client.envelope()
        answer = await client.content(SMALL + b"12" + octet + b"3\r\n")
        assert answer.startswith("550 5.6.0")
        assert f"{kind} at octet {len(SMALL) + 2}" in answer
        assert (await client.say("NOOP")).startswith("250")


# --- memory --------------------------------------------------------------------------------------


async def test_beyond_the_memory_budget_messages_go_to_disk_at_once(tmp_path: Path) -> None:
    """With no budget left even a small body is a file, and it arrives as it came."""
    with StrictSink() as sink:
        async with running_relay(tmp_path, first_config(sink.port), change=limits(memory=1)) as relay:
            async with connected(relay) as client:
                await client.envelope()
                assert (await client.say("DATA")).startswith("354")
                client.write(SMALL + b"more\r\n")
                await eventually(lambda: list((tmp_path / "spool").rglob("*.body")))
                client.write(b".\r\n")
                id = id_of(await client.reply())
            await finished(relay, id)
            async with connected(relay) as client:
                await client.envelope()
                await client.content(SMALL)
    assert sink.arrivals[0].content.endswith(b"\r\n\r\ntext\r\nmore\r\n")


async def test_the_memory_budget_is_given_back(tmp_path: Path) -> None:
    async with running_relay(tmp_path, NOBODY) as relay:
        budget = relay._entrances._budget
        async with connected(relay) as client:
            await client.envelope()
            id_of(await client.content())
            await client.envelope()
            assert (await client.content(b"\0\r\n")).startswith("550")
            await client.envelope()
            id_of(await client.content(SMALL + b"x" * 70 + b"\r\n" * 50_000))
            await client.envelope()
            await client.say("DATA")
            client.write(SMALL)
        await eventually(lambda: not any(listener.sessions for listener in relay._entrances._listeners))
        assert budget.used == 0
        assert relay.spool.counts()[MessageState.QUEUED] == 2
