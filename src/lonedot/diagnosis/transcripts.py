"""Recorded conversations as lines for people. What cannot be read any more is empty, never an error."""

from __future__ import annotations

from collections.abc import Iterable

from lonedot.diagnosis.octets import visible
from lonedot.diagnosis.why import TranscriptLine, Who
from lonedot.evidence.transcript import Piece, TranscriptStore
from lonedot.spool.interface import TranscriptRef

__all__ = ["StoredTranscripts"]

_WHO = {"<": Who.PEER, ">": Who.RELAY}


class StoredTranscripts:
    """Reads from the evidence folder, on any thread."""

    def __init__(self, store: TranscriptStore) -> None:
        self._store = store

    def session(self, ref: TranscriptRef) -> tuple[TranscriptLine, ...]:
        """The session in which a message came, up to our reply to its end of data.

        A record is closed when the message is on disk; the reply, which comes after, begins the next record. So a
        record that begins with a reply other than the greeting begins with one to an earlier message: left out.
        """
        record = self._store.read(ref)
        if record is None:
            return ()
        pieces = list(record.pieces)
        while pieces and pieces[0].direction == ">" and not pieces[0].text.startswith("220"):
            del pieces[0]
        said = list(_lines(pieces))
        for later in self._store.following(ref, record.session):
            for piece in later.pieces:
                if piece.direction == "<":
                    break
                said += _lines((piece,))
        return tuple(said)

    def attempt(self, ref: TranscriptRef) -> tuple[TranscriptLine, ...]:
        """The conversation with a next hop."""
        record = self._store.read(ref)
        return () if record is None else tuple(_lines(record.pieces))


def _lines(pieces: Iterable[Piece]) -> Iterable[TranscriptLine]:
    """One line for each line that was said: pipelined commands come in one piece."""
    for piece in pieces:
        who = _WHO.get(piece.direction, Who.NOTE)
        for octets in piece.octets.splitlines(keepends=True) if who is not Who.NOTE else (piece.octets,):
            yield TranscriptLine(piece.after / 1e6, who, visible(octets))
