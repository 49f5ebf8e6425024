"""`lonedot logs ID`: everything that was said of one message or session: log, events, recorded conversations."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from lonedot.admin.client import Caller
from lonedot.admin.merging_seeing import merge_log_lines
from lonedot.admin.operations import SHOW
from lonedot.admin.seeing import LogLines, LogsArguments, advice_of
from lonedot.admin.seeing_operations import LOGS
from lonedot.admin.values import AdminError, IdArguments
from lonedot.cli.output import Problem, json_option, print_json
from lonedot.cli.screen_text import printable
from lonedot.cli.spool_access import Place, place, place_options, work
from lonedot.diagnosis.record import Record
from lonedot.evidence.events import Event, EventLog
from lonedot.observability.clock import SystemClock

__all__ = ["Said", "command"]

FOLLOW_SECONDS = 0.5
MAX_FILE_LINES = 10_000


class Said(msgspec.Struct, frozen=True):
    """All that is known of an id."""

    id: str
    sessions: tuple[str, ...]
    """Ids of sessions that have to do with the message; the session's own when the id is one."""
    lines: tuple[str, ...]
    """Of the log: those that the running relay keeps in memory, and those of a file."""
    events: tuple[Event, ...]
    transcripts: tuple[str, ...]
    """Where conversations are recorded, in words; `lonedot why ID --transcript` shows them."""


@click.command("logs")
@click.argument("id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on printing lines as they come, until Ctrl-C.")
@click.option(
    "--file",
    "log_file",
    type=click.File("rb"),
    help="A file of the log to search too; - is standard input, for what journalctl -u lonedot -o cat writes.",
)
@place_options
@json_option
def command(
    id: str,
    follow: bool,
    log_file: BinaryIO | None,
    config_file: Path,
    spool_folder: Path | None,
    as_json: bool,
) -> int:
    """Print everything that was said of one message or session.

    ID is the id of a message, a part of it that no other message has, or the id of a session. The running relay keeps
    the last lines of its log in memory; what is older is where the log goes to (--file). Events are kept as long as the
    history.
    """
    if len(id) < 4 or not id.isprintable():
        raise Problem("an id has more signs than that", do="give at least four", code=2)
    where = place(config_file, spool_folder)
    from_file = tuple(_of_file(log_file, id.encode()))

    async def ask(caller: Caller) -> tuple[Said, Mapping[int, int] | None]:
        record = await _record(caller, id)
        known = record.id if record is not None else id
        kept = [await _kept(caller, one) for one in dict.fromkeys((known, *_sessions(record, id)))]
        answers = [one for one in kept if one is not None]
        ordered = tuple(line.line for line in merge_log_lines(answers).lines)
        last = kept[0].last if kept[0] is not None else None
        return _said(where, known, record, (*from_file, *ordered)), last

    async def watch(caller: Caller) -> None:
        after = last  # what came since the first look is new
        if after is None:
            raise Problem("the relay is down, there is nothing to follow", do="lonedot serve")
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            more = await caller.call(LOGS, LogsArguments(said.id, after))
            after = more.last
            for line in more.lines:
                print_json(line) if as_json else click.echo(printable(line.line))
            sys.stdout.flush()

    said, last = work(where, ask)
    if as_json:
        print_json(said)
    else:
        for line in _told(said):
            click.echo(line)
    if follow:
        sys.stdout.flush()
        try:
            work(where, watch)
        except KeyboardInterrupt:
            return 0
    return 0 if said.lines or said.events or said.transcripts else 1


async def _record(caller: Caller, id: str) -> Record | None:
    """The message; None when the id is a session's, or of a message that is forgotten."""
    try:
        return await caller.call(SHOW, IdArguments(id))
    except AdminError:
        return None


async def _kept(caller: Caller, id: str) -> LogLines | None:
    """What the relay keeps in memory; None when it is down."""
    pages: list[LogLines] = []
    after: Mapping[int, int] = {}
    try:
        while True:
            pages.append(await caller.call(LOGS, LogsArguments(id, after)))
            if not pages[-1].lines:
                return merge_log_lines(pages)
            after = pages[-1].last
    except AdminError as error:
        if error.problem.what.startswith("the relay is down"):
            return None
        raise


def _of_file(log_file: BinaryIO | None, id: bytes) -> Iterator[str]:
    """Lines of a file that hold the id, at most so many."""
    count = 0
    for line in log_file if log_file is not None else ():
        if id in line:
            yield line.decode("utf-8", "backslashreplace").rstrip("\r\n")
            count += 1
            if count == MAX_FILE_LINES:
                return


def _sessions(record: Record | None, id: str) -> tuple[str, ...]:
    if record is None:
        return (id,)
    return (record.origin.session,) if record.origin.session else ()


def _said(where: Place, id: str, record: Record | None, lines: tuple[str, ...]) -> Said:
    sessions = _sessions(record, id)
    log = EventLog(where.paths.evidence / "events", SystemClock())
    events = tuple(event for event in log.read() if event.id == id or event.id in sessions)
    return Said(id, sessions, tuple(dict.fromkeys(lines)), events, tuple(_transcripts(record)))


def _transcripts(record: Record | None) -> Iterator[str]:
    if record is None:
        return
    if record.origin.has_transcript:
        yield f"session {record.origin.session} with {record.origin.client}"
    for attempt in record.attempts:
        if attempt.has_transcript:
            yield f"attempt {attempt.number} at {attempt.next_hop}"


def _told(said: Said) -> Iterator[str]:
    for line in said.lines:
        yield printable(line)
    for event in said.events:
        at = datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        yield printable(f"{at} event {event.kind.value}: {event.words}  → {advice_of(event)}")
    for words in said.transcripts:
        yield printable(f"recorded: {words}  → lonedot why {said.id} --transcript")
    if not (said.lines or said.events or said.transcripts):
        yield f"nothing is known of {printable(said.id)}; older lines: --file"
