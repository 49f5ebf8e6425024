"""A file of aliases: `name: address, address`, one name a line; a line that begins with a blank goes on with the last.

The syntax is that of `/etc/aliases` (aliases(5)): such a file can be named as it is. A name stands for an address of
its domain; so does an address without a domain on the right. What other programs deliver to there (`:include:`,
`|program`, `/file`) is a fault of the line, with what to write instead: it would be delivered to nobody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lonedot.directory.file import LineFault, LineFaults, lines_of
from lonedot.directory.names import key_of, read_address
from lonedot.terms.address import Address

__all__ = ["MEMBERS_LIMIT", "read_aliases"]

MEMBERS_LIMIT = 10_000
"""Addresses of one alias or list, and of all that one address leads to."""

_ITEM = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^,"])+')
"""What stands between two commas; a comma in quotes parts nothing."""
_NAME = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[^:"]*?)\s*:')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"(@.*)?')
_MEND = "write name: address, address"


class _NotTaken(ValueError):
    """A line, with what to write instead."""

    def __init__(self, what: str, do: str = _MEND) -> None:
        super().__init__(what)
        self.do = do


def read_aliases(
    text: str, domain: str, is_case_sensitive: bool = False
) -> Mapping[str, tuple[Address, ...]]:
    """Names as keys, each with its addresses in the order of the file, each once.

    Raises:
        LineFaults: lines that are no alias, all of them.
    """
    found: dict[str, tuple[Address, ...]] = {}
    faults: list[LineFault] = []
    for number, line in _unfolded(text):
        try:
            named = _NAME.match(line)
            if named is None:
                raise _NotTaken("no colon behind the name")
            name = _unquoted(named[1])
            if "@" in name and name.rpartition("@")[2].lower() != domain:
                raise _NotTaken(
                    f"{name[:80]!r} is not an address of {domain}", f"write it for {domain} alone"
                )
            own = read_address(name, domain)
            key = key_of(own.local, is_case_sensitive)
            if key in found:
                raise _NotTaken(f"{name!r} stands there twice", "write all its addresses on one line")
            right = line[named.end() :]
            if '"' in _ITEM.sub("", right):
                raise _NotTaken("a quotation mark without its second", "write it in pairs")
            items = [one.strip() for one in _ITEM.findall(right)]
            targets = dict.fromkeys(_target(one, own, domain) for one in items if one)
            if not targets:
                raise _NotTaken(f"{name!r} has no addresses")
            if len(targets) > MEMBERS_LIMIT:
                raise _NotTaken(f"more than {MEMBERS_LIMIT} addresses", "make it a list of lists")
            found[key] = tuple(targets)
        except _NotTaken as error:
            faults.append(LineFault(number, str(error), error.do))
        except ValueError as error:
            faults.append(LineFault(number, str(error), _MEND))
    if faults:
        raise LineFaults(faults)
    return found


def _target(item: str, own: Address, domain: str) -> Address:
    words = _unquoted(item)
    shown = repr(words[:80])
    match words[:1]:
        case "|":
            raise _NotTaken(
                f"{shown} is a program, not a mail address",
                f'write [[route]] with to = "{own.text}" and pipe = ["/path/of/program"]',
            )
        case "/" if words == "/dev/null":
            raise _NotTaken(
                f"{shown} is not a mail address", f'write [[route]] with to = "{own.text}" and discard = true'
            )
        case "/":
            raise _NotTaken(
                f"{shown} is a file, not a mail address",
                f'write [[route]] with to = "{own.text}" and maildir = "/path/of/Maildir"',
            )
        case ":":
            raise _NotTaken(
                f"{shown} is not a mail address",
                "write the addresses of that file here, or make it one of the lists",
            )
        case "\\":
            # In sendmail: the mailbox itself, not what an alias makes of it. An alias that names itself means that.
            address = read_address(words[1:], domain)
            if address != own:
                raise _NotTaken(
                    f"{shown}: a backslash is for the name of the alias alone", f"write {words[1:81]}"
                )
            return address
        case _:
            return read_address(words, domain)


def _unquoted(words: str) -> str:
    """What is quoted whole, or before its `@`, without the quotes."""
    found = _QUOTED.fullmatch(words)
    return words if found is None else re.sub(r"\\(.)", r"\1", found[1]) + (found[2] or "")


def _unfolded(text: str) -> list[tuple[int, str]]:
    lines: list[tuple[int, str]] = []
    for number, line in lines_of(text):
        if line[0] in " \t" and lines:
            first, begun = lines[-1]
            lines[-1] = first, begun + " " + line.strip()
        else:
            lines.append((number, line.rstrip("\r")))
    return lines
