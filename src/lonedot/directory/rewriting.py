"""Addresses that are written anew: which rule takes an address, and what it becomes.

Pure. Rules a change here must keep:
1. The first rule that takes an address is applied, and no other: what comes out is not looked at again, so there is no
   circle.
2. The null reverse-path stays what it is (RFC 5321 §4.5.5): it is how reports are told from other mail.
3. What a rule costs does not grow with the number of rules: their patterns are looked up, not tried.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from lonedot.terms.address import Address

__all__ = ["Rewriting", "Rule", "Written"]


class Rule(msgspec.Struct, frozen=True):
    """Patterns, and what stands instead of an address that one of them takes."""

    name: str
    """For people."""
    into: str
    """`name@new.example`; `new.example`, which keeps the local part; `*.new.example`, which also keeps what stands
    before the domain of a pattern `*.old.example`."""
    senders: tuple[str, ...] = ()
    """`*`, a domain, `*.example.com` (what is below it), or one address; case does not count."""
    recipients: tuple[str, ...] = ()

    def written(self, address: Address, domain: bytes) -> Address:
        """What an address becomes; `domain` is the one of the pattern that took it."""
        into = self.into.encode()
        if b"@" in into:
            return Address(into)
        if into.startswith(b"*."):
            into = address.domain.removesuffix(domain) + into[2:]
        return Address(address.local + b"@" + into)


class Written(msgspec.Struct, frozen=True):
    """An address that was written anew."""

    address: Address
    rule: str


class _Patterns:
    """The patterns of one kind, each with the number of the first rule that has it."""

    def __init__(self, rules: Iterable[tuple[int, tuple[str, ...]]]) -> None:
        self._addresses: dict[bytes, int] = {}
        self._domains: dict[bytes, int] = {}
        self._below: dict[bytes, int] = {}
        self._any: int | None = None
        self.is_empty = True
        for number, patterns in rules:
            for pattern in patterns:
                self._add(_folded(pattern.encode()), number)

    def _add(self, pattern: bytes, number: int) -> None:
        self.is_empty = False
        if pattern == b"*":
            self._any = number if self._any is None else self._any
        elif b"@" in pattern:
            self._addresses.setdefault(pattern, number)
        elif pattern.startswith(b"*."):
            self._below.setdefault(pattern[2:], number)
        else:
            self._domains.setdefault(pattern, number)

    def first(self, address: Address) -> tuple[int, bytes] | None:
        """The number of the rule that takes it, and the domain of the pattern."""
        octets = _folded(address.octets)
        domain = octets.rpartition(b"@")[2] if b"@" in octets else b""
        found: list[tuple[int, bytes]] = []
        for number in (self._addresses.get(octets), self._domains.get(domain), self._any):
            if number is not None:
                found.append((number, domain))
        parent = domain
        while self._below and parent:
            parent = parent.partition(b".")[2]
            if (number := self._below.get(parent)) is not None:
                found.append((number, parent))
        return min(found, default=None)


class Rewriting:
    """All rules of one configuration, in its order."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._rules = tuple(rules)
        self._senders = _Patterns((n, rule.senders) for n, rule in enumerate(self._rules))
        self._recipients = _Patterns((n, rule.recipients) for n, rule in enumerate(self._rules))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rewriting) and other._rules == self._rules

    def __hash__(self) -> int:
        return hash(self._rules)

    def sender(self, address: Address) -> Written | None:
        """What a reverse-path becomes; None: it stays."""
        return None if address.is_null else self._written(self._senders, address)

    def recipient(self, address: Address) -> Written | None:
        """What the address of a recipient becomes; None: it stays."""
        return self._written(self._recipients, address)

    def goes_to(self, recipient: Address) -> Address:
        """The address to which mail for a recipient goes."""
        written = self.recipient(recipient)
        return recipient if written is None else written.address

    def touches(self, sender: Address, recipients: Iterable[Address]) -> bool:
        """Some address of an envelope is written anew."""
        if self.sender(sender) is not None:
            return True
        return not self._recipients.is_empty and any(self.recipient(one) is not None for one in recipients)

    def _written(self, patterns: _Patterns, address: Address) -> Written | None:
        found = None if patterns.is_empty else patterns.first(address)
        if found is None:
            return None
        rule = self._rules[found[0]]
        written = rule.written(address, found[1])
        return None if written == address else Written(written, rule.name)


def _folded(octets: bytes) -> bytes:
    if octets.isascii():
        return octets.lower()
    return octets.decode("utf-8", "surrogateescape").lower().encode("utf-8", "surrogateescape")
