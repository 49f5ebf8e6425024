"""`lonedot queue`: look into the queue and act on it, with the relay running or down."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
import msgspec

from lonedot.admin.client import Caller
from lonedot.admin.operations import (
    LIST,
    OCTETS,
    SHOW,
)
from lonedot.admin.values import (
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
from lonedot.cli.commands import Commands
from lonedot.cli.output import json_option, print_json
from lonedot.cli.queue_change import bounce, delete, hold, release, reroute, retry, rules
from lonedot.cli.queue_export import export
from lonedot.cli.queue_filter import filter_options, page_options
from lonedot.cli.queue_hops import hops
from lonedot.cli.queue_import import import_
from lonedot.cli.queue_text import print_listing, record_lines
from lonedot.cli.spool_access import place, place_options, work
from lonedot.cli.why import print_lines
from lonedot.diagnosis.octets import visible_lines
from lonedot.diagnosis.record import Record
from lonedot.spool.interface import Sort

__all__ = ["command"]


@click.group("queue", cls=Commands)
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


for one in (hops, hold, release, rules, retry, delete, bounce, reroute, export, import_):
    command.add_command(one)
