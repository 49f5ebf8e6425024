"""What the tests of the milter bridge share: a message, its way through the chain, and events of a session."""

from __future__ import annotations

from collections.abc import Sequence

from lonedot.message.content import Content
from lonedot.message.intake import content_from
from lonedot.sinks.bindings import Binding, Isolation, Setting
from lonedot.sinks.builtin.milter import Milter, MilterSession
from lonedot.sinks.calls import Dispatched
from lonedot.sinks.dispatch import dispatch_with, steps
from lonedot.sinks.hosts import Hosts
from lonedot.sinks.load import bind
from lonedot.sinks.protocol import Judgement, Moment, Question, advance, ask_with, questions
from lonedot.spool.interface import Facts
from lonedot.terms.address import Address
from lonedot.terms.envelope import BodyType, Envelope, Recipient
from lonedot.terms.ids import SessionId
from lonedot.testing import make_session
from lonedot.testing.clock import ManualClock
from tests.peers.milter import CONTINUE, Answer, ScriptedMilter

ID = "2AB4C6D8E0F12"
TRACE = (
    b"Received: from c.example ([192.0.2.1])\r\n\tby relay.example with ESMTP id %b;\r\n\tnow\r\n"
    % ID.encode()
)
MAIL = (
    TRACE
    + b"From: <a@example.com>\r\n"
    + b"Subject: one\r\n\ttwo\r\n"
    + b"X-N: 1\r\nX-N:2\r\nX-N:  3\r\n"
    + b"\r\n"
    + b"text\r\n.dot\r\n"
)
SHOWN = [
    (b"From", b"<a@example.com>"),
    (b"Subject", b"one\n\ttwo"),
    (b"X-N", b"1"),
    (b"X-N", b"2"),
    (b"X-N", b" 3"),
]
FACTS = Facts(
    "smtp",
    SessionId("0000000000001"),
    listener="in",
    client="192.0.2.1",
    helo="c.example",
    protocol="ESMTPS",
    tls="TLSv1.3 TLS_AES_256_GCM_SHA384",
    login="anna",
)
ONE = "b@example.org"


def envelope(*recipients: str, body: BodyType = BodyType.UNSTATED) -> Envelope:
    return Envelope(
        Address(b"a@example.com"), tuple(Recipient(Address(one.encode())) for one in recipients), body
    )


def binding(milter: ScriptedMilter | str, split: bool | None = None, **settings: Setting) -> Binding:
    address = milter if isinstance(milter, str) else milter.address
    return bind(
        Milter,
        sink_class="lonedot.sinks.builtin.milter:Milter",
        settings={"address": address, "hostname": "relay.example", "reply_seconds": 5, **settings},
        split=split,
        effects=["header", "body"] if split else None,
    )


async def dispatched(
    bound: Binding,
    *recipients: str,
    octets: bytes = MAIL,
    content: Content | None = None,
    facts: Facts = FACTS,
    who: Envelope | None = None,
) -> Dispatched:
    """The message through the chain, as acceptance sends it."""
    assert bound.isolation is Isolation.TASK
    hosts = Hosts()
    try:
        told = who or envelope(*recipients or (ONE,))
        chain = steps(ID, told, facts, content or content_from(octets), [bound], ManualClock())
        return await dispatch_with(chain, None, hosts, False)
    finally:
        await hosts.close()


def after(done: Dispatched) -> bytes:
    return done.content.octets()


def refusing(octets: bytes, answer: bytes) -> Answer:
    def answers(letter: bytes, told: bytes) -> bytes:
        if letter == b"R" and octets in told:
            return answer
        return b"" if letter in b"DA" else CONTINUE

    return answers


def early(milter: ScriptedMilter, event: str, **settings: Setting) -> Binding:
    return bind(
        MilterSession,
        sink_class="lonedot.sinks.builtin.milter:MilterSession",
        event=event,
        settings={"address": milter.address, "hostname": "relay.example", "reply_seconds": 5, **settings},
    )


async def asked(hosts: Hosts, bound: Binding, moment: Moment) -> Judgement:
    chain = questions(moment, [bound])
    step = advance(chain)
    assert isinstance(step, Question)
    return await ask_with(chain, step, hosts)


def moment(
    event: str, recipient: str = ONE, before: Sequence[str] = (), sender: str = "a@example.com"
) -> Moment:
    return make_session(
        event, client="192.0.2.1", helo="c.example", recipient=recipient, before=before, sender=sender
    ).moment
