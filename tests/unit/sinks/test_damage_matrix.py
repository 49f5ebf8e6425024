"""Every damage vector as a sink, wherever it runs, in either role, with all that a binding may say of damage.

What leaves is compared with the vectors octet for octet. `tests/system/test_damage.py` does the same to a whole relay.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lonedot import Edit, Message, Next, Sink, Verdict, sink
from lonedot.message.encode import DataEncoder, canonicalise
from lonedot.message.findings import Severity
from lonedot.message.fold import digests_of, fold
from lonedot.message.intake import content_from
from lonedot.message.ledger import Action
from lonedot.sinks.bindings import Binding, Isolation, OnDamage, Role
from lonedot.sinks.calls import Decision, Dispatched
from lonedot.sinks.dispatch import advance, dispatch_with, steps
from lonedot.sinks.hosts import Hosts
from lonedot.sinks.load import bind
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.testing.clock import ManualClock
from tests.unit.message.damage_vectors import DamageVector, load
from tests.unit.sinks.making import FACTS

VECTORS = {vector.id: vector for vector in load()}
CLEAN = "clean"
NOTATION = {"D017"}
"""LF for every line end is how mail libraries write; it is put right and is no damage."""
HEAD_KEPT = {"D003", "D034"}
"""A header section alone: the empty line behind it, which was there before, stays."""
ORIGINAL = content_from(
    b"From: <s@sender.test>\r\nTo: <x@dest.test>\r\nSubject: before\r\nDate: Thu, 02 Jul 2026 10:00:00 +0000\r\n"
    b"Message-ID: <before@sender.test>\r\n\r\nas it was before the plug-in\r\n"
)


def _octets(message: Message) -> bytes | None:
    name = message.envelope.recipients[0].address.local.decode()
    return None if name == CLEAN else VECTORS[name].octets


@sink("whole", effects={"header", "body"})
def whole(message: Message) -> Next:
    """Hands back the octets of the vector that the recipient names, as the whole message."""
    octets = _octets(message)
    return Next() if octets is None else Next([Edit.replace_message(octets)])


@sink("body", effects={"body"})
def body_alone(message: Message) -> Next:
    """Puts the body of the vector in place of that of the message."""
    octets = _octets(message)
    return Next() if octets is None else Next([Edit.replace_body(octets.partition(b"\r\n\r\n")[2])])


@sink("undeclared", effects={"header"})
def undeclared(message: Message) -> Next:
    """Hands back the whole message, and has not declared that it touches a body."""
    octets = _octets(message)
    return Next() if octets is None else Next([Edit.replace_message(octets)])


WAYS = {"whole": whole, "body_alone": body_alone, "undeclared": undeclared}


def _in_time(way: Sink) -> Sink:
    """The same as a coroutine."""

    @sink(way.name, effects=way.effects)
    async def in_time(message: Message) -> Verdict:
        await asyncio.sleep(0)
        return way(message)

    return in_time


IN_TIME = {name: _in_time(way) for name, way in WAYS.items()}


class Case(NamedTuple):
    role: Role
    on_damage: OnDamage | None
    isolation: Isolation

    def __str__(self) -> str:
        said = self.on_damage.value if self.on_damage is not None else "default"
        return f"{self.isolation.value}-{self.role.value}-{said}"

    @property
    def follows(self) -> OnDamage:
        """What happens on damage."""
        if self.on_damage is not None:
            return self.on_damage
        return OnDamage.UNDO if self.role is Role.COSMETIC else OnDamage.HOLD


def bound(case: Case, way: str) -> Binding:
    return bind(
        IN_TIME[way] if case.isolation is Isolation.TASK else WAYS[way],
        sink_class=f"{Path(__file__)}:{way}",
        role=case.role,
        on_damage=case.on_damage,
        isolation=case.isolation,
        deadline_seconds=60.0,
    )


REFUSED = [(Role.PROTECTIVE, OnDamage.UNDO), (Role.PROTECTIVE, OnDamage.REPAIR)]
CASES = [
    Case(role, on_damage, isolation)
    for isolation in Isolation
    for role in Role
    for on_damage in (None, *OnDamage)
    if (role, on_damage) not in REFUSED
]


@pytest.mark.parametrize("isolation", Isolation)
@pytest.mark.parametrize(("role", "on_damage"), REFUSED)
def test_a_scanner_that_would_be_undone_is_no_binding(
    role: Role, on_damage: OnDamage, isolation: Isolation
) -> None:
    with pytest.raises(ValueError, match="holds or rejects"):
        bound(Case(role, on_damage, isolation), "whole")


@pytest.fixture
async def hosts() -> AsyncIterator[Hosts]:
    made = Hosts()
    yield made
    await made.close()


async def done(binding: Binding, name: str, hosts: Hosts) -> Dispatched:
    """One message through the binding, where that runs."""
    envelope = Envelope(Address(b"s@sender.test"), (Recipient(Address(name.encode() + b"@dest.test")),))
    chain = steps("id", envelope, FACTS, ORIGINAL, [binding], ManualClock())
    return await dispatch_with(chain, advance(chain, None), hosts, in_thread=False)


def wire_of(dispatched: Dispatched) -> bytes:
    return b"".join(DataEncoder(canonicalise(dispatched.content), "DATA").chunks())


def check_sent(vector: DamageVector, dispatched: Dispatched) -> None:
    """The default outcome of the vector is what would be sent, to the last octet."""
    outcome = next(outcome for outcome in vector.allow if outcome.name == vector.default)
    assert outcome.wire is not None
    body = dispatched.content.body.octets()
    assert (len(body), hashlib.sha256(body).hexdigest()) == (outcome.wire.body_len, outcome.wire.body_sha256)
    if dispatched.entries[0].binding == "whole" and vector.id not in HEAD_KEPT:
        wire = wire_of(dispatched)
        assert (len(wire), hashlib.sha256(wire).hexdigest()) == (outcome.wire.len, outcome.wire.sha256)


def check_ledger(dispatched: Dispatched, binding: Binding) -> None:
    (entry,) = dispatched.entries
    assert (entry.binding, entry.binding_id) == (binding.name, binding.guid)
    assert entry.before == digests_of(ORIGINAL)
    assert entry.after == digests_of(dispatched.content)
    assert fold(ORIGINAL, dispatched.entries, verify=True).octets() == dispatched.content.octets()
    assert wire_of(dispatched).endswith(b"\r\n.\r\n")


def check_damage(case: Case, vector: DamageVector, dispatched: Dispatched) -> None:
    """The vector is damage: what the binding says of it is done, no more, and is on record."""
    (entry,) = dispatched.entries
    assert any(finding.severity is not Severity.NOTE for finding in entry.findings)
    assert entry.attempted is not None, "what it wanted is on record"
    follows = case.follows
    if follows is OnDamage.REPAIR and vector.default == "refused":
        follows = OnDamage.HOLD
    match follows:
        case OnDamage.REPAIR:
            assert (dispatched.decision, entry.action) == (Decision.ACCEPT, Action.REPAIRED)
            check_sent(vector, dispatched)
            return
        case OnDamage.UNDO:
            assert (dispatched.decision, entry.action) == (Decision.ACCEPT, Action.UNDONE)
        case OnDamage.HOLD:
            assert (dispatched.decision, entry.action) == (Decision.HOLD, Action.HELD)
            assert dispatched.words.startswith(f"{entry.binding}: ")
        case OnDamage.REJECT:
            assert (dispatched.decision, entry.action) == (Decision.REJECT, Action.REJECTED)
    assert dispatched.content.octets() == ORIGINAL.octets()


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    yield request.param


async def test_a_whole_message_handed_back(case: Case, hosts: Hosts) -> None:
    binding = bound(case, "whole")
    for vector in VECTORS.values():
        dispatched = await done(binding, vector.id, hosts)
        check_ledger(dispatched, binding)
        if vector.default == "as-is" or vector.id in NOTATION:
            check_sent(vector, dispatched)
        else:
            check_damage(case, vector, dispatched)
        clean = await done(binding, CLEAN, hosts)
        assert clean.entries[0].action is Action.UNCHANGED, "the mail behind it"
        assert clean.content.octets() == ORIGINAL.octets()


async def test_a_body_in_place_of_another(case: Case, hosts: Hosts) -> None:
    binding = bound(case, "body_alone")
    for vector in VECTORS.values():
        head, separator, body = vector.octets.partition(b"\r\n\r\n")
        if not separator or not body.isascii():  # 8-bit text is damage without the header that declares it
            continue
        dispatched = await done(binding, vector.id, hosts)
        check_ledger(dispatched, binding)
        if any(defect.offset >= len(head) + len(separator) for defect in vector.defects):
            check_damage(case, vector, dispatched)
        else:
            assert dispatched.entries[0].action is Action.KEPT


async def test_a_body_that_was_not_declared_never_leaves(case: Case, hosts: Hosts) -> None:
    binding = bound(case, "undeclared")
    before = ORIGINAL.body.octets()
    for vector in VECTORS.values():
        dispatched = await done(binding, vector.id, hosts)
        check_ledger(dispatched, binding)
        assert dispatched.content.body.octets() == before
        (entry,) = dispatched.entries
        match case.follows:
            case OnDamage.UNDO | OnDamage.REPAIR if dispatched.decision is Decision.ACCEPT:
                assert entry.action in (Action.UNDONE, Action.REDUCED)
            case OnDamage.REJECT:
                assert (dispatched.decision, entry.action) == (Decision.REJECT, Action.REJECTED)
            case _:
                assert (dispatched.decision, entry.action) == (Decision.HOLD, Action.HELD)
