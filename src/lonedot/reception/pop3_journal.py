"""What is known of the messages of one POP3 mailbox: by UIDL, what became of each.

A file of JSON lines, one for each change; the last line of an UIDL holds. A torn last line is left out.

Rules: the journal spares work, custody alone is believed. A line is written after the commit that it speaks of, and
synced before the server is told to forget anything for good. A message that it does not know is fetched, and found
again by its key.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

__all__ = ["FORGOTTEN_SECONDS", "Journal", "Known", "State", "file_name"]

FORGOTTEN_SECONDS = 60 * 86400.0
"""So long after the server no longer lists it, a message is forgotten."""
_TOUCHED_SECONDS = 86400.0
"""So often it is written down that it is still listed."""
_SPARE_LINES = 1000
"""Lines that say nothing any more before the file is written anew."""
_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9._@-]")


class State(enum.Enum):
    TAKEN = "taken"
    """In custody, or was; the server may have it still."""
    DELETED = "deleted"
    """Taken, and the server has said that it is deleted."""
    FAILED = "failed"
    """Could not be taken; it is tried again."""
    REFUSED = "refused"
    """Left at the server, and not tried again."""


class Known(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of one message."""

    uidl: str
    state: State
    seen_at: float
    """When it was last seen at the server, to about a day."""
    taken_at: float = 0.0
    size: int = 0
    """As the server listed it."""
    digest: bytes = b""
    """Of the octets as they came; empty: they never came whole."""
    failures: int = 0
    words: str = ""

    @property
    def listed_as(self) -> str:
        """The UIDL at the server: several messages with one UIDL are known by it, a blank and their digest."""
        return self.uidl.partition(" ")[0]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Known).decode


def file_name(host: str, user: str) -> str:
    """Of the journal of a mailbox: the same whatever the account is called and however it is reached."""
    whose = f"{user}@{host.lower()}"
    digest = hashlib.sha256(f"{host.lower()}\0{user}".encode()).hexdigest()[:12]
    return f"{_NOT_IN_NAME.sub('_', whose)[:80]}-{digest}.jsonl"


class Journal:
    """One file. Used by one task; its methods write to the disk, so they are called in a thread but for look-ups."""

    def __init__(self, path: Path) -> None:
        """Raises OSError: what is there cannot be read."""
        self._path = path
        self._known: dict[str, Known] = {}
        self._lines = 0
        self._file: int | None = None
        with contextlib.suppress(FileNotFoundError):
            for line in path.read_bytes().split(b"\n"):
                with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                    one = _decode(line)
                    self._known[one.uidl] = one
                    self._lines += 1
        self._digests = {one.digest: one.uidl for one in self._known.values() if one.digest}

    def __len__(self) -> int:
        return len(self._known)

    def get(self, uidl: str) -> Known | None:
        return self._known.get(uidl)

    def moved(self, digest: bytes, listed: Collection[str]) -> Known | None:
        """A message with these octets that was taken, was not deleted by us, and is no longer listed: it has another
        UIDL now."""
        known = self._known.get(self._digests.get(digest, ""))
        if known is None or known.state is not State.TAKEN or known.listed_as in listed:
            return None
        return known

    def of_state(self, state: State) -> Iterator[Known]:
        return (one for one in self._known.values() if one.state is state)

    def write(self, *changes: Known) -> None:
        """Remember these. Raises OSError: they are not remembered."""
        if not changes:
            return
        octets = b"".join(_encode(one) + b"\n" for one in changes)
        if self._file is None:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = os.open(self._path, flags, 0o600)
            if os.fstat(self._file).st_size:
                octets = b"\n" + octets  # a crash may have left half a line
        written = 0
        while written < len(octets):
            written += os.write(self._file, octets[written:])
        for one in changes:
            self._known[one.uidl] = one
            if one.digest:
                self._digests[one.digest] = one.uidl
        self._lines += len(changes)

    def sync(self) -> None:
        """What was written is durable when it returns. Raises OSError."""
        if self._file is not None:
            os.fsync(self._file)
            self._sync_folder()

    def tidy(self, listed: Collection[str], now: float) -> None:
        """Forget what the server has not listed for long; note what it lists still. Synced. Raises OSError."""
        self.write(
            *(
                msgspec.structs.replace(one, seen_at=now)
                for one in self._known.values()
                if one.listed_as in listed and now - one.seen_at > _TOUCHED_SECONDS
            )
        )
        old = [
            uidl
            for uidl, one in self._known.items()
            if one.listed_as not in listed and now - one.seen_at > FORGOTTEN_SECONDS
        ]
        for uidl in old:
            gone = self._known.pop(uidl)
            if self._digests.get(gone.digest) == uidl:
                del self._digests[gone.digest]
        if old or self._lines > 2 * len(self._known) + _SPARE_LINES:
            self._write_anew()
        else:
            self.sync()

    def forget(self, *uidls: str) -> None:
        """Raises OSError."""
        for uidl in uidls:
            self._known.pop(uidl, None)
        self._write_anew()

    def _write_anew(self) -> None:
        self.close()
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(fresh, flags, 0o600), "wb") as file:
            file.writelines(_encode(one) + b"\n" for one in self._known.values())
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self._path)
        self._sync_folder()
        self._lines = len(self._known)

    def _sync_folder(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
