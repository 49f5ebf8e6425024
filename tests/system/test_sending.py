"""What next hops say and do, stage by stage, and what the relay makes of it: outcomes, connections, TLS, logins."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
import trustme

from lonedot.admin.operations import Desk, why
from lonedot.admin.values import IdArguments
from lonedot.config.model import Config
from lonedot.diagnosis.transcripts import StoredTranscripts
from lonedot.spool.interface import MessageState, RecipientStatus, Stored
from lonedot.spool.sqlite import CONTENT_LIMIT
from lonedot.terms.ids import MessageId
from lonedot.terms.outcome import Outcome, Result, Stage
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import (
    MESSAGE,
    eventually,
    finished,
    first_config,
    reports_of,
    submit,
    until,
)
from tests.unit.delivery.peer import HANG_UP, SILENCE, Peer, running

OFFER = (b"PIPELINING", b"8BITMIME", b"SIZE 10000000", b"ENHANCEDSTATUSCODES")
PLAIN_OFFER = (b"8BITMIME",)
LARGE = MESSAGE + (b"x" * 70 + b"\r\n") * (CONTENT_LIMIT // 60)


def last_of(stored: Stored, place: int = 0) -> Outcome:
    last = stored.recipients[place].last
    assert last is not None
    return last


def tried(stored: Stored) -> bool:
    return all(recipient.attempts for recipient in stored.recipients)


def routes(**values: object) -> Callable[[Config], Config]:
    """Change values of every route."""

    def change(config: Config) -> Config:
        changed = tuple(msgspec.structs.replace(one, **values) for one in config.routes)
        return msgspec.structs.replace(config, routes=changed)

    return change


# --- replies, stage by stage ---------------------------------------------------------------------

DEFERRED, FAILED = Result.DEFERRED, Result.FAILED
SCRIPTED = [
    (b"GREETING", b"421 4.3.2 not now\r\n", Stage.GREETING, DEFERRED),
    (b"GREETING", b"554 5.3.2 we never take mail\r\n", Stage.GREETING, DEFERRED),
    (b"EHLO", b"451 4.3.0 not now\r\n", Stage.EHLO, DEFERRED),
    (b"EHLO", b"550 5.7.1 your name is bad\r\n", Stage.EHLO, DEFERRED),
    (b"MAIL", b"451 4.7.1 greylisted\r\n", Stage.MAIL, DEFERRED),
    (b"MAIL", b"550 5.7.1 not from you\r\n", Stage.MAIL, FAILED),
    (b"RCPT", b"450 4.2.1 later\r\n", Stage.RCPT, DEFERRED),
    (b"RCPT", b"550 5.1.1 nobody here\r\n", Stage.RCPT, FAILED),
    (b"DATA", b"451 4.3.0 later\r\n", Stage.DATA, DEFERRED),
    (b"DATA", b"554 5.7.1 no text of yours\r\n", Stage.DATA, FAILED),
    (b"END", b"452 4.3.1 full\r\n", Stage.CONTENT, DEFERRED),
    (b"END", b"550-5.7.1 we scanned it\r\n550 5.7.1 and found something\r\n", Stage.CONTENT, FAILED),
]


@pytest.mark.parametrize("offer", [OFFER, PLAIN_OFFER], ids=["pipelined", "one by one"])
@pytest.mark.parametrize(("verb", "answer", "stage", "result"), SCRIPTED)
async def test_a_reply_decides_in_the_remotes_own_words(
    tmp_path: Path, offer: tuple[bytes, ...], verb: bytes, answer: bytes, stage: Stage, result: Result
) -> None:
    answers = {verb: answer}
    if verb == b"EHLO":
        answers[b"HELO"] = answer
    async with (
        running(Peer(offer, answers)) as peer,
        running_relay(tmp_path, first_config(peer.port)) as relay,
    ):
        stored = await until(relay, await submit(relay, sender=""), tried)
    outcome = last_of(stored)
    assert (outcome.stage, outcome.result) == (stage, result)
    assert outcome.reply is not None
    words = [line[4:].decode() for line in answer.split(b"\r\n") if line]
    assert outcome.reply.code == int(answer[:3])
    assert [line.decode() for line in outcome.reply.lines] == words
    assert outcome.next_hop == f"[127.0.0.1]:{peer.port}"
    assert verb == b"END" or all(message.octets == b".\r\n" for message in peer.messages)
    status = stored.recipients[0].status
    assert status is (RecipientStatus.FAILED if result is FAILED else RecipientStatus.WAITING)


async def test_each_recipient_has_its_own_outcome(tmp_path: Path) -> None:
    answers = {b"<b@d.example>": b"550 5.1.1 no b\r\n", b"<c@d.example>": b"450 4.2.0 c is busy\r\n"}
    async with (
        running(Peer(OFFER, answers)) as peer,
        running_relay(tmp_path, first_config(peer.port)) as relay,
    ):
        id = await submit(relay, MESSAGE, "a@d.example", "b@d.example", "c@d.example")
        stored = await until(relay, id, tried)
        await eventually(lambda: len(peer.messages) == 2)  # the message, and the report on b
        assert [r.status for r in stored.recipients] == [
            RecipientStatus.DELIVERED,
            RecipientStatus.FAILED,
            RecipientStatus.WAITING,
        ]
        assert stored.state is MessageState.QUEUED
        report = peer.messages[1].octets
        assert b"b@d.example" in report and b"550 5.1.1 no b" in report
        assert (
            b"c@d.example" not in report.partition(b"message/rfc822")[0].partition(b"text/rfc822-headers")[0]
        )
        # Only the one that waits is tried again.
        peer.answers.clear()
        await relay.spool.retry([id], relay.clock.now())
        relay.scheduler.kick()
        await finished(relay, id)
    assert peer.messages[2].recipients == [b"RCPT TO:<c@d.example>"]


# --- connections that are lost -------------------------------------------------------------------


@pytest.mark.parametrize("verb", [b"GREETING", b"EHLO", b"MAIL", b"RCPT", b"DATA"])
async def test_lost_before_the_end_of_data_is_deferred(tmp_path: Path, verb: bytes) -> None:
    answers = {verb: HANG_UP}
    if verb == b"EHLO":
        answers[b"HELO"] = HANG_UP
    async with (
        running(Peer(OFFER, answers)) as peer,
        running_relay(tmp_path, first_config(peer.port)) as relay,
    ):
        stored = await until(relay, await submit(relay, LARGE), tried)
    assert last_of(stored).result is DEFERRED
    assert last_of(stored).reply is None
    assert "copy" not in last_of(stored).reason
    assert peer.messages == []


async def test_lost_behind_the_end_of_data_says_that_a_second_copy_is_possible(tmp_path: Path) -> None:
    async with (
        running(Peer(OFFER, {b"END": [HANG_UP, b""]})) as peer,
        running_relay(tmp_path, first_config(peer.port)) as relay,
    ):
        id = await submit(relay)
        stored = await until(relay, id, tried)
        assert last_of(stored).result is DEFERRED
        assert "second copy is possible" in last_of(stored).reason
        await relay.spool.retry([id], relay.clock.now())
        relay.scheduler.kick()
        await finished(relay, id)
    assert len(peer.messages) == 2


async def test_a_silent_next_hop_is_given_up_in_time(tmp_path: Path) -> None:
    short = routes(command_timeout=timedelta(seconds=0.2), final_timeout=timedelta(seconds=0.2))
    for number, verb in enumerate((b"GREETING", b"END")):
        folder = tmp_path / str(number)
        folder.mkdir()
        async with (
            running(Peer(OFFER, {verb: SILENCE})) as peer,
            running_relay(folder, first_config(peer.port), change=short) as relay,
        ):
            stored = await until(relay, await submit(relay), tried)
        assert last_of(stored).result is DEFERRED
        assert "in time" in last_of(stored).reason


# --- connections ---------------------------------------------------------------------------------


async def test_a_connection_is_used_again_and_for_no_more_messages_than_allowed(tmp_path: Path) -> None:
    async with running(Peer(OFFER)) as peer:
        toml = first_config(peer.port, route="connections = 1\nmessages_per_connection = 2")
        async with running_relay(tmp_path, toml) as relay:
            for _ in range(5):
                await finished(relay, await submit(relay))
    assert [message.session for message in peer.messages] == [1, 1, 2, 2, 3]


async def test_connections_to_a_next_hop_are_bounded(tmp_path: Path) -> None:
    """A dozen at once with a next hop that says nothing: no more connections than the route allows."""
    async with running(Peer(PLAIN_OFFER, {b"MAIL": SILENCE})) as peer:
        toml = first_config(peer.port, server="drain_seconds = 0", route="connections = 3")
        async with running_relay(tmp_path, toml) as relay:
            ids = [await submit(relay) for _ in range(12)]
            await eventually(lambda: peer.commands.count(b"MAIL FROM:<c@office.example>") == 3)
            pool = relay._courier.pools()[0]
            assert (peer.sessions, pool.connections, pool.opening, pool.idle) == (3, 3, 0, 0)
            assert pool.waiting >= 1
            assert {relay.spool.show(id).state for id in ids} == {MessageState.QUEUED}


async def test_an_idle_connection_closed_by_the_next_hop_costs_no_attempt(tmp_path: Path) -> None:
    async with (
        running(Peer(OFFER, hang_up_after=1)) as peer,
        running_relay(tmp_path, first_config(peer.port)) as relay,
    ):
        for _ in range(3):
            stored = await finished(relay, await submit(relay))
            assert stored.recipients[0].attempts == 1
    assert [message.session for message in peer.messages] == [1, 2, 3]


async def test_the_second_smarthost_is_tried_when_the_first_takes_no_connection(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        closed = nobody.getsockname()[1]
        async with running(Peer(OFFER)) as peer:
            hosts = f'["127.0.0.1:{closed}", "127.0.0.1:{peer.port}"]'
            toml = first_config(1).replace('"127.0.0.1:1"', hosts)
            async with running_relay(tmp_path, toml) as relay:
                stored = await finished(relay, await submit(relay))
    assert stored.recipients[0].attempts == 1
    assert stored.attempts[0].next_hop == f"[127.0.0.1]:{peer.port}"
    assert len(peer.messages) == 1


async def test_nobody_listens_anywhere(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with running_relay(tmp_path, first_config(nobody.getsockname()[1])) as relay:
            stored = await until(relay, await submit(relay), tried)
    assert (last_of(stored).stage, last_of(stored).result) == (Stage.CONNECT, DEFERRED)
    assert "refused" in last_of(stored).reason


async def test_routes_are_chosen_by_recipient_and_go_apart(tmp_path: Path) -> None:
    async with running(Peer(OFFER)) as one, running(Peer(OFFER, {b"RCPT": b"550 5.1.1 no\r\n"})) as other:
        toml = first_config(other.port).replace(
            "[[route]]",
            f'[[route]]\nname = "one"\nto = "one.example"\nsmarthost = "127.0.0.1:{one.port}"\n\n[[route]]',
        )
        async with running_relay(tmp_path, toml) as relay:
            id = await submit(relay, MESSAGE, "a@one.example", "b@two.example", "c@ONE.example", sender="")
            stored = await finished(relay, id)
    assert [r.status.value for r in stored.recipients] == ["delivered", "failed", "delivered"]
    assert [r.route for r in stored.recipients] == ["one", "out", "one"]
    assert one.messages[0].recipients == [b"RCPT TO:<a@one.example>", b"RCPT TO:<c@ONE.example>"]


async def test_what_is_too_large_for_the_next_hop_goes_back_unsent(tmp_path: Path) -> None:
    async with (
        running(Peer((b"PIPELINING", b"SIZE 2000"))) as peer,
        running_relay(tmp_path, first_config(peer.port)) as relay,
    ):
        id = await submit(relay, MESSAGE + b"x\r\n" * 1000)
        stored = await finished(relay, id)
        await eventually(lambda: peer.messages or reports_of(relay, id))
    assert last_of(stored).status == "5.3.4"
    assert not any(b"MAIL FROM:<c@office.example>" in command for command in peer.commands)


@pytest.mark.parametrize("octets", [MESSAGE, LARGE], ids=["small", "large"])
async def test_chunking_is_used_where_it_is_offered(tmp_path: Path, octets: bytes) -> None:
    async with running(Peer((*OFFER, b"CHUNKING"))) as peer:
        toml = first_config(peer.port, server='keep_content = "all"')
        async with running_relay(tmp_path, toml) as relay:
            stored = await finished(relay, await submit(relay, octets))
    wire = stored.attempts[0].wire
    assert wire is not None
    assert wire.mode == peer.messages[0].mode == ("BDAT" if octets is MESSAGE else "DATA")
    assert wire.size == len(peer.messages[0].octets)
    assert wire.tail == peer.messages[0].octets[-64:]


# --- TLS and logins ------------------------------------------------------------------------------

PASSWORD = "correct horse 7391 battery"
SECRETS = [
    PASSWORD,
    base64.b64encode(PASSWORD.encode()).decode(),
    base64.b64encode(b"\0relay-user\0" + PASSWORD.encode()).decode(),
]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def context_of(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """A server's context with a certificate for the names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


def written_by(relay_folder: Path) -> str:
    """Everything the relay has written to its spool, in one text."""
    return "".join(
        path.read_text("latin-1") for path in (relay_folder / "spool").rglob("*") if path.is_file()
    )


@pytest.mark.parametrize("mechanism", [b"PLAIN", b"LOGIN"])
@pytest.mark.parametrize("accepted", [True, False])
async def test_a_login_at_a_smarthost_and_its_secret_is_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], authority: trustme.CA, mechanism: bytes, accepted: bool
) -> None:
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o600)
    answers = {} if accepted else {b"AUTH": b"535 5.7.8 wrong\r\n"}
    offer = (*OFFER, b"STARTTLS", b"AUTH " + mechanism)
    route = 'tls = "required"\nlogin = "relay-user"\npassword_file = "password"'
    async with (
        running(Peer(offer, answers, tls=context_of(authority, "127.0.0.1"))) as peer,
        running_relay(tmp_path, first_config(peer.port, route=route)) as relay,
    ):
        id = await submit(relay)
        stored = await until(relay, id, tried)
        relay._flush()
        desk = Desk(relay.spool, relay.clock, transcripts=StoredTranscripts(relay.transcripts))
        journey = msgspec.json.encode(await why(desk, IdArguments(id))).decode()
        shown = repr(relay.config) + repr(stored) + journey
    if accepted:
        assert stored.state is MessageState.FINISHED
        assert stored.attempts[0].tls.startswith("TLSv1.")
    else:
        assert (last_of(stored).stage, last_of(stored).result) == (Stage.AUTH, DEFERRED)
        assert peer.messages == []
    login = b"".join(peer.logins)
    assert base64.b64encode(PASSWORD.encode()) in login or SECRETS[2].encode() in login
    assert "AUTH " + mechanism.decode() in journey  # the conversation is there, what it hides is not
    out, err = capfd.readouterr()
    told = shown + out + err + written_by(tmp_path)
    for secret_form in SECRETS:
        assert secret_form not in told, secret_form[:8]
    json.loads(journey)


async def test_a_password_in_the_configuration_is_in_no_repr_and_no_fault(tmp_path: Path) -> None:
    route = f'tls = "required"\nlogin = "relay-user"\npassword = "{PASSWORD}"'
    async with running_relay(tmp_path, first_config(1, route=route)) as relay:
        shown = (
            repr(relay.config)
            + str(relay.config.routes)
            + repr(msgspec.structs.asdict(relay.config.routes[0]))
        )
        shown += repr(relay._courier._routes.by_name("out"))
    assert "relay-user" in shown
    assert PASSWORD not in shown


async def test_no_login_in_the_clear(tmp_path: Path) -> None:
    """The next hop is not loopback to the relay's eyes only by name: a password waits for TLS."""
    route = f'tls = "required"\nlogin = "relay-user"\npassword = "{PASSWORD}"'
    async with (
        running(Peer((*OFFER, b"AUTH PLAIN"))) as peer,
        running_relay(tmp_path, first_config(peer.port, route=route)) as relay,
    ):
        stored = await until(relay, await submit(relay), tried)
    assert peer.logins == []
    assert last_of(stored).stage is Stage.STARTTLS


@pytest.mark.parametrize("policy", ["required", "verified"])
async def test_tls_required_and_not_offered_is_deferred_with_words(tmp_path: Path, policy: str) -> None:
    async with running(Peer(OFFER)) as peer:
        toml = first_config(peer.port, route=f'tls = "{policy}"')
        async with running_relay(tmp_path, toml) as relay:
            stored = await until(relay, await submit(relay), tried)
    assert (last_of(stored).stage, last_of(stored).result) == (Stage.STARTTLS, DEFERRED)
    assert "STARTTLS" in last_of(stored).reason
    assert not any(command.startswith(b"MAIL") for command in peer.commands)


@pytest.mark.parametrize(
    ("policy", "names", "delivers"),
    [
        ("opportunistic", ("wrong.example",), True),
        ("required", ("wrong.example",), True),
        ("verified", ("wrong.example",), False),
        ("verified", ("127.0.0.1",), True),
    ],
)
async def test_certificates_are_judged_where_the_route_says_so(
    tmp_path: Path, authority: trustme.CA, policy: str, names: tuple[str, ...], delivers: bool
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    route = f'tls = "{policy}"' + ('\ntls_ca = "ca.pem"' if policy == "verified" else "")
    async with (
        running(Peer((*OFFER, b"STARTTLS"), tls=context_of(authority, *names))) as peer,
        running_relay(tmp_path, first_config(peer.port, route=route)) as relay,
    ):
        stored = await until(relay, await submit(relay), tried)
    assert bool(peer.messages) is delivers
    if delivers:
        assert stored.attempts[0].tls.startswith("TLSv1.")
    else:
        assert last_of(stored).stage is Stage.STARTTLS
        assert "certificate" in last_of(stored).reason


async def test_opportunistic_tls_that_fails_goes_on_without_and_says_so(tmp_path: Path) -> None:
    async with (
        running(Peer((*OFFER, b"STARTTLS"))) as peer,
        running_relay(tmp_path, first_config(peer.port)) as relay,
    ):
        stored = await finished(relay, await submit(relay))
    assert len(peer.messages) == 1
    assert stored.attempts[0].tls == ""


async def test_octets_injected_behind_starttls_are_refused(tmp_path: Path, authority: trustme.CA) -> None:
    behind = b"250-injected\r\n250 AUTH PLAIN\r\n"
    peer_made = Peer((*OFFER, b"STARTTLS"), tls=context_of(authority, "127.0.0.1"), behind_starttls=behind)
    async with running(peer_made) as peer:
        toml = first_config(peer.port, route='tls = "required"')
        async with running_relay(tmp_path, toml) as relay:
            stored = await until(relay, await submit(relay), tried)
    assert last_of(stored).result is DEFERRED
    assert peer.messages == []


# --- the transcript ------------------------------------------------------------------------------


async def test_the_conversation_of_every_attempt_is_kept(tmp_path: Path) -> None:
    async with (
        running(Peer(OFFER, {b"RCPT": [b"450 4.2.0 not yet\r\n", b""]})) as peer,
        running_relay(tmp_path, first_config(peer.port)) as relay,
    ):
        id = await submit(
            relay, MESSAGE + b"and a longer line at the end, so that nothing else is the last of it\r\n"
        )
        await until(relay, id, tried)
        await relay.spool.retry([id], relay.clock.now())
        relay.scheduler.kick()
        stored = await finished(relay, id)
        relay._flush()
        said = []
        for attempt in stored.attempts:
            assert attempt.transcript is not None
            record = relay.transcripts.read(attempt.transcript)
            assert record is not None
            said.append("".join(piece.text for piece in record.pieces))
    assert len(said) == 2
    assert "450 4.2.0 not yet" in said[0]
    assert "250 2.0.0 Ok: queued" in said[1]
    assert all("RCPT TO:<anna@dest.example>" in words for words in said)
    assert all("Subject: hello" not in words for words in said)  # of content, the last octets alone


async def test_a_sound_next_hop_gets_a_hundred_messages_once_each(tmp_path: Path) -> None:
    with StrictSink() as sink:
        async with running_relay(tmp_path, first_config(sink.port)) as relay:

            async def some(first: int) -> list[MessageId]:
                return [
                    await submit(relay, MESSAGE, f"{number}@d.example") for number in range(first, first + 10)
                ]

            for ids in await asyncio.gather(*(some(first) for first in range(0, 100, 10))):
                for id in ids:
                    await finished(relay, id)
    names = sorted(int(arrival.recipients[0].partition(b"@")[0]) for arrival in sink.arrivals)
    assert names == list(range(100))
    assert sink.faults == []
