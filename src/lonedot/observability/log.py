"""The log: one call, `event`, for everything that is worth a line.

`configure` is called once, by `app` or by a command; before that, warnings and errors go to standard error. A line
has the time, the level, the event's name (`message.accepted`) and fields; `id` is the message's, `session` the
session's, the same from the socket to the DSN. What is below the level costs a comparison. Lines are gathered; who
configured calls `flush` every 100 ms and at the end.

Rules: no field whose name speaks of a password, a secret or a token is ever written; signs that steer a terminal
are written as escapes; the remote's words are a field of their own, unchanged.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from io import TextIOWrapper
from typing import BinaryIO, ClassVar, TextIO, cast

import msgspec
import structlog

from lonedot.observability.levels import LogKind, LogLevel
from lonedot.observability.lines import LineWriter
from lonedot.observability.recent import RecentLines
from lonedot.observability.stamp import Stamp

__all__ = ["configure", "event", "flush", "is_harmless", "logs", "recent"]

Fields = MutableMapping[str, object]

_SECRET_PARTS = ("password", "passwd", "secret", "token", "credential")
_LEVEL_NAMES = {level.number: level.value for level in LogLevel}


class _State:
    """The one configuration of the log in this process."""

    recent: ClassVar[RecentLines] = RecentLines()
    writer: LineWriter | None = None
    logger: structlog.typing.FilteringBoundLogger | None = None
    threshold: int = LogLevel.WARNING.number
    harmless: ClassVar[dict[str, bool]] = {}
    """By names of fields."""


def configure(
    kind: LogKind = LogKind.AUTO,
    level: LogLevel = LogLevel.INFO,
    stream: BinaryIO | TextIO | None = None,
    clock: Callable[[], float] | None = None,
) -> None:
    """Begin to log to `stream` (standard error). What an earlier configuration still holds is written first.

    `clock` gives seconds since 1970; the system's when None.
    """
    if _State.writer is not None:
        _State.writer.close()
    target: BinaryIO | TextIO = sys.stderr if stream is None else stream
    binary = target.buffer if isinstance(target, TextIOWrapper) else cast(BinaryIO, target)
    is_terminal = target.isatty()
    if kind is LogKind.AUTO:
        kind = LogKind.HUMAN if is_terminal else LogKind.JSON
    stamp = Stamp(clock)
    render: Callable[[object, str, Fields], bytes]
    if kind is LogKind.JSON:
        render = _JsonLine(stamp)
    else:
        colour = is_terminal and not os.environ.get("NO_COLOR")
        render = _HumanLine(stamp, colour)
    writer = LineWriter(binary)
    structlog.configure(
        processors=[_drop_secrets, render],
        wrapper_class=structlog.make_filtering_bound_logger(level.number),
        context_class=dict,
        logger_factory=lambda *_: _Lines(writer),
        cache_logger_on_first_use=True,
    )
    _State.writer = writer
    _State.threshold = level.number
    _State.logger = structlog.get_logger().bind()


def event(name: str, level: LogLevel = LogLevel.INFO, **fields: object) -> None:
    """Write one line, unless it is below the configured level.

    Args:
        name: `room.happening`, such as `message.accepted`.
        level: how much a person should care.
        fields: `id` and `session` first; octets are shown as text with escapes.
    """
    number = level.number
    if number < _State.threshold:
        return
    logger = _State.logger
    if logger is None:
        configure(level=LogLevel.WARNING)
        logger = _State.logger
        assert logger is not None
    logger.log(number, name, **fields)


def logs(level: LogLevel) -> bool:
    """True when a line of this level would be written; for callers whose fields are costly."""
    return level.number >= _State.threshold


def recent() -> RecentLines:
    """The last lines of this process."""
    return _State.recent


def flush() -> None:
    """Hand over what was gathered, as far as the stream takes it at once."""
    if _State.writer is not None:
        _State.writer.flush()


@atexit.register
def _close() -> None:
    if _State.writer is not None:
        _State.writer.close()


class _Lines:
    """What structlog calls at the end of its chain."""

    __slots__ = ("critical", "debug", "error", "exception", "info", "log", "msg", "warn", "warning")

    def __init__(self, writer: LineWriter) -> None:
        keep, give = _State.recent.append, writer.write

        def write(line: bytes) -> None:
            keep(line)
            give(line)

        self.debug = self.info = self.warning = self.error = write
        self.msg = self.log = self.warn = self.critical = self.exception = write


# --- the chain -----------------------------------------------------------------------------------


def is_harmless(name: str) -> bool:
    """The name does not speak of a secret."""
    folded = name.lower()
    harmless = not any(part in folded for part in _SECRET_PARTS)
    if len(_State.harmless) < 10_000:
        _State.harmless[name] = harmless
    return harmless


def _drop_secrets(_logger: object, _method: str, fields: Fields) -> Fields:
    known = _State.harmless
    for name in [name for name in fields if not known.get(name, False)]:
        if not is_harmless(name):
            del fields[name]
    return fields


class _JsonLine:
    """One object on one line, readable by any collector."""

    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp
        self._encode = msgspec.json.Encoder(enc_hook=str).encode

    def __call__(self, _logger: object, method: str, fields: Fields) -> bytes:
        line: dict[str, object] = {"at": self._stamp.utc(), "level": method, "event": fields.pop("event")}
        line.update(fields)
        for name, value in fields.items():
            if value.__class__ is bytes:
                line[name] = _text(value)
        try:
            return self._encode(line) + b"\n"
        except Exception:  # a field that cannot be shown must not cost the line, nor the message it speaks of
            return self._encode({name: str(value) for name, value in line.items()}) + b"\n"


class _HumanLine:
    """Time, level when it is not `info`, event, then the fields; coloured on a terminal."""

    _COLOURS: Mapping[str, str] = {"debug": "2", "info": "36", "warning": "33", "error": "1;31"}

    def __init__(self, stamp: Stamp, colour: bool) -> None:
        self._stamp = stamp
        self._colour = colour

    def __call__(self, _logger: object, method: str, fields: Fields) -> bytes:
        name = str(fields.pop("event"))
        lead = f"{method}: {name}" if method in ("warning", "error") else name
        words = [self._stamp.local(), self._paint(self._COLOURS.get(method, ""), lead)]
        for key, value in fields.items():
            words.append(f"{self._paint('2', key + '=')}{_shown(value)}")
        return (" ".join(words) + "\n").encode("utf-8", "backslashreplace")

    def _paint(self, colour: str, words: str) -> str:
        return f"\x1b[{colour}m{words}\x1b[0m" if self._colour and colour else words


def _text(octets: object) -> str:
    assert isinstance(octets, bytes)
    return octets.decode("utf-8", "backslashreplace")


def _shown(value: object) -> str:
    """A value on one line: signs that steer a terminal become escapes, texts with spaces get quotation marks."""
    match value:
        case bytes():
            text = _text(value)
        case float():
            text = f"{value:.6g}"
        case _:
            text = str(getattr(value, "value", value))
    if not text.isprintable():
        text = "".join(
            sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
        )
    return f'"{text}"' if " " in text or not text else text
