"""The program of a sink's process: it loads one sink and answers calls until its line to the relay is closed.

It is started by `child`, with the descriptor of the line, the limits, and the class of the sink as arguments. Limits
are set before any code of the sink runs. What the sink prints goes to the relay's log.

Rules: one call at a time, one answer for each; every fault of the sink is an answer; nothing of one call is left for
the next (the descriptor of a body is closed when the sink has returned).
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import pwd
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Coroutine, Iterator
from typing import cast

import msgspec

from lonedot.message.content import CHUNK_SIZE, Body, Content, MemoryBody, SplicedBody
from lonedot.sinks import wire
from lonedot.sinks.bindings import Setting
from lonedot.sinks.events import Says
from lonedot.sinks.hop import Hop
from lonedot.sinks.load import SinkNotLoaded, load_class
from lonedot.sinks.protocol import Session, without_secret
from lonedot.sinks.registry import Bag
from lonedot.sinks.settings import SettingsFault
from lonedot.sinks.sink import Sink
from lonedot.sinks.verdicts import (
    Accept,
    Defer,
    Discard,
    Hold,
    Next,
    Redirect,
    Reject,
    Stop,
    Verdict,
)
from lonedot.sinks.view import BodyNotShown, Message

__all__ = ["main"]

PR_SET_PDEATHSIG = 1
DESCRIPTORS = 256
NICENESS = 5
TRACEBACK_LIMIT = 2000
"""Signs."""
WORDS_LIMIT = 1000


class DescriptorBody(msgspec.Struct, frozen=True):
    """A body behind a descriptor. It can be read until the sink returns.

    Raises (when read):
        OSError: it is read after that.
        ValueError: it is shorter than was said.
    """

    descriptor: int
    size: int

    def chunks(self, limit: int = CHUNK_SIZE) -> Iterator[bytes]:
        place = 0
        while place < self.size:
            chunk = os.pread(self.descriptor, min(limit, self.size - place), place)
            if not chunk:
                raise ValueError(f"the body ends at octet {place}; {self.size} were stored")
            place += len(chunk)
            yield chunk

    def octets(self) -> bytes:
        return b"".join(self.chunks())

    def read_at(self, start: int, end: int) -> bytes:
        """See `message.reading`."""
        pieces = []
        while start < end:
            piece = os.pread(self.descriptor, end - start, start)
            if not piece:
                raise ValueError(f"the body ends at octet {start}; {self.size} were stored")
            pieces.append(piece)
            start += len(piece)
        return b"".join(pieces)


class _AbsentBody(msgspec.Struct, frozen=True):
    """A body that was not sent, because the sink does not say that it reads it."""

    size: int

    def chunks(self, limit: int = CHUNK_SIZE) -> Iterator[bytes]:
        raise BodyNotShown

    def octets(self) -> bytes:
        raise BodyNotShown


class _Line:
    """The line to the relay. When it is closed, the process ends."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)

    def receive(self) -> tuple[memoryview, int]:
        """The next frame, and the descriptor that came with it, or -1."""
        descriptor = -1
        flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        received = bytearray()
        size = -1
        while size < 0 or len(received) < size:
            chunk, descriptors, _, _ = socket.recv_fds(self._socket, 256 * 1024, 1, flags)
            if not chunk:
                os._exit(0)
            if descriptors:
                descriptor = descriptors[0]
            received += chunk
            if size < 0 and len(received) >= wire.FRAME_HEAD.size:
                size = wire.FRAME_HEAD.unpack_from(received)[0] + wire.FRAME_HEAD.size
        return memoryview(received)[wire.FRAME_HEAD.size :], descriptor

    def send(self, octets: bytearray) -> None:
        try:
            self._socket.sendall(octets)
        except OSError:
            os._exit(0)


def main(arguments: list[str]) -> None:
    """`DESCRIPTOR MEMORY PARENT USER CLASS`: the line, octets of address space, process id of the relay, whom to run as
    (empty: no change), the sink."""
    descriptor, memory, parent = (int(argument) for argument in arguments[:3])
    _confine(memory, parent, arguments[3])
    line = _Line(descriptor)
    try:
        sink = load_class(arguments[4])
    except SinkNotLoaded as error:
        line.send(wire.frame(wire.NotLoaded(_plain(str(error), WORDS_LIMIT))))
        return
    line.send(
        wire.frame(
            wire.Declared(
                sink.name,
                sink.priority,
                sink.rule,
                sink.effects,
                sink.role,
                sink.on_damage,
                sink.on_error,
                sink.event,
                sink.split,
                sink.reads,
                sink.signs,
            )
        )
    )
    gc.collect()
    gc.freeze()
    prepared = _Prepared(sink)
    while True:
        octets, body = line.receive()
        match wire.decode_to_sink(octets):
            case wire.SettingsFrame(settings):
                line.send(wire.frame(_fit(sink, settings)))
            case wire.CallFrame() | wire.AskFrame() | wire.HopFrame() as call:
                answer, is_spent = _answered(prepared, call, body)
                if body >= 0:
                    os.close(body)
                line.send(answer)
                if is_spent:
                    return


class _Prepared:
    """The function of the sink and its settings, made anew when a call brings others."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._given: tuple[dict[str, Setting], bool] | None = None
        self.settings: dict[str, Setting] = {}
        self.function = sink.function
        self.runner = asyncio.Runner() if sink.is_coroutine else None
        """The loop of a sink that is a coroutine; it lives as long as the process."""

    def take(self, call: wire.CallFrame | wire.AskFrame | wire.HopFrame) -> None:
        settings = dict(call.hop.settings) if isinstance(call, wire.HopFrame) else call.settings
        given = settings, call.folds_case
        if given != self._given:
            self.function = self._sink.call_with(settings)
            self.settings = Bag(settings) if call.folds_case else settings
            self._given = given


def _fit(sink: Sink, settings: dict[str, Setting]) -> wire.Fit:
    try:
        sink.call_with(settings)
    except SettingsFault as fault:
        return wire.Fit(_plain(str(fault), WORDS_LIMIT), fault.key)
    return wire.Fit()


def _confine(memory: int, parent: int, user: str) -> None:
    # Signals that a terminal or a service manager sends to all: the relay says when it is over.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o077)
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    if user:
        # Here and not before: another user may not be able to read the interpreter's own files.
        account = pwd.getpwnam(user)
        os.initgroups(user, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    if sys.platform == "linux":  # behind the change of user, which would undo it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before that took hold
        os._exit(0)


def _answered(
    prepared: _Prepared, call: wire.CallFrame | wire.AskFrame | wire.HopFrame, descriptor: int
) -> tuple[bytearray, bool]:
    """The frame of the answer, and whether the process must end behind it."""
    has_returned = False
    try:
        prepared.take(call)
        shown: Message | Session | Hop
        if isinstance(call, wire.AskFrame):
            shown = Session(call.moment, prepared.settings)
        elif isinstance(call, wire.HopFrame):
            shown = msgspec.structs.replace(call.hop, settings=prepared.settings)
        else:
            content = Content(call.head, _body(call, descriptor), call.head_measure, call.body_measure)
            shown = Message(
                call.id,
                call.envelope,
                call.facts,
                content,
                prepared.settings,
                call.binding_id,
                call.scope,
                call.departure,
                call.reads_body,
            )
        # The relay has seen to it that the sink is asked what it takes.
        returned: object = prepared.function(cast(Message, shown))
        if prepared.runner is not None:
            returned = prepared.runner.run(cast("Coroutine[object, object, object]", returned))
        has_returned = True
        answer = wire.frame(wire.Said(call.number, _sendable(returned)))
        if len(answer) > wire.ANSWER_LIMIT:
            raise ValueError(f"an answer of {len(answer)} octets; at most {wire.ANSWER_LIMIT}")
        if getattr(returned, "edits", None) or isinstance(returned, Accept):
            wire.decode_from_sink(memoryview(answer)[wire.FRAME_HEAD.size :])
    except BaseException as error:  # whatever it is, the relay is to hear it
        is_spent = isinstance(error, MemoryError)
        words, told = _words(error), _traceback(error)
        if isinstance(call, wire.AskFrame):
            words, told = without_secret(words, call.moment), without_secret(told, call.moment)
        raised = wire.Raised(call.number, words, told, is_spent, has_returned)
        return wire.frame(raised), is_spent
    return answer, False


def _body(call: wire.CallFrame, descriptor: int) -> Body:
    if not call.reads_body:
        return _AbsentBody(call.body_size)
    if call.body is not None:
        return MemoryBody(call.body)
    base = DescriptorBody(descriptor, call.base_size)
    return base if call.pieces is None else SplicedBody(base, call.pieces, call.body_size)


def _sendable(returned: object) -> Verdict:
    """The verdict with words that can be written down (a lone surrogate cannot).

    Raises:
        TypeError: it is not a verdict.
    """
    match returned:
        case Next() | Stop() | Redirect():
            return returned
        case Hold(words) | Reject(words) | Defer(words) | Discard(words) | Accept(words):
            if not isinstance(words, str):
                raise TypeError(f"its words are {type(words).__name__}, not text")
            return msgspec.structs.replace(returned, words=_plain(words, WORDS_LIMIT))
    names = ", ".join(said.value.capitalize() for said in Says)
    raise TypeError(f"returned {type(returned).__name__}; a sink returns one of {names}")


def _words(error: BaseException) -> str:
    try:
        said = str(error)
    except Exception:
        said = "(it cannot be shown)"
    return _plain(f"{type(error).__name__}: {said}", WORDS_LIMIT)


def _traceback(error: BaseException) -> str:
    try:
        return _plain("".join(traceback.format_exception(error)), -TRACEBACK_LIMIT)
    except Exception:
        return ""


def _plain(text: str, limit: int) -> str:
    """The first `limit` signs, or the last ones when it is negative, all such as can be written down."""
    cut = text[:limit] if limit > 0 else text[limit:]
    return cut.encode("utf-8", "backslashreplace").decode()
