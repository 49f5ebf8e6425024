"""The transform `end-header`: an empty line before the first line that is neither a header field nor a continuation.

What stood behind the fields becomes the beginning of the body, octet for octet; with no field at all the whole message
becomes body. A head that is well formed, or has no octets, is left alone.
"""

from __future__ import annotations

from lonedot.message.content import Content, spliced
from lonedot.message.header import HeaderView
from lonedot.message.measure import measure, measure_body

__all__ = ["end_header"]


def end_header(content: Content) -> Content:
    """The transform."""
    place = HeaderView(content.head).malformed
    if place < 0:
        return content
    head = content.head[:place] + b"\r\n"
    body = spliced(content.body, 0, 0, content.head[place:])
    return Content(head, body, measure(head), measure_body(body))
