"""Whatever aliases and lists there are: everybody gets one copy of each kind, and nobody learns who else does."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from lonedot.delivery.resolve import NotResolved, Resolved, Resolver
from lonedot.directory.directory import Directory, LocalDomain
from lonedot.directory.file import DirectoryFile
from lonedot.directory.lists import DistributionList
from lonedot.message.fold import fold
from lonedot.spool.interface import Acceptance, BodyWriter, MessageState, RecipientStatus, Stored
from lonedot.terms.address import Address
from lonedot.terms.ids import MessageId, id_from_number
from lonedot.testing.clock import ManualClock
from lonedot.testing.messages import acceptance

NAMES = st.sampled_from(["anna", "bert", "carl", "dora", "emil"])
TABLES = st.dictionaries(NAMES, st.tuples(st.booleans(), st.lists(NAMES, min_size=1, max_size=4)), max_size=5)


def at(name: str) -> Address:
    return Address(f"{name}@here.example".encode())


class Said(DirectoryFile[dict[str, object]]):
    """A file that needs no disk."""

    def __init__(self, said: dict[str, object]) -> None:
        super().__init__(Path(), lambda text: said)
        self.said = said

    def read(self) -> dict[str, object]:
        return self.said


def stored_from(given: Acceptance) -> Stored:
    return Stored(
        given.id,
        MessageState.QUEUED,
        "",
        given.accepted_at,
        0.0,
        given.envelope,
        given.facts,
        given.ledger,
        given.recipients,
        given.size,
    )


def no_body(id: MessageId) -> BodyWriter:
    raise AssertionError("the body is in memory")


@given(TABLES, st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_each_copy_is_whole_and_discloses_nobody(
    tables: dict[str, tuple[bool, list[str]]], to: list[str]
) -> None:
    aliases: dict[str, object] = {n: tuple(map(at, m)) for n, (is_list, m) in tables.items() if not is_list}
    lists: dict[str, object] = {
        name: DistributionList(at(name), at(f"owner-{name}"), tuple(map(at, members)), ("anyone",))
        for name, (is_list, members) in tables.items()
        if is_list
    }
    domain = LocalDomain(
        "here.example",
        aliases=cast("DirectoryFile[Mapping[str, tuple[Address, ...]]]", Said(aliases)),
        lists=cast("DirectoryFile[Mapping[str, DistributionList]]", Said(lists)),
    )
    directory = Directory([domain], at("postmaster"))
    ids = (MessageId(id_from_number(number)) for number in itertools.count(1000))
    message = acceptance(str(id_from_number(1)), 0.0, recipients=tuple(at(name).text for name in to))
    stored = stored_from(message)
    resolver = Resolver(lambda: directory, lambda: next(ids), no_body, ManualClock())

    async def resolve() -> Resolved | None:
        try:
            return await resolver.resolve(stored, message.arrival, None)
        except NotResolved:
            return None

    found = asyncio.run(resolve())
    if found is None:
        return
    states = {state.index: state for state in (*stored.recipients, *found.recipients)}
    waiting = [one for one in states.values() if one.status is RecipientStatus.WAITING]
    addresses = [one.recipient.address for one in waiting]
    assert len(set(addresses)) == len(addresses)
    asked = {at(name).octets for name in to}
    for state in waiting:
        assert (state.addressed or state.recipient.address.octets) in asked
    assert waiting or found.spawned
    queued = b"".join(fold(message.arrival, stored.ledger).chunks())
    owners = [copy.envelope.reverse_path for copy in found.spawned]
    assert len(set(owners)) == len(owners)
    for copy in found.spawned:
        assert copy.envelope.reverse_path.octets.startswith(b"owner-")
        people = [one.recipient.address for one in copy.recipients]
        assert people
        assert len(set(people)) == len(people)
        assert all(not one.recipient.orcpt and not one.recipient.notify for one in copy.recipients)
        assert b"".join(fold(copy.arrival, copy.ledger, verify=True).chunks()) == queued
