"""A binding in shadow: what it would have done becomes an entry of the ledger, and nothing else.

Rules: such an entry changes nothing, so the octets before and after it are the same; what the sink wanted stands in
`proposed` and `attempted`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import msgspec

from lonedot.message.ledger import Action, Change, Entry, EnvelopeChange, Splice, Transform

__all__ = ["PROPOSED_LIMIT", "SHADOW_CALLS", "SHADOW_SECONDS", "compared", "insert_shadows", "shadowed"]

SHADOW_SECONDS = 0.5
"""How long a message waits for all its shadows together, once everything else is decided.

A process is not waited for any longer; one that runs inline cannot be interrupted, but no other is asked after it.
"""
SHADOW_CALLS = 100
"""Calls of shadows for one message: one that splits could be called for each of thousands of recipients."""
PROPOSED_LIMIT = 64 * 1024
"""Octets of changes that are kept; of larger ones the digests alone."""


def shadowed(entry: Entry) -> Entry:
    """The entry of a sink in shadow from the one it would have had live."""
    attempted, size = entry.attempted, entry.attempted_size
    if attempted is None and entry.after != entry.before:
        attempted = entry.after
    proposed = entry.changes if _size_of(entry.changes) <= PROPOSED_LIMIT else ()
    words = f"in shadow: {_would(entry)}"
    if entry.changes and not proposed:
        words = f"{words}; what it would have changed is too large to be kept here"
    if entry.words:
        words = f"{words} ({entry.words})"
    return msgspec.structs.replace(
        entry,
        after=entry.before,
        action=Action.SHADOWED,
        changes=(),
        words=words,
        attempted=attempted,
        attempted_size=size,
        proposed=proposed,
    )


def insert_shadows(entries: Sequence[Entry], shadows: Sequence[tuple[int, Entry]]) -> tuple[Entry, ...]:
    """The ledger with shadows at their places, each compared with what stands live at the same octets.

    Args:
        entries: of the live bindings.
        shadows: for each, how many live entries stand before it.
    """
    whole: list[Entry] = []
    done = 0
    for place, shadow in shadows:
        whole += entries[done:place]
        done = place
        whole.append(compared(shadow, entries))
    whole += entries[done:]
    return tuple(whole)


def compared(shadow: Entry, entries: Sequence[Entry]) -> Entry:
    """A new version of a sink is tried in shadow beside the old one: do they do the same?"""
    if shadow.verdict == "error":
        return shadow
    wanted = shadow.attempted or shadow.before
    beside = [entry for entry in entries if entry.before == shadow.before and entry.changes]
    same = [entry.binding for entry in beside if entry.after == wanted]
    if same:
        said = f"the same as {', '.join(same)} did"
    elif beside:
        said = f"not what {', '.join(entry.binding for entry in beside)} did"
    else:
        return shadow
    return msgspec.structs.replace(shadow, words=f"{shadow.words}; {said}")


def _would(entry: Entry) -> str:
    match entry.verdict:
        case "hold":
            return "it would have held the message"
        case "discard":
            return "it would have discarded the message"
    match entry.action:
        case Action.KEPT | Action.REDUCED:
            did = "it would have changed the message"
        case Action.UNCHANGED:
            did = "it would have changed nothing"
        case Action.REPAIRED:
            did = "its damage would have been repaired"
        case Action.UNDONE:
            did = "its change would have been undone"
        case Action.HELD:
            did = "the message would have been held because of it"
        case Action.REJECTED:
            did = "the message would have been refused"
        case Action.SKIPPED:
            did = "it failed; the message would have gone on without it"
        case Action.DEFERRED:
            did = "the client would have been told to try again later"
        case Action.SHADOWED:
            did = "it did nothing"
        case _:
            assert_never(entry.action)
    return f"{did}, and ended the event" if entry.verdict == "stop" else did


def _size_of(changes: Sequence[Change]) -> int:
    size = 0
    for change in changes:
        match change:
            case Splice(octets=octets):
                size += len(octets)
            case EnvelopeChange(added, removed, reverse_path):
                size += sum(map(len, (*added, *removed))) + len(reverse_path or b"")
            case Transform():
                pass
            case _:
                assert_never(change)
    return size
