"""Capture files as frames: pcap (both byte orders, micro- and nanoseconds) and pcapng.

Rules that must not break: a file is read once from its start, so a pipe will do; no more than one record is held; a
record that claims more than `RECORD_LIMIT` octets ends the reading with a fault instead of taking the memory.
A file that breaks off in the middle of a record is a fault behind the last whole frame, not instead of it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

__all__ = ["RECORD_LIMIT", "CaptureFault", "Frame", "read_frames"]

RECORD_LIMIT = 16 * 1024 * 1024
"""Octets in one record or block. tcpdump writes at most 262144 of one packet."""

_INTERFACES_LIMIT = 4096

_PCAP = {
    b"\xd4\xc3\xb2\xa1": ("<", 1_000_000),
    b"\xa1\xb2\xc3\xd4": (">", 1_000_000),
    b"\x4d\x3c\xb2\xa1": ("<", 1_000_000_000),
    b"\xa1\xb2\x3c\x4d": (">", 1_000_000_000),
}
_SECTION = b"\x0a\x0d\x0d\x0a"
_INTERFACE, _SIMPLE, _ENHANCED = 1, 3, 6
_END_OF_OPTIONS, _RESOLUTION, _OFFSET = 0, 9, 14


class CaptureFault(Exception):
    """The file is no capture, or breaks off: what, and at which octet of it."""


class Frame(NamedTuple):
    """One packet as it was caught."""

    number: int
    """Counted from 1, as the tools that show captures count."""
    at: float
    """Seconds since the epoch."""
    link: int
    """The link layer (LINKTYPE_…)."""
    octets: bytes
    length: int
    """Octets on the wire; more than `octets` holds when the snap length cut it."""


class _Interface(NamedTuple):
    link: int
    snap: int
    units: float
    """Seconds in one unit of its time stamps."""
    offset: int


class _Source:
    """Exact reads that know where they are."""

    def __init__(self, file: IO[bytes], tell: Callable[[int], object] | None) -> None:
        self._file = file
        self._tell = tell
        self.position = 0

    def take(self, size: int, what: str) -> bytes:
        """So many octets; empty at the end of the file.

        Raises:
            CaptureFault: the file ends in the middle of them.
        """
        octets = self._file.read(size)
        if len(octets) < size:
            # A pipe may give less than was asked for.
            pieces = [octets]
            have = len(octets)
            while have < size and (octets := self._file.read(size - have)):
                pieces.append(octets)
                have += len(octets)
            octets = b"".join(pieces)
            if octets and have < size:
                raise CaptureFault(f"the file ends in the middle of {what}, at octet {self.position + have}")
        self.position += len(octets)
        if self._tell is not None:
            self._tell(self.position)
        return octets

    def need(self, size: int, what: str) -> bytes:
        octets = self.take(size, what)
        if len(octets) < size:
            raise CaptureFault(f"the file ends in the middle of {what}, at octet {self.position}")
        return octets


def read_frames(file: IO[bytes], tell: Callable[[int], object] | None = None) -> Iterator[Frame]:
    """The frames of a capture, in the order of the file. `tell` hears how many octets of it are read.

    Raises:
        CaptureFault: no capture; or, behind the frames before it, a damaged record.
    """
    source = _Source(file, tell)
    magic = source.take(4, "the header")
    if magic in _PCAP:
        yield from _pcap(source, *_PCAP[magic])
    elif magic == _SECTION:
        yield from _pcapng(source)
    elif not magic:
        raise CaptureFault("the file is empty")
    else:
        raise CaptureFault(f"neither pcap nor pcapng: the file begins with {magic.hex(' ')}")


def _pcap(source: _Source, order: str, units: int) -> Iterator[Frame]:
    *_, link = struct.unpack(f"{order}HHiIII", source.need(20, "the header"))
    link &= 0x0FFFFFFF  # above: the length of a frame check sequence
    record = struct.Struct(f"{order}IIII").unpack
    number = 0
    while head := source.take(16, "a record's header"):
        seconds, fraction, caught, length = record(head)
        if caught > RECORD_LIMIT:
            raise CaptureFault(
                f"a record of {caught} octets at octet {source.position - 16}: the file is damaged"
            )
        number += 1
        octets = source.need(caught, "a record") if caught else b""
        yield Frame(number, seconds + fraction / units, link, octets, max(length, caught))


def _pcapng(source: _Source) -> Iterator[Frame]:
    number = 0
    order = _begin_section(source)
    interfaces: list[_Interface] = []
    while head := source.take(8, "a block's header"):
        if head[:4] == _SECTION:
            order = _begin_section(source, head[4:])
            interfaces = []
            continue
        kind, total = struct.unpack(f"{order}II", head)
        if total < 12 or total > RECORD_LIMIT or total % 4:
            raise CaptureFault(
                f"a block of {total} octets at octet {source.position - 8}: the file is damaged"
            )
        body = source.need(total - 8, "a block")[:-4]
        if kind == _INTERFACE and len(body) >= 8 and len(interfaces) < _INTERFACES_LIMIT:
            interfaces.append(_interface(body, order))
        elif kind == _ENHANCED and len(body) >= 20:
            which, high, low, caught, length = struct.unpack_from(f"{order}IIIII", body)
            number += 1
            if which < len(interfaces):
                card = interfaces[which]
                at = card.offset + ((high << 32) | low) * card.units
                octets = body[20 : 20 + caught]
                yield Frame(number, at, card.link, octets, max(length, len(octets)))
        elif kind == _SIMPLE and len(body) >= 4 and interfaces:
            (length,) = struct.unpack_from(f"{order}I", body)
            card = interfaces[0]
            octets = body[4 : 4 + min(length, card.snap or length)]
            number += 1
            yield Frame(number, 0.0, card.link, octets, max(length, len(octets)))


def _begin_section(source: _Source, size: bytes = b"") -> str:
    """Read a section's header, behind its magic or its size; the byte order of the section."""
    size = size or source.need(4, "a section's header")
    magic = source.need(4, "a section's header")
    order = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}.get(magic)
    if order is None:
        raise CaptureFault(
            f"a section without a byte order at octet {source.position - 4}: the file is damaged"
        )
    (total,) = struct.unpack(f"{order}I", size)
    if total < 28 or total > RECORD_LIMIT:
        raise CaptureFault(f"a section's header of {total} octets: the file is damaged")
    source.need(total - 12, "a section's header")
    return order


def _interface(body: bytes, order: str) -> _Interface:
    link, _, snap = struct.unpack_from(f"{order}HHI", body)
    units, offset = 1e-6, 0
    place = 8
    while place + 4 <= len(body):
        option, size = struct.unpack_from(f"{order}HH", body, place)
        value = body[place + 4 : place + 4 + size]
        if option == _END_OF_OPTIONS:
            break
        if option == _RESOLUTION and len(value) == 1:
            power = value[0] & 0x7F
            units = 2.0**-power if value[0] & 0x80 else 10.0**-power
        elif option == _OFFSET and len(value) == 8:
            (offset,) = struct.unpack(f"{order}q", value)
        place += 4 + (size + 3) // 4 * 4
    return _Interface(link, snap, units, offset)
