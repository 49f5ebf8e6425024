"""The files of the corpus, and two ways to read the leaves of a message."""

from __future__ import annotations

import binascii
import email
from pathlib import Path

from lonedot.message.content import Content
from lonedot.message.intake import content_from
from lonedot.message.mime import walk

__all__ = ["CORPUS", "FILES", "corpus", "library_leaves", "our_leaves"]

CORPUS = Path(__file__).parent
FILES = sorted(CORPUS.glob("*.eml"))


def corpus(name: str) -> Content:
    """A message of the corpus by its name."""
    return content_from((CORPUS / f"{name}.eml").read_bytes())


def library_leaves(octets: bytes) -> list[bytes]:
    """The decoded leaves, as the standard library reads them."""
    message = email.message_from_bytes(octets)  # noqa: TID251 - the judge, not the relay
    leaves = []
    for part in message.walk():
        if not part.is_multipart():
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            leaves.append(payload)
    return leaves


def our_leaves(content: Content) -> list[bytes]:
    """The decoded leaves, as the walk finds them."""
    structure = walk(content)
    octets = content.body.octets()
    leaves = []
    for part in structure.parts:
        if part.is_leaf:
            text = octets[part.body_start : part.body_end]
            match part.encoding:
                case b"base64":
                    text = binascii.a2b_base64(text)
                case b"quoted-printable":
                    text = binascii.a2b_qp(text)
            leaves.append(text)
    return leaves
