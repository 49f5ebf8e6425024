"""POP3 routing: the marker of the old connector becomes the mailbox, in the envelope and in the fields it was in."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.intake import content_from
from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin.pop3_routing import pop3_routing
from lonedot.sinks.calls import Decision, Dispatched
from lonedot.sinks.dispatch import dispatch
from lonedot.sinks.load import bind
from lonedot.sinks.settings import SettingsFault
from lonedot.spool.interface import Facts
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import SessionId
from lonedot.testing.clock import ManualClock

MAIL = (
    b"From: list@b.example\r\n"
    b'To: "IMB Recipient 1" <mspop3connector.joe@a.example>,\r\n\tother@b.example\r\n'
    b"Cc: MSPOP3Connector.ann@a.example (\xe4), x.mspop3connector.no@a.example\r\n"
    b"Subject: mspop3connector.joe@a.example\r\n\r\nmspop3connector.joe@a.example\r\n"
)


def dispatched(
    *recipients: str, octets: bytes = MAIL, settings: Mapping[str, Setting] | None = None
) -> Dispatched:
    binding = bind(pop3_routing, sink_class="test:pop3_routing", settings=settings)
    envelope = Envelope(Address(b"c@b.example"), tuple(Recipient(Address(r.encode())) for r in recipients))
    facts = Facts("pickup", SessionId("0000000000001"))
    return dispatch("id", envelope, facts, content_from(octets), [binding], ManualClock())


def left(done: Dispatched) -> list[str]:
    assert done.decision is Decision.ACCEPT
    return [recipient.address.text for recipient in done.envelope.recipients]


def test_the_marker_becomes_the_mailbox_in_the_envelope() -> None:
    done = dispatched("mspop3connector.joe@a.example", "other@b.example")
    assert sorted(left(done)) == ["joe@a.example", "other@b.example"]


def test_it_is_taken_out_of_the_fields_and_nothing_else_is() -> None:
    done = dispatched("mspop3connector.joe@a.example")
    expected = MAIL.replace(b"<mspop3connector.joe", b"<joe").replace(b"MSPOP3Connector.ann", b"ann")
    assert done.content.octets() == expected
    (entry,) = done.entries
    assert not entry.findings and not entry.fault


def test_it_is_taken_out_of_the_received_field_of_the_relay() -> None:
    """That field names a single recipient as it came; fields below it are those of others."""
    mine = b"Received: from unknown\r\n\tfor <mspop3connector.joe@a.example>; Thu, 02 Jul 2026 10:00:00 +0000\r\n"
    others = b"Received: from x for <mspop3connector.joe@a.example>; Thu, 02 Jul 2026 09:00:00 +0000\r\n"
    head = b"From: list@b.example\r\n\r\ntext\r\n"
    done = dispatched("mspop3connector.joe@a.example", octets=mine + others + head)
    assert done.content.octets() == mine.replace(b"<mspop3connector.", b"<") + others + head
    assert not done.entries[0].findings


def test_others_do_not_learn_of_the_mailbox() -> None:
    done = dispatched("mspop3connector.joe@a.example", "other@b.example")
    head = done.content.octets().partition(b"\r\nSubject")[0]
    assert head.split(b"\r\n") == [
        b"From: list@b.example",
        b"To: other@b.example",
        b"Cc: (\xe4), x.mspop3connector.no@a.example",
    ]


def test_of_a_field_with_markers_alone_a_group_is_left() -> None:
    octets = (
        b'From: c@b.example\r\nTo: "IMB Recipient 1" <mspop3connector.joe@a.example>,\r\n'
        b"\tmspop3connector.ann@a.example\r\nCc: mspop3connector.ann@a.example\r\n\r\nbody\r\n"
    )
    done = dispatched("mspop3connector.joe@a.example", "mspop3connector.ann@a.example", octets=octets)
    assert sorted(left(done)) == ["ann@a.example", "joe@a.example"]
    assert done.content.octets() == (b"From: c@b.example\r\nTo: undisclosed-recipients:;\r\n\r\nbody\r\n")


def test_a_mailbox_that_is_there_already_is_not_there_twice() -> None:
    done = dispatched("joe@a.example", "MSPOP3CONNECTOR.joe@a.example", "mspop3connector.joe@a.example")
    assert left(done) == ["joe@a.example"]


@pytest.mark.parametrize(
    "recipient", ["joe@a.example", "x.mspop3connector.joe@a.example", "mspop3connector.@a.example"]
)
def test_what_is_no_marker_address_stays(recipient: str) -> None:
    assert left(dispatched(recipient)) == [recipient]


def test_another_marker() -> None:
    binding = bind(pop3_routing, sink_class="test:p", settings={"marker": "pop-"}, rule="RCPT TO=pop-*")
    envelope = Envelope(Address(b""), (Recipient(Address(b"pop-joe@a.example")),))
    facts = Facts("pickup", SessionId("0000000000001"))
    done = dispatch("id", envelope, facts, content_from(MAIL), [binding], ManualClock())
    assert left(done) == ["joe@a.example"]
    with pytest.raises(SettingsFault):
        bind(pop3_routing, sink_class="test:p", settings={"marker": "no@"})


@given(st.binary(max_size=300))
def test_whatever_the_header_is_the_body_stays(octets: bytes) -> None:
    text = b"To: " + octets.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"") + b"\r\n\r\nbody\r\n"
    done = dispatched("mspop3connector.joe@a.example", octets=text)
    assert left(done) == ["joe@a.example"]
    assert done.content.octets().endswith(b"\r\n\r\nbody\r\n")
