"""`lonedot inject`: one file to one server, repeatable to the octet.

Without `--raw` the message goes through the relay's own repair and encoder, so what leaves is well formed. With it the
octets of the file go out as they are and `.` CR LF behind them: no dot is doubled, no line end is mended, which is
what a careless sender does, and how a fault in a message is shown to a receiver.

One command at a time, each waiting for its reply: this is an instrument, not a sender.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from lonedot.cli.output import Problem, json_option, print_json, signs
from lonedot.config.addresses import Endpoint, address, next_hop
from lonedot.config.values import Unfit
from lonedot.diagnosis.octets import visible
from lonedot.message.encode import DataEncoder, NotCanonical, canonicalise
from lonedot.message.intake import content_from
from lonedot.message.transforms import CRLF, ENCODE_LONG_LINES, END_HEADER, CannotTransform, apply
from lonedot.protocol.errors import RemoteProtocolError
from lonedot.protocol.replies import ReplyReader
from lonedot.reception.lenient import look_alike
from lonedot.terms.reply import Reply

__all__ = ["command"]

_HERE = Path()
_MAX_FILE = 1024 * 1024 * 1024
_TAIL = 64


class Said(msgspec.Struct, frozen=True):
    """One line of the conversation."""

    after_seconds: float
    who: str
    """`us`, `server` or `note`."""
    text: str


class Injection(msgspec.Struct, frozen=True):
    """What came of it."""

    to: str
    raw: bool
    accepted: bool
    verdict: str
    """In words."""
    reply: str
    """The reply to the end of data; empty when there was none."""
    sent: int
    """Octets between 354 and the reply, the end included."""
    sent_sha256: str
    tail: str
    """The last 64 of them."""
    repairs: tuple[str, ...]
    """Transforms that were needed to make the file sendable; none with --raw."""
    conversation: tuple[Said, ...]


@click.command("inject")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--to", "target", required=True, metavar="HOST:PORT", help="The server; port 25 when not given."
)
@click.option(
    "--from", "sender", default="inject@example.com", show_default=True, help="Reverse-path; <> for none."
)
@click.option("--rcpt", "recipients", multiple=True, default=("recipient@example.com",), show_default=True)
@click.option("--raw", is_flag=True, help="The octets as they are, then a dot and CR LF; nothing is mended.")
@click.option("--helo", default="inject.example.com", show_default=True, help="Name in EHLO.")
@click.option("--timeout", "timeout_seconds", default=10.0, show_default=True, help="Seconds for each reply.")
@json_option
def command(
    file: Path,
    target: str,
    sender: str,
    recipients: tuple[str, ...],
    raw: bool,
    helo: str,
    timeout_seconds: float,
    as_json: bool,
) -> int:
    """Send FILE as one message and print what was said.

    Exits 1 when the server does not take it.
    """
    try:
        endpoint = next_hop(target, _HERE)
        path = b"" if sender in ("", "<>") else address(sender, _HERE).octets
        paths = [address(recipient, _HERE).octets for recipient in recipients]
    except Unfit as unfit:
        raise Problem(unfit.what, where="lonedot inject", do=unfit.do, code=2) from None
    if not helo.isascii() or not helo.isprintable() or " " in helo or not 0 < len(helo) <= 255:
        raise Problem(f"{helo!r} cannot stand in EHLO", do="write a domain name", code=2)
    if file.stat().st_size > _MAX_FILE:
        raise Problem("is larger than 1 GiB", where=str(file), do="send a smaller one")
    octets = file.read_bytes()
    pieces, repairs = ([octets, b".\r\n"], ()) if raw else _encode(octets, file)
    if repairs and not as_json:
        click.echo(f"# repaired before sending: {', '.join(repairs)}")
    talk = _Talk(endpoint, timeout_seconds, quiet=as_json)
    verdict, answer = talk.send(helo.encode(), path, paths, pieces, octets)
    data = b"".join(pieces) if talk.sent_all else b""
    injection = Injection(
        to=str(endpoint),
        raw=raw,
        accepted=answer is not None and answer.is_positive,
        verdict=verdict,
        reply=answer.text if answer is not None else "",
        sent=len(data),
        sent_sha256=hashlib.sha256(data).hexdigest() if data else "",
        tail=visible(data[-_TAIL:]),
        repairs=repairs,
        conversation=tuple(talk.said),
    )
    if as_json:
        print_json(injection)
    else:
        click.echo(verdict)
    return 0 if injection.accepted else 1


def _encode(octets: bytes, file: Path) -> tuple[list[bytes], tuple[str, ...]]:
    """What to write, and the repairs that were needed."""
    content = content_from(octets)
    repairs: list[str] = []
    words = ""
    for name in ("", CRLF, END_HEADER, ENCODE_LONG_LINES):
        try:
            if name:
                before = content
                content = apply(name, content)
                if content.head is not before.head or content.body is not before.body:
                    repairs.append(name)
            return list(DataEncoder(canonicalise(content), "DATA").chunks()), tuple(repairs)
        except NotCanonical as fault:
            words = str(fault)
        except CannotTransform as fault:
            words = str(fault)
            break
    raise Problem(f"cannot be sent: {words}", where=str(file), do="mend it, or use --raw to send it as it is")


class _Failed(Exception):
    """The conversation is over; the words say why."""


class _Talk:
    """One conversation, printed as it happens."""

    def __init__(self, endpoint: Endpoint, timeout_seconds: float, *, quiet: bool) -> None:
        self.said: list[Said] = []
        self.sent_all = False
        self._endpoint = endpoint
        self._timeout = timeout_seconds
        self._quiet = quiet
        self._began = time.monotonic()
        self._reader = ReplyReader()

    def send(
        self, helo: bytes, sender: bytes, recipients: list[bytes], pieces: list[bytes], octets: bytes
    ) -> tuple[str, Reply | None]:
        """The verdict in words, and the reply to the end of data."""
        try:
            with self._connected() as sock:
                return self._transaction(sock, helo, sender, recipients, pieces, octets)
        except _Failed as failed:
            return str(failed), None

    @contextlib.contextmanager
    def _connected(self) -> Iterator[socket.socket]:
        host, port = self._endpoint.host, self._endpoint.port
        try:
            sock = socket.create_connection((host, port), timeout=self._timeout)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise _Failed(f"no connection to {self._endpoint}: {reason}") from None
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield sock

    def _transaction(
        self,
        sock: socket.socket,
        helo: bytes,
        sender: bytes,
        recipients: list[bytes],
        pieces: list[bytes],
        octets: bytes,
    ) -> tuple[str, Reply | None]:
        self._expect(self._reply(sock, "the greeting"), "the greeting")
        answer = self._ask(sock, b"EHLO " + helo)
        offered: set[bytes] = set()
        if answer.is_positive:
            offered = {line.split(b" ", 1)[0].upper() for line in answer.lines[1:]}
        else:
            self._expect(self._ask(sock, b"HELO " + helo), "HELO")
        mail = b"MAIL FROM:<%s>" % sender
        if not octets.isascii() and b"8BITMIME" in offered:
            mail += b" BODY=8BITMIME"
        if b"SMTPUTF8" in offered and not all(path.isascii() for path in (sender, *recipients)):
            mail += b" SMTPUTF8"
        self._expect(self._ask(sock, mail), "MAIL")
        answers = [self._ask(sock, b"RCPT TO:<%s>" % recipient) for recipient in recipients]
        if not any(answer.is_positive for answer in answers):
            self._expect(answers[0], "every recipient")
        answer = self._ask(sock, b"DATA")
        if answer.code != 354:
            self._expect(Reply(answer.code if answer.code >= 400 else 554, "", answer.lines), "DATA")
        answer = self._content(sock, pieces)
        with contextlib.suppress(_Failed):
            self._ask(sock, b"QUIT")
        accepted = "accepted" if answer.is_positive else "refused"
        return f"{accepted} by {self._endpoint}: {answer.text}", answer

    def _content(self, sock: socket.socket, pieces: list[bytes]) -> Reply:
        size = sum(map(len, pieces))
        tail = b"".join(pieces[-2:])[-_TAIL:]
        try:
            for piece in pieces:
                sock.sendall(piece)
        except OSError as error:
            self._say("note", f"the server stopped reading: {_reason(error)}")
        else:
            self.sent_all = True
        self._say("us", f"[{size} octets, ending in {visible(tail[-24:])}]")
        try:
            return self._reply(sock, "the end of data")
        except _Failed as failed:
            alike = look_alike(tail)
            if not alike or not self.sent_all:
                raise
            raise _Failed(
                f"{failed}: the octets end in {signs(alike)}, and a strict receiver still waits for CR LF . CR LF"
            ) from None

    def _ask(self, sock: socket.socket, line: bytes) -> Reply:
        self._say("us", visible(line))
        try:
            sock.sendall(line + b"\r\n")
        except OSError as error:
            raise _Failed(f"connection lost at {visible(line)}: {_reason(error)}") from None
        return self._reply(sock, line.split(b":", 1)[0].decode("ascii", "replace"))

    def _reply(self, sock: socket.socket, to: str) -> Reply:
        until = time.monotonic() + self._timeout
        try:
            while (answer := self._reader.next()) is None:
                left = until - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                sock.settimeout(left)
                octets = sock.recv(65536)
                if not octets:
                    raise _Failed(f"the server closed the connection without a reply to {to}")
                self._reader.feed(octets)
        except TimeoutError:
            raise _Failed(f"no reply to {to} within {self._timeout:g} s") from None
        except OSError as error:
            raise _Failed(f"connection lost while waiting for the reply to {to}: {_reason(error)}") from None
        except RemoteProtocolError as error:
            raise _Failed(f"the server does not speak SMTP: {error}") from None
        for number, line in enumerate(answer.lines):
            text = Reply(answer.code, "", (line,)).text
            self._say("server", text if number == len(answer.lines) - 1 else text.replace(" ", "-", 1))
        return answer

    def _expect(self, answer: Reply, to: str) -> None:
        if not answer.is_positive:
            raise _Failed(f"{to} was refused: {answer.text}")

    def _say(self, who: str, text: str) -> None:
        self.said.append(Said(round(time.monotonic() - self._began, 6), who, text))
        if not self._quiet:
            mark = {"us": ">", "server": "<", "note": "#"}[who]
            click.echo(f"{mark} {text}")


def _reason(error: OSError) -> str:
    return "timed out" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
