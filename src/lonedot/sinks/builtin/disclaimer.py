"""Disclaimer: a text behind the text of a mail, in its plain and in its HTML form, and nowhere else.

The body of a mail is its first text/plain and its first text/html part: of alternatives both, of related parts the
root, of mixed ones the first that is a text and no attachment. Every other part keeps its octets.

Rules a change here must keep:
1. What is signed or encrypted is left alone: multipart/signed, multipart/encrypted, S/MIME, PGP in the text; so are
   calendars, delivery reports, and messages in messages.
2. Nothing is put behind the last boundary, and nothing twice.
3. A part whose encoding allows it is added to in place; any other is encoded anew as a whole, up to a bound.
"""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import msgspec

from lonedot.message.edits import AnyEdit, Edit
from lonedot.message.parts import Part
from lonedot.message.transforms.encode_body import base64_lines, quoted_printable
from lonedot.message.words import codec_for
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Next
from lonedot.sinks.view import Message

__all__ = ["Disclaimer", "DisclaimerSettings"]

PART_LIMIT = 4 * 1024 * 1024
"""Octets of a part that is read or encoded anew; a larger one in base64 or HTML is left alone."""
_TEXT_LIMIT = 32 * 1024
_LINE_LIMIT = 900
_TAIL = 64 * 1024
"""Octets at the end of a larger text in which the disclaimer is looked for."""
_LEFT_ALONE = frozenset(
    {
        "multipart/signed",
        "multipart/encrypted",
        "multipart/report",
        "application/pkcs7-mime",
        "application/x-pkcs7-mime",
        "application/pgp-encrypted",
    }
)
_PGP = b"-----BEGIN PGP "
_SPACE = re.compile(r"\s+")
_CHARSET = re.compile(rb';\s*charset\s*=\s*("[^"]*"|[^;\s]+)', re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_IDENTITY = ("", "7bit", "8bit", "binary")


class DisclaimerSettings(msgspec.Struct, frozen=True):
    """The settings of a binding."""

    text: str = ""
    """What is added to plain text; `\\n` ends a line."""
    html: str = ""
    """What is added to HTML, as HTML; empty: the text, escaped."""
    text_file: str = ""
    """Path of a file in UTF-8 in the place of `text`."""
    html_file: str = ""
    """Likewise for `html`."""
    marker: str = "X-Disclaimer"
    """Name of a field that says it was added, by which it is not added again; empty: none."""
    add_part: bool = False
    """A mail of attachments alone gets a part of its own with the text."""

    def __post_init__(self) -> None:
        if bool(self.text.strip()) == bool(self.text_file):
            raise ValueError("write either text or text_file")
        if self.html and self.html_file:
            raise ValueError("write either html or html_file")
        if self.marker:
            Edit.add_field(self.marker, "x")
        for name, text in (("text", self.text), ("html", self.html)):
            _check(name, text)


@sink("Disclaimer", settings=DisclaimerSettings, on="arrival", effects={"header", "body"})
class Disclaimer:
    """Adds the text to the body of a mail."""

    def __init__(self, settings: DisclaimerSettings) -> None:
        text = _read(settings.text_file, "text_file") if settings.text_file else settings.text
        lines = [line.rstrip() for line in text.strip("\r\n").splitlines()]
        self._lines = lines
        self._plain = "\r\n".join(lines) + "\r\n"
        given = _read(settings.html_file, "html_file") if settings.html_file else settings.html
        if not given:
            given = "<p>" + "<br>\r\n".join(html.escape(line, quote=False) for line in lines) + "</p>"
        self._html = "\r\n".join(given.strip().splitlines()) + "\r\n"
        self._marker = settings.marker
        self._mark = hashlib.sha256((self._plain + self._html).encode()).hexdigest()[:16]
        self._add_part = settings.add_part

    def __call__(self, message: Message) -> Next:
        if self._marker and self._mark.encode() in message.headers.all(self._marker):
            return Next()
        root = message.root
        if _is_left_alone(root):
            return Next()
        found = list(_bodies(root))
        if any(_is_pgp(part) for part in found):
            return Next()
        edits: list[AnyEdit] = []
        for part in reversed(found):  # from the end, so that places before it stay
            edits += (
                self._for_html(part, root) if part.content_type == "text/html" else self._for_text(part, root)
            )
        if not found and self._add_part:
            edits = self._own_part(root)
        if edits and self._marker:
            edits.append(Edit.add_field(self._marker, self._mark))
        return Next(edits)

    # --- plain text -------------------------------------------------------------------------------------

    def _for_text(self, part: Part, root: Part) -> list[AnyEdit]:
        if _holds(part, self._plain):
            return []
        is_flowed = part.parameters.get("format", "").lower() == "flowed"
        text = "\r\n".join(_stuffed(line) for line in self._lines) + "\r\n" if is_flowed else self._plain
        charset = part.charset
        codec = codec_for(charset) if charset else "ascii"
        if codec is None or not _is_like_ascii(codec):
            return []
        try:
            octets = text.encode(codec)
        except UnicodeEncodeError:
            octets = b""
        is_plain = codec == "ascii"
        is_7bit = part.encoding in ("", "7bit")
        needs_more = not octets.isascii() if octets else is_plain
        may_relabel = needs_more and (is_7bit or is_plain) and part.size <= PART_LIMIT
        if may_relabel and (payload := part.payload()).isascii():
            relabelled = self._relabelled(part, root, payload, octets or text.encode(), is_plain)
            if relabelled:
                return relabelled
        if not octets or (needs_more and is_7bit and part.size > PART_LIMIT):
            octets = _nearest(text, "ascii" if is_plain or is_7bit else codec)
        return self._added(part, root, octets)

    def _added(self, part: Part, root: Part, octets: bytes) -> list[AnyEdit]:
        """At the end of the part, in its encoding."""
        boundaries = _boundaries(part, root)
        tail = _tail_of(part)
        if part.encoding == "base64":
            if part.size > PART_LIMIT:
                return []
            return [_replaced(part, tail, base64_lines([_joined(part.payload(), octets)]))]
        lead = b"" if not tail else b"\r\n" if tail.endswith((b"\n", b"\r")) else b"\r\n\r\n"
        if part.encoding == "quoted-printable":
            octets = b"".join(quoted_printable([octets], boundaries))
        elif part.encoding not in _IDENTITY or _looks_like(octets, boundaries):
            return []
        if not tail.endswith((b"\n", b"\r")) and (tail or part.path != "1"):
            octets = octets.removesuffix(b"\r\n")
        return [Edit.splice_body(part.end, part.end, lead + octets)]

    def _relabelled(
        self, part: Part, root: Part, payload: bytes, octets: bytes, is_plain: bool
    ) -> list[AnyEdit]:
        """A 7-bit part becomes quoted-printable, and with `is_plain` UTF-8: it and its header. Empty: it cannot."""
        body = quoted_printable([_joined(payload, octets)], _boundaries(part, root))
        edits: list[AnyEdit] = [_replaced(part, _tail_of(part), body)]
        head = part.headers
        field = head.first("Content-Type")
        raw = b" text/plain" if field is None or b"/" not in field.raw else b" " + field.value
        if not raw.isascii() or _CONTROL.search(raw) or len(raw) > _LINE_LIMIT:
            return []
        if is_plain:
            raw, count = _CHARSET.subn(b"; charset=utf-8", raw, count=1)
            raw = raw if count else raw.rstrip(b" \t;") + b"; charset=utf-8"
        typed = b"Content-Type:" + raw + b"\r\n"
        encoded = b"Content-Transfer-Encoding: quoted-printable\r\n"
        if part.path == "1":
            for name, line in ((b"Content-Type", typed), (b"Content-Transfer-Encoding", encoded)):
                value = line.partition(b":")[2].strip().decode("latin-1")
                edits.append(
                    Edit.replace_field(name.decode(), value)
                    if head.has(name)
                    else Edit.add_field(name.decode(), value, "bottom")
                )
            if not head.has("MIME-Version"):
                edits.append(Edit.add_field("MIME-Version", "1.0", "bottom"))
            return edits
        kept = b"".join(
            head.head[one.start : one.end]
            for one in head.fields
            if one.name.lower() not in (b"content-type", b"content-transfer-encoding")
        )
        start = part.start - len(head.head)
        edits.append(Edit.splice_body(start, part.start, kept + typed + encoded + b"\r\n"))
        return edits

    # --- HTML -------------------------------------------------------------------------------------------

    def _for_html(self, part: Part, root: Part) -> list[AnyEdit]:
        codec = codec_for(part.charset) if part.charset else "ascii"
        if part.size > PART_LIMIT or codec is None or not _is_like_ascii(codec):
            return []
        octets = self._html.encode("ascii", "xmlcharrefreplace")
        boundaries = _boundaries(part, root)
        payload = part.payload()
        if octets.strip() in payload:
            return []
        place = _end_of_html(payload)
        whole = payload[:place] + octets + payload[place:]
        tail = _tail_of(part)
        match part.encoding:
            case "base64":
                return [_replaced(part, tail, base64_lines([whole]))]
            case "quoted-printable":
                return [_replaced(part, tail, quoted_printable([whole], boundaries))]
            case encoding if encoding in _IDENTITY and not _looks_like(octets, boundaries):
                if place == len(payload):
                    return self._added(part, root, octets)
                at = part.start + place
                lead = b"" if payload[:place].endswith(b"\n") else b"\r\n"
                return [Edit.splice_body(at, at, lead + octets)]
            case _:
                return []

    # --- a part of its own ------------------------------------------------------------------------------

    def _own_part(self, root: Part) -> list[AnyEdit]:
        """Behind the last part of a mixed mail, before its closing boundary."""
        children = root.children
        boundary = root.parameters.get("boundary", "")
        if root.content_type != "multipart/mixed" or not children or not boundary.isascii():
            return []
        text = b"".join(quoted_printable([self._plain.encode()], _boundaries(children[-1], root)))
        octets = (
            b"\r\n--" + boundary.encode() + b"\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + text.removesuffix(b"\r\n")
        )
        place = children[-1].end
        closing = b"\r\n--" + boundary.encode() + b"--"
        with root.open() as file:
            file.seek(place - root.start)
            if file.read(len(closing)) != closing:
                return []  # it has no end
        return [Edit.splice_body(place, place, octets)]


def _bodies(part: Part) -> Iterator[Part]:
    """The parts that are the text of a mail, in the order of the octets."""
    match part.content_type:
        case "text/plain" | "text/html":
            if not part.is_attachment and not part.is_multipart:
                yield part
        case "multipart/alternative":
            seen: set[str] = set()
            for child in part.children:
                for found in _bodies(child):
                    if found.content_type not in seen:
                        seen.add(found.content_type)
                        yield found
        case kind if kind.startswith("multipart/"):
            for child in part.children:
                bodies = list(_bodies(child))
                if bodies:
                    yield from bodies
                    return
                if kind == "multipart/related":
                    return


def _is_left_alone(part: Part) -> bool:
    """It is signed, encrypted or a report, or a part of it is; what messages in it hold does not count."""
    if part.content_type in _LEFT_ALONE:
        return True
    return part.content_type.startswith("multipart/") and any(map(_is_left_alone, part.children))


def _is_pgp(part: Part) -> bool:
    if part.size <= PART_LIMIT:
        start = part.payload()
    else:
        with part.open() as file:
            start = file.read(_TAIL)
    return start.startswith(_PGP) or b"\n" + _PGP in start


def _holds(part: Part, text: str) -> bool:
    """The text stands in the part already."""
    if part.size <= PART_LIMIT:
        found = part.text()
    elif part.encoding in _IDENTITY:
        with part.open() as file:
            file.seek(part.size - _TAIL)
            found = file.read(_TAIL).decode("utf-8", "replace")
    else:
        return False
    return _SPACE.sub(" ", text).strip() in _SPACE.sub(" ", found)


def _tail_of(part: Part) -> bytes:
    """The last two octets of a part as they stand."""
    with part.open() as file:
        file.seek(max(part.size - 2, 0))
        return file.read(2)


def _joined(payload: bytes, octets: bytes) -> bytes:
    lead = b"" if not payload else b"\r\n" if payload.endswith(b"\n") else b"\r\n\r\n"
    return payload + lead + octets


def _replaced(part: Part, tail: bytes, pieces: Iterator[bytes]) -> AnyEdit:
    """The whole part; it ends in a line end where it did."""
    octets = b"".join(pieces).removesuffix(b"\r\n")
    if tail.endswith((b"\n", b"\r")) or (not tail and part.path == "1"):
        octets += b"\r\n"
    return Edit.splice_body(part.start, part.end, octets)


def _boundaries(part: Part, root: Part) -> tuple[bytes, ...]:
    """Those of the multiparts around a part."""
    around = (one for one in root.walk() if part.path.startswith(one.path + "."))
    return tuple(
        one.parameters["boundary"].encode("utf-8", "replace")
        for one in around
        if "boundary" in one.parameters
    )


def _nearest(text: str, codec: str) -> bytes:
    """The text in a charset that does not have all of its signs."""
    return unicodedata.normalize("NFKD", text).encode(codec, "replace")


def _looks_like(octets: bytes, boundaries: tuple[bytes, ...]) -> bool:
    """A line of them could be taken for a boundary."""
    return any(b"\n--" + boundary in b"\n" + octets for boundary in boundaries)


def _stuffed(line: str) -> str:
    """A line of text that is `format=flowed` (RFC 3676 §4.4): it ends its paragraph, and is no quotation."""
    return f" {line}" if line.startswith((" ", ">", "From ")) else line


def _is_like_ascii(codec: str) -> bool:
    """ASCII octets mean in it what they mean in ASCII."""
    return "<a>\r\n".encode(codec, "replace") == b"<a>\r\n"


def _end_of_html(octets: bytes) -> int:
    """Where the content of a page ends: before the last `</body>` or `</html>` that is not in a comment."""
    lower = octets.lower()
    place = len(octets)
    for tag in (b"</body", b"</html"):
        at = lower.rfind(tag)
        while at >= 0 and _is_in_comment(lower, at):
            at = lower.rfind(tag, 0, lower.rfind(b"<!--", 0, at))
        if at >= 0:
            return at
    return place


def _is_in_comment(lower: bytes, at: int) -> bool:
    opened = lower.rfind(b"<!--", 0, at)
    return opened >= 0 and lower.find(b"-->", opened, at) < 0


def _read(path: str, name: str) -> str:
    """Raises ValueError, in words that say what to do."""
    if not Path(path).is_absolute():
        raise ValueError(f"{name} = {path!r}: write the whole path, from / on")
    try:
        with open(path, "rb") as file:
            octets = file.read(_TEXT_LIMIT + 1)
        text = octets.decode("utf-8-sig")
    except OSError as error:
        raise ValueError(
            f"{name} {path}: {error.strerror}; the relay's user must be able to read it"
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f"{name} {path}: is not UTF-8; write it so") from None
    if not text.strip():
        raise ValueError(f"{name} {path}: is empty")
    _check(name, text)
    return text


def _check(name: str, text: str) -> None:
    if len(text) > _TEXT_LIMIT:
        raise ValueError(f"{name} is longer than {_TEXT_LIMIT} signs")
    for line in text.splitlines():
        if len(line.encode("ascii", "xmlcharrefreplace")) > _LINE_LIMIT or len(line.encode()) > _LINE_LIMIT:
            raise ValueError(f"{name} has a line of more than {_LINE_LIMIT} octets; break it")
        if any(sign < " " and sign != "\t" for sign in line) or "\x7f" in line:
            raise ValueError(f"{name} has a control character")
