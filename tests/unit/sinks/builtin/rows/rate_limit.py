"""The limit of octets in the contract suite: it asks nobody."""

from __future__ import annotations

from lonedot.sinks.builtin.rate_limit import RateLimitOctets
from tests.unit.sinks.builtin.contract import Row

__all__ = ["ROWS"]

ROWS = (Row("rate-limit-octets", RateLimitOctets, lambda folder, address: {"limit": 1 << 30}),)
