"""A call of a sink: what it is shown, what comes back, and what the chain as a whole decides. Values only."""

from __future__ import annotations

import enum
import os
import re
import time
from collections.abc import Awaitable, Callable, Generator
from typing import TypeVar

import msgspec

from lonedot.message.content import Content
from lonedot.message.ledger import Entry
from lonedot.sinks.bindings import Binding
from lonedot.sinks.copies import Copied
from lonedot.sinks.standing import Fault
from lonedot.sinks.view import Message
from lonedot.terms.envelope import Envelope

__all__ = [
    "FORKED",
    "WORDS_LIMIT",
    "Answer",
    "Apart",
    "Asking",
    "Call",
    "Decision",
    "Dispatched",
    "Ended",
    "Failure",
    "NotAsked",
    "NotAwaited",
    "NotSplit",
    "Steps",
    "answer_of",
    "call_inline",
    "check_reply",
    "words_kept",
]

WORDS_LIMIT = 500
"""Signs of a sink's words that are kept."""
FORKED = 70
"""Exit code of the process that came back from a sink which forked."""

Shown = TypeVar("Shown")


class Decision(enum.Enum):
    """What the chain as a whole says."""

    ACCEPT = "accept"
    HOLD = "hold"
    REJECT = "reject"
    DISCARD = "discard"
    DEFER = "defer"


class Dispatched(msgspec.Struct, frozen=True):
    """The message after the chain. With REJECT and DEFER nothing was taken."""

    decision: Decision
    content: Content
    envelope: Envelope
    entries: tuple[Entry, ...]
    words: str = ""
    """Why it is not simply accepted, for people."""
    code: int = 0
    """Reply code that a sink gave with its refusal; 0: the usual one."""
    enhanced: str = ""
    binding: str = ""
    """Who says so."""
    copies: tuple[Copied, ...] = ()
    """By recipient, when some binding splits; `content` is that of the first. Empty: all get the same."""
    discarded: tuple[int, ...] = ()
    """Numbers of recipients in the envelope that are to get nothing."""
    redirects: tuple[tuple[int, str], ...] = ()
    """Numbers of recipients in the envelope, each with the route that a sink has chosen for it."""
    rest: int = -1
    """Place in the chain of the binding with which it goes on once the message is in custody, also when it is held and
    released; -1: it is at its end."""


class Call(msgspec.Struct, frozen=True):
    """A sink that is to be called, and what it is to be shown."""

    binding: Binding
    message: Message


class Answer(msgspec.Struct, frozen=True):
    """What came of a call: what the sink returned, whatever that is, or why it returned nothing."""

    returned: object = None
    error: BaseException | None = None
    took_seconds: float = 0.0


class Failure(Exception):
    """Why a call has no result, in words that need no name of a type before them."""

    fault: Fault | None = Fault.RAISED
    """What is booked against the binding; None: it is not the sink's."""


class NotAwaited(Failure):
    """The time for shadows was over before it answered."""

    fault = Fault.DEADLINE


class NotAsked(Failure):
    """The time for shadows was over before its turn came."""

    fault = None


class NotSplit(Failure):
    """A sink was not called for some recipients, or the result could not be kept for them."""

    fault = None


Ended = TypeVar("Ended")
Asking = Generator[Call, Answer, Ended]
"""Yields the calls that are due, and is sent their answers."""
Steps = Asking[Dispatched]
Apart = Callable[[Call], Awaitable[Answer]]
"""Calls a sink that does not run here. What goes wrong is an answer too; it raises only when it is cancelled."""


def call_inline(call: Call) -> Answer:
    """Call a sink that is shown a message in this thread."""
    return answer_of(call.binding.call, call.message)


def answer_of(function: Callable[[Shown], object], shown: Shown) -> Answer:
    """Call a sink in this thread. It may raise anything; only Ctrl-C goes through.

    A sink that forks comes back twice. The second is no relay: it shares sockets and database with this one, and ends.
    """
    began = time.perf_counter()
    forks = _forks[0]
    try:
        returned = function(shown)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a sink may also exit, or raise what only loops should see
        return Answer(error=error, took_seconds=time.perf_counter() - began)
    finally:
        if _forks[0] != forks:
            os._exit(FORKED)
    return Answer(returned, took_seconds=time.perf_counter() - began)


_forks = [0]
"""How often what runs here was forked from something."""


def _forked() -> None:
    _forks[0] += 1


os.register_at_fork(after_in_child=_forked)


def check_reply(code: object, enhanced: object, first: int) -> None:
    """Raises ValueError when a client could not be told this."""
    if not isinstance(code, int) or code // 100 != first:
        raise ValueError(f"reply code {code!r} is not in {first}00 to {first}99")
    if not isinstance(enhanced, str) or not re.fullmatch(rf"{first}\.\d{{1,3}}\.\d{{1,3}}", enhanced):
        raise ValueError(f"enhanced status code {enhanced!r} is not of the form {first}.X.Y")


def words_kept(text: str) -> str:
    """A sink's words as they are kept: bounded, and such as can be written down (a lone surrogate cannot)."""
    return text[:WORDS_LIMIT].encode("utf-8", "backslashreplace").decode()
