"""What delivery events show: the next hop, and what a message has to say of one attempt.

Rules: values only, such as travel to the process of a sink; an event shows what the table of events says and nothing
else, so that a sink does not come to lean on what is there by chance.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from lonedot.message.report import ReportKind
from lonedot.sinks.events import Event
from lonedot.terms.envelope import Recipient
from lonedot.terms.outcome import Outcome
from lonedot.terms.reply import Reply

__all__ = ["Departure", "Hop"]


class Hop(msgspec.Struct, frozen=True, kw_only=True):
    """A session with a next hop, as a sink is shown it."""

    event: Event
    id: str = ""
    """The session's, as logs and transcripts have it; empty when none came about."""
    route: str = ""
    """Name of the route."""
    destination: str = ""
    """What the connections of the route are shared by; empty for a smarthost."""
    next_hop: str = ""
    """`host[address]:port`, as in outcomes; empty when no host was found."""
    host: str = ""
    """Name that was looked up, or the address; empty when there is no connection."""
    address: str = ""
    port: int = 0
    tls: str = ""
    """`TLSv1.3 TLS_AES_256_GCM_SHA384`, or empty."""
    offered: tuple[str, ...] = ()
    """Lines of the reply to EHLO behind the first, such as `SIZE 1000`; none at `session-start`, before EHLO."""
    settings: Mapping[str, str | int | float | bool] = {}
    """The binding's settings, where the sink is called with a `Hop`."""


class Departure(msgspec.Struct, frozen=True, kw_only=True):
    """What a message shows at a delivery event besides envelope and content."""

    event: Event
    hop: Hop | None = None
    recipient: Recipient | None = None
    replies: tuple[tuple[Recipient, Reply | None], ...] | None = None
    outcomes: tuple[tuple[Recipient, Outcome], ...] | None = None
    report: ReportKind | None = None

    def unknown(self, what: str) -> LookupError:
        """What is raised for a thing that this event does not show."""
        return LookupError(f"event {self.event.value!r} shows no {what}")
