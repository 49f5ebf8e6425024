"""Runs SMTP conversations written as text.

- `C: text`   the client sends the text and CRLF; several in a row are one write
- `C| text`   the same without CRLF. In both, `\\r`, `\\n`, `\\0`, `\\xNN` and `\\\\` are escapes; `{9x}` is 9 times `x`
- `S: text`   the server writes this line; `*` at its end stands for anything. Nothing else may be written
- `= closed`  the session is over. `= tls` the handshake takes place. `= open` nothing has ended
- `= message "octets"`  the last message accepted has this content. `= messages 2` so many were accepted
- `! word …`  options, before the first line: `at-once` (not to be cut into octets), `tls` (a certificate is there),
              `auth`, `-KEYWORD` (switched off), `size=N`, `recipients=N`, `errors=N`, `idle=N`, `rejections=N`,
              `tls-required`, `auth-required`, `plaintext-auth`, `ask=VERB,…` (the shell is asked about them)
- `# remark`

What the shell decides is fixed: `refused@` (MAIL) 550, `unknown@` (RCPT) 550, `later@` (RCPT) 451, a reverse-path
`nodata@` makes DATA and BDAT answer 451, content with `REFUSE` 550, the password `secret` is right. Of the commands it
is asked about, it refuses those with the argument `no`, accepts those with `yes`, and has all others obeyed.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from lonedot.protocol.events import (
    AuthRequested,
    CommandHeard,
    ContentBegun,
    ContentEnded,
    Event,
    MailGiven,
    RcptGiven,
)
from lonedot.protocol.server import DEFAULT_KEYWORDS, ServerLimits, ServerOptions
from lonedot.terms.reply import Reply, reply
from tests.unit.protocol.driver import Driver, accept

__all__ = ["SCRIPTS", "Script", "read_script", "run_script", "unescaped"]

SCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))

_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|[rn0\\])|\{(\d+)(.)\}")
_PLAIN = {"r": "\r", "n": "\n", "0": "\0", "\\": "\\"}


class Script(msgspec.Struct):
    options: ServerOptions
    at_once: bool
    asked: frozenset[bytes]
    lines: list[tuple[int, str, str]]
    """Line number, mark, text."""


def read_script(path: Path) -> Script:
    limits: dict[str, int] = {}
    keywords = set(DEFAULT_KEYWORDS)
    options = ServerOptions(b"mx.example.org")
    script = Script(options, False, frozenset(), [])
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line or line.startswith("#"):
            continue
        mark, text = line[:2], line[3:]
        if mark != "! ":
            assert mark in {"C:", "C|", "S:", "= "}, f"{path.name}:{number}: {line}"
            script.lines.append((number, mark, line[2:] if mark == "= " else text))
            continue
        for word in line[2:].split():
            name, _, value = word.partition("=")
            if word.startswith("-"):
                keywords.remove(word[1:].encode())
            elif name == "ask":
                script.asked = frozenset(value.encode().split(b","))
            elif value:
                name = {"idle": "idle_commands"}.get(name, name)
                limits[name] = int(value)
            elif word == "at-once":
                script.at_once = True
            elif word == "tls":
                options = msgspec.structs.replace(options, tls_available=True)
            elif word == "auth":
                options = msgspec.structs.replace(options, auth_mechanisms=(b"PLAIN", b"LOGIN"))
            elif word == "plaintext-auth":
                options = msgspec.structs.replace(options, auth_requires_tls=False)
            elif word == "tls-required":
                options = msgspec.structs.replace(options, tls_required=True)
            elif word == "auth-required":
                options = msgspec.structs.replace(options, auth_required=True)
            else:
                raise AssertionError(f"{path.name}:{number}: no such option {word}")
    script.options = msgspec.structs.replace(
        options, keywords=frozenset(keywords), limits=ServerLimits(**limits)
    )
    return script


def unescaped(text: str) -> bytes:
    def octets(found: re.Match[str]) -> str:
        if found[2]:
            return found[3] * int(found[2])
        name = found[1]
        return chr(int(name[1:], 16)) if name[0] == "x" else _PLAIN[name]

    return _ESCAPE.sub(octets, text).encode("latin-1")


_ASKED = {b"no": reply(554, "5.7.1", "Refused"), b"yes": reply(250, "", "Done by the shell")}


class _Shell:
    def __init__(self) -> None:
        self.reverse_path = b""
        self.driver: Driver | None = None

    def decide(self, event: Event) -> Reply | None:
        if isinstance(event, CommandHeard):
            return _ASKED.get(event.argument)
        if isinstance(event, MailGiven):
            self.reverse_path = event.reverse_path.octets
            if self.reverse_path.startswith(b"refused@"):
                return reply(550, "5.7.1", "Not from there")
        elif isinstance(event, RcptGiven):
            if event.recipient.address.octets.startswith(b"unknown@"):
                return reply(550, "5.1.1", "No such user")
            if event.recipient.address.octets.startswith(b"later@"):
                return reply(451, "4.3.0", "Come back later")
        elif isinstance(event, ContentBegun):
            if self.reverse_path.startswith(b"nodata@"):
                return reply(451, "4.3.0", "Not now")
        elif isinstance(event, ContentEnded):
            if self.driver is not None and b"REFUSE" in self.driver.content:
                return reply(550, "5.6.0", "Refused")
        elif isinstance(event, AuthRequested) and event.password != b"secret":
            return reply(535, "5.7.8", "Wrong")
        return accept(event)


def run_script(path: Path, *, octet_by_octet: bool) -> None:
    """Runs one conversation.

    Raises:
        AssertionError: the server said something else; the text names the line of the script.
    """
    script = read_script(path)
    shell = _Shell()
    driver = shell.driver = Driver(script.options, shell.decide)
    driver.machine.asked = script.asked
    waiting = driver.machine.greeting()
    group = b""
    lines = [*script.lines, (0, "= ", "end")]
    for index, (number, mark, text) in enumerate(lines):
        where = f"{path.name}:{number}"
        if mark in {"C:", "C|"}:
            assert not waiting, f"{where}: unasked {waiting!r}"
            group += unescaped(text) + (b"\r\n" if mark == "C:" else b"")
            if lines[index + 1][1] not in {"C:", "C|"}:
                pieces = [group[i : i + 1] for i in range(len(group))] if octet_by_octet else [group]
                for piece in pieces:
                    waiting += driver.feed(piece)
                group = b""
        elif mark == "S:":
            line, crlf, waiting = waiting.partition(b"\r\n")
            said = line.decode("latin-1") + ("" if crlf else " (no CRLF)")
            fits = said.startswith(text[:-1]) if text.endswith("*") else said == text
            assert fits, f"{where}: expected {text!r}, the server said {said!r}"
        else:
            assert not waiting, f"{where}: unasked {waiting!r}"
            waiting = _check(driver, text, where)


def _check(driver: Driver, text: str, where: str) -> bytes:
    word, _, rest = text.partition(" ")
    if word == "closed":
        assert driver.is_closed, f"{where}: the session goes on"
    elif word == "open":
        assert not driver.is_closed, f"{where}: the session is over"
    elif word == "tls":
        assert driver.wants_tls, f"{where}: no TLS was asked for"
        return driver.start_tls()
    elif word == "messages":
        assert len(driver.messages) == int(rest), f"{where}: {len(driver.messages)} messages"
    elif word == "message":
        assert driver.messages, f"{where}: no message"
        assert driver.messages[-1].content == unescaped(rest.strip()[1:-1]), (
            f"{where}: {driver.messages[-1].content!r}"
        )
    else:
        assert word == "end", f"{where}: no such check {word}"
    return b""
