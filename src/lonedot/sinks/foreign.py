"""Code in other languages: what it is told of a message, and what it may answer, as JSON.

Rules: the answer becomes a verdict like any other, so that its edits go through reduce-to-intent, the guard and the
ledger; a name or a key that is not known is a fault, because a filter that misspells `reject` must not let all pass;
octets that are not UTF-8 are shown with U+FFFD, and nothing shown so is ever put back.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import shlex
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Literal, TypeAlias, assert_never

import msgspec

from lonedot.message.edits import AnyEdit, Edit, EditFault
from lonedot.message.filed import LineEnd
from lonedot.sinks.calls import Failure
from lonedot.sinks.verdicts import (
    EDITS_LIMIT,
    Defer,
    Discard,
    Hold,
    Next,
    Redirect,
    Reject,
    Stop,
    Verdict,
)
from lonedot.sinks.view import Message

__all__ = ["description", "idempotency_key", "octets_of", "pairs_of", "verdict_from", "words_of"]


# --- what it is told ----------------------------------------------------------------------------------


class _ToldRecipient(msgspec.Struct, frozen=True):
    address: str
    orcpt: str


class _ToldFacts(msgspec.Struct, frozen=True):
    source: str
    listener: str
    client: str
    helo: str
    protocol: str
    tls: str
    login: str
    trusted: bool


class Description(msgspec.Struct, frozen=True):
    """A message, as it is told."""

    version: int
    id: str
    key: str
    """The same whenever this message is shown to this binding again."""
    sender: str
    recipients: list[_ToldRecipient]
    facts: _ToldFacts
    headers: list[tuple[str, str]]
    """Name and unfolded value of each field, in their order."""
    size: int
    body_size: int
    body: str | None = None
    """The body in base64, where it goes along so."""


def description(message: Message, body: bytes | None = None) -> Description:
    """What is told of a message; `body` goes along in base64."""
    facts = message.facts
    headers = message.headers
    return Description(
        version=1,
        id=message.id,
        key=idempotency_key(message),
        sender=message.envelope.reverse_path.octets.decode("utf-8", "replace"),
        recipients=[
            _ToldRecipient(one.address.text, one.orcpt.decode("utf-8", "replace"))
            for one in message.envelope.recipients
        ],
        facts=_ToldFacts(
            facts.source,
            facts.listener,
            facts.client,
            facts.helo,
            facts.protocol,
            facts.tls,
            facts.login,
            facts.trusted,
        ),
        headers=[
            (field.name.decode("utf-8", "replace"), field.value.decode("utf-8", "replace"))
            for field in headers.fields
        ],
        size=message.size,
        body_size=message.content.body.size,
        body=None if body is None else base64.b64encode(body).decode("ascii"),
    )


def octets_of(message: Message, line_end: LineEnd = LineEnd.CRLF) -> Iterator[bytes]:
    """The whole message in pieces, with the line ends wanted. What is no CR LF stays as it is."""
    chunks = chain((message.headers.head,), message.body_chunks())
    if line_end is LineEnd.CRLF:
        yield from chunks
        return
    cut = b""
    for chunk in chunks:
        octets = cut + chunk
        # A CR at the end of a piece belongs to the LF that the next one begins with.
        cut = b"\r" if octets.endswith(b"\r") else b""
        if piece := (octets[:-1] if cut else octets).replace(b"\r\n", b"\n"):
            yield piece
    if cut:
        yield cut


def idempotency_key(message: Message) -> str:
    """What others are told so that they do once what they are asked twice: `Message.key`, short and without spaces."""
    return hashlib.sha256(message.key.encode()).hexdigest()[:32]


# --- what it answers ----------------------------------------------------------------------------------


class _Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="edit"):
    pass


class _AddField(_Said, frozen=True, tag="add-field"):
    name: str
    value: str
    where: Literal["top", "bottom"] | int = "top"


class _ReplaceField(_Said, frozen=True, tag="replace-field"):
    name: str
    value: str
    occurrence: int = 1


class _RemoveField(_Said, frozen=True, tag="remove-field"):
    name: str
    occurrence: int | None = None


class _AddRecipient(_Said, frozen=True, tag="add-recipient"):
    address: str


class _RemoveRecipient(_Said, frozen=True, tag="remove-recipient"):
    address: str


class _ChangeReversePath(_Said, frozen=True, tag="change-reverse-path"):
    address: str


class _ReplaceBody(_Said, frozen=True, tag="replace-body"):
    text: str | None = None
    base64: str | None = None


class _SpliceBody(_Said, frozen=True, tag="splice-body"):
    start: int
    end: int
    text: str | None = None
    base64: str | None = None


class _ReplaceMessage(_Said, frozen=True, tag="replace-message"):
    text: str | None = None
    base64: str | None = None


_SaidEdit: TypeAlias = (
    _AddField
    | _ReplaceField
    | _RemoveField
    | _AddRecipient
    | _RemoveRecipient
    | _ChangeReversePath
    | _ReplaceBody
    | _SpliceBody
    | _ReplaceMessage
)


class _Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    verdict: Literal["next", "stop", "hold", "reject", "defer", "discard", "redirect"]
    edits: Annotated[list[_SaidEdit], msgspec.Meta(max_length=EDITS_LIMIT)] = []
    words: str = ""
    code: int | None = None
    enhanced: str | None = None
    route: str = ""


_DECODER = msgspec.json.Decoder(_Answer)


def verdict_from(answer: bytes) -> Verdict:
    """The verdict that an answer in JSON is.

    Raises:
        Failure: it is none; the words say what is wrong, and where.
    """
    try:
        said = _DECODER.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Failure(f"its answer is no verdict in JSON: {error}") from error
    try:
        edits = [_edit(one) for one in said.edits]
    except EditFault as error:
        raise Failure(f"its answer cannot be: {error}") from error
    words = said.words
    match said.verdict:
        case "next":
            return Next(edits)
        case "stop":
            return Stop(edits)
        case "hold":
            return Hold(words or "a filter holds it", edits)
        case "redirect":
            return Redirect(said.route, edits)
    if edits:
        raise Failure(f"its answer says {said.verdict!r} and has edits, which go with a message that goes on")
    match said.verdict:
        case "reject":
            return Reject(words or "Refused by a filter", said.code or 550, said.enhanced or "5.7.1")
        case "defer":
            return Defer(words or "Try again later", said.code or 451, said.enhanced or "4.7.1")
        case "discard":
            return Discard(words or "a filter discards it")
        case other:
            assert_never(other)


def _edit(said: _SaidEdit) -> AnyEdit:
    match said:
        case _AddField(name, value, where):
            return Edit.add_field(name, value, where)
        case _ReplaceField(name, value, occurrence):
            return Edit.replace_field(name, value, occurrence)
        case _RemoveField(name, occurrence):
            return Edit.remove_field(name, occurrence)
        case _AddRecipient(address):
            return Edit.add_recipient(address)
        case _RemoveRecipient(address):
            return Edit.remove_recipient(address)
        case _ChangeReversePath(address):
            return Edit.change_reverse_path(address)
        case _ReplaceBody():
            return Edit.replace_body(_octets(said))
        case _SpliceBody(start, end):
            return Edit.splice_body(start, end, _octets(said))
        case _ReplaceMessage():
            return Edit.replace_message(_octets(said))
        case other:
            assert_never(other)


def _octets(said: _ReplaceBody | _SpliceBody | _ReplaceMessage) -> bytes:
    if (said.text is None) == (said.base64 is None):
        raise EditFault("an edit of octets has either `text` or `base64`")
    if said.text is not None:
        return said.text.encode("utf-8", "replace").replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert said.base64 is not None
    try:
        return base64.b64decode(said.base64, validate=True)
    except (binascii.Error, ValueError) as error:
        raise EditFault(f"`base64` is none: {error}") from error


# --- settings -----------------------------------------------------------------------------------------


def words_of(name: str, text: str) -> tuple[str, ...]:
    """A setting of several words, such as a command: apart by spaces, with quotes around what holds some.

    Nothing else of what a shell does is done.

    Raises:
        ValueError: a quote has no end.
    """
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"{name}: {error}; put quotes around a word with spaces, and close them") from None


def pairs_of(name: str, text: str) -> tuple[tuple[str, str], ...]:
    """A setting of `NAME=VALUE` words.

    Raises:
        ValueError: a word has no `=`.
    """
    pairs = []
    for word in words_of(name, text):
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f'{name}: {word!r} has no =; write {name} = "NAME=VALUE NAME=VALUE"')
        pairs.append((key, value))
    return tuple(pairs)
