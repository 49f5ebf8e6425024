"""What passes between the scheduler and whoever brings a message in transport to its routes: values, and one seam.

A message in transport is claimed and worked on like any other; in place of an attempt the sinks of its transport
events are called. What each did is a `Step`, durable before the next is asked for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec

from lonedot.message.ledger import Entry
from lonedot.queue.plan import Report
from lonedot.spool.interface import Acceptance, Claim, MessageState, RecipientState, Stored

__all__ = ["Preparer", "Step"]


class Step(msgspec.Struct, frozen=True):
    """What is to be committed before anything else is done for a message."""

    message: Stored
    """As it is when this is durable."""
    entries: tuple[Entry, ...] = ()
    recipients: tuple[RecipientState, ...] = ()
    """Those that are new, or changed."""
    reports: tuple[Report, ...] = ()
    state: MessageState = MessageState.QUEUED
    reason: str = ""
    spawned: tuple[Acceptance, ...] = ()
    """Copies of a list, committed with the step."""
    gives_back: bool = False
    """The claim: it is put off, held, or nobody is left. Else the next step follows, or the delivery."""


class Preparer(Protocol):
    """Brings a message in transport on its way."""

    def prepare(self, claim: Claim) -> AsyncGenerator[Step, None]:
        """The next step is asked for when the one before is durable. Behind the last, a message that is not given back
        is no longer in transport, and is delivered.

        What it raises, the message is put off for: nothing of it is forgotten.
        """
        ...
