"""How a call is put for a process: the frame, and the descriptor of the body that goes with it.

Rules: a body that is a file is lent, not copied; a copy lies in memory and is sealed, so that no sink can write to
what the relay or another sink reads; who makes a descriptor and cannot hand it on closes it.
"""

from __future__ import annotations

import fcntl
import os

from lonedot.message.content import Body, FileBody, MemoryBody, SplicedBody
from lonedot.sinks import wire
from lonedot.sinks.inquiry import HopCall
from lonedot.sinks.protocol import Question
from lonedot.sinks.registry import Bag
from lonedot.sinks.view import Message

__all__ = ["frame_of_call", "frame_of_hop", "frame_of_question", "in_memory_file", "is_long_to_copy"]

COPIED_OCTETS = 1024 * 1024
"""A body in memory of at most this many is copied at once; a larger one in a thread."""


def frame_of_question(number: int, question: Question) -> bytearray:
    """What a sink of the session is asked.

    Raises:
        ValueError, TypeError, OverflowError: it cannot be put into a frame.
    """
    settings = question.session.settings
    return wire.frame(
        wire.AskFrame(number, question.session.moment, dict(settings), isinstance(settings, Bag))
    )


def frame_of_hop(number: int, call: HopCall) -> bytearray:
    """What a sink of a session with a next hop is asked.

    Raises: as `frame_of_question`.
    """
    return wire.frame(wire.HopFrame(number, call.hop, isinstance(call.hop.settings, Bag)))


def frame_of_call(number: int, message: Message, copy: int) -> tuple[bytearray, int]:
    """What a sink of messages is shown, with the descriptor to send beside it, or -1.

    Args:
        copy: a descriptor of the body, when that had to be copied; else -1. It is closed when this raises.

    Raises:
        OSError: the body cannot be opened or copied.
        ValueError, TypeError, OverflowError: it cannot be put into a frame.
    """
    content = message.content
    body: Body = content.body
    descriptor = copy
    octets: bytes | None = None
    pieces: tuple[wire.Piece, ...] | None = None
    base_size = body.size
    try:
        if descriptor < 0 and message.reads_body:
            if isinstance(body, SplicedBody):
                pieces = body.pieces
                base_size = body.base.size
                body = body.base
            if isinstance(body, FileBody):
                descriptor = os.open(body.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            elif pieces is None and body.size <= wire.BODY_IN_FRAME:
                octets = body.octets()
            else:
                descriptor = in_memory_file(body)
        frame = wire.frame(
            wire.CallFrame(
                number,
                message.id,
                message.envelope,
                message.facts,
                dict(message.settings),
                message.binding_id,
                content.head,
                content.head_measure,
                content.body_measure,
                octets,
                base_size,
                pieces,
                content.body.size,
                isinstance(message.settings, Bag),
                message.scope,
                message.departure,
                message.reads_body,
            )
        )
    except BaseException:
        if descriptor >= 0:
            os.close(descriptor)
        raise
    return frame, descriptor


def is_long_to_copy(message: Message) -> bool:
    """Its body has to be copied for the process, and is too large for that to be done on the loop."""
    body = message.content.body
    if not message.reads_body:
        return False
    base = body.base if isinstance(body, SplicedBody) else body
    if isinstance(base, FileBody):
        return False
    return body.size > (COPIED_OCTETS if isinstance(body, MemoryBody) else wire.BODY_IN_FRAME)


def in_memory_file(body: Body) -> int:
    """A descriptor of a copy in memory that nobody can write to.

    Raises:
        OSError, ValueError: the body cannot be read.
    """
    descriptor = os.memfd_create("body", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        for chunk in body.chunks():
            view = memoryview(chunk)
            while view:
                view = view[os.write(descriptor, view) :]
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
