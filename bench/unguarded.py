"""`python -m bench.unguarded ARGUMENTS`: the lonedot command with sinks called as nobody should call them.

Inline sinks are called and their edits are spliced in; there is no guard, no judgement, no entry for each sink, no
deadline and no `on_error`. One entry holds all that was spliced, because what is sent is what the ledger says. The
relay measured beside this one shows what guard and ledger cost. For that, and for nothing else.
"""

from __future__ import annotations

import runpy
from collections.abc import Sequence

from lonedot.message.content import Content
from lonedot.message.edits import lower
from lonedot.message.fold import apply_changes, digests_of
from lonedot.message.ledger import Action, Change, Entry
from lonedot.sinks import dispatch as dispatching
from lonedot.sinks.bindings import Binding
from lonedot.sinks.calls import Decision, Dispatched
from lonedot.sinks.verdicts import Next
from lonedot.sinks.view import Message
from lonedot.spool.interface import Facts
from lonedot.terms.clock import Clock
from lonedot.terms.envelope import Envelope


def dispatch(
    id: str,
    envelope: Envelope,
    facts: Facts,
    content: Content,
    bindings: Sequence[Binding],
    clock: Clock,
    routes: frozenset[str] | None = None,
    until_custody: bool = False,
) -> Dispatched:
    """In the place of `lonedot.sinks.dispatch.dispatch`: every sink adds fields or does nothing."""
    now = content
    changes: list[Change] = []
    for binding in bindings:
        verdict = binding.call(Message(id, envelope, facts, now, binding.settings, binding.guid))
        assert isinstance(verdict, Next)
        if verdict.edits:
            made = lower(verdict.edits, now)
            now = apply_changes(now, made)
            changes += made
    if not changes:
        return Dispatched(Decision.ACCEPT, now, envelope, ())
    entry = Entry(
        "lonedot",
        "",
        "arrival",
        clock.now(),
        0.0,
        digests_of(content),
        digests_of(now),
        Action.KEPT,
        "next",
        tuple(changes),
    )
    return Dispatched(Decision.ACCEPT, now, envelope, (entry,))


def main() -> None:
    """Put it in place before anything takes the other by name, and run `python -m lonedot` here."""
    dispatching.dispatch = dispatch
    runpy.run_module("lonedot", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
