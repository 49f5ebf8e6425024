"""The language of the control socket: one JSON value on each line, octets as base64.

The server speaks first: `{"hello": …}`, or `{"error": …}` to one that may not ask. A request is
`{"do": NAME, "with": {…}}`; it is answered by one `{"answer": …}`, by `{"piece": …}` as often as needed and then
`{"done": true}`, or at any point by `{"error": {what, where, do}}`. One request at a time on a connection.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from lonedot.admin.values import AdminError, Piece, Problem

__all__ = ["MAX_REQUEST", "Hello", "Reply", "Request", "encode_line", "socket_address"]

MAX_REQUEST = 1024 * 1024
"""Octets in one request line."""
_MAX_PATH = 107
"""Octets in the path of a unix socket (Linux `sun_path`, without the NUL)."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    do: str
    arguments: msgspec.Raw = msgspec.field(name="with", default=msgspec.Raw(b"{}"))


class Hello(msgspec.Struct, frozen=True):
    """Who answers."""

    version: str
    pid: int
    worker: int = 0
    workers: int = 1
    """How many there are."""
    shards: tuple[int, ...] = (0,)
    """Whose messages this worker has."""


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """Exactly one field is set."""

    hello: Hello | None = None
    answer: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    piece: Piece | None = None
    done: bool = False
    error: Problem | None = None


_ENCODER = msgspec.json.Encoder()


def encode_line(value: Request | Reply) -> bytes:
    return _ENCODER.encode(value) + b"\n"


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """A name of `path` that is short enough for a socket, good inside the `with`.

    Raises:
        AdminError: the path is too long and this system has no `/proc`.
        OSError: its folder is not there.
    """
    if len(os.fsencode(path)) <= _MAX_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not os.path.isdir(f"/proc/self/fd/{folder}"):
            raise AdminError(
                f"the path of the control socket has more than {_MAX_PATH} octets",
                str(path),
                "choose a shorter path for the spool",
            )
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
