"""Every damage vector as a sink of a running relay: isolation, role, and what `on_damage` says; clean mail in between.

The sink hands back the octets of the vector as the whole message. With `repair` the vector's default outcome leaves; a
message that cannot be repaired is held as it was before the sink, and the sink is named. Each word of `on_damage`, both
roles and both isolations are tried by default; all combinations of them with LONEDOT_CRASH=long. Without a relay they
are all tried in `tests/unit/sinks/test_damage_matrix.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import smtplib
from pathlib import Path
from typing import NamedTuple

import pytest

from lonedot import Edit, Message, Next, sink
from lonedot.app import Relay
from lonedot.message.fold import fold
from lonedot.message.ledger import Action
from lonedot.sinks.bindings import Binding, Isolation, OnDamage, Role
from lonedot.sinks.events import Event
from lonedot.sinks.load import bind
from lonedot.spool.interface import Filter, MessageState, RecipientStatus, Stored
from lonedot.terms.ids import MessageId
from lonedot.testing.relay import CONFIG, running_relay
from tests.peers.strict_sink import StrictSink
from tests.unit.message.damage_vectors import DamageVector, load

VECTORS = {vector.id: vector for vector in load()}
NOTATION = {"D017"}
"""LF for every line end is how mail libraries write; it is put right and is no damage."""
CLEAN = "clean"
ORIGINAL = (
    b"From: <s@sender.test>\r\nTo: <x@dest.test>\r\nSubject: before\r\nDate: Thu, 02 Jul 2026 10:00:00 +0000\r\n"
    b"Message-ID: <before@sender.test>\r\n\r\nas it was before the plug-in\r\n"
)


@sink("plug-in", effects={"header", "body"}, role="cosmetic")
def plug_in(message: Message) -> Next:
    """Replaces each message by the octets of the vector that the recipient names."""
    name = message.envelope.recipients[0].address.local.decode()
    if name == CLEAN:
        return Next()
    return Next([Edit.replace_message(VECTORS[name].octets)])


class Case(NamedTuple):
    on_damage: OnDamage
    role: Role
    isolation: Isolation
    event: Event

    def __str__(self) -> str:
        return "-".join(part.value for part in self)


LONG = os.environ.get("LONEDOT_CRASH") == "long"
SHORT = {
    Case(OnDamage.UNDO, Role.COSMETIC, Isolation.PROCESS, Event.ARRIVAL),
    Case(OnDamage.REPAIR, Role.COSMETIC, Isolation.INLINE, Event.ARRIVAL),
    Case(OnDamage.HOLD, Role.PROTECTIVE, Isolation.PROCESS, Event.ARRIVAL),
    Case(OnDamage.HOLD, Role.COSMETIC, Isolation.INLINE, Event.ARRIVAL),
    Case(OnDamage.REJECT, Role.PROTECTIVE, Isolation.INLINE, Event.ARRIVAL),
    Case(OnDamage.REJECT, Role.COSMETIC, Isolation.PROCESS, Event.END_OF_DATA),
    Case(OnDamage.REJECT, Role.PROTECTIVE, Isolation.PROCESS, Event.ARRIVAL),
}
CASES = [
    case
    for event in (Event.END_OF_DATA, Event.ARRIVAL)
    for isolation in (Isolation.INLINE, Isolation.PROCESS)
    for role in Role
    for on_damage in OnDamage
    if (case := Case(on_damage, role, isolation, event)) in SHORT
    or (LONG and (role is Role.COSMETIC or on_damage in (OnDamage.HOLD, OnDamage.REJECT)))
]


def binding(case: Case) -> Binding:
    sink_class = f"{Path(__file__)}:plug_in"
    return bind(
        plug_in,
        sink_class=sink_class,
        on_damage=case.on_damage,
        role=case.role,
        isolation=case.isolation,
        event=case.event,
        deadline_seconds=60.0,
        maximum_faults=0,
    )


def send_all(port: int) -> dict[str, str]:
    """One message for each vector, and a clean one behind it; id, or the reply that refused it, by vector."""
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
            client.sendmail("s@sender.test", f"{CLEAN}@dest.test", ORIGINAL)
    return answers


class Seen:
    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.stored: dict[str, Stored] = {}
        self.arrived: dict[str, bytes] = {}
        self.held_bodies: dict[str, bytes] = {}
        self.faults: list[str] = []
        self.clean = 0


async def run(folder: Path, case: Case) -> Seen:
    seen = Seen()
    with StrictSink() as receiver:
        toml = CONFIG.format(server="", listener="", route="", port=receiver.port)
        async with running_relay(folder, toml, bindings=[binding(case)]) as relay:
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
            if not arrival.reverse_path:
                continue
            if arrival.recipients[0].startswith(CLEAN.encode()):
                seen.clean += body(arrival.content) == body(ORIGINAL)
                continue
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


@pytest.fixture(scope="module", params=CASES, ids=str)
def case_seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Seen]:
    return request.param, asyncio.run(run(tmp_path_factory.mktemp("damage"), request.param))


def body(content: bytes) -> bytes:
    return content.partition(b"\r\n\r\n")[2]


def assert_default_left(vector: DamageVector, seen: Seen) -> None:
    outcome = next(outcome for outcome in vector.allow if outcome.name == vector.default)
    assert outcome.wire is not None
    got = body(seen.arrived[vector.id])
    assert (len(got), hashlib.sha256(got).hexdigest()) == (outcome.wire.body_len, outcome.wire.body_sha256)


@pytest.mark.parametrize("vector", VECTORS.values(), ids=str)
def test_vector(vector: DamageVector, case_seen: tuple[Case, Seen]) -> None:
    case, seen = case_seen
    if vector.default == "as-is" or vector.id in NOTATION:
        assert_default_left(vector, seen)
        return
    if case.on_damage is OnDamage.REJECT and (
        case.event is Event.END_OF_DATA or case.isolation is Isolation.INLINE
    ):
        assert seen.answers[vector.id].startswith("550 5.7.1 plug-in")
        assert vector.id not in seen.arrived
        return
    entry = seen.stored[vector.id].ledger[-1]
    assert entry.binding == "plug-in"
    assert entry.findings
    refused = vector.default == "refused"
    if case.on_damage is OnDamage.REJECT:
        # In custody already: it fails, and the sender has a report.
        assert entry.action is Action.REJECTED
        assert {recipient.status for recipient in seen.stored[vector.id].recipients} == {
            RecipientStatus.FAILED
        }
        assert vector.id not in seen.arrived
        return
    if case.on_damage is OnDamage.UNDO:
        assert entry.action is Action.UNDONE
        assert body(seen.arrived[vector.id]) == body(ORIGINAL)
    elif case.on_damage is OnDamage.REPAIR and not refused:
        assert entry.action is Action.REPAIRED
        assert_default_left(vector, seen)
    else:
        assert entry.action is Action.HELD
        assert vector.id not in seen.arrived
        assert seen.held_bodies[vector.id] == body(ORIGINAL)
        assert "plug-in" in seen.stored[vector.id].reason


def test_all_that_left_was_well_formed(case_seen: tuple[Case, Seen]) -> None:
    assert case_seen[1].faults == []
    assert case_seen[1].clean == len(VECTORS), "the mail in between"
