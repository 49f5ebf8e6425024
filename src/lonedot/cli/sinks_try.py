"""`lonedot sinks order` and `lonedot sinks test`: who would fire, and what would come of one message."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lonedot.admin.sinks import Bindings, Keeper, ListedBinding, find, of_source
from lonedot.admin.values import AdminError
from lonedot.cli.output import Problem, json_option, print_json
from lonedot.cli.registry_access import config_of, registry_options, source_option, with_keeper
from lonedot.cli.sinks_text import heading_of
from lonedot.sinks.bindings import Binding
from lonedot.sinks.events import EVENTS, Event, Shows, event_named
from lonedot.sinks.rules import compile_rule
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient

if TYPE_CHECKING:
    from lonedot.app.rehearsal import Rehearsed

__all__ = ["order", "test"]

MAX_FILE = 256 * 1024 * 1024


def _envelope(sender: str, recipients: Sequence[str]) -> Envelope:
    return Envelope(
        Address(sender.encode()), tuple(Recipient(Address(recipient.encode())) for recipient in recipients)
    )


@click.command("order")
@click.option("--event", default="", help="Of one event only.")
@click.option("--to", "recipients", multiple=True, metavar="ADDRESS", help="For a message to this recipient.")
@click.option("--from", "sender", default="", metavar="ADDRESS", help="For a message from this sender.")
@click.option("--helo", default="", metavar="NAME", help="For a client of this name.")
@source_option
@registry_options
@json_option
def order(
    event: str,
    recipients: tuple[str, ...],
    sender: str,
    helo: str,
    source: int,
    config_file: Path,
    registry_file: Path | None,
    as_json: bool,
) -> int:
    """Who fires before whom: for every message, or for one with these addresses."""
    wanted = _event(event)

    async def ask(keeper: Keeper) -> Bindings:
        return of_source(await keeper.bindings(), source)

    listing = with_keeper(config_file, registry_file, ask)
    firing = [
        binding
        for binding in listing.bindings
        if binding.is_enabled and (wanted is None or binding.event in (wanted, None))
    ]
    is_asked = bool(recipients or sender or helo)
    envelope = _envelope(sender, recipients)
    called = [binding for binding in firing if not is_asked or _matches(binding, envelope, helo)]
    if as_json:
        left = [binding.name for binding in firing if binding not in called]
        print_json({"order": called, "not_called": left})
        return 0
    for line in _order_lines(listing, firing, called):
        click.echo(line)
    return 0


def _event(name: str) -> Event | None:
    if not name:
        return None
    try:
        return event_named(name)
    except ValueError as error:
        raise Problem(str(error), where="--event") from None


def _matches(binding: ListedBinding, envelope: Envelope, helo: str) -> bool:
    rule = compile_rule(binding.rule)
    return rule is None or rule.matches(envelope, helo)


def _order_lines(
    listing: Bindings, firing: Sequence[ListedBinding], called: Sequence[ListedBinding]
) -> Iterator[str]:
    if not firing:
        yield "no binding fires"
    at = ""
    number = 0
    for binding in firing:  # in firing order, each event of each virtual server in one piece
        heading = heading_of(listing, binding)
        if heading != at:
            yield heading
            at, number = heading, 0
        if binding in called:
            number += 1
            why = f"  {binding.rule}" if binding.rule else ""
            yield f"  {number:>3}  {binding.priority:>5}  {binding.name}{why}"
        else:
            yield f"    -  {binding.priority:>5}  {binding.name}  not called: {binding.rule}"


@click.command("test")
@click.argument("words", metavar="NAME|GUID [FILE]", nargs=-1)
@click.option("--all", "all_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE")
@click.option("--to", "recipients", multiple=True, metavar="ADDRESS", default=("recipient@example.org",))
@click.option("--from", "sender", metavar="ADDRESS", default="sender@example.com", show_default=True)
@click.option("--helo", metavar="NAME", default="client.example.com", show_default=True)
@click.option("--command", "said", metavar="TEXT", default="NOOP", help="What sinks of verb are asked about.")
@click.option(
    "--login", metavar="NAME", default="nobody", help="Who logs in; the password is read from input."
)
@source_option
@registry_options
@json_option
def test(
    words: tuple[str, ...],
    all_file: Path | None,
    recipients: tuple[str, ...],
    sender: str,
    helo: str,
    said: str,
    login: str,
    source: int,
    config_file: Path,
    registry_file: Path | None,
    as_json: bool,
) -> int:
    """Show the message in FILE to one binding, also a disabled one, or with --all FILE to all that are enabled.

    With --all the bindings of one virtual server are asked from the connection to the outcome. A sink of a session is
    shown one that is made up, and needs no FILE. What sinks say, edits and findings are printed; nothing is kept and
    nothing is sent. The files are asked, not a running relay. Exits 1 when a sink failed or did harm.
    """
    name, file = "", all_file
    if all_file is None and len(words) in (1, 2):
        name, file = words[0], Path(words[1]) if len(words) == 2 else None
    elif all_file is None or words:
        raise Problem("what is to be tested", do="write NAME FILE, or --all FILE", code=2)
    from lonedot.app.registry import RegistryKeeper
    from lonedot.app.rehearsal import Scene, rehearse

    octets: bytes | None = _read(file) if file is not None else None
    if registry_file is not None:
        keeper = RegistryKeeper(None, registry_file)
    else:
        config = config_of(config_file)
        keeper = RegistryKeeper(config, config.server.registry)
    password = ""
    try:
        if name:
            listing = of_source(asyncio.run(keeper.bindings()), source)
            binding: Binding = keeper.binding_of(find(listing.bindings, name).guid)
            bindings: tuple[Binding, ...] = (binding,)
            shows = EVENTS[binding.event].shows
            if shows is Shows.MESSAGE and octets is None:
                raise Problem(f"{name!r} is shown a message", do="write NAME FILE", code=2)
            if shows is not Shows.MESSAGE:
                octets = None
            if binding.event is Event.AUTH:
                password = sys.stdin.readline().rstrip("\n")
            revision = "test"
        else:
            snapshot = keeper.load()
            bindings = tuple(one for one in snapshot.bindings if _is_played(one, source))
            revision = snapshot.revision
    except AdminError as error:
        raise Problem(error.problem.what, where=error.problem.where, do=error.problem.do) from error
    verb, _, argument = said.partition(" ")
    scene = Scene(
        envelope=_envelope(sender, recipients),
        helo=helo,
        verb=verb,
        argument=argument,
        login=login,
        password=password,
        revision=revision,
        server=source or 1,
    )
    done = asyncio.run(rehearse(octets, scene, bindings))
    if as_json:
        print_json(done)
    else:
        for line in _rehearsed_lines(done, octets is not None):
            click.echo(line)
    return 1 if any(step.is_fault for step in done.steps) else 0


def _is_played(binding: Binding, source: int) -> bool:
    """In the message of a rehearsal nobody logs in, and no report of it is made."""
    return binding.source == (source or 1) and binding.event not in (Event.AUTH, Event.DSN)


def _rehearsed_lines(done: Rehearsed, is_message: bool) -> Iterator[str]:
    if done.mended:
        yield "line ends mended before the first sink, as at the door"
    for step in done.steps:
        verdict = f", {step.verdict}" if step.action == "asked" else ""
        yield f"{step.binding} ({step.event}): {step.action}{verdict}, {step.took_seconds * 1000:.1f} ms"
        for words in (*step.changes, *step.findings, *((step.words,) if step.words else ())):
            yield f"    {words}"
    for left in done.not_called:
        yield f"{left}: not called"
    why = f": {done.words}" if done.words else ""
    sizes = f"; {done.size_before} octets before, {done.size_after} after" if is_message else ""
    yield f"{done.decision}{why}{sizes}"


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            octets = opened.read(MAX_FILE + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Problem(
            f"the message cannot be read: {reason}", where=str(file), do="name another file"
        ) from None
    if len(octets) > MAX_FILE:
        raise Problem(f"the message has more than {MAX_FILE} octets", where=str(file))
    return octets
