"""Mail addresses as octets. The null reverse-path is a value of its own kind, never an empty text or None."""

from __future__ import annotations

import re

import msgspec

__all__ = ["NULL_REVERSE_PATH", "Address"]


_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)


class Address(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A mailbox as it stood between `<` and `>`, source route removed: `local@domain`, or `postmaster` alone."""

    octets: bytes

    @property
    def local(self) -> bytes:
        """Octets before the last `@` (a quoted local part keeps its quotes)."""
        local, at, rest = self.octets.rpartition(b"@")
        return local if at else rest

    @property
    def name(self) -> bytes:
        """The local part as it is meant: `"joe"` is joe, `"a\\b"` is ab (RFC 5321 §4.1.2). Never to be sent."""
        local = self.local
        if len(local) < 2 or local[:1] != b'"' or local[-1:] != b'"':
            return local
        return _QUOTED_PAIR.sub(rb"\1", local[1:-1])

    @property
    def domain(self) -> bytes:
        """Octets behind the last `@` in lower case; empty when there is none."""
        _, at, domain = self.octets.rpartition(b"@")
        return domain.lower() if at else b""

    @property
    def is_null(self) -> bool:
        """True of the null reverse-path `<>` (RFC 5321 §4.5.5)."""
        return not self.octets

    @property
    def text(self) -> str:
        """For people: UTF-8 where it is, escapes where it is not; `<>` for the null reverse-path."""
        return self.octets.decode("utf-8", "backslashreplace") if self.octets else "<>"

    def __str__(self) -> str:
        return self.text


NULL_REVERSE_PATH = Address(b"")
