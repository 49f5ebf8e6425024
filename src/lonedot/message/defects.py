"""What keeps octets from being sent as they are: the defects of the damage vectors, by code and place.

Findings count their offsets in head or body; `offset_in_message` gives the place in the whole message.
"""

from __future__ import annotations

from lonedot.message.content import Content, FileBody
from lonedot.message.findings import Code, Finding, Part, Severity
from lonedot.message.header import HeaderView
from lonedot.message.intake import content_from
from lonedot.message.profile import LINE_LIMIT, Profile

__all__ = ["defects", "octets_around", "offset_in_message"]

_AROUND = 64


def defects(message: Content | bytes) -> list[Finding]:
    """Every kind of defect in head and body, each with its first place; empty when it can be sent as it is.

    Raises:
        OSError, ValueError: a stored body cannot be read, or is not as long as recorded.
    """
    content = content_from(message) if isinstance(message, bytes) else message
    if not content.size:
        return [_damage(Code.EMPTY, Part.HEAD, 0, "the message has no octets at all")]
    found: list[Finding] = []
    head, body = content.head_measure.profile, content.body_measure.profile
    _line_ends(found, content, Part.HEAD, head)
    _line_ends(found, content, Part.BODY, body)
    _final_line_end(found, content, head, body)
    _octets(found, content, Part.HEAD, head)
    _octets(found, content, Part.BODY, body)
    _header(found, content)
    return found


def offset_in_message(finding: Finding, content: Content) -> int:
    """Where a finding is, counted from the first octet of the message; -1 when it has no place."""
    if finding.offset < 0 or finding.part is not Part.BODY:
        return finding.offset
    return len(content.head) + finding.offset


def octets_around(content: Content, part: Part, offset: int) -> bytes:
    """Up to 64 octets around a place, exactly as they stand."""
    start = max(0, offset - _AROUND // 2)
    end = start + _AROUND
    if part is Part.HEAD:
        return content.head[start:end]
    if end > content.body.size:
        start, end = max(0, content.body.size - _AROUND), content.body.size
    if isinstance(content.body, FileBody):
        with content.body.path.open("rb", buffering=0) as file:
            file.seek(start)
            return file.read(end - start)
    place = 0
    piece = b""
    for chunk in content.body.chunks():
        stop = place + len(chunk)
        if stop > start:
            piece += chunk[max(0, start - place) : end - place]
        if stop >= end:
            break
        place = stop
    return piece


def _line_ends(found: list[Finding], content: Content, part: Part, profile: Profile) -> None:
    if profile.bare_lf >= 0:
        words = "an LF stands without a CR before it; lines must end in CRLF"
        found.append(_found(content, Code.BARE_LF, part, profile.bare_lf, words))
    if profile.bare_cr >= 0:
        words = "a CR stands without an LF behind it; lines must end in CRLF"
        found.append(_found(content, Code.BARE_CR, part, profile.bare_cr, words))


def _final_line_end(found: list[Finding], content: Content, head: Profile, body: Profile) -> None:
    words = "the last line has no line end"
    if body.size and not body.ends_with_line_end:
        found.append(_found(content, Code.NO_FINAL_NEWLINE, Part.BODY, body.size, words))
    if not head.ends_with_line_end:
        if body.size:
            words = "the header section does not end in a line end"
        found.append(_found(content, Code.NO_FINAL_NEWLINE, Part.HEAD, head.size, words))


def _octets(found: list[Finding], content: Content, part: Part, profile: Profile) -> None:
    if profile.nul >= 0:
        found.append(_found(content, Code.NUL, part, profile.nul, "a NUL octet; text has none"))
    if profile.long_line >= 0:
        words = f"a line of more than {LINE_LIMIT} octets"
        found.append(_found(content, Code.LINE_TOO_LONG, part, profile.long_line, words))


def _header(found: list[Finding], content: Content) -> None:
    view = HeaderView(content.head)
    if not content.head or (view.section_end == 0 and view.has_separator):
        words = "the message starts with an empty line: it has no header section"
        found.append(_found(content, Code.NO_HEADER, Part.HEAD, 0, words))
    elif view.malformed >= 0:
        words = "a line of the header section is neither a field (`name:`) nor the continuation of one"
        found.append(_found(content, Code.HEADER_MALFORMED, Part.HEAD, view.malformed, words))
    elif content.body.size and not view.has_separator:
        words = "no empty line stands between header section and body"
        found.append(_found(content, Code.HEADER_MALFORMED, Part.HEAD, len(content.head), words))


def _found(content: Content, code: Code, part: Part, offset: int, words: str) -> Finding:
    return _damage(code, part, offset, words, octets_around(content, part, offset))


def _damage(code: Code, part: Part, offset: int, words: str, octets: bytes = b"") -> Finding:
    return Finding(code, Severity.DAMAGE, part, offset, words, octets)
