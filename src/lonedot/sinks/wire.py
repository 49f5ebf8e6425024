"""What the relay and the process of a sink say to each other: frames of four octets of length and MessagePack.

Rules a change here must keep:
1. The relay decodes only into the types here. Nothing that a process says becomes code, a path or a descriptor.
2. Each side bounds what it takes before it takes it.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

import msgspec

from lonedot.message.content import Measure
from lonedot.message.edits import (
    AddRecipient,
    ChangeReversePath,
    Edit,
    Effect,
    RemoveRecipient,
)
from lonedot.sinks.bindings import OnDamage, OnError, Part, Role, Setting
from lonedot.sinks.events import Event
from lonedot.sinks.hop import Departure, Hop
from lonedot.sinks.protocol import Moment
from lonedot.sinks.verdicts import Hold, Next, Redirect, Stop, Verdict
from lonedot.spool.interface import Facts
from lonedot.terms.envelope import Envelope

__all__ = [
    "ANSWER_LIMIT",
    "BODY_IN_FRAME",
    "FRAME_HEAD",
    "AskFrame",
    "CallFrame",
    "Declared",
    "Fit",
    "FromSink",
    "HopFrame",
    "NotLoaded",
    "Piece",
    "Raised",
    "Said",
    "SettingsFrame",
    "ToSink",
    "decode_from_sink",
    "decode_to_sink",
    "frame",
]

FRAME_HEAD = struct.Struct(">I")
ANSWER_LIMIT = 64 * 1024 * 1024
"""Octets of one answer."""
BODY_IN_FRAME = 64 * 1024
"""A body of at most this many octets travels in the frame; a larger one as a descriptor."""

Piece: TypeAlias = bytes | tuple[int, int]
"""Octets of their own, or a range of the base."""


class SettingsFrame(msgspec.Struct, frozen=True, array_like=True, tag="settings"):
    """Are these settings such as the sink takes?"""

    settings: dict[str, Setting]


class CallFrame(msgspec.Struct, frozen=True, array_like=True, tag="call"):
    """One call. The body is `body`; or a descriptor beside the frame, whole or (with `pieces`) in parts."""

    number: int
    id: str
    envelope: Envelope
    facts: Facts
    settings: dict[str, Setting]
    binding_id: str
    head: bytes
    head_measure: Measure
    body_measure: Measure
    body: bytes | None
    base_size: int = 0
    """Octets behind the descriptor."""
    pieces: tuple[Piece, ...] | None = None
    body_size: int = 0
    folds_case: bool = False
    """Names of settings are compared without case: they come from a property bag."""
    scope: tuple[int, ...] = ()
    departure: Departure | None = None
    reads_body: bool = True
    """Else there is no body here, and `body_size` says how long it is."""


class AskFrame(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    """One question in a session, before there is a message."""

    number: int
    moment: Moment
    settings: dict[str, Setting]
    folds_case: bool = False
    """As in `CallFrame`."""


class HopFrame(msgspec.Struct, frozen=True, array_like=True, tag="hop"):
    """One question about a session with a next hop. Its settings are those of the binding."""

    number: int
    hop: Hop
    folds_case: bool = False
    """As in `CallFrame`."""


class Declared(msgspec.Struct, frozen=True, array_like=True, tag="declared"):
    """The code is loaded, and says this of itself."""

    name: str
    priority: int
    rule: str
    effects: frozenset[Effect]
    role: Role
    on_damage: OnDamage | None
    on_error: OnError
    event: Event
    split: bool = False
    reads: frozenset[Part] = frozenset()
    signs: bool = False


class Fit(msgspec.Struct, frozen=True, array_like=True, tag="fit"):
    """The answer to a `SettingsFrame`."""

    words: str = ""
    """What is wrong with them; empty when nothing is."""
    key: str = ""


class NotLoaded(msgspec.Struct, frozen=True, array_like=True, tag="not-loaded"):
    """The code cannot be used."""

    words: str


class Said(msgspec.Struct, frozen=True, array_like=True, tag="said"):
    """What the sink returned."""

    number: int
    verdict: Verdict


class Raised(msgspec.Struct, frozen=True, array_like=True, tag="raised"):
    """The sink returned nothing that can be used."""

    number: int
    words: str
    """`ValueError: …`"""
    traceback: str
    """Its end, for the log."""
    is_spent: bool = False
    """The process cannot go on (it has no memory left)."""
    is_nonsense: bool = False
    """It did not raise: it returned what no sink may."""


ToSink = CallFrame | AskFrame | HopFrame | SettingsFrame
FromSink = Declared | Fit | NotLoaded | Said | Raised

_encoder = msgspec.msgpack.Encoder()
_call_decoder: msgspec.msgpack.Decoder[ToSink] = msgspec.msgpack.Decoder(ToSink)
_sink_decoder: msgspec.msgpack.Decoder[FromSink] = msgspec.msgpack.Decoder(FromSink)


def frame(message: ToSink | FromSink) -> bytearray:
    """The octets of a message with their length before them.

    Raises:
        OverflowError, TypeError, UnicodeError: it holds what cannot be written down.
    """
    octets = bytearray(FRAME_HEAD.size)
    _encoder.encode_into(message, octets, FRAME_HEAD.size)
    FRAME_HEAD.pack_into(octets, 0, len(octets) - FRAME_HEAD.size)
    return octets


def decode_to_sink(octets: bytes | bytearray | memoryview) -> ToSink:
    """What the relay said."""
    return _call_decoder.decode(octets)


def decode_from_sink(octets: bytes | bytearray | memoryview) -> FromSink:
    """What a process said.

    Raises:
        ValueError: it is not of these types (msgspec.DecodeError is one), or holds an address that is none.
    """
    said = _sink_decoder.decode(octets)
    if isinstance(said, Said) and isinstance(said.verdict, Next | Stop | Hold | Redirect):
        for edit in said.verdict.edits:
            # The sink may have made the edit without the checks of `Edit`.
            match edit:
                case AddRecipient(address=address) | RemoveRecipient(address=address):
                    Edit.add_recipient(address)
                case ChangeReversePath(address=address):
                    Edit.change_reverse_path(address)
                case _:
                    pass
    return said
