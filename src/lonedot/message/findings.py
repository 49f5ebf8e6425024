"""What the guard says about octets: a code, a place, and words. Values only; the checks are in `guard`."""

from __future__ import annotations

import enum

import msgspec

__all__ = ["Code", "Finding", "Part", "Severity"]


class Part(enum.Enum):
    """Which part of a message an offset counts in."""

    HEAD = "head"
    BODY = "body"
    ENVELOPE = "envelope"


class Severity(enum.Enum):
    DAMAGE = "damage"
    """Cannot be sent as it is, or would not mean what it meant."""
    VIOLATION = "violation"
    """The sink did what it had not declared."""
    NOTE = "note"
    """Worth knowing; nothing is done about it."""


class Code(enum.Enum):
    """Stable names, printed and stored. The first eight are those of the damage vectors."""

    BARE_LF = "bare-lf"
    BARE_CR = "bare-cr"
    NO_FINAL_NEWLINE = "no-final-newline"
    NUL = "nul"
    LINE_TOO_LONG = "line-too-long"
    HEADER_MALFORMED = "header-malformed"
    NO_HEADER = "no-header"
    EMPTY = "empty"
    BOUNDARY_MISSING = "boundary-missing"
    ENCODING_MISMATCH = "encoding-mismatch"
    EIGHT_BIT_INTRODUCED = "eight-bit-introduced"
    SIGNATURE_BROKEN = "signature-broken"
    RECIPIENT_DISCLOSED = "recipient-disclosed"
    HEADER_UNDECLARED = "header-undeclared"
    BODY_UNDECLARED = "body-undeclared"
    ENVELOPE_UNDECLARED = "envelope-undeclared"
    FIELD_REMOVED = "field-removed"
    FIELDS_REORDERED = "fields-reordered"
    SIZE_CHANGED = "size-changed"
    STORED_ALTERED = "stored-altered"
    REPORT_BROKEN = "report-broken"
    """A delivery report that programs cannot read any more."""


class Finding(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One thing found."""

    code: Code
    severity: Severity
    part: Part
    offset: int
    """First octet concerned, counted in `part`; -1 when it has no place."""
    words: str
    """One sentence for a person: what is there, what was expected."""
    octets: bytes = b""
    """Up to 64 octets around the place, exactly as they stand."""
