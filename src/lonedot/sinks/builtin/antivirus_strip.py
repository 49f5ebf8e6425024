"""Taking infected parts out of a message: which they are, and the edits that put a note in their place.

Rules a change here must keep:
1. What is left is scanned again as a whole: a message goes on only when that is clean.
2. What is signed or encrypted is not touched: without a part of it, it is neither.
"""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from typing import Protocol

from lonedot.message.content import CHUNK_SIZE, Body, MemoryBody, spliced
from lonedot.message.edits import AnyEdit, Edit
from lonedot.message.parts import Part
from lonedot.sinks.builtin.antivirus_clamd import Answer, Clean, Found, streamed
from lonedot.sinks.view import Message

__all__ = ["NotStripped", "Scan", "stripped"]

PARTS_LIMIT = 100
"""Parts of a message that are scanned one by one."""
SEALED = frozenset(
    {
        "multipart/signed",
        "multipart/encrypted",
        "application/pgp-encrypted",
        "application/pkcs7-mime",
        "application/x-pkcs7-mime",
    }
)
FILENAME_LIMIT = 60
NOTE = """\
A part of this message was removed, because it was infected.\r
\r
Virus: {signature}\r
File:  {filename}\r
"""


class NotStripped(Exception):
    """It cannot be stripped; the words say why."""


class Scan(Protocol):
    """Asks a scanner about octets, which it may want several times."""

    async def __call__(self, octets: Callable[[], AsyncGenerator[bytes, None]], /) -> Answer: ...


async def stripped(message: Message, scan: Scan) -> tuple[list[AnyEdit], int]:
    """The edits that put a note in the place of each infected part, and how many those are.

    Raises:
        NotStripped: see there.
        Exception: whatever `scan` raises.
    """
    parts = message.parts
    if any(part.content_type in SEALED for part in parts):
        raise NotStripped("it is signed or encrypted")
    leaves = [part for part in parts if not part.is_multipart]
    if len(leaves) > PARTS_LIMIT:
        raise NotStripped(f"it has more than {PARTS_LIMIT} parts")
    edits: list[AnyEdit] = []
    body: Body = message.content.body
    removed = 0
    for part in reversed(leaves):  # from the last to the first, so that the places of the others stay
        answer = await scan(partial(_of_part, part))
        if not isinstance(answer, Found):
            if not isinstance(answer, Clean):
                raise NotStripped(f"part {part.path} is too large for the scanner")
            continue
        removed += 1
        note = _note(part, answer.signature)
        if part.path == "1":
            edits += [*_plain_head(message), Edit.replace_body(note)]
            body = MemoryBody(note)
            continue
        start = part.start - len(part.headers.head)
        octets = _head_for_note(part) + (note if part.end == message.content.body.size else note.rstrip())
        edits.append(Edit.splice_body(start, part.end, octets))
        body = spliced(body, start, part.end, octets)
    if not removed:
        raise NotStripped("none of its parts is infected by itself")
    head = message.content.head
    if not isinstance(await scan(lambda: streamed(head, body.chunks(), body.size)), Clean):
        raise NotStripped("what is left of it is not clean")
    return edits, removed


def _of_part(part: Part) -> AsyncGenerator[bytes, None]:
    """The part as a message of its own: the scanner decodes it."""
    head = part.headers.head
    if not part.headers.has_separator:
        head += b"\r\n"
    return streamed(head, _chunks(part), part.size)


def _chunks(part: Part) -> Iterator[bytes]:
    with part.open() as file:
        yield from iter(lambda: file.read(CHUNK_SIZE), b"")


def _note(part: Part, signature: str) -> bytes:
    filename = part.filename.encode("ascii", "replace").decode()
    shown = "".join(sign if sign.isprintable() else "?" for sign in filename)[:FILENAME_LIMIT]
    return NOTE.format(signature=signature, filename=shown or "without a name").encode()


def _head_for_note(part: Part) -> bytes:
    """The header section of the part without what told of its content: a message within keeps its Subject."""
    kept = io.BytesIO()
    view = part.headers
    for field in view.fields:
        if not field.name.lower().startswith(b"content-"):
            kept.write(view.head[field.start : field.end])
    kept.write(b"Content-Type: text/plain; charset=us-ascii\r\n\r\n")
    return kept.getvalue()


def _plain_head(message: Message) -> list[AnyEdit]:
    """The message itself is the infected part: its header section tells of the note from now on."""
    names = {
        field.name.decode("ascii").lower()
        for field in message.headers.fields
        if field.name.lower().startswith(b"content-")
    }
    edits: list[AnyEdit] = [Edit.remove_field(name) for name in sorted(names)]
    edits.append(Edit.add_field("Content-Type", "text/plain; charset=us-ascii", "bottom"))
    if not message.headers.has("MIME-Version"):
        edits.append(Edit.add_field("MIME-Version", "1.0", "bottom"))
    return edits
