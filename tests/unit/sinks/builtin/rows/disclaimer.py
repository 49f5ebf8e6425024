"""The disclaimer in the contract suite: it asks nobody, and takes nothing away."""

from __future__ import annotations

from lonedot.sinks.builtin.disclaimer import Disclaimer
from tests.unit.sinks.builtin.contract import Row

__all__ = ["ROWS"]

TEXT = "Confidential."


def judge(before: bytes, after: bytes) -> None:
    assert after.count(TEXT.encode()) == 1
    rest = after
    for line in before.splitlines(keepends=True):
        assert line.strip(b"\r\n") in rest
        rest = rest[rest.index(line.strip(b"\r\n")) + len(line.strip(b"\r\n")) :]


ROWS = (Row("disclaimer", Disclaimer, settings=lambda folder, address: {"text": TEXT}, judge=judge),)
