"""Transcripts: what was said in a session, in both directions, with the time of each piece.

A `Transcript` gathers the pieces of one session; `flush` gives them to the store as one record and returns where it
will stand. A session that carries many messages has many records, each with what was said since the one before:
`TranscriptStore.following` finds the rest (the reply to the end of data comes after the message's own record).

Rules: content is not recorded (the caller notes how much there was); what stands behind AUTH on a command line is
replaced; one record holds at most `RECORD_LIMIT` octets, the middle left out; losing a record never raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from lonedot.evidence.days import DayFiles
from lonedot.observability.levels import LogLevel
from lonedot.observability.log import event
from lonedot.terms.clock import Clock
from lonedot.terms.transcript import TranscriptRef

__all__ = ["PIECE_LIMIT", "RECORD_LIMIT", "Piece", "Record", "Transcript", "TranscriptStore"]

RECORD_LIMIT = 64 * 1024
"""Octets in one record, text only."""

PIECE_LIMIT = 8 * 1024
"""Octets of one piece; of a longer one, start and end are kept."""

MAX_PIECES = 2000
"""Pieces in one record."""

_SCAN_LIMIT = 16 * 1024 * 1024
"""Octets read in search of what follows."""

_SECRET = re.compile(rb"(?im)^(AUTH[ \t]+\S+[ \t]+)[^\r\n]+")


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """Octets that went one way."""

    after: int
    """Microseconds since the session began."""
    direction: str
    """`<` from the peer, `>` to the peer, `#` a note of ours."""
    text: str
    """One sign for each octet (Latin-1), so that nothing is lost."""

    @property
    def octets(self) -> bytes:
        return self.text.encode("latin-1", "replace")


class Record(msgspec.Struct, frozen=True):
    """What was said in a session since the record before."""

    session: str
    """Id of the session or attempt."""
    peer: str
    at: float
    """When the session began, in seconds since 1970."""
    pieces: tuple[Piece, ...]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


class Transcript:
    """Gathers what is said in one session. Cheap: a note is a tuple in a list."""

    __slots__ = ("_at", "_began", "_pieces", "_size", "_store", "peer", "session")

    def __init__(self, store: TranscriptStore, session: str, peer: str) -> None:
        self._store = store
        self.session = session
        self.peer = peer
        self._at = store.clock.now()
        self._began = store.clock.monotonic()
        self._pieces: list[tuple[float, str, bytes]] = []
        self._size = 0

    def note(self, direction: str, octets: bytes) -> None:
        """Take octets that went `<` from or `>` to the peer, or a note `#` of ours. Content is not given here."""
        if len(octets) > PIECE_LIMIT:
            octets = _shorten(octets)
        self._pieces.append((self._store.monotonic() - self._began, direction, octets))
        self._size += len(octets)
        if self._size > 2 * RECORD_LIMIT or len(self._pieces) > 2 * MAX_PIECES:
            self._pieces = _leave_out_middle(self._pieces)
            self._size = sum(len(piece[2]) for piece in self._pieces)

    def flush(self) -> TranscriptRef | None:
        """Make what was noted since the last call one record; None when nothing was, or when it is lost."""
        pieces = self._pieces
        if not pieces:
            return None
        if self._size > RECORD_LIMIT or len(pieces) > MAX_PIECES:
            pieces = _leave_out_middle(pieces)
        self._pieces = []
        self._size = 0
        return self._store.add(self.session, self.peer, self._at, pieces)


class TranscriptStore:
    """All transcripts of a spool, in files by day."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.clock = clock
        self.monotonic = clock.monotonic
        self._now = clock.now
        self._files = DayFiles(folder, _tell_loss)

    @property
    def lost(self) -> int:
        """Records that could not be written since the start."""
        return self._files.lost

    def session(self, session: str, peer: str) -> Transcript:
        """Begin the transcript of a session or an attempt."""
        return Transcript(self, session, peer)

    def record(
        self, session: str, lines: Sequence[tuple[float, str, bytes]], peer: str = ""
    ) -> TranscriptRef | None:
        """Keep a conversation that is over: seconds since its start, direction, octets. Where it will stand."""
        size = 0
        for line in lines:
            size += len(line[2])
        pieces = lines
        if size > PIECE_LIMIT or len(lines) > MAX_PIECES:
            pieces = _leave_out_middle([(at, way, _shorten(octets)) for at, way, octets in lines])
        began = self._now() - (lines[-1][0] if lines else 0.0)
        return self.add(session, peer, began, pieces)

    def add(
        self, session: str, peer: str, at: float, pieces: Iterable[tuple[float, str, bytes]]
    ) -> TranscriptRef | None:
        """Keep one record whose pieces are bounded already."""
        plain = []
        for after, direction, octets in pieces:
            if b"AUTH" in octets or b"auth" in octets or b"Auth" in octets:
                text = _SECRET.sub(rb"\1[secret]", octets).decode("latin-1")
            else:
                text = octets.decode("latin-1")
            plain.append((int(after * 1e6), direction, text))
        line = _encode({"session": session, "peer": peer, "at": at, "pieces": plain}) + b"\n"
        place = self._files.append(line, self._now())
        return None if place is None else TranscriptRef(place[0], place[1], len(line))

    def flush(self) -> None:
        """Write what was recorded to the system."""
        self._files.flush()

    def close(self) -> None:
        """Write what was recorded and close the file."""
        self._files.close()

    def read(self, ref: TranscriptRef) -> Record | None:
        """The record at that place; None when it was lost or forgotten."""
        line = self._files.read(ref.day, ref.offset, ref.length)
        return _record(line) if line is not None else None

    def following(self, ref: TranscriptRef, session: str, limit: int = 1) -> list[Record]:
        """The next records of the same session behind that place, at most `limit`, as far as a bounded search finds."""
        found: list[Record] = []
        if limit < 1:
            return found
        mark = b'"session":' + _encode(session)
        for line in self._lines_behind(ref):
            if mark in line[: len(mark) + 1]:
                record = _record(line)
                if record is not None and record.session == session:
                    found.append(record)
                    if len(found) == limit:
                        break
        return found

    def forget(self, before: float) -> int:
        """Remove the files of days that ended before that time (seconds since 1970); how many."""
        return self._files.forget(before)

    def _lines_behind(self, ref: TranscriptRef) -> Iterator[bytes]:
        self._files.flush()
        left = _SCAN_LIMIT
        offset = ref.offset + ref.length
        for stem in self._files.stems():
            if stem < ref.day:
                continue
            at = offset if stem == ref.day else 0
            octets = self._files.read(stem, at, min(left, max(0, self._files.size_of(stem) - at))) or b""
            yield from octets.splitlines(keepends=True)
            left -= len(octets)
            if left <= 0:
                return


def _record(line: bytes) -> Record | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _shorten(octets: bytes) -> bytes:
    if len(octets) <= PIECE_LIMIT:
        return octets
    half = PIECE_LIMIT // 2
    return b"%s [%d octets left out] %s" % (octets[:half], len(octets) - 2 * half, octets[-half:])


def _leave_out_middle(pieces: Sequence[tuple[float, str, bytes]]) -> list[tuple[float, str, bytes]]:
    """Start and end, half of the limit each, and between them a note of what is missing."""
    first: list[tuple[float, str, bytes]] = []
    last: list[tuple[float, str, bytes]] = []
    size = 0
    for piece in pieces:
        size += len(piece[2])
        if size > RECORD_LIMIT // 2 or len(first) >= MAX_PIECES // 2:
            break
        first.append(piece)
    size = 0
    for piece in reversed(pieces[len(first) :]):
        size += len(piece[2])
        if size > RECORD_LIMIT // 2 or len(last) >= MAX_PIECES // 2:
            break
        last.append(piece)
    last.reverse()
    between = pieces[len(first) : len(pieces) - len(last)]
    if not between:
        return list(pieces)
    octets = sum(len(piece[2]) for piece in between)
    note = b"[%d pieces with %d octets left out]" % (len(between), octets)
    return [*first, (between[0][0], "#", note), *last]


def _tell_loss(reason: str) -> None:
    event(
        "evidence.lost",
        LogLevel.WARNING,
        reason=reason,
        do="make room on the disk; mail goes on without transcripts",
    )
