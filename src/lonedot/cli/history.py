"""`lonedot history`: finished messages, as long as the history is kept."""

from __future__ import annotations

from pathlib import Path

import click

from lonedot.admin.client import Caller
from lonedot.admin.operations import LIST
from lonedot.admin.values import ListArguments, Listing
from lonedot.cli.output import json_option, print_json
from lonedot.cli.queue_filter import Instant
from lonedot.cli.queue_text import print_listing
from lonedot.cli.spool_access import place, place_options, work
from lonedot.spool.interface import MessageState

__all__ = ["command"]


@click.command("history")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--address", default="", help="Only from or to this address or @domain.")
@click.option("--sender", default="", help="Only from this address or @domain.")
@click.option("--recipient", default="", help="Only to this address or @domain.")
@click.option("--subject", default="", help="Only with this subject, white space and case apart.")
@click.option("--client", default="", help="Only from this device; `192.0.2.` means all that begin so.")
@click.option("--route", default="", help="Only over this route.")
@click.option("--since", type=Instant(), default=0.0, help="Only accepted since: 2h, 3d, or a time.")
@click.option("--until", type=Instant(), default=0.0, help="Only accepted before: 2h, 3d, or a time.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="At most so many.")
@click.option("--page", type=click.IntRange(1), default=1, help="The second, third, … so many of them.")
@place_options
@json_option
def command(
    ids: tuple[str, ...],
    address: str,
    sender: str,
    recipient: str,
    subject: str,
    client: str,
    route: str,
    since: float,
    until: float,
    limit: int,
    page: int,
    config_file: Path,
    spool_folder: Path | None,
    as_json: bool,
) -> int:
    """List finished messages: the newest that options select, oldest first.

    They are kept for `keep_history`. Of a subject only a fingerprint is kept, so it is found by all of its words or not
    at all. What waits or is held: lonedot queue list. All about one: lonedot why ID.
    """
    wanted = ListArguments(
        states=(MessageState.FINISHED,),
        ids=ids,
        address=address,
        sender=sender,
        recipient=recipient,
        subject=subject,
        client=client,
        route=route,
        after=since,
        before=until,
        limit=limit,
        page=page,
    )

    async def ask(caller: Caller) -> Listing:
        return await caller.call(LIST, wanted)

    listing = work(place(config_file, spool_folder), ask)
    if as_json:
        print_json(listing)
    else:
        print_listing(listing)
    return 0
