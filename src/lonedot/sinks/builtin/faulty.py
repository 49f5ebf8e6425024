"""A sink that damages every message it sees, on purpose: a teaching device. Never bind it where real mail passes.

It declares that it adds a header field, and adds it. Then it hands back the whole message as careless programs write
one: attachments decoded, every line ended by LF alone, the closing boundary and the last line end lost. A scan that
came in whole is handed back ending in `%%EOF` LF. A transport that sends such octets as they are ends the message
with `LF . CR LF`, and a strict receiver waits for ever.

`lonedot try` binds it to show what the relay makes of that; tests use it as the worst of guests.
"""

from __future__ import annotations

import base64
import binascii
import re

from lonedot.message.edits import Edit
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Next
from lonedot.sinks.view import Message

__all__ = ["FIELD", "rewrite_badly", "x_recipient_list"]

FIELD = b"X-Handled-By: XRecipientList"

_BOUNDARY = re.compile(rb'boundary="?([^"\s;]+)', re.IGNORECASE)
_ENCODING = re.compile(rb"(?im)^Content-Transfer-Encoding:[ \t]*base64[ \t]*$")


@sink("XRecipientList (faulty)", on="arrival", priority=28020, effects={"header"}, reads={"body"})
def x_recipient_list(message: Message) -> Next:
    """Hand back the whole message, rewritten badly."""
    return Next(edits=[Edit.replace_message(rewrite_badly(message.octets()))])


def rewrite_badly(octets: bytes) -> bytes:
    """The message with one header field more, and the damage."""
    text = octets.replace(b"\r\n", b"\n")
    head, separator, body = text.partition(b"\n\n")
    boundary = _BOUNDARY.search(head)
    if boundary is not None:
        body = _decode_parts(body, b"--" + boundary[1])
    elif _ENCODING.search(head):
        body = _decode(body)
    else:
        body = body.removesuffix(b"\n")
    if not separator:
        head = head.removesuffix(b"\n")
    return FIELD + b"\n" + head + separator + body


def _decode_parts(body: bytes, delimiter: bytes) -> bytes:
    """The parts with their attachments decoded; what closes the last one is not written again."""
    parts = body.partition(b"\n" + delimiter + b"--")[0].split(delimiter + b"\n")
    for number, part in enumerate(parts):
        part_head, separator, part_body = part.partition(b"\n\n")
        if number and _ENCODING.search(part_head):
            parts[number] = part_head + separator + _decode(part_body)
    return (delimiter + b"\n").join(parts)


def _decode(body: bytes) -> bytes:
    """Without its encoding, which the field that declares it does not learn."""
    try:
        return base64.b64decode(body)
    except binascii.Error:
        return body
