"""Archives of exported messages: plain ustar (POSIX.1-1988), written and read as a stream.

Rules:
1. Only what is needed is understood: regular files with names that export gives, in the archive itself or in one
   folder, and the entries of such folders. Links, devices, long names, extended headers and sparse files are refused,
   not skipped: an archive that holds one was not made by export.
2. Nothing is ever written by a name of an archive.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

__all__ = ["END", "EXPORTED_NAME", "TarEntry", "TarFault", "entries", "header"]

BLOCK = 512
END = bytes(2 * BLOCK)
EXPORTED_NAME = re.compile(r"[0-7][0-9a-v]{12}(?:\.\d{1,6})?\.(?:eml|json|message)\Z")
_FOLDER = re.compile(r"(?:\./)?(?:[A-Za-z0-9_-][A-Za-z0-9._-]{0,98}/)?\Z")
MAX_ENTRIES = 4_000_000
_OCTAL = re.compile(rb"[0-7]{1,11}\Z")
_CHUNK = 256 * 1024


class TarFault(Exception):
    """The archive is not what export writes; the words say which entry and why."""


class TarEntry(msgspec.Struct, frozen=True):
    name: str
    """As export gave it, without a folder."""
    size: int


def header(name: str, size: int, at: float) -> bytes:
    """The block before a file of that many octets.

    Raises:
        ValueError: the file is too large for the format (8 GiB).
    """
    if not 0 <= size < 8**11:
        raise ValueError(f"{name} is too large for an archive")
    block = bytearray(BLOCK)
    block[0 : len(name)] = name.encode("ascii")
    block[100:108] = b"0000600\0"
    block[108:116] = block[116:124] = b"0000000\0"
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"%011o\0" % max(int(at), 0)
    block[148:156] = b" " * 8
    block[156:157] = b"0"
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padding(size: int) -> bytes:
    """What fills the last block of a file."""
    return bytes(-size % BLOCK)


def entries(archive: BinaryIO) -> Iterator[tuple[TarEntry, Iterator[bytes]]]:
    """Each file with its octets in chunks; what of them is not read is passed over.

    Raises:
        TarFault: at the first entry that is not one of export, or when the archive ends early.
        OSError: it cannot be read.
    """
    number = 0
    while True:
        block = _read(archive, BLOCK)
        if block == bytes(BLOCK):
            return
        number += 1
        if number > MAX_ENTRIES:
            raise TarFault(f"it has more than {MAX_ENTRIES} entries")
        entry = _entry(block, number)
        if entry is None:
            continue
        octets = _octets(archive, entry.size)
        yield entry, octets
        for _ in octets:
            pass
        if _read(archive, -entry.size % BLOCK).strip(b"\0"):
            raise TarFault(f"entry {number} is not filled with zeros")


def _entry(block: bytes, number: int) -> TarEntry | None:
    """None: it is a folder."""
    total = _number(block[148:156], number)
    if sum(block) - sum(block[148:156]) + 8 * 32 != total:
        raise TarFault(f"entry {number} has a wrong checksum: it is no tar archive, or it is damaged")
    if block[257:262] != b"ustar":
        raise TarFault(f"entry {number} is of an old format: make the archive with tar --format=ustar")
    raw = block[0:100].split(b"\0", 1)[0]
    shown = repr(raw.decode("ascii", "backslashreplace"))
    kind = block[156:157]
    if kind not in (b"0", b"\0", b"5"):
        does = _KINDS.get(kind, f"of type {kind!r}")
        raise TarFault(
            f"entry {number}, {shown}, is {does}: make the archive with tar --format=ustar, of plain files"
        )
    is_gnu = block[257:265] == b"ustar  \0"
    if not is_gnu and block[345:500].strip(b"\0"):
        raise TarFault(f"entry {number}, {shown}, has too long a name")
    size = _number(block[124:136], number)
    try:
        whole = raw.decode("ascii")
    except UnicodeDecodeError:
        raise TarFault(f"entry {number}, {shown}, has a name that export does not give") from None
    folder, name = (whole, "") if kind == b"5" else _parted(whole)
    if not _FOLDER.match(folder if folder.endswith("/") or not folder else f"{folder}/") or (
        name and not EXPORTED_NAME.match(name)
    ):
        raise TarFault(f"entry {number}, {shown}, has a name that export does not give")
    if kind == b"5":
        if size:
            raise TarFault(f"entry {number}, {shown}, is a folder with octets")
        return None
    if not name:
        raise TarFault(f"entry {number} has no name")
    return TarEntry(name, size)


_KINDS = {
    b"1": "a link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"L": "a long name",
    b"K": "a long link",
    b"x": "an extended header",
    b"g": "an extended header",
    b"S": "a sparse file",
}


def _parted(name: str) -> tuple[str, str]:
    folder, slash, last = name.rpartition("/")
    return folder + slash, last


def _number(field: bytes, number: int) -> int:
    digits = field.strip(b" \0")
    if not _OCTAL.match(digits):
        raise TarFault(f"entry {number} has a number that cannot be read")
    return int(digits, 8)


def _octets(archive: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        chunk = archive.read(min(size, _CHUNK))
        if not chunk:
            raise TarFault("it ends in the middle of a file")
        size -= len(chunk)
        yield chunk


def _read(archive: BinaryIO, size: int) -> bytes:
    octets = b""
    while len(octets) < size:
        more = archive.read(size - len(octets))
        if not more:
            raise TarFault("it ends early: the end of an archive is two blocks of zeros")
        octets += more
    return octets
