"""Where a recorded conversation lies. Stored beside the message that it belongs to; the evidence room reads it."""

from __future__ import annotations

import msgspec

__all__ = ["TranscriptRef"]


class TranscriptRef(msgspec.Struct, frozen=True, array_like=True):
    """Where a transcript lies in the evidence folder: file of the day, offset and length in octets."""

    day: str
    offset: int
    length: int
