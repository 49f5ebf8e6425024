"""A file of aliases: `name: address, address`, one name a line; a line that begins with a blank goes on with the last.

A name stands for an address of its domain; so does an address without a domain on the right. What other programs allow
there (`:include:`, `|program`, `/file`, `"quoted"`) is a fault of the line: it would be delivered to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping

from lonedot.directory.file import lines_of
from lonedot.directory.names import key_of, read_address
from lonedot.terms.address import Address

__all__ = ["MEMBERS_LIMIT", "read_aliases"]

MEMBERS_LIMIT = 10_000
"""Addresses of one alias or list, and of all that one address leads to."""


def read_aliases(
    text: str, domain: str, is_case_sensitive: bool = False
) -> Mapping[str, tuple[Address, ...]]:
    """Names as keys, each with its addresses in the order of the file, each once.

    Raises:
        ValueError: a line is no alias; the words begin with its number.
    """
    found: dict[str, tuple[Address, ...]] = {}
    for number, line in _unfolded(text):
        name, colon, right = line.partition(":")
        try:
            if not colon:
                raise ValueError("no colon behind the name")
            if "@" in name and name.strip().rpartition("@")[2].lower() != domain:
                raise ValueError(f"{name.strip()[:80]!r} is not an address of {domain}")
            key = key_of(read_address(name, domain).local, is_case_sensitive)
            if key in found:
                raise ValueError(f"{name.strip()!r} stands there twice")
            words = [one.strip() for one in right.split(",") if one.strip()]
            if wrong := next((one for one in words if one[0] in "|/:"), ""):
                raise ValueError(f"{wrong[:80]!r} is not a mail address")
            targets = dict.fromkeys(read_address(one, domain) for one in words)
            if not targets:
                raise ValueError(f"{name.strip()!r} has no addresses")
            if len(targets) > MEMBERS_LIMIT:
                raise ValueError(f"more than {MEMBERS_LIMIT} addresses")
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        found[key] = tuple(targets)
    return found


def _unfolded(text: str) -> list[tuple[int, str]]:
    lines: list[tuple[int, str]] = []
    for number, line in lines_of(text):
        if line[0] in " \t" and lines:
            first, begun = lines[-1]
            lines[-1] = first, begun + " " + line.strip()
        else:
            lines.append((number, line.rstrip("\r")))
    return lines
