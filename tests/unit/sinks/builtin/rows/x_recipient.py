"""X-Recipient in the contract suite: it asks nobody."""

from __future__ import annotations

from lonedot.sinks.builtin.x_recipient import x_recipient
from tests.unit.sinks.builtin.contract import Row

__all__ = ["ROWS"]


def judge(before: bytes, after: bytes) -> None:
    field, rest = after.split(b"\r\n", 1)
    assert field.startswith(b"X-Recipient: ")
    assert rest == before or (not before.count(b"\r\n\r\n") and rest.strip() == before.strip())


ROWS = (Row("x-recipient", x_recipient, judge=judge, beyond=frozenset({"10 000 recipients"})),)
