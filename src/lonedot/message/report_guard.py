"""Is a delivery report still one, after a sink has edited it? (RFC 6522 §3, RFC 3464 §2)

Rules: what programs read stays as it was made; words for people may be changed. A report that is none any more is
damage, whatever else may be said for the edit.
"""

from __future__ import annotations

from lonedot.message.content import Content
from lonedot.message.findings import Code, Finding, Part, Severity
from lonedot.message.mime import MimePart, Structure, walk

__all__ = ["inspect_report"]


def inspect_report(before: Content, after: Content) -> Finding | None:
    """What is wrong with an edited report; None when nothing is.

    Raises:
        OSError, ValueError: a stored body cannot be read.
    """
    new = walk(after)
    if new.root.content_type != b"multipart/report" or not new.root.is_ended:
        words = "it is no multipart/report any more, so no program can read it"
        return Finding(Code.REPORT_BROKEN, Severity.DAMAGE, Part.HEAD, -1, words)
    had, has = _status(walk(before)), _status(new)
    if has is None or had is None:
        words = "its second part is no message/delivery-status any more"
        return Finding(Code.REPORT_BROKEN, Severity.DAMAGE, Part.BODY, -1, words)
    if _octets(before, had) != _octets(after, has):
        words = "its message/delivery-status, which programs read, is not the one that was made"
        return Finding(Code.REPORT_BROKEN, Severity.DAMAGE, Part.BODY, has.body_start, words)
    return None


def _status(structure: Structure) -> MimePart | None:
    """The machine-readable part: the second of the report (RFC 6522 §3)."""
    children = [part for part in structure.parts if part.parent == 0]
    if len(children) < 2 or children[1].content_type != b"message/delivery-status":
        return None
    return children[1]


def _octets(content: Content, part: MimePart) -> bytes:
    return content.body.octets()[part.body_start : part.body_end]
