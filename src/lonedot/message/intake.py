"""Taking a message in while it arrives: head and body are told apart, measured, and a large body goes to its file.

Rules: the arrival form is raw, octet for octet; any chunking gives the same result; memory is bounded by the limits
whatever the size of the message. The form with repaired line ends is measured on the way, from the first chunk that
is not clean on, so that a repair at the door never reads a stored file again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from lonedot.message.content import EMPTY_BODY, Content, FileBody, Measure, MemoryBody
from lonedot.message.header import end_of_head
from lonedot.message.measure import EMPTY_MEASURE, Meter, measure
from lonedot.message.transforms.crlf import CrlfRepair

__all__ = ["HEAD_LIMIT", "MEMORY_LIMIT", "Arrived", "BodyFile", "HeadTooLarge", "Intake", "content_from"]

MEMORY_LIMIT = 262144
"""Octets of a body kept in memory; a larger one goes to its file."""
HEAD_LIMIT = 262144
"""Octets of a header section."""

_OVERLAP = 3  # an empty line has at most four octets: so many of them may have come before


class BodyFile(Protocol):
    """Where a large body is written while it arrives (the spool's body writer)."""

    def write(self, octets: bytes) -> None: ...

    def finish(self) -> FileBody: ...

    def discard(self) -> None: ...


class HeadTooLarge(Exception):
    """The header section is over the limit. Read on to the end of data without storing, then answer 552."""


class Arrived(msgspec.Struct, frozen=True):
    """A message that has come in whole."""

    content: Content
    """The arrival form: raw."""
    repaired_body: Measure | None = None
    """Of the body with repaired line ends (the transform `crlf`), where that differs and was taken on the way."""


class Intake:
    """Takes in one message. A refused or broken one ends with `discard`."""

    __slots__ = (
        "_body",
        "_file",
        "_has_open_cr",
        "_head",
        "_head_limit",
        "_is_body",
        "_memory_limit",
        "_meter",
        "_open_body_file",
        "_repair",
        "_repaired",
        "_size",
        "_wants_file",
    )

    def __init__(
        self,
        open_body_file: Callable[[], BodyFile],
        memory_limit: int = MEMORY_LIMIT,
        head_limit: int = HEAD_LIMIT,
    ) -> None:
        self._open_body_file = open_body_file
        self._memory_limit = memory_limit
        self._head_limit = head_limit
        self._head: bytes | bytearray = b""
        self._body: bytes | bytearray = b""
        self._is_body = False
        self._size = 0
        self._file: BodyFile | None = None
        self._wants_file = False
        self._has_open_cr = False
        self._meter: Meter | None = None
        self._repair = CrlfRepair()
        self._repaired: Meter | None = None

    @property
    def size(self) -> int:
        """Octets taken in."""
        return self._size

    @property
    def in_memory(self) -> int:
        """Octets held in memory now: for the budget of the whole server."""
        return len(self._head) + len(self._body)

    def feed(self, octets: bytes) -> None:
        """Take the next octets.

        Raises:
            HeadTooLarge: feed nothing more.
            SpoolFull, SpoolFault: from the body file; feed nothing more.
        """
        self._size += len(octets)
        if self._is_body:
            self._take_body(octets)
            return
        head = self._head
        if not head:
            searched_from = 0
            head = octets
        else:
            # From offset 0 the search looks at the first line as well, which a few octets may have left open.
            searched_from = len(head) - _OVERLAP if len(head) > _OVERLAP + 1 else 0
            if not isinstance(head, bytearray):
                head = bytearray(head)
            head += octets
        end = end_of_head(head, searched_from, complete=False)
        if end < 0:
            self._head = head
            # One octet is granted: the LF of an empty line whose CR has come.
            if len(head) > self._head_limit + 1:
                raise HeadTooLarge(f"the header section is larger than {self._head_limit} octets")
            return
        self._begin_body(head, end)

    def spill(self) -> None:
        """From now on (and with what is there) the body goes to its file, whatever its size."""
        self._wants_file = True
        if self._is_body and self._file is None and self._body:
            self._open_file()

    def finish(self) -> Arrived:
        """The message has come to its end.

        Raises: as `feed`.
        """
        if not self._is_body:
            end = end_of_head(self._head, max(0, len(self._head) - _OVERLAP - 1), complete=True)
            self._begin_body(self._head, end if end >= 0 else len(self._head))
        head = bytes(self._head)
        head_measure = measure(head)
        if self._file is None:
            if not self._body:
                return Arrived(Content(head, EMPTY_BODY, head_measure, EMPTY_MEASURE))
            data = bytes(self._body)
            return Arrived(Content(head, MemoryBody(data), head_measure, measure(data)))
        return self._finish_file(head, head_measure)

    def discard(self) -> None:
        """Forget everything, and remove the file if there is one. May be called at any time, also twice."""
        self._head = self._body = b""
        if self._file is not None:
            self._file.discard()

    def _begin_body(self, head: bytes | bytearray, end: int) -> None:
        if end > self._head_limit:
            self._head = head
            raise HeadTooLarge(f"the header section is larger than {self._head_limit} octets")
        self._is_body = True
        if end == len(head):
            self._head = head
            return
        self._head = bytes(head[:end])
        self._take_body(bytes(head[end:]))

    def _take_body(self, octets: bytes) -> None:
        if self._file is not None:
            self._write(octets)
            return
        if not self._body:
            self._body = octets
        else:
            if not isinstance(self._body, bytearray):
                self._body = bytearray(self._body)
            self._body += octets
        if len(self._body) > self._memory_limit or (self._wants_file and self._body):
            self._open_file()

    def _open_file(self) -> None:
        self._file = self._open_body_file()
        self._meter = Meter()
        octets = bytes(self._body)
        self._body = b""
        self._write(octets)

    def _write(self, octets: bytes) -> None:
        """To file and meters. A CR at the end waits for what follows: no meter is ever left in doubt about it."""
        if self._has_open_cr:
            octets = b"\r" + octets
        self._has_open_cr = octets.endswith(b"\r")
        if self._has_open_cr:
            octets = octets[:-1]
        if octets:
            self._write_on(octets)

    def _write_on(self, octets: bytes) -> None:
        meter, file = self._meter, self._file
        assert meter is not None and file is not None
        if self._repaired is not None:
            meter.feed(octets)
            self._repaired.feed(self._repair.feed(octets))
        else:
            before = meter.copy()
            meter.feed(octets)
            if not meter.is_clean or octets.endswith(b"\r"):  # that CR is bare: another one follows it
                # All before was clean, so its repaired form measures the same: go on from there.
                before.feed(self._repair.feed(octets))
                self._repaired = before
        file.write(octets)

    def _finish_file(self, head: bytes, head_measure: Measure) -> Arrived:
        meter, file = self._meter, self._file
        assert meter is not None and file is not None
        if self._has_open_cr:
            if self._repaired is None:
                self._repaired = meter.copy()
            meter.feed(b"\r")
            self._repaired.feed(self._repair.feed(b"\r"))
            file.write(b"\r")
        measured = meter.finish()
        if self._repaired is None and not measured.profile.ends_with_line_end:
            self._repaired = meter
            self._repaired.feed(b"\r\n")
        elif self._repaired is not None:
            self._repaired.feed(self._repair.finish())
        content = Content(head, file.finish(), head_measure, measured)
        return Arrived(content, None if self._repaired is None else self._repaired.finish())


def content_from(octets: bytes) -> Content:
    """Content of a whole message in memory, told apart and measured as if it had arrived."""
    end = end_of_head(octets)
    if end < 0 or end == len(octets):
        return Content(octets, EMPTY_BODY, measure(octets), EMPTY_MEASURE)
    head, body = octets[:end], octets[end:]
    return Content(head, MemoryBody(body), measure(head), measure(body))
