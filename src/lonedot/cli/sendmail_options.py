"""The arguments of `sendmail`, as programs have given them for forty years. Pure.

Rules: what could change whom a message reaches or in whose name is understood or refused, never passed over; what only
tunes another program's queue is taken and ignored. Options end at the first word that is none, or behind `--`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from pathlib import Path

import msgspec

__all__ = ["Mode", "SendmailOptions", "UsageFault", "read_options"]


class Mode(enum.Enum):
    """What the program is asked to be."""

    SEND = "send"
    """Take one message from standard input."""
    SPEAK = "speak"
    """`-bs`: SMTP on standard input and output."""
    NOTHING = "nothing"
    """`-bi`, the name `newaliases`: aliases are read as they are, there is nothing to build."""


class UsageFault(Exception):
    """The arguments cannot be obeyed; the words say why and what to do."""


class SendmailOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the arguments say."""

    mode: Mode = Mode.SEND
    from_header: bool = False
    """`-t`: recipients are those of To, Cc and Bcc too."""
    ignores_dots: bool = False
    """`-i`: a line of one dot is text, not the end."""
    sender: str | None = None
    """`-f`: the reverse-path; empty is the null reverse-path; None: the user's own address."""
    full_name: str | None = None
    """`-F`: for a From field that is missing."""
    notify: str = ""
    """`-N`: NOTIFY of RFC 3461, in upper case."""
    ret: str = ""
    """`-R`: FULL or HDRS."""
    envid: str = ""
    """`-V`: as given, not yet xtext."""
    config: Path | None = None
    """`-C`."""
    recipients: tuple[str, ...] = ()


_WITH_VALUE = frozenset("ABCDFLNORVXbdefhopqrx")
"""Options whose value is the rest of the word, or else the next word."""
_OPTIONAL_VALUE = frozenset("dq")
"""Options whose value, if any, is the rest of the word."""
_FLAGS = frozenset("GIUcimnstv")
_ELSEWHERE = {
    "p": "run lonedot queue list",
    "d": "run lonedot serve",
    "D": "run lonedot serve",
    "v": "run lonedot route ADDRESS",
    "t": "run lonedot route ADDRESS",
    "h": "run lonedot status",
    "H": "run lonedot queue retry",
}
"""Modes of `-b` that are commands of their own here."""
_NOTIFY = frozenset({"SUCCESS", "FAILURE", "DELAY"})


def read_options(words: Sequence[str], called: str = "sendmail") -> SendmailOptions:
    """The meaning of the arguments; `called` is the name that the program was called by.

    Raises:
        UsageFault: an unknown option, one without its value, or a mode that is a command of its own.
    """
    if called == "mailq":
        raise UsageFault("the queue is shown elsewhere: run lonedot queue list")
    given: dict[str, str] = {"b": "i"} if called == "newaliases" else {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in _FLAGS:
                given[letter] = ""
            elif letter in _OPTIONAL_VALUE:
                given[letter], letters = letters, ""
            elif letter in _WITH_VALUE:
                if not letters and not rest:
                    raise UsageFault(f"-{letter} needs a value")
                value, letters = letters or rest.pop(0), ""
                _take(given, letter, value)
            else:
                raise UsageFault(f"there is no option -{letter}")
    if "q" in given:
        raise UsageFault("the relay runs its own queue: run lonedot queue retry")
    return SendmailOptions(
        mode=_mode(given.get("b", "m")),
        from_header="t" in given,
        ignores_dots="i" in given,
        sender=given.get("f"),
        full_name=given.get("F"),
        notify=_notify(given.get("N", "")),
        ret=_ret(given.get("R", "")),
        envid=_envid(given.get("V", "")),
        config=Path(given["C"]) if "C" in given else None,
        recipients=tuple(rest),
    )


def _take(given: dict[str, str], letter: str, value: str) -> None:
    match letter:
        case "r":  # the old name of -f
            given["f"] = value
        case "o":
            # -oX sets an option by its one-letter name: of those, only these say what is done to this message.
            if value[:1] == "i":
                given["i"] = ""
            elif value[:1] == "t":
                given["t"] = ""
        case "O":
            name, _, setting = value.partition("=")
            if name.strip().lower() == "ignoredots" and setting.strip().lower() in ("", "true", "yes", "1"):
                given["i"] = ""
        case _:
            given[letter] = value


def _mode(value: str) -> Mode:
    if value[:1] == "m":
        return Mode.SEND
    if value[:1] == "s":
        return Mode.SPEAK
    if value[:1] == "i":
        return Mode.NOTHING
    do = _ELSEWHERE.get(value[:1], "run lonedot --help for what there is")
    raise UsageFault(f"-b{value[:1]} is not done here: {do}")


def _notify(value: str) -> str:
    """As RCPT takes it."""
    value = value.upper()
    if not value or value == "NEVER":
        return value
    if not {*value.split(",")} <= _NOTIFY:
        raise UsageFault(f"-N {value[:60]!r}: write never, or some of success,failure,delay")
    return value


def _ret(value: str) -> str:
    value = value.upper()
    if value not in ("", "FULL", "HDRS"):
        raise UsageFault(f"-R {value[:60]!r}: write full or hdrs")
    return value


def _envid(value: str) -> str:
    if not value.isascii() or not value.isprintable() or len(value) > 100:
        raise UsageFault("-V: write at most 100 printable ASCII signs")
    return value
