"""Named, deterministic functions over a whole content. A ledger stores the name, so a name keeps its meaning for ever.

A transform leaves untouched octets as the same objects, with the measures they had; it reads a large body in chunks and
holds no more than a few of them. To add one: a function in a module of this package, and a line in `TRANSFORMS`.
"""

from __future__ import annotations

from collections.abc import Callable

from lonedot.message.content import Content
from lonedot.message.transforms.crlf import repair_line_ends
from lonedot.message.transforms.encode import CannotEncode, encode_7bit, encode_long_lines
from lonedot.message.transforms.end_header import end_header
from lonedot.message.transforms.fault import CannotTransform

__all__ = [
    "CRLF",
    "ENCODE_7BIT",
    "ENCODE_LONG_LINES",
    "END_HEADER",
    "TRANSFORMS",
    "CannotEncode",
    "CannotTransform",
    "apply",
]

CRLF = "crlf"
END_HEADER = "end-header"
ENCODE_LONG_LINES = "encode-long-lines"
ENCODE_7BIT = "encode-7bit"

TRANSFORMS: dict[str, Callable[[Content], Content]] = {
    CRLF: repair_line_ends,
    END_HEADER: end_header,
    ENCODE_7BIT: encode_7bit,
    ENCODE_LONG_LINES: encode_long_lines,
}


def apply(name: str, content: Content) -> Content:
    """The content after the transform of that name.

    Raises:
        KeyError: there is no such transform.
        CannotTransform: it cannot be done with this content; the words say why.
        OSError, ValueError: a stored body cannot be read, or is not as long as recorded.
    """
    return TRANSFORMS[name](content)
