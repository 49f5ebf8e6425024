"""`lonedot sendmail`: the drop-in for local programs; also what runs when the program is called `sendmail`.

It speaks SMTP to the socket of the relay (`reception.submit`), so a message is in custody when it ends with 0. All
recipients or none: one that is refused refuses the message, and the caller is told which. With the relay down the exit
code is 75 and the caller keeps the message; where the caller may write into Pickup (root, the relay's own user), it is
left there instead. Exit codes are those of sysexits, whatever the rest of `lonedot` uses.
"""

from __future__ import annotations

import enum
import os
import pwd
import re
import selectors
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import click

from lonedot.cli.sendmail_message import (
    DataFault,
    Recipients,
    Sender,
    find_recipients,
    given_head,
    lines_of,
    split_head,
)
from lonedot.cli.sendmail_options import Mode, SendmailOptions, UsageFault, read_options

__all__ = ["Exit", "command", "run_sendmail"]

PLACE = Path("/run/lonedot/submit.sock")
PLACE_VARIABLE = "LONEDOT_SUBMIT"
SIZE_LIMIT = 2 * 1024 * 1024 * 1024
"""Octets that are read at most, whatever the relay would take."""
IN_MEMORY = 1024 * 1024
CHUNK = 256 * 1024
SECONDS = 300.0
"""So long a reply may take."""
LINE_LIMIT = 4096
_EIGHT_BIT = re.compile(rb"[\x80-\xff]")


class Exit(enum.IntEnum):
    """sysexits(3)."""

    OK = 0
    USAGE = 64
    DATA = 65
    NO_USER = 67
    UNAVAILABLE = 69
    SOFTWARE = 70
    TEMPORARY = 75
    NO_PERMISSION = 77


class _Failed(Exception):
    """It could not be done; the code says what the caller may do about it."""

    def __init__(self, code: Exit, words: str) -> None:
        super().__init__(words)
        self.code = code


class _Down(_Failed):
    """The relay is not there."""


@click.command("sendmail", context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(arguments: tuple[str, ...]) -> int:
    """Take one message from standard input, as every sendmail does.

    -t takes recipients from To, Cc and Bcc; -i lets a line of one dot be text; -f ADDRESS is the sender, -F NAME its
    name; -N, -R and -V ask for delivery reports; -bs speaks SMTP; -C FILE names a configuration, to find the relay
    by. Exit codes: 0 the relay has it, 64 usage, 65 the message, 67 a recipient, 69 refused, 75 try again, 77 rights.
    """
    return run_sendmail(arguments)


def run_sendmail(words: Sequence[str], called: str = "sendmail") -> int:
    """The whole program; the exit code."""
    try:
        options = read_options(words, called)
        match options.mode:
            case Mode.NOTHING:
                pass
            case Mode.SPEAK:
                _speak(options)
            case Mode.SEND:
                _send(options)
    except UsageFault as fault:
        return _say(Exit.USAGE, str(fault))
    except DataFault as fault:
        return _say(Exit.DATA, str(fault))
    except _Failed as failed:
        return _say(failed.code, str(failed))
    except (OSError, ValueError) as error:
        return _say(Exit.TEMPORARY, str(error))
    return Exit.OK


def _say(code: Exit, words: str) -> int:
    click.echo(f"sendmail: {words}", err=True)
    return code


# --- finding the relay ----------------------------------------------------------------------------


class _Known(NamedTuple):
    """What a configuration says, where it may be read."""

    socket: Path
    pickup: Path | None
    domain: str


def _known(options: SendmailOptions) -> _Known | None:
    named = options.config or (
        Path(os.environ["LONEDOT_CONFIG"]) if "LONEDOT_CONFIG" in os.environ else Path("lonedot.toml")
    )
    if not os.access(named, os.R_OK):
        if options.config is not None:
            raise UsageFault(f"{named} cannot be read")
        return None
    if options.config is None and not _is_ours(named):
        return None
    from lonedot.config.load import examine

    config = examine(named).config
    if config is None:
        raise _Failed(Exit.UNAVAILABLE, f"{named} has faults: run lonedot check -c {named}")
    pickup = config.pickup.folder if config.pickup.enabled else None
    return _Known(config.sendmail.socket, pickup, config.sendmail.domain)


def _is_ours(file: Path) -> bool:
    """Nobody but us or root has written it: a stranger's folder must not say where our mail goes."""
    status = file.stat()
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o002


def _place(options: SendmailOptions) -> tuple[Path, _Known | None]:
    """Where the socket is: as the environment says, as the configuration says, or where every system has it."""
    if PLACE_VARIABLE in os.environ and options.config is None:
        return Path(os.environ[PLACE_VARIABLE]), None
    known = _known(options)
    return (known.socket, known) if known is not None else (PLACE, None)


def _connect(path: Path) -> socket.socket:
    """A connection to the relay.

    Raises:
        _Down: nobody is there.
        _Failed: there is, but not for us.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(SECONDS)
    try:
        connection.connect(_short(path))
    except PermissionError:
        connection.close()
        raise _Failed(
            Exit.NO_PERMISSION, f"{path}: you may not; ask for [sendmail] group to be yours"
        ) from None
    except OSError as error:
        connection.close()
        reason = error.strerror or str(error)
        raise _Down(Exit.TEMPORARY, f"the relay is not there: {path}: {reason}; try again later") from None
    return connection


def _short(path: Path) -> str:
    """A name that fits into the address of a socket; the descriptor of the folder stays open for our short life."""
    if len(os.fsencode(path)) <= 100:
        return str(path)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{folder}/{path.name}"


# --- one message ----------------------------------------------------------------------------------


class _Message(NamedTuple):
    """A message that was read whole."""

    head: bytes
    body: IO[bytes]
    size: int
    """Octets of the body."""
    is_8bit: bool


def _send(options: SendmailOptions) -> None:
    if not options.recipients and not options.from_header:
        raise UsageFault("no recipient: name one, or give -t")
    path, known = _place(options)
    with ExitStack() as stack:
        body: IO[bytes] = stack.enter_context(tempfile.SpooledTemporaryFile(IN_MEMORY))
        # Read whole before the relay is asked: a program may take hours for its output.
        head, pieces = split_head(lines_of(sys.stdin.buffer, ignores_dots=options.ignores_dots))
        size, is_8bit = 0, not head.isascii()
        for piece in pieces:
            size += body.write(piece)
            is_8bit = is_8bit or not piece.isascii()
            if size > SIZE_LIMIT:
                raise DataFault(f"more than {SIZE_LIMIT} octets")
        body.seek(0)
        message = _Message(head, body, size, is_8bit)
        try:
            relay = stack.enter_context(_conversation(path))
        except _Down:
            if known is None or known.pickup is None or not _may_leave(known.pickup, options):
                raise
            _leave_in_pickup(known.pickup, message, options, _sender(known.domain))
            return
        _submit(relay, message, options)


def _sender(domain: str) -> Sender:
    try:
        user = pwd.getpwuid(os.getuid())
    except KeyError:
        return Sender(f"uid-{os.getuid()}", "", domain)
    name = user.pw_gecos.split(",")[0].replace("&", user.pw_name.capitalize())
    return Sender(user.pw_name, name, domain)


class _Relay:
    """The client's side of one SMTP session."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._replies = connection.makefile("rb")
        self.name = ""
        """What the relay calls itself: the domain for addresses without one."""
        self.size = 0
        """Largest message it takes; 0: it does not say."""

    def greet(self) -> None:
        _expect(self.reply())
        lines = _expect(self.ask(b"EHLO localhost"))
        self.name = lines[0].split(" ")[0]
        for line in lines[1:]:
            if line.startswith("SIZE ") and line[5:].isdigit():
                self.size = int(line[5:])

    def ask(self, line: bytes) -> tuple[int, list[str]]:
        self.write(line + b"\r\n")
        return self.reply()

    def write(self, octets: bytes) -> None:
        self._connection.sendall(octets)

    def reply(self) -> tuple[int, list[str]]:
        """The code and the lines behind it.

        Raises:
            _Failed: the relay has gone.
        """
        lines: list[str] = []
        while len(lines) < 100:
            line = self._replies.readline(LINE_LIMIT)
            if len(line) < 4 or not line[:3].isdigit():
                break
            lines.append(line[4:].decode("utf-8", "backslashreplace").rstrip())
            if line[3:4] != b"-":
                return int(line[:3]), lines
        raise _Failed(Exit.TEMPORARY, "the relay has closed the connection; try again later")

    def close(self) -> None:
        self._replies.close()
        self._connection.close()


@contextmanager
def _conversation(path: Path) -> Iterator[_Relay]:
    relay = _Relay(_connect(path))
    try:
        relay.greet()
        yield relay
    except TimeoutError:
        raise _Failed(Exit.TEMPORARY, "the relay does not answer; try again later") from None
    finally:
        relay.close()


def _submit(relay: _Relay, message: _Message, options: SendmailOptions) -> None:
    sender = _sender(relay.name)
    head = given_head(message.head, sender, options.full_name)
    envelope = _envelope(message, options, sender)
    size = len(head) + message.size
    if relay.size and size > relay.size:
        raise DataFault(f"{size} octets; the relay takes {relay.size}")
    octets = (envelope.reverse_path.octets, *(address.octets for address in envelope.recipients))
    mail = b"MAIL FROM:<%b> SIZE=%d" % (octets[0], size)
    if message.is_8bit:
        mail += b" BODY=8BITMIME"
    if not all(one.isascii() for one in octets):
        mail += b" SMTPUTF8"
    if options.ret:
        mail += b" RET=" + options.ret.encode()
    if options.envid:
        mail += b" ENVID=" + _xtext(options.envid)
    _expect(relay.ask(mail), Exit.UNAVAILABLE)
    notify = b" NOTIFY=" + options.notify.encode() if options.notify else b""
    for address in octets[1:]:
        _expect(relay.ask(b"RCPT TO:<%b>%b" % (address, notify)), Exit.NO_USER)
    # RFC 3030 §2: octets by their count need no end and no dots doubled.
    relay.write(b"BDAT %d LAST\r\n" % size + head)
    while chunk := message.body.read(CHUNK):
        relay.write(chunk)
    _expect(relay.reply(), Exit.UNAVAILABLE)


def _envelope(message: _Message, options: SendmailOptions, sender: Sender) -> Recipients:
    return find_recipients(
        message.head,
        options.recipients,
        from_header=options.from_header,
        from_address=options.sender,
        sender=sender,
    )


def _expect(answer: tuple[int, list[str]], refused: Exit = Exit.UNAVAILABLE) -> list[str]:
    """The lines of a good answer.

    Raises:
        _Failed: it is none.
    """
    code, lines = answer
    if code < 400:
        return lines
    words = f"{code} {' '.join(lines)}"
    if code < 500:
        raise _Failed(Exit.TEMPORARY, f"the relay cannot take it now: {words}")
    enhanced = lines[0].split(" ")[0]
    if enhanced in ("5.3.4", "5.6.0", "5.6.3", "5.6.7"):
        raise _Failed(Exit.DATA, f"the message is refused: {words}")
    raise _Failed(refused, f"refused: {words}")


def _xtext(text: str) -> bytes:
    """RFC 3461 §4."""
    return re.sub(rb"[^!-*,-<>-~]", lambda found: b"+%02X" % ord(found[0]), text.encode())


# --- the relay is down ----------------------------------------------------------------------------


def _may_leave(pickup: Path, options: SendmailOptions) -> bool:
    """We may write there, and nothing is asked for that a file in Pickup could not say."""
    return os.access(pickup, os.W_OK | os.X_OK) and not (options.notify or options.ret or options.envid)


def _leave_in_pickup(pickup: Path, message: _Message, options: SendmailOptions, sender: Sender) -> None:
    """Write it as a file of Pickup: whole, synced, then renamed, so that no half of it is ever taken."""
    head = given_head(message.head, sender, options.full_name)
    envelope = _envelope(message, options, sender)
    lines = [b"x-sender: <%b>\r\n" % envelope.reverse_path.octets]
    lines += [b"x-receiver: <%b>\r\n" % address.octets for address in envelope.recipients]
    if len(lines) > 1000:
        raise _Down(Exit.TEMPORARY, "the relay is not there, and Pickup takes 999 recipients at most")
    name = f"sendmail-{time.time_ns():x}-{os.getpid()}"
    part = pickup / f"{name}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(b"".join(lines) + head)
            shutil.copyfileobj(message.body, file, CHUNK)
            file.flush()
            if os.geteuid() == 0:
                owner = pickup.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            os.fsync(file.fileno())
        part.rename(pickup / f"{name}.eml")
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(pickup, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# --- -bs ------------------------------------------------------------------------------------------


def _speak(options: SendmailOptions) -> None:
    """Carry SMTP between standard input and output and the relay, octet for octet, until the relay closes."""
    path, _ = _place(options)
    connection = _connect(path)
    source, target = sys.stdin.buffer.fileno(), sys.stdout.buffer.fileno()
    with connection, selectors.DefaultSelector() as selector:
        connection.settimeout(None)  # the relay's own time-outs end it
        selector.register(connection, selectors.EVENT_READ)
        try:
            selector.register(source, selectors.EVENT_READ)
        except PermissionError:  # a plain file is always ready, and no selector takes it
            threading.Thread(target=_carry_file, args=(source, connection), daemon=True).start()
        while True:
            for key, _events in selector.select():
                if key.fileobj is connection:
                    octets = connection.recv(CHUNK)
                    if not octets:
                        return
                    _write_all(target, octets)
                else:
                    octets = os.read(source, CHUNK)
                    if octets:
                        connection.sendall(octets)
                    else:
                        selector.unregister(source)
                        connection.shutdown(socket.SHUT_WR)


def _carry_file(source: int, connection: socket.socket) -> None:
    while octets := os.read(source, CHUNK):
        connection.sendall(octets)
    connection.shutdown(socket.SHUT_WR)


def _write_all(target: int, octets: bytes) -> None:
    while octets:
        octets = octets[os.write(target, octets) :]
