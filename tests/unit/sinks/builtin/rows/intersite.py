"""Intersite in the contract suite: an endpoint that takes everything; what it takes is consumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin.intersite import Intersite
from lonedot.sinks.calls import Decision
from tests.unit.sinks.builtin.contract import MESSAGES, Backend, Row, SocketBackend
from tests.unit.sinks.builtin.rows.http import speak

__all__ = ["ROWS"]

MANY = "10 000 recipients"
"""Each would be a call of its own; that many are not made, and nobody gets it instead."""


def settings(folder: Path, address: str) -> Mapping[str, Setting]:
    return {"url": f"http://{address}/take"}


def backend(folder: Path) -> Backend:
    return SocketBackend(folder, speak, tcp=True)


ROWS = (
    Row(
        "intersite",
        Intersite,
        settings,
        backend,
        becomes={given.name: Decision.DISCARD for given in MESSAGES} | {MANY: Decision.DEFER},
        beyond=frozenset({MANY}),
        huge=Decision.DISCARD,
    ),
)
