"""PIPELINING (RFC 2920): commands may come without waiting for the answers.

The machine answers in order and in one write whether this is offered or not; the keyword only invites clients.
"""

from __future__ import annotations

from lonedot.protocol.extension import Extension, plain_line

__all__ = ["PIPELINING"]

PIPELINING = Extension(b"PIPELINING", plain_line(b"PIPELINING"))
