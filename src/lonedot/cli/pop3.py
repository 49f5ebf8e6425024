"""`lonedot pop3`: the mailboxes that are fetched from."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from lonedot.admin.client import Caller
from lonedot.admin.pop3_operations import POP3_LIST, POP3_POLL, Accounts, PollArguments
from lonedot.admin.values import NoArguments
from lonedot.cli.commands import Commands
from lonedot.cli.output import json_option, print_json
from lonedot.cli.screen_text import printable, span
from lonedot.cli.spool_access import place, place_options, work
from lonedot.reception.pop3_account import AccountStatus

__all__ = ["command"]

ASK_SECONDS = 0.2


@click.group("pop3", cls=Commands)
def command() -> None:
    """Look at POP3 mailboxes and how they fare; look into one now."""


@command.command("list")
@place_options
@json_option
def list_accounts(config_file: Path, spool_folder: Path | None, as_json: bool) -> int:
    """List the mailboxes, when each was looked into, and what came of it.

    Exits 1 when the last look at one of them failed.
    """

    async def ask(caller: Caller) -> Accounts:
        return await caller.call(POP3_LIST, NoArguments())

    told = work(place(config_file, spool_folder), ask)
    if as_json:
        print_json(told)
    else:
        if not told.accounts:
            click.echo("no [[pop3]] in the configuration")
        for account in told.accounts:
            for line in _lines(account, told.asked_at):
                click.echo(line)
    return int(any(account.words for account in told.accounts))


@command.command("poll")
@click.argument("name")
@click.option("--again", is_flag=True, help="Also try what was left at the server for good.")
@place_options
@json_option
def poll(name: str, again: bool, config_file: Path, spool_folder: Path | None, as_json: bool) -> int:
    """Look into the mailbox NAME now, and wait until that is done.

    Exits 1 when the look failed.
    """

    async def ask(caller: Caller) -> AccountStatus:
        before = await caller.call(POP3_POLL, PollArguments(name, again))
        # The look under way may have begun before it was asked for.
        wanted = before.looks + 1 + before.looking
        seen = -1
        while True:
            told = await caller.call(POP3_LIST, NoArguments())
            now = next((one for one in told.accounts if one.name == name), None)
            if now is None or now.looks >= wanted or now.looks < before.looks:
                return now or before
            if sys.stderr.isatty() and now.taken != seen:
                seen = now.taken
                count = f"{now.taken - before.taken} taken, {now.listed} at the server"
                click.echo(f"\r{count} ", nl=False, err=True)
            await asyncio.sleep(ASK_SECONDS)

    account = work(place(config_file, spool_folder), ask)
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    if as_json:
        print_json(account)
    else:
        for line in _lines(account, time.time()):
            click.echo(line)
    return int(bool(account.words))


def _lines(account: AccountStatus, now: float) -> Iterator[str]:
    yield f"{printable(account.name)}: {printable(account.user)} at {account.server}"
    if account.looking:
        yield "  is looking now"
    elif account.looked_at:
        yield f"  looked {span(now - account.looked_at)} ago, looks again in {span(max(0.0, account.next_at - now))}"
    yield f"  {account.listed} at the server, {account.taken} taken since the relay started"
    if account.refused:
        yield f"  {account.refused} left there for good: lonedot status names them; lonedot pop3 poll NAME --again"
    if account.words:
        yield f"  {account.failed} looks in a row failed: {printable(account.words)}"
