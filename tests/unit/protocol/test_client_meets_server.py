"""Our client and our server, in memory: they understand each other, whatever is offered and however it is cut."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.encode import DataEncoder, canonicalise
from lonedot.message.intake import content_from
from lonedot.protocol.client import (
    CONTENT_WANTED,
    READY,
    ClientMachine,
    ClientOptions,
    Login,
    Phase,
    StartTls,
    TransactionEnded,
)
from lonedot.protocol.client_plan import ContentFacts, Plan, plan_transaction
from lonedot.protocol.events import AuthRequested, ContentBegun, ContentMode, Event, RcptGiven, TlsRequested
from lonedot.protocol.options import DEFAULT_KEYWORDS, ServerOptions
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Notify, Recipient, Ret
from lonedot.terms.reply import Reply, reply
from tests.unit.protocol.driver import OPTIONS, Driver, accept

REFUSED = reply(550, "5.1.1", "No such user")


def decide(event: Event) -> Reply:
    """Says yes, but for recipients whose local part begins with `no`."""
    if isinstance(event, RcptGiven) and event.recipient.address.octets.startswith(b"no"):
        return REFUSED
    return accept(event)


class Pair:
    """Carries octets between the two, in pieces of the sizes given, until neither says any more."""

    def __init__(self, server: ServerOptions, client: ClientOptions, pieces: list[int] | None = None) -> None:
        self.server = Driver(server, decide)
        self.client = ClientMachine(client)
        self.pieces = pieces or [10_000]
        self.encoder: DataEncoder | None = None
        self.ended: list[TransactionEnded] = []
        self.is_ready = False
        self._to_client = self.server.machine.greeting()
        self._to_server = b""

    def run(self) -> None:
        turn = 0
        while self._to_client or self._to_server:
            size = self.pieces[turn % len(self.pieces)]
            turn += 1
            if self._to_server:
                piece, self._to_server = self._to_server[:size], self._to_server[size:]
                self._to_client += self.server.feed(piece)
            if self._to_client:
                piece, self._to_client = self._to_client[:size], self._to_client[size:]
                self.client.feed(piece)
                self.hear()

    def hear(self) -> None:
        while (event := self.client.next_event()) is not None:
            if event is READY:
                self.is_ready = True
            elif event is CONTENT_WANTED:
                self.write_content()
            elif isinstance(event, TransactionEnded):
                self.ended.append(event)
        self._to_server += self.client.take_output()[0]

    def write_content(self) -> None:
        assert self.encoder is not None
        self._to_server += self.client.take_output()[0] + b"".join(self.encoder.chunks())
        self.client.content_sent()

    def send(self, envelope: Envelope, octets: bytes, *, at_once: bool = True) -> TransactionEnded | None:
        canonical = canonicalise(content_from(octets))
        profile = canonical.content
        facts = ContentFacts(
            canonical.size,
            profile.head_measure.profile.eight_bit >= 0,
            profile.body_measure.profile.eight_bit >= 0,
        )
        plan = plan_transaction(envelope, envelope.recipients, facts, self.client.offer)
        if not isinstance(plan, Plan):
            return None
        self.encoder = DataEncoder(canonical, "BDAT" if plan.mode is ContentMode.BDAT else "DATA")
        self.client.begin(plan, at_once=at_once)
        if self.client.wants_content:
            self.write_content()
        else:
            self._to_server += self.client.take_output()[0]
        self.run()
        return self.ended[-1]


LOCAL = st.text("abcxyz0123456789.-_+='", min_size=1, max_size=12).filter(
    lambda t: not t.startswith(".") and not t.endswith(".") and ".." not in t
)
ADDRESS = st.one_of(
    LOCAL.map(lambda local: f"{local}@example.org".encode()),
    LOCAL.map(lambda local: f"no{local}@example.org".encode()),
    LOCAL.map(lambda local: f'"{local} >"@example.org'.encode()),
    LOCAL.map(lambda local: f"ü{local}@bücher.example".encode()),
    st.just(b"postmaster"),
)
RECIPIENT = st.builds(
    Recipient,
    ADDRESS.map(Address),
    st.sampled_from([0, Notify.NEVER, Notify.SUCCESS, Notify.FAILURE | Notify.DELAY]),
    st.sampled_from([b"", b"rfc822;b+2Bc@example.org"]),
)
ENVELOPE = st.builds(
    Envelope,
    st.one_of(st.just(b""), ADDRESS.filter(lambda a: b"@" in a)).map(Address),
    st.lists(RECIPIENT, min_size=1, max_size=4).map(tuple),
    smtputf8=st.booleans(),
    ret=st.sampled_from(Ret),
    envid=st.sampled_from([b"", b"QQ+2B1"]),
)
LINE = st.sampled_from(
    [b"", b".", b"..", b".x", b"text", b"RCPT TO:<x@y>", b"QUIT", "grüße".encode(), b"x" * 990]
)
BODY = st.lists(LINE, max_size=8).map(lambda lines: b"".join(line + b"\r\n" for line in lines))
KEYWORDS = st.sets(st.sampled_from(sorted(DEFAULT_KEYWORDS))).map(frozenset)


@given(KEYWORDS, st.lists(st.tuples(ENVELOPE, BODY, st.booleans()), min_size=1, max_size=4), st.data())
def test_what_the_client_sends_the_server_understands(
    keywords: frozenset[bytes], messages: list[tuple[Envelope, bytes, bool]], data: st.DataObject
) -> None:
    pieces = data.draw(st.lists(st.integers(1, 200), min_size=1, max_size=5))
    pair = Pair(
        msgspec.structs.replace(OPTIONS, keywords=keywords), ClientOptions(b"relay.example.com"), pieces
    )
    pair.run()
    assert pair.is_ready
    for envelope, body, at_once in messages:
        octets = b"Subject: test\r\n\r\n" + body
        before = len(pair.server.messages)
        ended = pair.send(envelope, octets, at_once=at_once)
        if ended is None:
            continue  # this server cannot take that one; nothing was said
        wanted = [not r.address.octets.startswith(b"no") for r in envelope.recipients]
        assert [r is not None and r.is_positive for r in ended.recipients] == wanted
        assert pair.client.phase is Phase.READY
        if not any(wanted):
            assert len(pair.server.messages) == before
            continue
        assert ended.reply is not None and ended.reply.code == 250
        received = pair.server.messages[-1]
        assert len(pair.server.messages) == before + 1
        assert received.content == octets
        assert received.mail.reverse_path == envelope.reverse_path
        expected = [r for r, taken in zip(envelope.recipients, wanted, strict=True) if taken]
        assert [r.address for r in received.recipients] == [r.address for r in expected]
        if b"DSN" in keywords:
            assert received.recipients == expected
            assert (received.mail.ret, received.mail.envid) == (envelope.ret, envelope.envid)


def test_every_message_of_a_long_session_arrives_once() -> None:
    pair = Pair(OPTIONS, ClientOptions(b"relay.example.com"), [7, 1, 300])
    pair.run()
    envelope = Envelope(Address(b"a@example.com"), (Recipient(Address(b"b@example.org")),))
    for number in range(50):
        pair.send(envelope, b"Subject: %d\r\n\r\n.\r\n" % number, at_once=number % 2 == 0)
    assert [m.content for m in pair.server.messages] == [b"Subject: %d\r\n\r\n.\r\n" % n for n in range(50)]


@pytest.mark.parametrize("mechanism", [b"PLAIN", b"LOGIN"])
def test_starttls_and_login(mechanism: bytes) -> None:
    logins: list[AuthRequested] = []

    def hear(event: Event) -> Reply:
        if isinstance(event, AuthRequested):
            logins.append(event)
        return decide(event)

    server = msgspec.structs.replace(OPTIONS, tls_available=True, auth_mechanisms=(mechanism,))
    login = Login(b"user", b"pass word")
    pair = Pair(server, ClientOptions(b"relay.example.com", starttls=StartTls.REQUIRED, login=login))
    pair.server.decide = hear
    pair.run()
    assert pair.client.phase is Phase.HANDSHAKE
    assert any(isinstance(event, TlsRequested) for event in pair.server.events)
    pair.server.start_tls()
    pair.client.tls_started()
    pair.hear()
    pair.run()
    assert pair.is_ready
    (given_,) = logins
    assert (given_.mechanism, given_.identity, given_.password) == (mechanism, b"user", b"pass word")


def test_a_refused_content_leaves_a_session_that_works() -> None:
    refusing = True

    def hear(event: Event) -> Reply:
        if refusing and isinstance(event, ContentBegun):
            return reply(451, "4.3.0", "Not now")
        return decide(event)

    envelope = Envelope(Address(b"a@example.com"), (Recipient(Address(b"b@example.org")),))
    for keywords in (DEFAULT_KEYWORDS, DEFAULT_KEYWORDS - {b"CHUNKING"}, DEFAULT_KEYWORDS - {b"PIPELINING"}):
        for at_once in (True, False):
            refusing = True
            pair = Pair(
                msgspec.structs.replace(OPTIONS, keywords=keywords), ClientOptions(b"relay.example.com")
            )
            pair.server.decide = hear
            pair.run()
            ended = pair.send(envelope, b"A: b\r\n\r\nQUIT\r\n", at_once=at_once)
            assert ended is not None and ended.reply is not None and ended.reply.code == 451
            refusing = False
            ended = pair.send(envelope, b"A: b\r\n\r\nQUIT\r\n", at_once=at_once)
            assert ended is not None and ended.reply is not None and ended.reply.code == 250
            assert len(pair.server.messages) == 1
