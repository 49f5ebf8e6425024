"""Reads `framing.jsonl` (see README.md beside it): steps as octets, outcomes as the test has to judge them."""

from __future__ import annotations

import hashlib
import itertools
import re
from pathlib import Path

import msgspec

__all__ = ["Outcome", "Repeated", "Step", "Vector", "Wanted", "load_framing", "octets_of", "pieces_of"]

FOLDER = Path(__file__).parent


class Repeated(msgspec.Struct):
    """`rep` written `n` times, or `oversize` until the SIZE limit is passed by 15 %."""

    rep: str = ""
    n: int = 0
    oversize: str = ""


class Step(msgspec.Struct):
    """One thing that the client does. Only the keys of its kind are set."""

    open: str = ""
    mail: str = ""
    send: list[str | Repeated] | None = None
    split: str | list[int] | None = None
    gap_ms: int = 0
    read: int = 0
    content: bool = True
    want: str = ""
    optional: bool = False
    silence_ms: int = 0
    sleep_ms: int = 0
    starttls: int = 0
    close: str = ""


class Wanted(msgspec.Struct):
    """One permitted content."""

    label: str = ""
    len: int = -1
    sha256: str = ""
    text: str = ""
    any: bool = False

    def matches(self, octets: bytes) -> bool:
        return self.any or (len(octets) == self.len and hashlib.sha256(octets).hexdigest() == self.sha256)


class Outcome(msgspec.Struct):
    """One permitted outcome of a vector."""

    msgs: dict[str, list[Wanted]]
    reply: list[str] | str
    dsn: bool = False


class Vector(msgspec.Struct, rename={"kind": "class"}):
    id: str
    kind: str
    name: str
    why: str
    steps: list[Step]
    allow: list[Outcome]
    needs: list[str] = []
    downstream: str = ""
    match: str = "body"
    default: str = ""


def load_framing() -> list[Vector]:
    """All vectors of `framing.jsonl`, in order."""
    lines = (FOLDER / "framing.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Vector) for line in lines]


def octets_of(segments: list[str | Repeated], *, sender: str, size_limit: int) -> bytes:
    """The octets of a `send`, with the sender put in."""
    parts: list[bytes] = []
    for segment in segments:
        if isinstance(segment, str):
            parts.append(segment.replace("{{SENDER}}", sender).encode("latin-1"))
        elif segment.oversize:
            unit = segment.oversize.encode("latin-1")
            parts.append(unit * (int(size_limit * 1.15) // len(unit) + 1))
        else:
            parts.append(segment.rep.encode("latin-1") * segment.n)
    return b"".join(parts)


def pieces_of(octets: bytes, split: str | list[int] | None) -> list[bytes]:
    """The octets as the client cuts them."""
    if split is None:
        return [octets]
    if split == "each":
        return [octets[i : i + 1] for i in range(len(octets))]
    if isinstance(split, str):
        found = re.fullmatch(r"last:(\d+)", split)
        assert found is not None, split
        count = int(found[1])
        return [octets[:-count], *(octets[i : i + 1] for i in range(len(octets) - count, len(octets)))]
    places = [0, *sorted(place % len(octets) for place in split), len(octets)]
    return [octets[a:b] for a, b in itertools.pairwise(places)]
