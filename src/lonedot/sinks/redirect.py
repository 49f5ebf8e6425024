"""Redirecting: the route that a sink names must be one of the configuration, and falls with edits that are undone."""

from __future__ import annotations

from lonedot.message.content import Content
from lonedot.message.ledger import Action
from lonedot.sinks.bindings import Binding
from lonedot.sinks.calls import Answer, Failure
from lonedot.sinks.judge import Taken, failed, take
from lonedot.sinks.standing import Fault
from lonedot.sinks.verdicts import Verdict
from lonedot.terms.envelope import Envelope

__all__ = ["UnknownRoute", "route_of", "take_routed"]


class UnknownRoute(Failure):
    """A sink redirects to a route that there is not."""

    fault = Fault.NONSENSE


def take_routed(
    binding: Binding,
    answer: Answer,
    content: Content,
    envelope: Envelope,
    routes: frozenset[str] | None,
) -> tuple[Verdict | None, Taken]:
    """As `take`; a route that is none of `routes` is a fault of the sink (None: there is nothing to compare with)."""
    verdict, taken = take(binding, answer, content, envelope)
    if taken.route and routes is not None and taken.route not in routes:
        known = ", ".join(sorted(routes)) or "none"
        error = UnknownRoute(f"it redirects to the route {taken.route!r}; there are: {known}")
        return None, failed(binding, error, content, envelope, Fault.NONSENSE)
    return verdict, taken


def route_of(taken: Taken) -> str:
    """The route that is in force after this call: a verdict falls with its edits. Empty: as before."""
    return "" if taken.action is Action.UNDONE else taken.route
