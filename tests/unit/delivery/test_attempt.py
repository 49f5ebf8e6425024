"""The courier over loopback sockets: what arrives, what is recorded, what each failure makes of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from lonedot.delivery.classify import PASSED_ON, RELAYED
from lonedot.delivery.routing import NextHop, NoNextHop, Route, Smarthosts, Timeouts
from lonedot.message.content import Content, FileBody, MemoryBody
from lonedot.message.findings import Part
from lonedot.message.fold import apply_changes, digests_of
from lonedot.message.ledger import Action, Change, Digests, Entry, Splice, Transform
from lonedot.message.measure import measure
from lonedot.spool.interface import Claim, ContentDamaged, RecipientState, SpoolFault
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Notify, Recipient, Ret
from lonedot.terms.outcome import Result, Stage
from tests.unit.delivery.outbound import QUICK, claim, message, outbound, route
from tests.unit.delivery.peer import HANG_UP, SILENCE, Peer, running

CHUNKING = (b"PIPELINING", b"8BITMIME", b"CHUNKING", b"SIZE")
LOCKSTEP = (b"8BITMIME",)
PIPELINING = (b"PIPELINING", b"8BITMIME")


def stored(folder: Path, octets: bytes, head: bytes = b"Subject: test\r\n\r\n") -> Content:
    """A message whose body is a file."""
    path = folder / "body"
    path.write_bytes(octets)
    return Content(head, FileBody(path, len(octets)), measure(head), measure(octets))


def entry(before: Content, *changes: Change, scope: tuple[int, ...] = ()) -> Entry:
    after = apply_changes(before, changes)
    return Entry(
        "test",
        "",
        "arrival",
        0,
        0,
        digests_of(before),
        digests_of(after),
        Action.KEPT,
        changes=changes,
        scope=scope,
    )


# --- what arrives -------------------------------------------------------------------------------------


@pytest.mark.parametrize("offer", [PIPELINING, CHUNKING, LOCKSTEP, (b"CHUNKING",)])
async def test_a_message_arrives_octet_for_octet_and_is_proved(offer: Sequence[bytes]) -> None:
    content = message(b"one\r\n.two\r\n..\r\nthree.\r\n")
    async with running(Peer(offer)) as peer, outbound(route(peer.port)) as out:
        delivery = await out.send(claim(content=content))
        (received,) = peer.messages
        assert received.mode == ("BDAT" if b"CHUNKING" in offer else "DATA")
        octets = content.octets()
        if received.mode == "DATA":
            octets = octets.replace(b"\n.", b"\n..") + b".\r\n"
        assert received.octets == octets
        attempt = delivery.attempts[-1]
        assert attempt.wire is not None
        assert (attempt.wire.mode, attempt.wire.size) == (received.mode, len(octets))
        assert attempt.wire.tail == octets[-64:]
        end = len(octets) - (3 if received.mode == "DATA" else 0)
        split = len(content.head)
        assert attempt.wire.head_sha256 == hashlib.sha256(octets[:split]).digest()
        assert attempt.wire.body_sha256 == hashlib.sha256(octets[split:end]).digest()
        ((index, outcome),) = attempt.outcomes
        assert (index, outcome.result, outcome.stage, outcome.status) == (
            0,
            Result.DELIVERED,
            Stage.CONTENT,
            "2.0.0",
        )
        assert outcome.reply is not None and outcome.reply.lines == (b"2.0.0 Ok: queued",)
        assert attempt.next_hop == outcome.next_hop == f"[127.0.0.1]:{peer.port}"
        assert (attempt.route, attempt.tls, delivery.hold) == ("out", "", "")


async def test_with_pipelining_envelope_and_body_are_one_write_each() -> None:
    async with running(Peer(PIPELINING)) as peer, outbound(route(peer.port)) as out:
        await out.send(claim(b"b@example.org", b"c@example.org"))
        assert peer.segments[1:] == [
            b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<c@example.org>\r\nDATA\r\n",
            b"Subject: test\r\n\r\nHello\r\n.\r\n",
        ]


async def test_with_chunking_everything_is_one_write() -> None:
    async with running(Peer(CHUNKING)) as peer, outbound(route(peer.port)) as out:
        await out.send(claim())
        assert peer.segments[1:] == [
            b"MAIL FROM:<a@example.com> SIZE=24\r\nRCPT TO:<b@example.org>\r\nBDAT 24 LAST\r\n"
            b"Subject: test\r\n\r\nHello\r\n"
        ]


async def test_a_keyword_that_the_route_switches_off_is_not_used() -> None:
    async with (
        running(Peer(CHUNKING)) as peer,
        outbound(route(peer.port, ehlo_ignore=frozenset({"chunking", "size"}))) as out,
    ):
        await out.send(claim())
        assert peer.messages[0].mode == "DATA"
        assert peer.messages[0].mail == b"MAIL FROM:<a@example.com>"


@pytest.mark.parametrize("offer", [PIPELINING, CHUNKING])
async def test_a_large_file_arrives_whole(tmp_path: Path, offer: Sequence[bytes]) -> None:
    body = b"".join(b".%07d %s\r\n" % (n, b"x" * 66) for n in range(40_000))
    content = stored(tmp_path, body)
    async with running(Peer(offer)) as peer, outbound(route(peer.port)) as out:
        delivery = await out.send(claim(content=content))
        (received,) = peer.messages
        assert (
            received.octets
            == content.head + body.replace(b"\n.", b"\n..").replace(b".0", b"..0", 1) + b".\r\n"
        )
        assert delivery.attempts[-1].wire is not None
        assert delivery.attempts[-1].wire.size == len(received.octets)


async def test_a_peer_that_reads_slowly_gets_all_of_a_large_body_in_memory() -> None:
    body = (b"x" * 76 + b"\r\n") * 60_000
    async with running(Peer(PIPELINING)) as peer, outbound(route(peer.port)) as out:
        assert (await out.outcome(claim(content=message(body)))).result is Result.DELIVERED
        assert peer.messages[0].octets.endswith(body + b".\r\n")


async def test_the_ledger_is_folded_over_the_arrival_form() -> None:
    arrival = message(b"bare\nline feed")
    repaired = apply_changes(arrival, [Transform("crlf")])
    added = Splice(Part.HEAD, 0, 0, b"X-Added: yes\r\n")
    ledger = (entry(arrival, Transform("crlf")), entry(repaired, added))
    async with running(Peer()) as peer, outbound(route(peer.port)) as out:
        await out.send(claim(content=arrival, ledger=ledger))
        assert peer.messages[0].octets == b"X-Added: yes\r\nSubject: test\r\n\r\nbare\r\nline feed\r\n.\r\n"


async def test_a_repaired_file_is_put_together_in_a_thread(tmp_path: Path) -> None:
    arrival = stored(tmp_path, b"bare\nline feed\n" * 1000)
    ledger = (entry(arrival, Transform("crlf")),)
    async with running(Peer()) as peer, outbound(route(peer.port)) as out:
        assert (await out.outcome(claim(content=arrival, ledger=ledger))).result is Result.DELIVERED
        assert peer.messages[0].octets.endswith(b"bare\r\nline feed\r\n" * 1000 + b".\r\n")


async def test_copies_that_differ_go_in_transactions_of_their_own() -> None:
    arrival = message()
    own = Splice(Part.HEAD, 0, 0, b"X-Recipient: c@example.org\r\n")
    ledger = (entry(arrival, own, scope=(1,)),)
    async with running(Peer()) as peer, outbound(route(peer.port)) as out:
        delivery = await out.send(
            claim(b"b@example.org", b"c@example.org", b"d@example.org", content=arrival, ledger=ledger)
        )
        assert {index: outcome.result for index, outcome in delivery.outcomes} == dict.fromkeys(
            range(3), Result.DELIVERED
        )
        copies = {tuple(received.recipients): received.octets for received in peer.messages}
        assert copies == {
            (b"RCPT TO:<b@example.org>", b"RCPT TO:<d@example.org>"): arrival.octets() + b".\r\n",
            (b"RCPT TO:<c@example.org>",): b"X-Recipient: c@example.org\r\n" + arrival.octets() + b".\r\n",
        }
        # Each copy is an attempt with a record of its own.
        recorded = {
            tuple(index for index, _ in attempt.outcomes): attempt.wire.size
            for attempt in delivery.attempts
            if attempt.wire is not None
        }
        assert recorded == {(0, 2): arrival.size + 3, (1,): arrival.size + 3 + len(own.octets)}
        assert all(attempt.transcript is not None for attempt in delivery.attempts)
        assert {attempt.next_hop for attempt in delivery.attempts} == {delivery.attempts[0].next_hop} != {""}


async def test_no_more_than_ten_transactions_wait_for_their_settlement() -> None:
    arrival = message()
    names = [b"r%d@example.org" % number for number in range(12)]
    ledger = tuple(
        entry(arrival, Splice(Part.HEAD, 0, 0, b"X-Recipient: %s\r\n" % name), scope=(number,))
        for number, name in enumerate(names)
    )
    async with running(Peer()) as peer, outbound(route(peer.port)) as out:
        delivery = await out.send(claim(*names, content=arrival, ledger=ledger))
        assert [index for index, _ in delivery.outcomes] == list(range(10))
        assert len(delivery.attempts) == len(peer.messages) == 10
        assert delivery.hold == ""


async def test_a_scoped_entry_that_changes_nothing_makes_no_copy() -> None:
    ledger = (entry(message(), scope=(1,)),)
    async with running(Peer()) as peer, outbound(route(peer.port)) as out:
        await out.send(claim(b"b@example.org", b"c@example.org", ledger=ledger))
        assert [len(received.recipients) for received in peer.messages] == [2]


async def test_copies_share_a_body_and_have_records_of_their_own() -> None:
    arrival = message("ü\r\n".encode())
    own = Splice(Part.HEAD, 0, 0, b"X-Recipient: c@example.org\r\n")
    peer = Peer()
    async with (
        running(peer) as listening,
        outbound(route(listening.port, recipients_per_transaction=1)) as out,
    ):
        delivery = await out.send(
            claim(
                b"b@example.org", b"c@example.org", content=arrival, ledger=(entry(arrival, own, scope=(1,)),)
            )
        )
        assert [len(attempt.outcomes) for attempt in delivery.attempts] == [1, 1]
        first, second = delivery.attempts
        assert first.wire is not None and second.wire is not None
        assert first.wire.head_sha256 != second.wire.head_sha256
        assert first.wire.body_sha256 == second.wire.body_sha256


async def test_many_recipients_go_in_several_transactions() -> None:
    recipients = [b"r%d@example.org" % n for n in range(7)]
    async with running(Peer()) as peer, outbound(route(peer.port, recipients_per_transaction=3)) as out:
        delivery = await out.send(claim(*recipients))
        assert [len(received.recipients) for received in peer.messages] == [3, 3, 1]
        assert [index for index, _ in delivery.outcomes] == list(range(7))
        assert peer.sessions == 1


async def test_dsn_parameters_travel_only_where_dsn_is_offered() -> None:
    asked = Recipient(Address(b"b@example.org"), Notify.SUCCESS | Notify.FAILURE, b"rfc822;b@example.org")
    envelope = Envelope(Address(b"a@example.com"), (), ret=Ret.FULL, envid=b"QQ1")
    for offer, reason in (((b"DSN",), PASSED_ON), ((), RELAYED)):
        async with running(Peer((*PIPELINING, *offer))) as peer, outbound(route(peer.port)) as out:
            outcome = await out.outcome(claim(asked, envelope=envelope))
            assert outcome.reason == reason
            (received,) = peer.messages
            assert (b"RET=FULL ENVID=QQ1" in received.mail) is bool(offer)
            assert (b"NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b@example.org" in received.recipients[0]) is bool(
                offer
            )


# --- 7 bits -------------------------------------------------------------------------------------------

EIGHT_BIT_HEAD = (
    b"Subject: test\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\n"
)


async def test_eight_bit_content_goes_as_it_is_where_it_may() -> None:
    content = message("grüße\r\n".encode(), EIGHT_BIT_HEAD)
    async with running(Peer(PIPELINING)) as peer, outbound(route(peer.port)) as out:
        delivery = await out.send(claim(content=content))
        assert peer.messages[0].mail.endswith(b" BODY=8BITMIME")
        assert peer.messages[0].octets == content.octets() + b".\r\n"
        assert delivery.attempts[-1].suffix == ()


@pytest.mark.parametrize("in_file", [False, True])
async def test_eight_bit_content_is_encoded_for_a_seven_bit_hop(tmp_path: Path, in_file: bool) -> None:
    body = "grüße\r\n".encode()
    content = stored(tmp_path, body, EIGHT_BIT_HEAD) if in_file else message(body, EIGHT_BIT_HEAD)
    async with (
        running(Peer(PIPELINING)) as peer,
        outbound(route(peer.port, ehlo_ignore=frozenset({"8BITMIME"}))) as out,
    ):
        delivery = await out.send(claim(content=content))
        (received,) = peer.messages
        assert received.octets.isascii()
        assert b"gr=C3=BC=C3=9Fe\r\n" in received.octets
        assert b"BODY" not in received.mail
        (suffix,) = delivery.attempts[-1].suffix
        assert (suffix.event, suffix.binding, suffix.changes) == (
            "downgrade",
            "lonedot",
            (Transform("encode-7bit"),),
        )
        assert suffix.before == digests_of(content)
        wire = delivery.attempts[-1].wire
        assert wire is not None and suffix.after == Digests(wire.head_sha256, wire.body_sha256)


async def test_a_signed_message_fails_at_a_seven_bit_hop() -> None:
    head = b"MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b; protocol=x; micalg=y\r\n\r\n"
    body = "--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nü\r\n--b\r\n\r\nsig\r\n--b--\r\n".encode()
    async with running(Peer((b"PIPELINING",))) as peer, outbound(route(peer.port)) as out:
        outcome = await out.outcome(claim(content=message(body, head)))
        assert (outcome.result, outcome.stage, outcome.status) == (Result.FAILED, Stage.LOCAL, "5.6.3")
        assert peer.messages == []


# --- what a hop cannot take ---------------------------------------------------------------------------


async def test_what_is_too_large_is_not_sent() -> None:
    async with running(Peer((b"SIZE 20",))) as peer, outbound(route(peer.port)) as out:
        outcome = await out.outcome(claim())
        assert (outcome.result, outcome.status) == (Result.FAILED, "5.3.4")
        assert outcome.next_hop == f"[127.0.0.1]:{peer.port}"
        assert peer.commands == [b"EHLO relay.example.com"]


async def test_an_international_address_fails_alone_where_smtputf8_is_missing() -> None:
    async with running(Peer(PIPELINING)) as peer, outbound(route(peer.port)) as out:
        delivery = await out.send(claim(b"b@example.org", "ü@example.org".encode(), b"x y@example.org"))
        outcomes = {index: (outcome.result, outcome.status) for index, outcome in delivery.outcomes}
        assert outcomes == {
            0: (Result.DELIVERED, "2.0.0"),
            1: (Result.FAILED, "5.6.7"),
            2: (Result.FAILED, "5.1.3"),
        }
        assert peer.messages[0].recipients == [b"RCPT TO:<b@example.org>"]


# --- replies ------------------------------------------------------------------------------------------


async def test_each_recipient_has_its_own_outcome() -> None:
    answers = {b"<no@example.org>": b"550 5.1.1 unknown\r\n", b"<later@example.org>": b"450 4.2.0 busy\r\n"}
    for offer in (PIPELINING, CHUNKING, LOCKSTEP):
        async with running(Peer(offer, answers)) as peer, outbound(route(peer.port)) as out:
            delivery = await out.send(claim(b"yes@example.org", b"no@example.org", b"later@example.org"))
            outcomes = dict(delivery.outcomes)
            assert [outcomes[n].result for n in range(3)] == [
                Result.DELIVERED,
                Result.FAILED,
                Result.DEFERRED,
            ]
            assert [outcomes[n].stage for n in range(3)] == [Stage.CONTENT, Stage.RCPT, Stage.RCPT]
            assert [outcomes[n].status for n in range(3)] == ["2.0.0", "5.1.1", "4.2.0"]


@pytest.mark.parametrize("offer", [PIPELINING, CHUNKING, LOCKSTEP])
@pytest.mark.parametrize(
    ("verb", "answer", "result", "stage"),
    [
        (b"MAIL", b"550 5.7.1 no\r\n", Result.FAILED, Stage.MAIL),
        (b"MAIL", b"451 4.3.0 no\r\n", Result.DEFERRED, Stage.MAIL),
        (b"RCPT", b"550 5.1.1 no\r\n", Result.FAILED, Stage.RCPT),
        (b"RCPT", b"450 4.1.1 no\r\n", Result.DEFERRED, Stage.RCPT),
        (b"END", b"554 5.7.1 no\r\n", Result.FAILED, Stage.CONTENT),
        (b"END", b"451 4.3.0 no\r\n", Result.DEFERRED, Stage.CONTENT),
        (b"MAIL", b"421 4.3.2 no\r\n", Result.DEFERRED, Stage.MAIL),
        (b"RCPT", b"421 4.3.2 no\r\n", Result.DEFERRED, Stage.RCPT),
        (b"END", b"421 4.3.2 no\r\n", Result.DEFERRED, Stage.CONTENT),
    ],
)
async def test_a_refusal_is_believed_and_the_next_message_still_goes(
    offer: Sequence[bytes], verb: bytes, answer: bytes, result: Result, stage: Stage
) -> None:
    async with running(Peer(offer, {verb: [answer, b""]})) as peer, outbound(route(peer.port)) as out:
        outcome = await out.outcome(claim())
        assert (outcome.result, outcome.stage) == (result, stage)
        assert outcome.reply is not None and outcome.reply.encode().endswith(answer[4:])
        assert (await out.outcome(claim())).result is Result.DELIVERED


async def test_a_refused_data_is_believed() -> None:
    answers = {b"DATA": [b"451 4.3.0 no\r\n", b""]}
    async with running(Peer(PIPELINING, answers)) as peer, outbound(route(peer.port)) as out:
        outcome = await out.outcome(claim())
        assert (outcome.result, outcome.stage) == (Result.DEFERRED, Stage.DATA)
        assert (await out.outcome(claim())).result is Result.DELIVERED
        assert peer.sessions == 1
        assert b"RSET" in peer.commands


# --- lost connections ---------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [b"MAIL", b"RCPT", b"DATA"])
async def test_a_connection_lost_before_the_content_defers(verb: bytes) -> None:
    async with running(Peer(LOCKSTEP, {verb: HANG_UP})) as peer, outbound(route(peer.port)) as out:
        outcome = await out.outcome(claim())
        assert (outcome.result, outcome.stage.value) == (Result.DEFERRED, verb.decode().lower())
        assert "closed the connection" in outcome.reason


async def test_a_connection_lost_behind_the_end_of_data_is_deferred_and_says_what_may_happen() -> None:
    async with running(Peer(PIPELINING, {b"END": HANG_UP})) as peer, outbound(route(peer.port)) as out:
        delivery = await out.send(claim())
        ((_, outcome),) = delivery.outcomes
        assert (outcome.result, outcome.stage) == (Result.DEFERRED, Stage.CONTENT)
        assert "second copy is possible" in outcome.reason
        assert delivery.attempts[-1].wire is not None


async def test_a_refusal_that_came_before_the_loss_stands() -> None:
    answers = {b"<no@example.org>": b"550 5.1.1 unknown\r\n", b"DATA": HANG_UP}
    async with running(Peer(LOCKSTEP, answers)) as peer, outbound(route(peer.port)) as out:
        delivery = await out.send(claim(b"no@example.org", b"yes@example.org"))
        outcomes = dict(delivery.outcomes)
        assert (outcomes[0].result, outcomes[0].status) == (Result.FAILED, "5.1.1")
        assert (outcomes[1].result, outcomes[1].stage) == (Result.DEFERRED, Stage.DATA)


async def test_a_refused_sender_stands_when_the_connection_is_lost_behind_it() -> None:
    answers = {b"MAIL": b"550 5.7.1 no\r\n", b"RCPT": b"503 5.5.1 no\r\n", b"DATA": HANG_UP}
    async with running(Peer(PIPELINING, answers)) as peer, outbound(route(peer.port)) as out:
        outcome = await out.outcome(claim())
        assert (outcome.result, outcome.stage, outcome.status) == (Result.FAILED, Stage.MAIL, "5.7.1")


@pytest.mark.parametrize(
    ("verb", "timeouts", "words"),
    [
        (b"GREETING", {"greeting": 0.05}, "greeting"),
        (b"EHLO", {"command": 0.05}, "ehlo"),
        (b"MAIL", {"command": 0.05}, "mail"),
        (b"DATA", {"data": 0.05}, "data"),
        (b"END", {"end": 0.05}, "end of data in time"),
    ],
)
async def test_silence_is_borne_only_so_long(verb: bytes, timeouts: dict[str, float], words: str) -> None:
    quick = Timeouts(**{name: getattr(QUICK, name) for name in QUICK.__struct_fields__} | timeouts)
    async with (
        running(Peer(LOCKSTEP, {verb: SILENCE})) as peer,
        outbound(route(peer.port, timeouts=quick)) as out,
    ):
        outcome = await out.outcome(claim())
        assert outcome.result is Result.DEFERRED
        assert words in outcome.reason


async def test_an_unasked_reply_ends_the_session() -> None:
    answers = {b"END": b"250 2.0.0 Ok\r\n250 2.0.0 and more\r\n"}
    async with running(Peer(PIPELINING, answers)) as peer, outbound(route(peer.port)) as out:
        assert (await out.outcome(claim())).result is Result.DELIVERED
        assert (await out.outcome(claim())).result is Result.DELIVERED
        assert peer.sessions == 2


async def test_nonsense_instead_of_a_reply_defers() -> None:
    answers = {b"MAIL": b"what is this?\r\n"}
    async with running(Peer(PIPELINING, answers)) as peer, outbound(route(peer.port)) as out:
        outcome = await out.outcome(claim())
        assert (outcome.result, outcome.stage) == (Result.DEFERRED, Stage.MAIL)
        assert "broke the protocol" in outcome.reason


# --- sessions that cannot be had ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "stage"),
    [
        ({b"GREETING": b"554 5.7.1 listed\r\n"}, Stage.GREETING),
        ({b"GREETING": b"421 4.3.2 busy\r\n"}, Stage.GREETING),
        ({b"EHLO": b"550 who\r\n", b"HELO": b"550 who\r\n"}, Stage.EHLO),
        ({b"GREETING": HANG_UP}, Stage.GREETING),
        ({b"EHLO": HANG_UP}, Stage.EHLO),
    ],
)
async def test_a_hop_that_does_not_take_sessions_defers(answers: dict[bytes, bytes], stage: Stage) -> None:
    async with running(Peer(answers=answers)) as peer, outbound(route(peer.port)) as out:
        delivery = await out.send(claim(b"b@example.org", b"c@example.org"))
        assert {outcome.result for _, outcome in delivery.outcomes} == {Result.DEFERRED}
        assert {outcome.stage for _, outcome in delivery.outcomes} == {stage}
        assert len(delivery.outcomes) == 2
        assert delivery.attempts[-1].transcript is not None


async def test_a_closed_port_defers_and_says_so() -> None:
    async with running(Peer()) as peer:
        port = peer.port
    async with outbound(route(port)) as out:
        outcome = await out.outcome(claim())
        assert (outcome.result, outcome.stage, outcome.status) == (Result.DEFERRED, Stage.CONNECT, "4.4.1")
        assert "refused" in outcome.reason.lower()
        assert outcome.next_hop == f"[127.0.0.1]:{port}"


async def test_a_name_that_does_not_exist_defers() -> None:
    async with outbound(route(25, target=Smarthosts((NextHop("no-such-host.invalid", 25),)))) as out:
        outcome = await out.outcome(claim())
        assert (outcome.result, outcome.stage) == (Result.DEFERRED, Stage.CONNECT)
        assert "no-such-host.invalid" in outcome.reason


async def test_the_next_smarthost_is_tried_when_one_is_away_or_refuses() -> None:
    async with running(Peer(answers={b"GREETING": b"554 go away\r\n"})) as sour, running(Peer()) as good:
        async with running(Peer()) as gone:
            closed = gone.port
        hosts = tuple(NextHop("127.0.0.1", port) for port in (closed, sour.port, good.port))
        async with outbound(route(0, target=Smarthosts(hosts))) as out:
            outcome = await out.outcome(claim())
            assert outcome.result is Result.DELIVERED
            assert outcome.next_hop.endswith(f":{good.port}")
            assert (sour.sessions, good.sessions) == (1, 1)


class _Lost:
    def destination(self, route: Route, domain: bytes) -> str:
        return domain.decode()

    async def next_hops(self, route: Route, destination: str) -> Sequence[NextHop]:
        raise NoNextHop(f"the name server does not answer for {destination}")


async def test_a_resolver_that_finds_nothing_defers_each_destination_by_itself() -> None:
    async with outbound(route(25), resolver=_Lost()) as out:
        delivery = await out.send(claim(b"a@one.example", b"b@two.example", b"c@one.example"))
        reasons = {index: outcome.reason for index, outcome in delivery.outcomes}
        assert reasons == {
            0: "the name server does not answer for one.example",
            1: "the name server does not answer for two.example",
            2: "the name server does not answer for one.example",
        }
        assert {outcome.stage for _, outcome in delivery.outcomes} == {Stage.ROUTE}


async def test_a_route_that_is_no_more_defers() -> None:
    async with outbound(route(25)) as out:
        delivery = await out.send(claim(), "elsewhere")
        ((_, outcome),) = delivery.outcomes
        assert (outcome.result, outcome.stage) == (Result.DEFERRED, Stage.ROUTE)


# --- octets that cannot be sent -----------------------------------------------------------------------


async def test_an_altered_file_is_never_ended_and_the_message_held(tmp_path: Path) -> None:
    content = stored(tmp_path, b"line of the body\r\n" * 20_000)
    (tmp_path / "body").write_bytes(b"line of the body\r\n" * 19_999 + b"LINE of the body\r\n")
    async with running(Peer(CHUNKING)) as peer, outbound(route(peer.port)) as out:
        delivery = await out.send(claim(content=content))
        assert "not those that were accepted" in delivery.hold
        assert delivery.outcomes == ()
        assert (await out.outcome(claim())).result is Result.DELIVERED
        assert [received.octets[:7] for received in peer.messages] == [b"Subject"]
        assert peer.open == 1


@pytest.mark.parametrize("left", [b"", b"line of the body\r\n" * 3, b"line of the body\r\n" * 20_001, None])
async def test_a_file_of_another_length_is_held(tmp_path: Path, left: bytes | None) -> None:
    content = stored(tmp_path, b"line of the body\r\n" * 20_000)
    if left is None:
        (tmp_path / "body").unlink()
    else:
        (tmp_path / "body").write_bytes(left)
    async with running(Peer()) as peer, outbound(route(peer.port)) as out:
        delivery = await out.send(claim(content=content))
        assert delivery.hold
        assert peer.messages == []


async def test_an_altered_body_in_memory_is_held_before_anything_is_said() -> None:
    good = message()
    bad = Content(good.head, MemoryBody(b"Hullo\r\n"), good.head_measure, good.body_measure)
    for offer in (PIPELINING, CHUNKING):
        async with running(Peer(offer)) as peer, outbound(route(peer.port)) as out:
            delivery = await out.send(claim(content=bad))
            assert "not those that were accepted" in delivery.hold
            assert peer.messages == []


async def test_a_ledger_that_does_not_fit_is_held() -> None:
    arrival = message()
    wrong = entry(arrival, Splice(Part.HEAD, 0, 0, b"X-A: b\r\n"))
    async with running(Peer()) as peer, outbound(route(peer.port)) as out:
        delivery = await out.send(claim(content=message(b"Other\r\n"), ledger=(wrong,)))
        assert delivery.hold
        assert peer.commands == []


@pytest.mark.parametrize("octets", [b"bare\nline\r\n", b"no line end", b"nul\0\r\n", b"x" * 999 + b"\r\n"])
async def test_what_is_not_canonical_is_held_and_named(octets: bytes) -> None:
    async with running(Peer()) as peer, outbound(route(peer.port)) as out:
        delivery = await out.send(claim(content=message(octets)))
        assert delivery.hold.startswith("the message cannot be sent as it is: ")
        assert peer.commands == []


def without_content(what: Claim) -> Claim:
    return Claim(what.message, what.epoch, None)


async def test_content_is_fetched_from_custody_when_it_is_not_at_hand() -> None:
    async with running(Peer()) as peer, outbound(route(peer.port)) as out:
        what = without_content(claim())
        out.stored[what.message.id] = message(b"from the spool\r\n")
        assert (await out.outcome(what)).result is Result.DELIVERED
        assert peer.messages[0].octets.endswith(b"from the spool\r\n.\r\n")


async def test_damaged_missing_and_unreadable_content() -> None:
    async with running(Peer()) as peer, outbound(route(peer.port)) as out:
        what = without_content(claim())
        out.stored[what.message.id] = ContentDamaged("digest differs")
        assert "digest differs" in (await out.send(what)).hold
        delivery = await out.send(without_content(claim()))
        assert (delivery.hold, delivery.outcomes) == ("", ())
        what = without_content(claim())
        out.stored[what.message.id] = SpoolFault("the disk is away")
        outcome = await out.outcome(what)
        assert (outcome.result, outcome.stage) == (Result.DEFERRED, Stage.LOCAL)
        assert "the disk is away" in outcome.reason
        assert peer.sessions == 0


# --- transcripts --------------------------------------------------------------------------------------


async def test_the_transcript_has_everything_but_the_content() -> None:
    async with running(Peer(PIPELINING)) as peer, outbound(route(peer.port)) as out:
        secret_body = b"nobody may read this\r\n" + b"x" * 70 + b"%%EOF\r\n"
        delivery = await out.send(claim(content=message(secret_body)))
        ref = delivery.attempts[-1].transcript
        assert ref is not None and ref.offset == 1
        (session, lines, peer_name) = out.transcripts.records[0]
        assert (session, peer_name) == ("session1", f"[127.0.0.1]:{peer.port}")
        said = [(mark, octets) for _, mark, octets in lines]
        assert said[0] == ("#", f"connecting to [127.0.0.1]:{peer.port}".encode())
        assert said[1:4] == [
            ("<", b"220 peer.example ready\r\n"),
            (">", b"EHLO relay.example.com\r\n"),
            ("<", b"250-peer.example greets you\r\n250-PIPELINING\r\n250 8BITMIME\r\n"),
        ]
        assert said[4] == (">", b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n")
        assert said[6][0] == "#" and b"octets of content, ending in" in said[6][1]
        assert said[6][1].endswith(b"%%EOF\\r\\n.\\r\\n")
        assert said[7] == ("<", b"250 2.0.0 Ok: queued\r\n")
        assert out.transcripts.text.count(b"nobody may read") == 0
        times = [at for at, _, _ in lines]
        assert times == sorted(times)
        # The next message over the same session has a record of its own, without the opening.
        await out.send(claim())
        assert out.transcripts.records[1][0] == "session1"
        assert out.transcripts.records[1][1][0][2].startswith(b"MAIL FROM")


async def test_closing_reports_what_was_not_tried_and_what_was_cut_off() -> None:
    answers = {b"END": SILENCE}
    async with running(Peer(PIPELINING, answers)) as peer, outbound(route(peer.port, connections=1)) as out:
        running_one = out.post(claim())
        while not peer.messages:
            await asyncio.wait({asyncio.ensure_future(asyncio.sleep(0))})
        waiting = out.post(claim())
        await out.courier.close(0.01)
        cut_off = (await running_one).outcomes
        assert cut_off[0][1].result is Result.DEFERRED
        assert "second copy is possible" in cut_off[0][1].reason
        assert (await waiting).outcomes == ()
        assert (await out.send(claim())).outcomes == ()


async def test_a_bug_costs_one_message_its_attempt_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from lonedot.delivery import attempt

    async with running(Peer()) as peer, outbound(route(peer.port)) as out:
        await out.send(claim())
        with monkeypatch.context() as patch:

            def broken(*_: object) -> None:
                raise KeyError("a bug")

            patch.setattr(attempt, "plan_transaction", broken)
            delivery = await out.send(claim())
            assert "a bug" in delivery.hold
        assert (await out.outcome(claim())).result is Result.DELIVERED
        assert peer.sessions == 1


def test_states_are_those_of_the_claim() -> None:
    """The recipients are numbered by the spool, not by their place in the transaction."""
    what = claim(b"b@example.org", b"c@example.org")
    assert [state.index for state in what.message.recipients] == [0, 1]
    assert isinstance(what.message.recipients[0], RecipientState)
