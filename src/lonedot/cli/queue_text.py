"""What the queue commands print for people: the listing, and the record of one message."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import tzinfo

import click

from lonedot.admin.values import Listing
from lonedot.diagnosis.record import AttemptRecord, EntryRecord, RecipientRecord, Record
from lonedot.diagnosis.tell import Kind, Line, clean, moment, size_in_words, span
from lonedot.message.findings import Severity
from lonedot.spool.interface import Listed, MessageState, RecipientStatus

__all__ = ["listing_hints", "listing_rows", "print_listing", "record_lines"]

_HEADINGS = ("ID", "STATE", "AGE", "SIZE", "FROM", "TO", "WHAT IS KNOWN")
_WIDE = 110
"""Columns of a terminal from which on each column of the listing has room."""
_COLOURS = {
    MessageState.QUEUED: "",
    MessageState.HELD: "yellow",
    MessageState.DAMAGED: "red",
    MessageState.FINISHED: "green",
}


def print_listing(listing: Listing, *, with_hints: bool = True) -> None:
    """A table on a terminal, columns elsewhere; then what to do next."""
    rows = [listing_rows(row, listing.asked_at) for row in listing.rows]
    if rows and sys.stdout.isatty():
        _print_table(listing.rows, rows)
    elif rows:
        widths = [max(len(row[n]) for row in (_HEADINGS, *rows)) for n in range(len(_HEADINGS) - 1)]
        for row in (_HEADINGS, *rows):
            fixed = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False))
            click.echo(f"{fixed}  {row[-1]}".rstrip())
    for hint in listing_hints(listing) if with_hints else ():
        click.echo(hint)


def _print_table(listed: Sequence[Listed], rows: Sequence[tuple[str, ...]]) -> None:
    """Everything in columns where they fit; else the last three one below the other."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    is_wide = console.width >= _WIDE
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for number, heading in enumerate(_HEADINGS[:4]):
        table.add_column(heading, no_wrap=True, justify="right" if number > 1 else "left")
    for heading in _HEADINGS[4:] if is_wide else ("FROM, TO, WHAT IS KNOWN",):
        table.add_column(heading, overflow="fold")
    for given, row in zip(listed, rows, strict=True):
        rest = [Text(text) for text in row[4:]] if is_wide else [Text(f"{row[4]}\n{row[5]}\n{row[6]}")]
        table.add_row(
            Text(row[0]), Text(row[1], style=_COLOURS[given.state]), Text(row[2]), Text(row[3]), *rest
        )
    console.print(table)


def listing_rows(row: Listed, now: float) -> tuple[str, ...]:
    """The columns of one message."""
    return (
        row.id,
        row.state.value,
        _age(now - row.accepted_at) if row.accepted_at else "?",
        _short_size(row.size),
        clean(row.sender) or "?",
        _recipients(row),
        clean(_known(row, now)),
    )


def _recipients(row: Listed) -> str:
    addresses = [clean(address) for address, _, _ in row.recipients]
    if not addresses:
        return "?"
    return addresses[0] if len(addresses) == 1 else f"{addresses[0]} and {len(addresses) - 1} more"


def _known(row: Listed, now: float) -> str:
    """Why it is held or damaged; else when it goes on, and the last words of a remote."""
    if row.state in (MessageState.HELD, MessageState.DAMAGED):
        return row.reason or "no reason is recorded"
    waiting = [
        words for _, status, words in row.recipients if status == RecipientStatus.WAITING.value and words
    ]
    said = f": {waiting[0]}" if waiting else ""
    match row.state:
        case MessageState.FINISHED:
            statuses = dict.fromkeys(status for _, status, _ in row.recipients)
            if len(statuses) > 1:
                statuses.pop(RecipientStatus.REPLACED.value, None)  # what it led to tells how that ended
            return ", ".join(statuses)
        case MessageState.QUEUED:
            tries = "not tried yet" if not row.attempts else f"tried {row.attempts}x"
            due = "due now" if row.next_at <= now else f"next in {span(row.next_at - now)}"
            if row.waits_for:
                why = f": {row.put_off}" if row.put_off else ""
                return f"in transport, waiting for {row.waits_for}, {due}{why}"
            return f"{tries}, {due}{said}"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(int(seconds), 0)} s"


def _short_size(octets: int) -> str:
    if octets < 10_000:
        return f"{octets}"
    if octets < 10_000_000:
        return f"{octets // 1000}k"
    return f"{octets // 1_000_000}M"


def listing_hints(listing: Listing) -> Iterator[str]:
    """The last lines of a listing: the sums, and what to do next."""
    rows = listing.rows
    counts = ", ".join(f"{number} {state}" for state, number in listing.counts.items() if number)
    if not rows:
        yield f"No message matches. In the spool: {counts or 'nothing'}."
        return
    shown = "1 message" if len(rows) == 1 else f"{len(rows)} messages"
    cut = "; there may be more: give --page 2, or --limit" if listing.cut else ""
    yield f"{shown}{cut}. In the spool: {counts}."
    yield f"What happened to one:  lonedot why {rows[0].id}"
    for state, words, command in (
        (MessageState.HELD, "Send on what is held:  ", "release"),
        (MessageState.DAMAGED, "Save what is damaged:  ", "export --to FOLDER"),
    ):
        first = next((row.id for row in rows if row.state is state), None)
        if first is not None:
            yield f"{words}lonedot queue {command} {first}"


def record_lines(record: Record, now: float, zone: tzinfo | None = None) -> tuple[Line, ...]:
    """The record of one message: envelope, recipients, ledger, attempts."""
    return tuple(Line(kind, clean(text), indent) for kind, text, indent in _record(record, now, zone))


def _record(record: Record, now: float, zone: tzinfo | None) -> Iterator[Line]:
    origin = record.origin
    yield Line(Kind.TITLE, f"{record.id}  {record.state.value}")
    if record.reason:
        yield Line(Kind.ALARM, record.reason, 1)
    age = span(max(now - record.accepted_at, 0))
    yield Line(Kind.TEXT, f"accepted   {moment(record.accepted_at, zone)} ({age} ago)", 1)
    if record.finished_at:
        yield Line(Kind.TEXT, f"finished   {moment(record.finished_at, zone)}", 1)
    came = [
        origin.source,
        origin.client,
        f"HELO {origin.helo}" if origin.helo else "",
        origin.protocol,
        origin.tls,
    ]
    yield Line(Kind.TEXT, f"from       {', '.join(part for part in came if part)}", 1)
    yield Line(Kind.TEXT, f"session    {origin.session or '-'}, revision {origin.revision or '-'}", 1)
    yield Line(Kind.TEXT, f"sender     {record.sender}", 1)
    kept = "" if record.has_content else ", octets no longer kept"
    said = [f"BODY={record.body}" if record.body else "", "SMTPUTF8" if record.smtputf8 else ""]
    said += [f"RET={record.ret}" if record.ret else "", f"ENVID={record.envid}" if record.envid else ""]
    parameters = " ".join(part for part in said if part)
    yield Line(Kind.TEXT, f"size       {size_in_words(record.size)}{kept}", 1)
    if parameters:
        yield Line(Kind.TEXT, f"declared   {parameters}", 1)
    yield Line(Kind.HEADING, "Recipients")
    for recipient in record.recipients:
        yield from _recipient(recipient, now, zone)
    yield Line(Kind.HEADING, "Ledger")
    for entry in record.ledger:
        kind = Kind.ALARM if entry.is_fault else Kind.TEXT
        yield Line(kind, _entry(entry), 1)
    if not record.ledger:
        yield Line(Kind.TEXT, "no entry", 1)
    yield Line(Kind.HEADING, "Attempts")
    for attempt in record.attempts:
        yield from _attempt(attempt, zone)
    if not record.attempts:
        yield Line(Kind.TEXT, "none yet", 1)
    yield Line(Kind.HINT, f"The whole story: lonedot why {record.id}")
    if record.state is MessageState.HELD:
        yield Line(Kind.HINT, f"Send it on: lonedot queue release {record.id}")


def _recipient(recipient: RecipientRecord, now: float, zone: tzinfo | None) -> Iterator[Line]:
    words = f"{recipient.index}  {recipient.address}  {recipient.status.value}, {_tries(recipient.attempts)}"
    if recipient.status is RecipientStatus.WAITING and recipient.next_at:
        due = "due now" if recipient.next_at <= now else f"next {moment(recipient.next_at, zone)}"
        words += f", {due}"
    yield Line(Kind.TEXT, words, 1)
    if recipient.last is not None:
        yield Line(Kind.OCTETS, recipient.last.reply or recipient.last.reason, 2)


def _tries(number: int) -> str:
    return "not tried" if not number else "1 attempt" if number == 1 else f"{number} attempts"


def _entry(entry: EntryRecord) -> str:
    """One line: binding, event, action, what changed, what was found."""
    parts = list(entry.changed)
    parts += [
        f"{finding.code.value} in {finding.part.value}{_at(finding.offset)}"
        for finding in entry.findings
        if finding.severity is not Severity.NOTE
    ]
    if entry.words and not entry.findings:
        parts.append(entry.words)
    scope = f" (for {', '.join(entry.recipients)})" if entry.recipients else ""
    did = "; ".join(parts) or "nothing changed"
    return f"{entry.number}  {entry.binding}  {entry.event}  {entry.action.value}{scope}: {did}"


def _at(offset: int) -> str:
    return f" at {offset}" if offset >= 0 else ""


def _attempt(attempt: AttemptRecord, zone: tzinfo | None) -> Iterator[Line]:
    sent = ""
    if attempt.wire is not None:
        did = "written with" if attempt.wire.mode in ("LF", "CRLF") else "sent by"
        sent = f", {size_in_words(attempt.wire.size)} {did} {attempt.wire.mode}"
    tls = attempt.tls or "no TLS"
    hop = attempt.next_hop or "no next hop"
    yield Line(Kind.TEXT, f"{attempt.number}  {moment(attempt.started_at, zone)}  {hop}, {tls}{sent}", 1)
    for address, outcome in attempt.outcomes:
        said = outcome.reply or outcome.reason
        yield Line(Kind.TEXT, f"{address}  {outcome.result.value} at {outcome.stage.value}: {said}", 2)
