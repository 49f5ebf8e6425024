"""A running relay that signs: from its configuration, in both isolations; and an alarm when a signature is broken."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lonedot import Edit, Message, Next, sink
from lonedot.evidence.events import EventKind
from lonedot.message.dkimverify import Standing, verify
from lonedot.message.intake import content_from
from lonedot.sinks.bindings import firing_order
from lonedot.sinks.builtin.dkim import Dkim
from lonedot.sinks.load import bind
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import connected, finished, first_config, id_of
from tests.unit.sinks.builtin.dkim_keys import Keys

KEYS = Keys()
LETTER = (
    b"From: <a@example.com>\r\nTo: <b@example.net>\r\nSubject: hello\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    + "Grüße\r\n".encode()
)
SINKS = """
[[sink]]
name = "Disclaimer"
import = "disclaimer"
settings = {{ text = "Höflich." }}

[[sink]]
name = "DKIM"
import = "dkim"
isolation = "{isolation}"
settings = {{ domain = "example.com", selector = "e", key = "{key}" }}
"""


@pytest.mark.parametrize("isolation", ["inline", "process"])
async def test_what_leaves_is_signed(isolation: str, tmp_path: Path) -> None:
    more = SINKS.format(isolation=isolation, key=KEYS.write_ed25519(tmp_path))
    with StrictSink() as receiver:
        async with running_relay(tmp_path, first_config(receiver.port, more=more)) as relay:
            async with connected(relay) as client:
                await client.envelope()
                id = id_of(await client.content(LETTER))
            stored = await finished(relay, id)
        (arrival,) = receiver.arrivals
    assert arrival.content.isascii()
    (one,) = verify(content_from(arrival.content), KEYS.find)
    assert one.standing is Standing.PASSED, one.words
    assert b"H=C3=B6flich." in arrival.content
    assert [entry.binding for entry in stored.ledger] == ["lonedot", "Disclaimer"]


async def test_a_broken_signature_is_an_alarm(tmp_path: Path) -> None:
    @sink("breaks", on="message-start", effects={"header"}, priority=32767, signs=True)
    def breaks(message: Message) -> Next:
        return Next([Edit.replace_field("Subject", "another")])

    settings = {"domain": "example.com", "selector": "e", "key": str(KEYS.write_ed25519(tmp_path))}
    signs = bind(Dkim, sink_class="tests:dkim", settings=settings)
    bindings = firing_order(
        [bind(breaks, sink_class="tests:breaks"), msgspec.structs.replace(signs, priority=1)]
    )
    with StrictSink() as receiver:
        async with running_relay(tmp_path, first_config(receiver.port), bindings=bindings) as relay:
            async with connected(relay) as client:
                await client.envelope()
                id = id_of(await client.content(LETTER))
            await finished(relay, id)
            (told,) = relay.events.read(kinds=[EventKind.SIGNATURE_BROKEN])
    assert told.fields["binding"] == "breaks"
    assert "DKIM signature of example.com covers the field subject" in told.words
