"""Reads the damage vectors: octets as a faulty plug-in left them, what is wrong with them, and what may be sent."""

from __future__ import annotations

from pathlib import Path

import msgspec

__all__ = ["DamageVector", "Defect", "Outcome", "Wire", "load"]

FILE = Path(__file__).parents[2] / "vectors" / "damage.jsonl"


class Repeated(msgspec.Struct):
    rep: str
    n: int


class Defect(msgspec.Struct, frozen=True):
    code: str
    offset: int


class Wire(msgspec.Struct):
    sha256: str
    len: int
    body_sha256: str
    body_len: int


class Outcome(msgspec.Struct):
    name: str
    wire: Wire | None = None
    refuse: list[str] = []


class DamageVector(msgspec.Struct):
    id: str
    name: str
    stored: list[str | Repeated]
    defects: list[Defect]
    default: str
    allow: list[Outcome]

    @property
    def octets(self) -> bytes:
        return b"".join(
            segment.encode("latin-1")
            if isinstance(segment, str)
            else segment.rep.encode("latin-1") * segment.n
            for segment in self.stored
        )

    def __str__(self) -> str:
        return f"{self.id} {self.name}"


def load() -> list[DamageVector]:
    """All of them, in order."""
    return [msgspec.json.decode(line, type=DamageVector) for line in FILE.read_bytes().splitlines()]
