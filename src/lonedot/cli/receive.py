"""`lonedot receive`: a receiver that records, strict or as old servers read.

Every message becomes `NNNN.eml` (the content, octet for octet) and `NNNN.transcript` (JSON: envelope, conversation, how
the DATA phase ended). The numbers go on behind those that are in the folder already; nothing is written over.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
from pathlib import Path

import click
import msgspec

from lonedot.cli.output import Problem, json_option, print_json, signs
from lonedot.config.addresses import KEYWORDS, Endpoint, listen_endpoint
from lonedot.config.values import Unfit
from lonedot.diagnosis.octets import visible
from lonedot.reception.recorder import (
    HangUp,
    Recorded,
    Recorder,
    RecorderOptions,
    RecorderStage,
    Waiting,
)
from lonedot.terms.reply import Reply

__all__ = ["command"]

_HERE = Path()
_STAGES = [stage.value for stage in RecorderStage]


class Line(msgspec.Struct, frozen=True):
    after_seconds: float
    who: str
    """`client`, `us` or `note`."""
    text: str


class Account(msgspec.Struct, frozen=True):
    """What is told of one message: a `.transcript` file, and a line with --json."""

    file: str
    """Of the content; empty when nothing is kept."""
    client: str
    helo: str
    tls: str
    login: str
    reverse_path: str
    recipients: tuple[str, ...]
    mode: str
    size: int
    """Octets of the content."""
    sha256: str
    """Of the content."""
    ended_by: str
    """What was taken for the end of data; empty for BDAT."""
    tail: str
    """The last octets as they came over the wire."""
    reply: str
    conversation: tuple[Line, ...]


@click.command("receive")
@click.option(
    "--listen", default="127.0.0.1:0", show_default=True, metavar="HOST:PORT", help="Port 0 takes a free one."
)
@click.option(
    "--lenient", is_flag=True, help="End a message also at LF.LF, LF.CRLF and CRLF.LF, as old servers did."
)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="Where messages are kept.")
@click.option("--raw", is_flag=True, help="Also keep the DATA phase as it came: NNNN.wire.")
@click.option("--no-offer", "not_offered", multiple=True, metavar="KEYWORD", help="Leave this out of EHLO.")
@click.option(
    "--offer", "offered", multiple=True, metavar="KEYWORD", help="Offer only these (and nothing else)."
)
@click.option(
    "--answer",
    "answers",
    multiple=True,
    metavar="STAGE=REPLY",
    help=f"Answer so at a stage ({', '.join(_STAGES)}): --answer 'rcpt=550 5.1.1 No such user'.",
)
@click.option("--hang-up", type=click.Choice(_STAGES), help="Close the connection at that stage.")
@click.option(
    "--hang-up-after", type=click.IntRange(min=0), metavar="OCTETS", help="Close it inside the content."
)
@click.option("--silence", default=2.0, show_default=True, help="Seconds until a silent client is reported.")
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many messages.")
@json_option
def command(
    listen: str,
    lenient: bool,
    folder: Path | None,
    raw: bool,
    not_offered: tuple[str, ...],
    offered: tuple[str, ...],
    answers: tuple[str, ...],
    hang_up: str | None,
    hang_up_after: int | None,
    silence: float,
    count: int | None,
    as_json: bool,
) -> int:
    """Receive messages and record them; nothing is handed on.

    Strict: a message ends at CR LF . CR LF and at nothing else. A client that waits for a reply because it ended its
    message otherwise is named. Runs until Ctrl-C.
    """
    try:
        endpoint = listen_endpoint(listen, _HERE)
    except Unfit as unfit:
        raise Problem(unfit.what, where="--listen", do=unfit.do, code=2) from None
    if raw and folder is None:
        raise Problem("--raw keeps octets, but no folder is named", do="add --folder DIR", code=2)
    scripted = dict(_parse_answer(words) for words in answers)
    leave: HangUp | None = None
    if hang_up_after is not None:
        leave = HangUp(RecorderStage.CONTENT, hang_up_after)
    elif hang_up is not None:
        leave = HangUp(RecorderStage(hang_up))
    options = RecorderOptions(
        host=endpoint.host,
        port=endpoint.port,
        is_lenient=lenient,
        not_offered=_not_offered(offered, not_offered),
        hang_up=leave,
        answer=lambda stage, _: scripted.get(stage),
        silence_seconds=silence,
        keep=1,
    )
    writer = None if folder is None else _Folder(folder, keep_wire=raw)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_receive(options, endpoint, writer, count, as_json))
    return 0


async def _receive(
    options: RecorderOptions, endpoint: Endpoint, folder: _Folder | None, count: int | None, as_json: bool
) -> None:
    done = asyncio.Event()
    failure: list[Exception] = []

    def show(account: object, words: str) -> None:
        try:
            if as_json:
                print_json(account)
            else:
                click.echo(words)
        except BrokenPipeError as error:  # nobody reads what we print: stop
            failure.append(error)
            done.set()

    def on_message(message: Recorded) -> None:
        try:
            account = _account(message, folder)
        except Problem as problem:
            failure.append(problem)
            done.set()
            return
        show({"message": account}, _line(message.number, account))
        if count is not None and message.number >= count:
            done.set()

    def on_waiting(waiting: Waiting) -> None:
        plain = msgspec.structs.asdict(waiting)
        plain |= {"tail": visible(waiting.tail), "look_alike": signs(waiting.look_alike)}
        show({"waiting": plain}, _waiting_line(waiting))

    recorder = Recorder(options, on_message, on_waiting)
    try:
        await recorder.start()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Problem(
            f"cannot listen at {endpoint}: {reason}", do="use another port, or 0 for a free one"
        ) from None
    bound = Endpoint(endpoint.host, recorder.port)
    kind = "lenient" if options.is_lenient else "strict"
    show(
        {"listening": {"host": bound.host, "port": bound.port, "kind": kind}},
        f"listening at {bound} ({kind}); Ctrl-C stops",
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, done.set)
    try:
        await done.wait()
        if not failure:
            await _let_leave(recorder)
    finally:
        await recorder.stop()
    if failure:
        raise failure[0]


async def _let_leave(recorder: Recorder) -> None:
    """A moment for the last client to read its reply and say QUIT."""
    for _ in range(20):
        if not recorder.connections:
            return
        await asyncio.sleep(0.02)


class _Folder:
    """Where messages are kept."""

    def __init__(self, path: Path, *, keep_wire: bool) -> None:
        self.path = path
        self._keep_wire = keep_wire
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            taken = [int(file.stem) for file in path.glob("*.eml") if file.stem.isdecimal()]
        except OSError as error:
            raise Problem(
                f"cannot be used: {_reason(error)}", where=str(path), do="name another folder"
            ) from None
        self._next = max(taken, default=0) + 1

    def keep(self, message: Recorded, account: Account) -> Account:
        """Writes the files; the account names them."""
        stem = f"{self._next:04d}"
        self._next += 1
        account = msgspec.structs.replace(account, file=str(self.path / f"{stem}.eml"))
        plain = msgspec.json.format(msgspec.json.encode(account), indent=2)
        files = [(f"{stem}.eml", message.content), (f"{stem}.transcript", plain + b"\n")]
        if self._keep_wire:
            files.append((f"{stem}.wire", message.wire))
        for name, octets in files:
            try:
                with open(self.path / name, "xb", opener=_private) as file:
                    file.write(octets)
            except OSError as error:
                do = "make room, or name another folder"
                raise Problem(
                    f"cannot be written: {_reason(error)}", where=str(self.path / name), do=do
                ) from None
        return account


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _account(message: Recorded, folder: _Folder | None) -> Account:
    who = {"<": "client", ">": "us", "#": "note"}
    account = Account(
        file="",
        client=message.client,
        helo=visible(message.helo),
        tls=message.tls,
        login=visible(message.login),
        reverse_path=message.envelope.reverse_path.text,
        recipients=tuple(recipient.address.text for recipient in message.envelope.recipients),
        mode=message.mode,
        size=len(message.content),
        sha256=hashlib.sha256(message.content).hexdigest(),
        ended_by=signs(message.ended_by),
        tail=visible(message.wire[-64:]),
        reply=message.reply.text,
        conversation=tuple(
            Line(round(after, 6), who[direction], visible(octets))
            for after, direction, octets in message.lines
        ),
    )
    return account if folder is None else folder.keep(message, account)


def _line(number: int, account: Account) -> str:
    recipients = ", ".join(account.recipients[:3]) + (" …" if len(account.recipients) > 3 else "")
    end = f", ended by {account.ended_by}" if account.ended_by else f", by {account.mode}"
    kept = f" -> {account.file}" if account.file else ""
    return (
        f"{number}: from {account.reverse_path} to {recipients}, "
        f"{account.size} octets{end}, client {account.client}{kept}"
    )


def _waiting_line(waiting: Waiting) -> str:
    state = "left" if waiting.has_left else "is waiting"
    lead = f"{waiting.client} {state} inside DATA after {waiting.received} octets: "
    if waiting.look_alike:
        still = (
            "that is no end of data"
            if waiting.has_left
            else "a strict receiver is still waiting for CR LF . CR LF"
        )
        return f"{lead}it ended with {signs(waiting.look_alike)}; {still}"
    return f"{lead}the last were {visible(waiting.tail[-24:])}"


def _parse_answer(words: str) -> tuple[RecorderStage, Reply]:
    stage, _, answer = words.partition("=")
    code, _, text = answer.strip().partition(" ")
    wrong = Problem(
        f"{words!r} is not an answer",
        where="--answer",
        do="write STAGE=CODE TEXT, such as 'rcpt=450 4.2.1 Later'",
        code=2,
    )
    if stage.strip().lower() not in _STAGES or not (code.isascii() and code.isdigit() and len(code) == 3):
        raise wrong
    if not 200 <= int(code) < 600 or not text.isprintable() or len(text.encode()) > 400:
        raise wrong
    enhanced, _, rest = text.partition(" ")
    parts = enhanced.split(".")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        enhanced, rest = "", text
    return RecorderStage(stage.strip().lower()), Reply(int(code), enhanced, ((rest or "OK").encode(),))


def _not_offered(offered: tuple[str, ...], not_offered: tuple[str, ...]) -> frozenset[bytes]:
    named = {word.upper() for word in (*offered, *not_offered)}
    if unknown := sorted(named - set(KEYWORDS)):
        raise Problem(f"there is no keyword {unknown[0]}", do=f"use {', '.join(KEYWORDS)}", code=2)
    missing = {word.upper() for word in not_offered}
    if offered:
        missing |= set(KEYWORDS) - {word.upper() for word in offered}
    return frozenset(word.encode() for word in missing)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
