"""POP3 routing in the contract suite: it asks nobody, and changes nothing where there is no marker."""

from __future__ import annotations

import msgspec

from lonedot.sinks.builtin.pop3_routing import pop3_routing
from tests.unit.sinks.builtin.contract import Row

__all__ = ["ROWS"]


def judge(before: bytes, after: bytes) -> None:
    assert after == before


ROWS = (Row("pop3-routing", msgspec.structs.replace(pop3_routing, rule=""), judge=judge),)
"""Its own rule would pass all messages of the suite by."""
