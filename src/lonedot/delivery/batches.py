"""Which recipients of a message go together: one destination, one copy, no more than a transaction takes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from lonedot.delivery.drop import DROP_RECIPIENTS
from lonedot.delivery.routing import Drop, Maildir, Pipe, Route
from lonedot.message.fold import changes_octets
from lonedot.message.ledger import Entry
from lonedot.spool.interface import RecipientState

__all__ = ["Batch", "plan_batches"]


class Batch(msgspec.Struct, frozen=True):
    """Recipients that go in one transaction."""

    destination: str
    copy: tuple[int, ...]
    """Numbers of the scoped ledger entries that hold for them and change something."""
    recipients: tuple[RecipientState, ...]


def plan_batches(
    route: Route,
    recipients: Sequence[RecipientState],
    ledger: Sequence[Entry],
    destination: Callable[[Route, bytes], str],
) -> list[Batch]:
    """The recipients by destination and copy, in their order. `destination` is `Resolver.destination`."""
    scoped = [
        (n, frozenset(entry.scope)) for n, entry in enumerate(ledger) if entry.scope and changes_octets(entry)
    ]
    groups: dict[tuple[str, tuple[int, ...]], list[RecipientState]] = {}
    for state in recipients:
        copy = tuple(n for n, scope in scoped if state.index in scope) if scoped else ()
        key = (destination(route, state.recipient.address.domain), copy)
        groups.setdefault(key, []).append(state)
    step = _recipients_at_once(route)
    return [
        Batch(to, copy, tuple(states[start : start + step]))
        for (to, copy), states in groups.items()
        for start in range(0, len(states), step)
    ]


def _recipients_at_once(route: Route) -> int:
    match route.target:
        case Maildir() | Pipe():
            return 1
        case Drop(envelope=envelope):
            return DROP_RECIPIENTS if envelope else 1
        case _:
            return route.recipients_per_transaction
