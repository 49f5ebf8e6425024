"""ENHANCEDSTATUSCODES (RFC 2034): replies carry `x.y.z`. Switched off, they are written without."""

from __future__ import annotations

from lonedot.protocol.extension import Extension, plain_line

__all__ = ["ENHANCED_STATUS_CODES"]

ENHANCED_STATUS_CODES = Extension(b"ENHANCEDSTATUSCODES", plain_line(b"ENHANCEDSTATUSCODES"))
