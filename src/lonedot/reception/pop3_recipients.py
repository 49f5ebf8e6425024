"""For whom a fetched message is, by what its header section says. Pure.

Only addresses of domains that are named in the configuration are believed: everything here was written by strangers,
or by a provider whom they may imitate. So a lie can reach those to whom anybody may write, and nobody else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence

from lonedot.message.header import HeaderView
from lonedot.message.mailboxes import VALUE_LIMIT, read_mailboxes
from lonedot.protocol.errors import RemoteProtocolError
from lonedot.protocol.grammar import parse_forward_path
from lonedot.terms.address import Address

__all__ = ["ADDRESSED", "RECIPIENTS_FROM", "recipients_in"]

RECIPIENTS_FROM = (
    "X-Original-To",
    "Delivered-To",
    "Envelope-To",
    "X-Recipient",
    "Received",
    "To",
    "Cc",
)
"""Which fields are asked, in this order."""
ADDRESSED = frozenset({"to", "cc", "bcc", "resent-to", "resent-cc", "resent-bcc"})
"""Fields in which the sender names recipients; those of them that stand one behind the other count as one."""
MAX_RECIPIENTS = 1000
MAX_TRACE = 100
"""Received fields that are looked at, the newest first."""

_FOR = re.compile(rb"\sfor\s+<?([^\s<>;()]{3,320})>?", re.IGNORECASE)


def recipients_in(
    head: HeaderView, fields: Sequence[str], is_ours: Callable[[Address], bool]
) -> tuple[Address, ...]:
    """Our own addresses, by the first field that names any; empty when none does. At most 1000."""
    for names in _together(fields):
        found = _ours(_named(head, names), is_ours)
        if found:
            # Older Received fields tell of hops before this one, which may have been for somebody else.
            return found[:1] if names[0].lower() == "received" else found
    return ()


def _together(fields: Sequence[str]) -> list[list[str]]:
    groups: list[list[str]] = []
    for name in fields:
        if name.lower() in ADDRESSED and groups and groups[-1][0].lower() in ADDRESSED:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def _named(head: HeaderView, names: Collection[str]) -> Iterable[bytes]:
    for name in names:
        lower = name.lower()
        if lower == "received":
            for value in head.all(name)[:MAX_TRACE]:
                found = _FOR.search(value[:VALUE_LIMIT].partition(b";")[0])
                if found:
                    yield found[1]
        elif lower in ADDRESSED:
            for value in head.all(name):
                yield from (box.address.encode("utf-8", "surrogateescape") for box in read_mailboxes(value))
        elif (written_last := head.get(name)) is not None:
            for box in read_mailboxes(written_last):
                yield box.address.encode("utf-8", "surrogateescape")


def _ours(found: Iterable[bytes], is_ours: Callable[[Address], bool]) -> tuple[Address, ...]:
    ours: dict[Address, None] = {}
    for octets in found:
        try:
            path = parse_forward_path(b"TO:<" + octets + b">")
        except RemoteProtocolError:
            continue
        if not path.parameters and is_ours(path.address):
            ours[path.address] = None
            if len(ours) >= MAX_RECIPIENTS:
                break
    return tuple(ours)
