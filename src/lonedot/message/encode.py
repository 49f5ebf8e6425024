"""The last step before the wire: canonical content, and the one encoder of what stands between 354 and the reply.

Rules one must not break:

1. Only `canonicalise` makes a `CanonicalContent`, and only a `CanonicalContent` is encoded. It repairs nothing.
2. The end of data is written once, behind a CRLF, and only when every octet before it is one that was measured: stored
   octets are hashed while they are read, and the digest is compared before the end of data leaves.
3. A dot at the start of a line is doubled whatever the profile says (RFC 5321 §4.5.2): a file may have been altered
   since it was measured, and its altered octets must not end the data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from lonedot.message.content import CHUNK_SIZE, Content, MemoryBody
from lonedot.message.defects import defects
from lonedot.message.findings import Finding
from lonedot.message.header import HeaderView
from lonedot.message.measure import has_dot_behind

__all__ = ["CanonicalContent", "DataEncoder", "NotCanonical", "Sent", "StoredAltered", "canonicalise"]

Mode = Literal["DATA", "BDAT"]

_TAIL = 64
_KEY: Final = object()


class NotCanonical(Exception):
    """The content cannot be sent as it is; `findings` say why."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        super().__init__("; ".join(finding.words for finding in findings) or "not canonical")
        self.findings = findings


class StoredAltered(Exception):
    """The octets read are not those that were measured. The end of data was not written: drop the connection."""


class CanonicalContent:
    """Content that may be sent: canonical text, a header section of fields, an empty line before a body."""

    __slots__ = ("content", "size")

    def __init__(self, content: Content, key: object) -> None:
        if key is not _KEY:
            raise TypeError("only canonicalise() makes canonical content")
        self.content = content
        self.size = content.size
        """Octets as SIZE counts them (RFC 1870 §3): without stuffing and without the end of data."""


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """What was written. The digests are of head and body as written (stuffed), without the end of data."""

    mode: str
    size: int
    """Octets written, end of data included."""
    head_sha256: bytes
    body_sha256: bytes
    tail: bytes
    """The last 64 octets written."""


def canonicalise(content: Content) -> CanonicalContent:
    """The same content, known to be canonical.

    Raises:
        NotCanonical: it is not; nothing is repaired here.
    """
    if content.is_canonical:
        view = HeaderView(content.head)
        if view.is_well_formed and (view.has_separator or not content.body.size):
            return CanonicalContent(content, _KEY)
    raise NotCanonical(tuple(defects(content)))


class DataEncoder:
    """Writes one canonical content: by DATA (stuffed, with the end of data) or by BDAT (octets as they are).

    For BDAT the caller announces `size` octets. Use once: iterate `chunks` to its end, then ask `record`.
    """

    __slots__ = ("_body_sha256", "_content", "_head_sha256", "_is_done", "_mode", "_size", "_tail")

    def __init__(self, canonical: CanonicalContent, mode: Mode) -> None:
        self._content = canonical.content
        self._mode = mode
        self._size = 0
        self._head_sha256 = b""
        self._body_sha256 = b""
        self._tail = b""
        self._is_done = False

    def chunks(self) -> Iterator[bytes]:
        """Everything to write: one piece for a small message in memory, else pieces of about 256 KiB.

        Raises:
            StoredAltered: the octets are not those that were measured; what was yielded has no end of data.
            OSError: the stored file cannot be read; the same holds.
        """
        content = self._content
        head = content.head
        if hashlib.sha256(head).digest() != content.head_measure.sha256:
            raise StoredAltered("the head is not the one that was measured")
        self._head_sha256 = content.head_measure.sha256
        is_data = self._mode == "DATA"
        if is_data:
            stuffed = _stuffed(head, True)
            if stuffed is not head:
                head = stuffed
                self._head_sha256 = hashlib.sha256(head).digest()
        body = content.body
        if isinstance(body, MemoryBody) and body.size <= CHUNK_SIZE:
            yield self._whole(head, body.data, is_data)
        else:
            yield from self._pieces(head, is_data)
        self._is_done = True

    def record(self) -> Sent:
        """What was written.

        Raises:
            RuntimeError: `chunks` has not come to its end.
        """
        if not self._is_done:
            raise RuntimeError("record() before the last chunk")
        return Sent(self._mode, self._size, self._head_sha256, self._body_sha256, self._tail)

    def _whole(self, head: bytes, body: bytes, is_data: bool) -> bytes:
        digest = hashlib.sha256(body).digest()
        if digest != self._content.body_measure.sha256:
            raise StoredAltered("the body is not the one that was measured")
        if not is_data:
            octets = head + body
        else:
            stuffed = _stuffed(body, True)
            if stuffed is not body:
                body = stuffed
                digest = hashlib.sha256(body).digest()
            octets = b"".join((head, body, b".\r\n"))
            _check_end(octets)
        self._body_sha256 = digest
        self._size = len(octets)
        self._tail = octets[-_TAIL:]
        return octets

    def _pieces(self, head: bytes, is_data: bool) -> Iterator[bytes]:
        """Always one piece behind, so that the last one leaves together with the end of data, or not at all."""
        raw = hashlib.sha256()
        wire = raw
        at_line_start = True
        held = head
        try:
            for chunk in self._content.body.chunks():
                octets = _stuffed(chunk, at_line_start) if is_data else chunk
                if octets is not chunk and wire is raw:
                    wire = raw.copy()  # until here the octets were the same
                raw.update(chunk)
                if wire is not raw:
                    wire.update(octets)
                at_line_start = chunk.endswith(b"\n")
                yield self._note(held)
                held = octets
        except ValueError as error:
            raise StoredAltered(str(error)) from error
        if raw.digest() != self._content.body_measure.sha256:
            raise StoredAltered("the stored body is not the one that was measured")
        if is_data:
            held += b".\r\n"
            _check_end(self._tail + held)
        self._body_sha256 = wire.digest()
        yield self._note(held)

    def _note(self, octets: bytes) -> bytes:
        self._size += len(octets)
        tail = octets[-_TAIL:]
        self._tail = tail if len(tail) == _TAIL else (self._tail + tail)[-_TAIL:]
        return octets


def _stuffed(octets: bytes, at_line_start: bool) -> bytes:
    """The octets with a dot doubled at the start of each line; the same object when there is none."""
    if has_dot_behind(octets, b"\n"):
        octets = octets.replace(b"\n.", b"\n..")
    if at_line_start and octets.startswith(b"."):
        octets = b"." + octets
    return octets


def _check_end(octets: bytes) -> None:
    """What leaves by DATA ends in CRLF.CRLF, whatever went before (RFC 5321 §4.1.1.4)."""
    if not octets.endswith(b"\r\n.\r\n"):
        raise StoredAltered("the content does not end in CRLF, so the end of data cannot be written")
