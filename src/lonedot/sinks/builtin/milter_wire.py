"""The milter protocol as octets: packets, the flags of the negotiation, replies as values. No input or output here.

It is version 6 of the protocol by which Sendmail and Postfix speak to filters, and this is the side of the mail server.
No standard describes it; the words are those of Sendmail's libmilter. A packet is a length of four octets, a letter,
and what belongs to it.

Rules a change here must keep:
1. Whatever comes from the other side becomes a value or a `MilterFault`; nothing else leaves this module.
2. Everything it may send is bounded: a packet, a name, a text.
3. Header values are told as they stand in the message but for their line ends: LF there, CRLF here.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import msgspec

__all__ = [
    "CHUNK_LIMIT",
    "PACKET_LIMIT",
    "VERSION",
    "Action",
    "AddHeader",
    "AddRecipient",
    "AnyReply",
    "ChangeHeader",
    "ChangeSender",
    "Command",
    "DeleteRecipient",
    "InsertHeader",
    "MilterFault",
    "Modification",
    "Negotiated",
    "Quarantine",
    "ReplaceBody",
    "Reply",
    "ReplyText",
    "Splitter",
    "Stage",
    "Step",
    "connect",
    "decode",
    "header",
    "macros",
    "negotiation",
    "packet",
    "texts",
]

VERSION = 6
OLDEST = 2
CHUNK_LIMIT = 65535
"""Octets of the body in one packet."""
PACKET_LIMIT = 1024 * 1024
"""Octets of one packet from a milter."""
NAME_LIMIT = 128
"""Octets of the name of a header field."""
MACROS_LIMIT = 100
"""Names of macros that a milter may ask for at one stage."""
WORDS_LIMIT = 512

_LENGTH = struct.Struct("!I")
_INTEGER = struct.Struct("!I")
_THREE = struct.Struct("!III")
_PORT = struct.Struct("!H")
_NAME = re.compile(rb"[!-9;-~]+")
_REPLY = re.compile(rb"([45][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(rb"([245]\.\d{1,3}\.\d{1,3})(?: |$)")
_MACRO = re.compile(rb"\{?([^\s{},]+)\}?")


class MilterFault(Exception):
    """A milter that breaks its protocol. The words say how."""


class Action(enum.IntFlag):
    """What a milter may change (`SMFIF_…`)."""

    ADD_HEADERS = 0x01
    CHANGE_BODY = 0x02
    ADD_RECIPIENTS = 0x04
    DELETE_RECIPIENTS = 0x08
    CHANGE_HEADERS = 0x10
    QUARANTINE = 0x20
    CHANGE_SENDER = 0x40
    ADD_RECIPIENTS_WITH = 0x80
    """With parameters of ESMTP, which are passed over: filters that declare all that there is need it offered."""
    CHOOSE_MACROS = 0x100


class Step(enum.IntFlag):
    """Which steps it wants to see and which it answers (`SMFIP_…`)."""

    NO_CONNECT = 0x01
    NO_HELO = 0x02
    NO_MAIL = 0x04
    NO_RCPT = 0x08
    NO_BODY = 0x10
    NO_HEADERS = 0x20
    NO_END_OF_HEADERS = 0x40
    SILENT_HEADER = 0x80
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400
    REFUSED_RECIPIENTS = 0x800
    SILENT_CONNECT = 0x1000
    SILENT_HELO = 0x2000
    SILENT_MAIL = 0x4000
    SILENT_RCPT = 0x8000
    SILENT_DATA = 0x10000
    SILENT_UNKNOWN = 0x20000
    SILENT_END_OF_HEADERS = 0x40000
    SILENT_BODY = 0x80000
    LEADING_SPACE = 0x100000


OFFERED_STEPS = ~Step.REFUSED_RECIPIENTS & Step(0x1FFFFF)
"""All but one: who is refused by the relay itself is shown to no sink, and so to no milter."""


class Command(enum.Enum):
    """What we say (`SMFIC_…`)."""

    ABORT = b"A"
    BODY = b"B"
    CONNECT = b"C"
    MACROS = b"D"
    END_OF_BODY = b"E"
    HELO = b"H"
    HEADER = b"L"
    MAIL = b"M"
    END_OF_HEADERS = b"N"
    NEGOTIATE = b"O"
    QUIT = b"Q"
    RCPT = b"R"
    DATA = b"T"


class Stage(enum.IntEnum):
    """Where macros are told; the numbers are those of the negotiation (`SMFIM_…`)."""

    CONNECT = 0
    HELO = 1
    MAIL = 2
    RCPT = 3
    DATA = 4
    END_OF_MESSAGE = 5
    END_OF_HEADERS = 6


class Reply(enum.Enum):
    """Replies that say nothing but their letter (`SMFIR_…`)."""

    __hash__ = object.__hash__

    ACCEPT = b"a"
    CONTINUE = b"c"
    DISCARD = b"d"
    CONNECTION_FAILS = b"f"
    PROGRESS = b"p"
    REJECT = b"r"
    SKIP = b"s"
    TEMPFAIL = b"t"
    SHUTDOWN = b"4"


class ReplyText(msgspec.Struct, frozen=True):
    """A refusal in words of the milter's own."""

    code: int
    enhanced: str
    """`5.7.1`, or empty."""
    words: str


class Negotiated(msgspec.Struct, frozen=True):
    """What a milter wants of what it was offered."""

    version: int
    actions: Action
    steps: Step
    macros: Mapping[Stage, tuple[str, ...]] = {}
    """By stage, the names that it asks for in place of the usual ones, without braces."""


class AddHeader(msgspec.Struct, frozen=True):
    """A field behind all others."""

    name: bytes
    value: bytes
    """With LF for a line end."""


class InsertHeader(msgspec.Struct, frozen=True):
    """A field before the one with that index, counted from 1; 0 is on top of all."""

    index: int
    name: bytes
    value: bytes


class ChangeHeader(msgspec.Struct, frozen=True):
    """Another value for the field of that name with that index, counted from 1; an empty one takes it away."""

    index: int
    name: bytes
    value: bytes


class ReplaceBody(msgspec.Struct, frozen=True):
    """A piece of another body."""

    octets: bytes


class AddRecipient(msgspec.Struct, frozen=True):
    address: bytes


class DeleteRecipient(msgspec.Struct, frozen=True):
    address: bytes


class ChangeSender(msgspec.Struct, frozen=True):
    address: bytes


class Quarantine(msgspec.Struct, frozen=True):
    words: str


Modification: TypeAlias = (
    AddHeader
    | InsertHeader
    | ChangeHeader
    | ReplaceBody
    | AddRecipient
    | DeleteRecipient
    | ChangeSender
    | Quarantine
)
AnyReply: TypeAlias = Reply | ReplyText | Negotiated | Modification


# --- what we say --------------------------------------------------------------------------------------


def packet(command: Command, octets: bytes = b"") -> bytes:
    """One packet."""
    return _LENGTH.pack(len(octets) + 1) + command.value + octets


def texts(*values: bytes) -> bytes:
    """Each ended by NUL. A NUL within one would end it early, so none is told."""
    return b"".join(value.replace(b"\0", b"") + b"\0" for value in values)


def negotiation(actions: Action) -> bytes:
    """What we are, may let a milter do, and can do."""
    return packet(Command.NEGOTIATE, _THREE.pack(VERSION, actions, OFFERED_STEPS))


def connect(hostname: bytes, address: str, port: int = 0) -> bytes:
    """Who has connected. `address`: IPv4, IPv6, or empty when there is none."""
    if not address:
        return packet(Command.CONNECT, texts(hostname) + b"U")
    if ":" in address:
        family, shown = b"6", f"IPv6:{address}"
    else:
        family, shown = b"4", address
    octets = texts(hostname) + family + _PORT.pack(port) + texts(shown.encode("ascii", "replace"))
    return packet(Command.CONNECT, octets)


def macros(command: Command, values: Iterable[tuple[str, bytes]]) -> bytes:
    """Values by name, for the command that follows; no packet when there are none."""
    told = b"".join(texts(_macro_name(name), value) for name, value in values)
    return packet(Command.MACROS, command.value + told) if told else b""


def header(name: bytes, raw: bytes, leading_space: bool) -> bytes:
    """A field: `raw` is all behind its colon, without the line end at its end."""
    value = raw if leading_space else raw.removeprefix(b" ")
    return packet(Command.HEADER, texts(name, value.replace(b"\r\n", b"\n")))


def _macro_name(name: str) -> bytes:
    return (name if len(name) == 1 else f"{{{name}}}").encode("ascii", "replace")


# --- what a milter says -------------------------------------------------------------------------------


class Splitter:
    """Cuts what comes in into packets."""

    __slots__ = ("_octets",)

    def __init__(self) -> None:
        self._octets = bytearray()

    @property
    def is_empty(self) -> bool:
        """Nothing is left over, not even a part of a packet."""
        return not self._octets

    @property
    def size(self) -> int:
        return len(self._octets)

    def feed(self, octets: bytes) -> None:
        self._octets += octets

    def next(self) -> tuple[bytes, bytes] | None:
        """The next packet, its letter and what belongs to it; None: it has not come as a whole.

        Raises:
            MilterFault: a length that no packet has.
        """
        octets = self._octets
        if len(octets) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(octets)
        if not 1 <= length <= PACKET_LIMIT:
            raise MilterFault(f"sent a packet of {length} octets; 1 to {PACKET_LIMIT} are taken")
        end = _LENGTH.size + length
        if len(octets) < end:
            return None
        letter, rest = bytes(octets[4:5]), bytes(octets[5:end])
        del octets[:end]
        return letter, rest


_PLAIN = {reply.value: reply for reply in Reply}


def decode(letter: bytes, octets: bytes) -> AnyReply:
    """What a packet says.

    Raises:
        MilterFault: nothing that a milter may say.
    """
    plain = _PLAIN.get(letter)
    if plain is not None:
        if octets.strip(b"\0"):
            raise MilterFault(f"sent {len(octets)} octets with a reply {_shown(letter)} that has none")
        return plain
    match letter:
        case b"y":
            return _reply_text(octets)
        case b"O":
            return _negotiated(octets)
        case b"h":
            return AddHeader(*_field(octets))
        case b"i":
            return InsertHeader(_index(octets), *_field(octets[_INTEGER.size :]))
        case b"m":
            return ChangeHeader(_index(octets), *_field(octets[_INTEGER.size :]))
        case b"b":
            return ReplaceBody(octets)
        case b"+" | b"2":
            return AddRecipient(_address(octets))
        case b"-":
            return DeleteRecipient(_address(octets))
        case b"e":
            return ChangeSender(_address(octets))
        case b"q":
            (reason,) = _texts(octets, 1)
            return Quarantine(_words(reason))
    raise MilterFault(f"sent a reply {_shown(letter)} that there is not")


def _texts(octets: bytes, count: int) -> Sequence[bytes]:
    """So many texts that NUL ends; of what follows them nothing is wanted."""
    found = octets.split(b"\0")
    if len(found) <= count:
        raise MilterFault(f"sent a packet with {len(found) - 1} texts where {count} belong")
    return found[:count]


def _index(octets: bytes) -> int:
    if len(octets) < _INTEGER.size:
        raise MilterFault("sent an index that is cut off")
    (index,) = _INTEGER.unpack_from(octets)
    return int(index)


def _field(octets: bytes) -> tuple[bytes, bytes]:
    name, value = _texts(octets, 2)
    if not _NAME.fullmatch(name) or len(name) > NAME_LIMIT:
        raise MilterFault(f"named a header field {_shown(name)}, which is not the name of one")
    return name, value


def _address(octets: bytes) -> bytes:
    """The first text; what may follow are parameters of ESMTP."""
    (address,) = _texts(octets, 1)
    stripped = address.strip(b" \t")
    if stripped.startswith(b"<") and stripped.endswith(b">"):
        return stripped[1:-1]
    return stripped


def _reply_text(octets: bytes) -> ReplyText:
    """`550 5.7.1 Words`; with several lines each but the last has `-` behind its code. `%%` is one `%`."""
    (text,) = _texts(octets, 1)
    words: list[bytes] = []
    code = enhanced = b""
    for line in text.replace(b"\r", b"").split(b"\n"):
        found = _REPLY.fullmatch(line)
        if found is None or (code and found[1] != code):
            if not words and not code:
                raise MilterFault(f"gave a reply {_shown(text)} that is none with 4xx or 5xx")
            words.append(line)  # some write the code in the first line alone
            continue
        code = found[1]
        rest = found[3] or b""
        if status := _ENHANCED.match(rest):
            enhanced = enhanced or status[1]
            rest = rest[status.end() :]
        words.append(rest)
    if enhanced[:1] != code[:1]:
        enhanced = b""
    said = b" ".join(word.strip() for word in words).replace(b"%%", b"%").strip()
    return ReplyText(int(code), enhanced.decode("ascii"), _words(said))


def _negotiated(octets: bytes) -> Negotiated:
    if len(octets) < _THREE.size:
        raise MilterFault("answered the negotiation with a packet that is cut off")
    version, actions, steps = _THREE.unpack_from(octets)
    if not OLDEST <= version <= VERSION:
        raise MilterFault(f"wants version {version} of the protocol; {OLDEST} to {VERSION} are spoken")
    wanted = Step(steps & 0x1FFFFF)
    surplus = (steps & 0xFFFFFFF) & ~int(OFFERED_STEPS | Step.REFUSED_RECIPIENTS)
    if surplus:
        # Were a flag passed over, one side could wait for a reply that never comes.
        raise MilterFault(f"wants steps {surplus:#x} of the protocol, which it was not offered")
    return Negotiated(
        version,
        Action(actions & 0x1FF),
        wanted & OFFERED_STEPS,
        _macro_lists(octets[_THREE.size :]),
    )


def _macro_lists(octets: bytes) -> dict[Stage, tuple[str, ...]]:
    lists: dict[Stage, tuple[str, ...]] = {}
    while len(octets) >= _INTEGER.size:
        number = _index(octets)
        text, end, octets = octets[_INTEGER.size :].partition(b"\0")
        if not end or number >= len(Stage):
            raise MilterFault(f"asks for macros at stage {number} in a way that cannot be read")
        names = [found[1].decode("ascii", "replace") for found in _MACRO.finditer(text)]
        lists[Stage(number)] = tuple(names[:MACROS_LIMIT])
    if octets.strip(b"\0"):
        raise MilterFault("answered the negotiation with octets left over")
    return lists


def _words(octets: bytes) -> str:
    return octets[:WORDS_LIMIT].decode("utf-8", "replace")


def _shown(octets: bytes) -> str:
    return repr(octets[:40])[1:]
