"""What an address leads to: an alias and a list in it are followed until only mailboxes and strangers are left.

Pure. Rules a change here must keep:
1. It ends: an address is followed once on its way, no deeper than `DEPTH_LIMIT`, to no more than `MEMBERS_LIMIT`.
2. An alias that names itself means the mailbox of that name.
3. Who is in a list is told by its copies alone; they go out in the name of its owner.
4. What leads to nobody raises: its message waits, and is not lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from lonedot.directory.aliases import MEMBERS_LIMIT
from lonedot.directory.faults import ExpansionFault
from lonedot.directory.lists import DistributionList
from lonedot.terms.address import Address

__all__ = ["DEPTH_LIMIT", "Expansion", "ListCopy", "Names", "expand"]

DEPTH_LIMIT = 10


Names = Callable[[Address], Sequence[Address] | DistributionList | None]
"""What an address stands for: the addresses of an alias, a list, or None: itself."""


class ListCopy(msgspec.Struct, frozen=True):
    """One copy of a message: that of a list."""

    list: Address
    owner: Address
    members: tuple[Address, ...]


class Expansion(msgspec.Struct, frozen=True):
    """What became of one address."""

    targets: tuple[Address, ...]
    """Who gets the sender's own copy."""
    copies: tuple[ListCopy, ...] = ()


class _Walk:
    def __init__(self, names: Names) -> None:
        self.names = names
        self.lists: dict[Address, ListCopy] = {}
        self.count = 0

    def follow(self, address: Address, way: tuple[bytes, ...], into: dict[Address, None]) -> None:
        found = self.names(address)
        key = address.octets.lower()
        if found is None:
            self._add(address, into)
        elif key in way:
            if way[-1] == key and not isinstance(found, DistributionList):
                self._add(address, into)
        elif len(way) >= DEPTH_LIMIT:
            raise ExpansionFault(f"{address.text}: aliases and lists are nested deeper than {DEPTH_LIMIT}")
        elif isinstance(found, DistributionList):
            if found.address in self.lists:
                return
            if not found.members:
                raise ExpansionFault(f"{found.address.text}: the list has no members")
            self.lists[found.address] = ListCopy(found.address, found.owner, ())
            members: dict[Address, None] = {}
            for member in found.members:
                self.follow(member, (*way, key), members)
            self.lists[found.address] = ListCopy(found.address, found.owner, tuple(members))
        else:
            for target in found:
                self.follow(target, (*way, key), into)

    def _add(self, address: Address, into: dict[Address, None]) -> None:
        if address not in into:
            self.count += 1
            if self.count > MEMBERS_LIMIT:
                raise ExpansionFault(f"more than {MEMBERS_LIMIT} addresses")
            into[address] = None


def expand(address: Address, names: Names) -> Expansion:
    """Follow an address to its end.

    Raises:
        ExpansionFault: it leads to nobody, too deep, or to too many.
        DirectoryFault: what `names` raises.
    """
    walk = _Walk(names)
    targets: dict[Address, None] = {}
    walk.follow(address, (), targets)
    copies = tuple([copy for copy in walk.lists.values() if copy.members])
    if not targets and not copies:
        raise ExpansionFault(f"{address.text}: it leads in a circle, and to nobody")
    return Expansion(tuple(targets), copies)
