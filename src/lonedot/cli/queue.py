"""`lonedot queue`: look into the queue and act on it, with the relay running or down."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from lonedot.admin.client import Caller
from lonedot.admin.operations import (
    EXPORT,
    LIST,
    OCTETS,
    SHOW,
)
from lonedot.admin.values import (
    ExportArguments,
    FileBegins,
    FileEnds,
    Form,
    IdArguments,
    ListArguments,
    Listing,
    Octets,
    OctetsArguments,
    Remark,
)
from lonedot.cli.output import Problem, json_option, print_json
from lonedot.cli.queue_change import bounce, delete, hold, release, reroute, retry, rules
from lonedot.cli.queue_filter import BATCH, Progress, chosen_ids, filter_options, page_options
from lonedot.cli.queue_hops import hops
from lonedot.cli.queue_text import print_listing, record_lines
from lonedot.cli.spool_access import place, place_options, work
from lonedot.cli.why import print_lines
from lonedot.diagnosis.octets import visible_lines
from lonedot.diagnosis.record import Record
from lonedot.spool.interface import Sort

__all__ = ["command"]

_EXPORTED_NAME = re.compile(r"[0-9a-v]{13}(?:\.\d{1,6})?\.(?:eml|json)\Z")


@click.group("queue", invoke_without_command=False)
def command() -> None:
    """Look at messages, and act on them.

    ID is the id of a message, or a part of at least four signs that no other message has. With the relay running it
    is asked to do it; with the relay down the spool is locked and used directly. Without an ID, options select messages
    by what is known of them; --dry-run says how many those are.
    """


@command.command("list")
@filter_options(*ListArguments().states)
@click.option("--subject", default="", help="Only with this subject.")
@page_options
@place_options
@json_option
def list_(
    wanted: ListArguments,
    subject: str,
    limit: int,
    page: int,
    sort: str,
    config_file: Path,
    spool_folder: Path | None,
    as_json: bool,
) -> int:
    """List messages; those that are finished only with --state finished or all (lonedot history has more)."""
    wanted = msgspec.structs.replace(wanted, subject=subject, limit=limit, page=page, sort=Sort(sort))

    async def ask(caller: Caller) -> Listing:
        return await caller.call(LIST, wanted)

    listing = work(place(config_file, spool_folder), ask)
    if as_json:
        print_json(listing)
    else:
        print_listing(listing)
    return 0


@command.command("show")
@click.argument("id", metavar="ID")
@click.option(
    "--octets",
    "form",
    type=click.Choice([form.value for form in Form]),
    help="Write the octets instead: as they came, as they are queued, or as they were sent.",
)
@click.option(
    "--attempt", type=click.IntRange(1), help="With --octets sent: of this attempt, not the last one."
)
@click.option(
    "--recipient",
    default="",
    metavar="ADDRESS",
    help="With --octets queued or sent: the copy of this recipient.",
)
@click.option(
    "--escaped", is_flag=True, help="Make line ends and other octets visible. Always so on a terminal."
)
@place_options
@json_option
def show(
    id: str,
    form: str | None,
    attempt: int | None,
    recipient: str,
    escaped: bool,
    config_file: Path,
    spool_folder: Path | None,
    as_json: bool,
) -> int:
    """Show everything that is recorded of a message, or its octets.

    Exits 1 when the octets asked for as `sent` are not those that were recorded when they were sent.
    """
    where = place(config_file, spool_folder)
    if form is None:
        if escaped or attempt or recipient:
            raise click.UsageError("--escaped, --attempt and --recipient go with --octets")

        async def ask(caller: Caller) -> Record:
            return await caller.call(SHOW, IdArguments(id))

        record = work(where, ask)
        if as_json:
            print_json(record)
        else:
            print_lines(record_lines(record, time.time()))
        return 0
    wanted = OctetsArguments(id, Form(form), attempt or 0, recipient)
    if as_json:
        return work(where, lambda caller: _octets_as_json(caller, wanted))
    escaped = escaped or sys.stdout.isatty()
    return work(where, lambda caller: _octets(caller, wanted, escaped))


async def _octets(caller: Caller, wanted: OctetsArguments, escaped: bool) -> int:
    out = sys.stdout.buffer
    code = 0
    line = b""
    async for piece in caller.stream(OCTETS, wanted):
        match piece:
            case Octets(octets):
                if not escaped:
                    out.write(octets)
                    continue
                # Whole lines only: an octet's name must not be cut in two.
                whole, line_end, line = (line + octets).rpartition(b"\n")
                out.write(visible_lines(whole + line_end).encode())
            case Remark(words, is_fault):
                click.echo(words, err=True)
                code = max(code, int(is_fault))
            case FileBegins() | FileEnds():
                pass
    out.write(visible_lines(line).encode())
    out.flush()
    return code


async def _octets_as_json(caller: Caller, wanted: OctetsArguments) -> int:
    whole: list[bytes] = []
    remarks: list[Remark] = []
    async for piece in caller.stream(OCTETS, wanted):
        match piece:
            case Octets(octets):
                whole.append(octets)
            case Remark():
                remarks.append(piece)
            case FileBegins() | FileEnds():
                pass
    print_json({"id": wanted.id, "form": wanted.form, "octets": b"".join(whole), "remarks": remarks})
    return int(any(remark.is_fault for remark in remarks))


for one in (hops, hold, release, rules, retry, delete, bounce, reroute):
    command.add_command(one)


@command.command("export")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the files; made when it is not there.",
)
@click.option("--force", is_flag=True, help="Replace files that are there.")
@filter_options(*ListArguments().states)
@click.option(
    "--limit", type=click.IntRange(0), default=0, help="At most so many, the newest. [default: all]"
)
@place_options
@json_option
def export(
    ids: tuple[str, ...],
    folder: Path,
    force: bool,
    wanted: ListArguments,
    limit: int,
    config_file: Path,
    spool_folder: Path | None,
    as_json: bool,
) -> int:
    """Save messages as files: ID.eml as queued, and ID.json with envelope and ledger.

    Without an ID, those that the options select. The queue stays as it is. Exits 1 when something could not be saved.
    """
    saving = _Saving(folder, force)

    async def task(caller: Caller) -> None:
        chosen = ids or await chosen_ids(caller, wanted, limit)
        progress = Progress(len(chosen), "exported")
        try:
            for start in range(0, len(chosen), BATCH):
                batch = tuple(chosen[start : start + BATCH])
                await _save(caller, batch, saving)
                progress.step(len(batch))
        finally:
            progress.end()
            saving.stop()

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        work(place(config_file, spool_folder), task)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Problem(f"cannot be saved: {reason.lower()}", where=str(error.filename or folder)) from error
    if as_json:
        print_json({"folder": str(folder), "files": saving.saved, "remarks": saving.remarks})
    else:
        for remark in saving.remarks:
            click.echo(remark.words, err=True)
        number = len(saving.saved)
        click.echo(f"{number} file{'' if number == 1 else 's'} in {folder}")
    return int(any(remark.is_fault for remark in saving.remarks))


async def _save(caller: Caller, ids: tuple[str, ...], saving: _Saving) -> None:
    async for piece in caller.stream(EXPORT, ExportArguments(ids)):
        match piece:
            case FileBegins(name):
                saving.begin(name)
            case Octets(octets):
                saving.write(octets)
            case FileEnds():
                saving.end()
            case Remark(words, is_fault):
                saving.remark(words, is_fault)


class _Saving:
    """Files as they come: written under another name, and given theirs when whole."""

    def __init__(self, folder: Path, force: bool) -> None:
        self._folder = folder
        self._force = force
        self._name = ""
        self._part: Path | None = None
        self._file: BinaryIO | None = None
        self._is_whole = True
        self.saved: list[str] = []
        self.remarks: list[Remark] = []

    def begin(self, name: str) -> None:
        self._name = name
        self._is_whole = True
        if not _EXPORTED_NAME.match(name):
            raise Problem(f"the relay sent a file of the name {name[:60]!r}", where="export")
        if not self._force and (self._folder / name).exists():
            self.remark(f"{name} is there already; --force replaces it", is_fault=True)
            return
        self._part = self._folder / f".{name}.part"
        descriptor = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        self._file = os.fdopen(descriptor, "wb")

    def write(self, octets: bytes) -> None:
        if self._file is not None:
            self._file.write(octets)

    def remark(self, words: str, is_fault: bool) -> None:
        self.remarks.append(Remark(words, is_fault))
        if is_fault:
            self._is_whole = False

    def end(self) -> None:
        if self._file is None or self._part is None:
            return
        self._file.close()
        self._file = None
        name = self._name if self._is_whole else f"{self._name}.incomplete"
        self._part.replace(self._folder / name)
        self.saved.append(name)
        self._part = None

    def stop(self) -> None:
        """Nothing more comes; a file that is not whole is not kept."""
        if self._file is not None and self._part is not None:
            self._file.close()
            self._file = None
            self._part.unlink(missing_ok=True)
