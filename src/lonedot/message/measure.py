"""Taking the measure of octets: profile and SHA-256 in one pass, by operations that run in C.

Rules: any chunking gives the same measure; clean text is never walked line by line; exact places are looked for only
when the counts say that there is something to find; the work is linear in the octets, whatever a stranger sends.

How line ends are judged. Comparing the counts of CR, LF and CRLF would do, but a search for two octets costs more than
all the rest. The standard library's newline decoder notes which kinds of line end it has seen at the price of one count
of a single octet: if it saw CRLF alone, the text is clean, and only if not are places looked for.
"""

from __future__ import annotations

import hashlib
import re
from io import IncrementalNewlineDecoder as _Newlines

from lonedot.message.content import Body, Content, Measure, MemoryBody
from lonedot.message.profile import LINE_LIMIT, Profile

__all__ = [
    "EMPTY_MEASURE",
    "Meter",
    "has_dot_behind",
    "is_plain_fields",
    "measure",
    "measure_body",
    "measured",
    "profile_with_fields",
]

_WINDOW = 128 * 1024  # octets judged at once; stays in the processor's cache between the passes
_RUN = LINE_LIMIT + 1  # so many octets without CR or LF are a long line
_FEW_DOTS = 8
_CR, _LF, _DOT = 13, 10, 46
_CLEAN = (None, "\r\n")  # what the newline decoder says of text without a bare CR or LF

_sha256 = hashlib.sha256

# Whole fields of printable ASCII, folded or not. No line of them starts with a dot.
_PLAIN_FIELDS = re.compile(rb"[A-Za-z][!-9;-~]*:[\t -~]*\r\n(?:(?:[\t ]|[A-Za-z][!-9;-~]*:)[\t -~]*\r\n)*")


class Meter:
    """Measures octets that come in pieces."""

    __slots__ = (
        "_anchor",
        "_bare_cr",
        "_bare_lf",
        "_cr_open",
        "_dot_line",
        "_eight_bit",
        "_ends_with_crlf",
        "_hash",
        "_last",
        "_lines",
        "_long_line",
        "_nul",
        "_size",
    )

    def __init__(self) -> None:
        self._hash = _sha256()
        self._size = 0
        self._lines = 0
        self._bare_cr = -1
        self._bare_lf = -1
        self._nul = -1
        self._eight_bit = -1
        self._long_line = -1
        self._dot_line = False
        self._ends_with_crlf = True
        self._anchor = 0  # everything before it is in lines known to be short; it is the start of a line
        self._last = _LF  # the octet before the next chunk; LF at the very start, where a line starts too
        self._cr_open = False  # the last octet is a CR, and what follows decides whether it is bare

    @property
    def size(self) -> int:
        """Octets fed so far."""
        return self._size

    @property
    def is_clean(self) -> bool:
        """No bare CR or LF so far (a CR at the very end is still undecided)."""
        return self._bare_cr < 0 and self._bare_lf < 0

    def copy(self) -> Meter:
        """A second meter that goes on from here by itself."""
        twin = Meter.__new__(Meter)
        twin._hash = self._hash.copy()
        twin._size = self._size
        twin._lines = self._lines
        twin._bare_cr = self._bare_cr
        twin._bare_lf = self._bare_lf
        twin._nul = self._nul
        twin._eight_bit = self._eight_bit
        twin._long_line = self._long_line
        twin._dot_line = self._dot_line
        twin._ends_with_crlf = self._ends_with_crlf
        twin._anchor = self._anchor
        twin._last = self._last
        twin._cr_open = self._cr_open
        return twin

    def feed(self, chunk: bytes) -> None:
        """Take the next octets."""
        length = len(chunk)
        if not length:
            return
        base = self._size
        self._hash.update(chunk)
        self._size = base + length
        if self._eight_bit < 0 and not chunk.isascii():
            self._eight_bit = base + _first_eight_bit(chunk)
        if self._nul < 0 and (at := chunk.find(b"\0")) >= 0:
            self._nul = base + at
        start, end = 0, length
        if self._cr_open:
            self._cr_open = False
            if chunk[0] == _LF:
                start = 1
                self._lines += 1
            elif self._bare_cr < 0:
                self._bare_cr = base - 1
        last = chunk[-1]
        if last == _CR:
            end -= 1
            self._cr_open = True
        if start < end:
            self._judge(chunk, base, start, end)
        if not self._dot_line and _DOT in chunk:
            before = self._last
            self._dot_line = (
                (chunk[0] == _DOT and before in (_LF, _CR))
                or chunk.startswith(b"\n.")
                or has_dot_behind(chunk, b"\r\n")
                or (self._bare_lf >= 0 and has_dot_behind(chunk, b"\n"))
                or (self._bare_cr >= 0 and has_dot_behind(chunk, b"\r"))
            )
        if self._long_line < 0:
            self._close_anchor(chunk, base, length)
        before = chunk[-2] if length > 1 else self._last
        self._ends_with_crlf = last == _LF and before == _CR and self._size > 1
        self._last = last

    def finish(self) -> Measure:
        """The measure of everything fed."""
        size = self._size
        bare_cr = self._bare_cr
        if self._cr_open and bare_cr < 0:
            bare_cr = size - 1
        return Measure(
            Profile(
                size,
                self._lines,
                bare_cr,
                self._bare_lf,
                self._nul,
                self._eight_bit,
                self._long_line,
                self._dot_line,
                self._ends_with_crlf,
                self._last in (_LF, _CR),
            ),
            self._hash.digest(),
        )

    def _judge(self, data: bytes, base: int, start: int, end: int) -> None:
        """Line ends and long lines of `data[start:end]`, which cuts no CRLF at its borders."""
        self._lines += data.count(b"\n", start, end)
        whole = memoryview(data)
        while start < end:
            stop = end
            if end - start > _WINDOW:
                stop = start + _WINDOW
                if data[stop] == _LF:  # perhaps of a CRLF
                    stop += 1
            if self._bare_lf < 0 or self._bare_cr < 0:
                newlines = _Newlines(None, False)
                newlines.decode(str(whole[start:stop], "latin-1"), True)
                if newlines.newlines not in _CLEAN:
                    self._find_bare(data, base, start, stop)
            if self._long_line < 0:
                self._measure_lines(data, base, stop)
            start = stop

    def _find_bare(self, data: bytes, base: int, start: int, end: int) -> None:
        """Find the first bare LF and CR by halves: where one is, the counts of single octets and pairs differ."""
        pairs = data.count(b"\r\n", start, end)
        if self._bare_lf < 0 and data.count(b"\n", start, end) != pairs:
            low, high = start, end
            while high - low > 1:
                middle = (low + high) // 2
                if data.count(b"\n", low, middle) != data.count(b"\r\n", max(low - 1, start), middle):
                    high = middle
                else:
                    low = middle
            self._bare_lf = base + low
        if self._bare_cr < 0 and data.count(b"\r", start, end) != pairs:
            low, high = start, end
            while high - low > 1:
                middle = (low + high) // 2
                if data.count(b"\r", low, middle) != data.count(b"\r\n", low, middle + 1):
                    high = middle
                else:
                    low = middle
            self._bare_cr = base + low

    def _measure_lines(self, data: bytes, base: int, end: int) -> None:
        """Step from line end to line end until less than `_RUN` octets are left, or find a long line."""
        place = self._anchor - base
        while place + _RUN <= end:
            low = place if place > 0 else 0
            at = data.rfind(b"\n", low, place + _RUN)
            if at < 0:
                at = data.rfind(b"\r", low, place + _RUN)
                if at < 0:
                    self._long_line = base + place
                    return
            place = at + 1
        self._anchor = base + place

    def _close_anchor(self, data: bytes, base: int, length: int) -> None:
        """Set the anchor behind the last CR or LF of the chunk: the chunk will not be seen again."""
        place = self._anchor - base
        if place + _RUN <= length:  # a CR at the end was left out of what was judged
            self._measure_lines(data, base, length)
            if self._long_line >= 0:
                return
            place = self._anchor - base
        if place < length:
            low = place if place > 0 else 0
            at = max(data.rfind(b"\n", low), data.rfind(b"\r", low))
            if at >= 0:
                self._anchor = base + at + 1


def has_dot_behind(octets: bytes, line_end: bytes) -> bool:
    """A dot stands right behind `line_end`. The first octet of all is the caller's to look at.

    Single octets are found far quicker than two or three: a few dots, as in encoded bodies, are looked at one by one.
    """
    at = octets.find(b".", 1)
    for _ in range(_FEW_DOTS):
        if at < 0:
            return False
        if octets.endswith(line_end, 0, at):
            return True
        at = octets.find(b".", at + 1)
    return at >= 0 and octets.find(line_end + b".", max(0, at - len(line_end))) >= 0


def _first_eight_bit(octets: bytes) -> int:
    try:
        octets.decode("ascii")
    except UnicodeDecodeError as error:
        return error.start
    return -1


def measure(octets: bytes) -> Measure:
    """The measure of octets that are all there."""
    meter = Meter()
    meter.feed(octets)
    return meter.finish()


def measure_body(body: Body) -> Measure:
    """The measure of a body, read once.

    Raises:
        OSError, ValueError: a file cannot be read, or is not as long as recorded.
    """
    if isinstance(body, MemoryBody):
        return measure(body.data)
    meter = Meter()
    for chunk in body.chunks():
        meter.feed(chunk)
    return meter.finish()


def is_plain_fields(octets: bytes) -> bool:
    """Whole header fields of printable ASCII in CRLF lines, so few octets that no line can be too long."""
    return len(octets) <= LINE_LIMIT and _PLAIN_FIELDS.fullmatch(octets) is not None


def profile_with_fields(profile: Profile, head: bytes, start: int, octets: bytes) -> Profile | None:
    """The profile of `head`, whose own is `profile`, with `octets` put in at `start`: what measuring anew would give.

    Only for what is put into a header section again and again: plain fields at the start of a line of canonical text.
    None: it is something else, and has to be measured.
    """
    if not (
        profile.bare_cr == profile.bare_lf == profile.nul == profile.long_line == -1
        and profile.ends_with_crlf
        and (start == 0 or head[start - 1] == _LF)
        and is_plain_fields(octets)
    ):
        return None
    size = len(octets)
    eight_bit = profile.eight_bit
    return Profile(
        profile.size + size,
        profile.lines + octets.count(b"\n"),
        -1,
        -1,
        -1,
        eight_bit + size if eight_bit >= start else eight_bit,
        -1,
        profile.dot_line,
        True,
        True,
    )


def measured(head: bytes, body: Body) -> Content:
    """Content of a head and a body that nobody has measured yet."""
    return Content(head, body, measure(head), measure_body(body))


EMPTY_MEASURE = measure(b"")
