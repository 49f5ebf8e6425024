"""What a line of the log looks like, and what never stands in one."""

import io
import json
from collections.abc import Iterator
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.observability import log
from lonedot.observability.levels import LogKind, LogLevel


class Colour(Enum):
    RED = "red"


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Iterator[None]:
    yield
    log.configure(LogKind.JSON, LogLevel.WARNING, io.BytesIO())


def written(kind: LogKind, **fields: object) -> bytes:
    """The line that these fields make."""
    stream = io.BytesIO()
    log.configure(kind, LogLevel.DEBUG, stream, clock=lambda: 1_700_000_000.25)
    log.event("message.accepted", LogLevel.INFO, **fields)
    log.flush()
    return stream.getvalue()


def test_json() -> None:
    line = written(LogKind.JSON, id="0h3k", session="0h3j", size=12, reply=b"250 ok \xff", colour=Colour.RED)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert json.loads(line) == {
        "at": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "event": "message.accepted",
        "id": "0h3k",
        "session": "0h3j",
        "size": 12,
        "reply": "250 ok \\xff",
        "colour": "red",
    }


def test_human() -> None:
    line = written(LogKind.HUMAN, id="0h3k", words="two words", reply=b"250 ok", took=0.123456789)
    assert (
        line.split(b" ", 1)[1] == b'message.accepted id=0h3k words="two words" reply="250 ok" took=0.123457\n'
    )


def test_human_lines_say_when_they_are_warnings() -> None:
    stream = io.BytesIO()
    log.configure(LogKind.HUMAN, LogLevel.INFO, stream)
    log.event("disk.full", LogLevel.ERROR)
    log.flush()
    assert stream.getvalue().endswith(b" error: disk.full\n")


def test_human_lines_cannot_steer_a_terminal_or_forge_a_line() -> None:
    line = written(LogKind.HUMAN, words="x\x1b[2J\r\n12:00:00 forged\u202e")
    assert line.count(b"\n") == 1
    assert b"\x1b" not in line and "\u202e".encode() not in line
    assert b"\\x1b[2J\\r\\n12:00:00 forged\\u202e" in line


def test_auto_is_json_where_nobody_looks() -> None:
    assert json.loads(written(LogKind.AUTO))["event"] == "message.accepted"


@pytest.mark.parametrize("name", ["password", "smtp_password", "Secret", "access_token", "CREDENTIALS"])
@pytest.mark.parametrize("kind", [LogKind.JSON, LogKind.HUMAN])
def test_a_secret_is_never_written(kind: LogKind, name: str) -> None:
    line = written(kind, id="0h3k", **{name: "hunter2"})
    assert b"hunter2" not in line
    assert b"0h3k" in line


def test_what_is_below_the_level_is_not_even_made() -> None:
    class Costly:
        def __str__(self) -> str:
            raise AssertionError("made")

    stream = io.BytesIO()
    log.configure(LogKind.JSON, LogLevel.WARNING, stream)
    log.event("x", LogLevel.INFO, what=Costly())
    log.event("y", LogLevel.ERROR)
    log.flush()
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["y"]
    assert log.logs(LogLevel.ERROR) and not log.logs(LogLevel.INFO)


def test_a_field_that_cannot_be_encoded_does_not_cost_the_line() -> None:
    assert json.loads(written(LogKind.JSON, id="0h3k", odd={(1, 2): object(), 3: 1 << 80}))["id"] == "0h3k"


def test_an_earlier_stream_gets_what_it_was_promised() -> None:
    first = io.BytesIO()
    log.configure(LogKind.JSON, LogLevel.INFO, first)
    log.event("first")
    log.configure(LogKind.JSON, LogLevel.INFO, io.BytesIO())
    assert b"first" in first.getvalue()


_plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()


@given(st.dictionaries(st.text("abcxyz", min_size=1, max_size=8), _plain | st.lists(_plain), max_size=5))
def test_any_fields_make_one_line(fields: dict[str, object]) -> None:
    for kind in (LogKind.JSON, LogKind.HUMAN):
        line = written(kind, **fields)
        assert line.count(b"\n") == 1 and line.endswith(b"\n")
    json.loads(written(LogKind.JSON, **fields))
