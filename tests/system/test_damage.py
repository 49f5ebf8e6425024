"""Every damage vector as a sink of a running relay: what `on_damage` says, for its four words, in each isolation.

The sink hands back the octets of the vector as the whole message. With `repair` the vector's default outcome leaves; a
message that cannot be repaired is held as it was before the sink, and the sink is named.
"""

from __future__ import annotations

import asyncio
import hashlib
import smtplib
from pathlib import Path

import pytest

from lonedot import Edit, Message, Next, sink
from lonedot.app import Relay
from lonedot.message.fold import fold
from lonedot.message.ledger import Action
from lonedot.sinks.bindings import Binding, Isolation, Role
from lonedot.sinks.load import bind
from lonedot.spool.interface import Filter, MessageState, Stored
from lonedot.terms.ids import MessageId
from lonedot.testing.relay import CONFIG, running_relay
from tests.peers.strict_sink import StrictSink
from tests.unit.message.damage_vectors import DamageVector, load

VECTORS = {vector.id: vector for vector in load()}
NOTATION = {"D017"}
"""LF for every line end is how mail libraries write; it is put right and is no damage."""
ORIGINAL = (
    b"From: <s@sender.test>\r\nTo: <x@dest.test>\r\nSubject: before\r\nDate: Thu, 02 Jul 2026 10:00:00 +0000\r\n"
    b"Message-ID: <before@sender.test>\r\n\r\nas it was before the plug-in\r\n"
)


@sink("plug-in", effects={"header", "body"}, role="cosmetic")
def plug_in(message: Message) -> Next:
    """Replaces each message by the octets of the vector that the recipient names."""
    name = message.envelope.recipients[0].address.local.decode()
    return Next([Edit.replace_message(VECTORS[name].octets)])


def binding(on_damage: str, isolation: Isolation) -> Binding:
    role = Role.PROTECTIVE.value if on_damage in ("hold", "reject") else Role.COSMETIC.value
    sink_class = f"{Path(__file__)}:plug_in"
    return bind(
        plug_in,
        sink_class=sink_class,
        on_damage=on_damage,
        role=role,
        isolation=isolation,
        deadline_seconds=60.0,
        maximum_faults=0,
    )


def send_all(port: int) -> dict[str, str]:
    """One message for each vector; id, or the reply that refused it, by vector."""
    answers = {}
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        client.ehlo()
        for vector in VECTORS.values():
            client.mail("s@sender.test")
            client.rcpt(f"{vector.id}@dest.test")
            code, words = client.data(ORIGINAL)
            answers[vector.id] = (
                words.decode().rpartition(" ")[2] if code == 250 else f"{code} {words.decode()}"
            )
    return answers


class Seen:
    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.stored: dict[str, Stored] = {}
        self.arrived: dict[str, bytes] = {}
        self.held_bodies: dict[str, bytes] = {}
        self.faults: list[str] = []


async def run(folder: Path, on_damage: str, isolation: Isolation) -> Seen:
    seen = Seen()
    with StrictSink() as receiver:
        toml = CONFIG.format(server="", listener="", route="", port=receiver.port)
        async with running_relay(folder, toml, bindings=[binding(on_damage, isolation)]) as relay:
            seen.answers = await asyncio.to_thread(send_all, relay.addresses["in"][1])
            await _settled(relay)
            for vector, answer in seen.answers.items():
                if " " not in answer:
                    stored = relay.spool.show(MessageId(answer))
                    seen.stored[vector] = stored
                    if stored.state is MessageState.HELD:
                        content = fold(relay.spool.content(stored.id), stored.ledger, verify=True)
                        seen.held_bodies[vector] = content.body.octets()
        for arrival in receiver.arrivals:
            seen.arrived[arrival.recipients[0].partition(b"@")[0].decode()] = arrival.content
            if arrival.bare_octets:
                seen.faults.append(f"bare octets left: {arrival.recipients}")
        seen.faults += receiver.faults
    return seen


async def _settled(relay: Relay) -> None:
    async with asyncio.timeout(60):
        while True:
            if not relay.spool.listing(Filter(states=(MessageState.QUEUED,), limit=1)):
                return
            await asyncio.sleep(0.05)


POLICIES = ["undo", "repair", "hold", "reject"]


@pytest.fixture(
    scope="module",
    params=[(policy, isolation) for isolation in Isolation for policy in POLICIES],
    ids=lambda param: f"{param[1].value}-{param[0]}",
)
def policy_seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Seen]:
    policy, isolation = request.param
    return policy, asyncio.run(run(tmp_path_factory.mktemp(policy), policy, isolation))


def body(content: bytes) -> bytes:
    return content.partition(b"\r\n\r\n")[2]


def assert_default_left(vector: DamageVector, seen: Seen) -> None:
    outcome = next(outcome for outcome in vector.allow if outcome.name == vector.default)
    assert outcome.wire is not None
    got = body(seen.arrived[vector.id])
    assert (len(got), hashlib.sha256(got).hexdigest()) == (outcome.wire.body_len, outcome.wire.body_sha256)


@pytest.mark.parametrize("vector", VECTORS.values(), ids=str)
def test_vector(vector: DamageVector, policy_seen: tuple[str, Seen]) -> None:
    policy, seen = policy_seen
    if vector.default == "as-is" or vector.id in NOTATION:
        assert_default_left(vector, seen)
        return
    if policy == "reject":
        assert seen.answers[vector.id].startswith("550 5.7.1 plug-in")
        assert vector.id not in seen.arrived
        return
    entry = seen.stored[vector.id].ledger[-1]
    assert entry.binding == "plug-in"
    assert entry.findings
    refused = vector.default == "refused"
    if policy == "undo":
        assert entry.action is Action.UNDONE
        assert body(seen.arrived[vector.id]) == body(ORIGINAL)
    elif policy == "repair" and not refused:
        assert entry.action is Action.REPAIRED
        assert_default_left(vector, seen)
    else:
        assert entry.action is Action.HELD
        assert vector.id not in seen.arrived
        assert seen.held_bodies[vector.id] == body(ORIGINAL)
        assert "plug-in" in seen.stored[vector.id].reason


def test_all_that_left_was_well_formed(policy_seen: tuple[str, Seen]) -> None:
    assert policy_seen[1].faults == []
