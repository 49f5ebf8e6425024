"""The directory of a relay: its local domains, asked by the session at RCPT and VRFY and by the step that resolves.

Rules: what the directory cannot be asked now is never "unknown": it raises `DirectoryFault`. The postmaster of every
local domain exists (RFC 5321 §4.5.1). An alias or a list comes before a mailbox of the same name, a mailbox before
the catch-all.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from lonedot.directory.expansion import Expansion, expand
from lonedot.directory.file import DirectoryFile
from lonedot.directory.lists import DistributionList
from lonedot.directory.names import base_of, key_of
from lonedot.directory.sources import Recipients
from lonedot.terms.address import Address

__all__ = ["Directory", "Judged", "LocalDomain", "Standing"]

POSTMASTER = "postmaster"


class Standing(enum.Enum):
    """What an address is to us."""

    FOREIGN = "foreign"
    """Its domain is not local."""
    KNOWN = "known"
    UNKNOWN = "unknown"
    FORBIDDEN = "forbidden"
    """It is a list, and the sender may not write to it."""


class Judged(msgspec.Struct, frozen=True):
    """The standing of one address, with words for a person."""

    standing: Standing
    words: str = ""


FOREIGN = Judged(Standing.FOREIGN)
KNOWN = Judged(Standing.KNOWN)


class LocalDomain(msgspec.Struct, frozen=True):
    """One `[[domain]]`."""

    name: str
    """In lower case."""
    recipients: Recipients | None = None
    """Who has a mailbox; None: everybody."""
    aliases: DirectoryFile[Mapping[str, tuple[Address, ...]]] | None = None
    lists: DirectoryFile[Mapping[str, DistributionList]] | None = None
    catch_all: Address | None = None
    extension: str = "+"
    """What parts a name from its extension; empty: nothing does."""
    is_case_sensitive: bool = False

    def keys(self, address: Address) -> tuple[str, ...]:
        """The names under which an address is looked up: whole, then without its extension."""
        key = key_of(address.name, self.is_case_sensitive)
        base = base_of(key, self.extension)
        return (key, base) if base else (key,)

    def stands_for(self, address: Address) -> Sequence[Address] | DistributionList | None:
        """What an alias or a list of that name leads to. Raises DirectoryFault."""
        if self.lists is None and self.aliases is None:
            return None
        lists = {} if self.lists is None else self.lists.read()
        aliases = {} if self.aliases is None else self.aliases.read()
        for key in self.keys(address):
            found = lists.get(key) or aliases.get(key)
            if found is not None:
                return found
        return None

    def known(self, address: Address) -> bool | None:
        """There is a mailbox; None: its source has to be asked. Raises DirectoryFault."""
        source = self.recipients
        if source is None:
            return True
        answers = [source.known(key) for key in self.keys(address)]
        return True if True in answers else None if None in answers else False

    async def has(self, address: Address) -> bool:
        """There is a mailbox. Raises DirectoryFault."""
        source = self.recipients
        if source is None:
            return True
        for key in self.keys(address):
            if await source.has(key):
                return True
        return False


class Directory:
    """All local domains."""

    def __init__(self, domains: Iterable[LocalDomain], postmaster: Address) -> None:
        """`postmaster` stands in for the postmaster of a domain that has none."""
        self._domains = {domain.name.encode(): domain for domain in domains}
        self._names = frozenset(domain.name for domain in self._domains.values())
        self._postmaster = postmaster

    def covers(self, address: Address) -> bool:
        """Its domain is local."""
        return address.domain in self._domains

    def at_hand(self, address: Address, sender: Address) -> Judged | None:
        """As `judge`, where nobody has to be asked; else None.

        Raises:
            DirectoryFault: a file of the domain cannot be used.
        """
        domain = self._domains.get(address.domain)
        if domain is None:
            return FOREIGN
        found = domain.stands_for(address)
        if isinstance(found, DistributionList):
            if found.takes_from(sender, self._names):
                return KNOWN
            return Judged(Standing.FORBIDDEN, f"{sender.text} may not write to the list {found.address.text}")
        if found is not None or domain.catch_all is not None or _is_postmaster(address):
            return KNOWN
        known = domain.known(address)
        return None if known is None else KNOWN if known else _unknown(address)

    async def judge(self, address: Address, sender: Address) -> Judged:
        """Whether mail of that sender is taken for the address.

        Raises:
            DirectoryFault: it cannot be said now.
        """
        judged = self.at_hand(address, sender)
        if judged is not None:
            return judged
        return KNOWN if await self._domains[address.domain].has(address) else _unknown(address)

    def is_to_resolve(self, address: Address) -> bool:
        """It may lead to other addresses. A directory that cannot be read counts as yes: it is asked again then."""
        domain = self._domains.get(address.domain)
        if domain is None:
            return False
        if domain.lists is None and domain.aliases is None and domain.catch_all is None:
            return _is_postmaster(address) and domain.recipients is not None
        return True

    async def resolve(self, address: Address) -> Expansion:
        """Where mail for an address goes; to itself, when nothing else is said.

        Raises:
            DirectoryFault: it cannot be worked out now.
        """
        itself = Expansion((address,))
        domain = self._domains.get(address.domain)
        if domain is None:
            return itself
        if domain.stands_for(address) is not None:
            return expand(address, self._stands_for)
        instead = domain.catch_all or (self._postmaster if _is_postmaster(address) else None)
        if instead is None or instead == address or await domain.has(address):
            return itself
        return expand(instead, self._stands_for)

    def expanded(self, address: Address) -> Expansion | None:
        """What an alias or a list leads to; None: it is neither. Raises DirectoryFault."""
        domain = self._domains.get(address.domain)
        if domain is None or domain.stands_for(address) is None:
            return None
        return expand(address, self._stands_for)

    def _stands_for(self, address: Address) -> Sequence[Address] | DistributionList | None:
        domain = self._domains.get(address.domain)
        return None if domain is None else domain.stands_for(address)


def _is_postmaster(address: Address) -> bool:
    return address.name.lower() == POSTMASTER.encode()


def _unknown(address: Address) -> Judged:
    return Judged(Standing.UNKNOWN, f"there is no mailbox {address.text}")
