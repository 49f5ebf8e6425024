"""What the sinks of a session with a next hop are asked: before EHLO, and before QUIT.

Rules: whoever refuses stands in the transcript of the session and in the words of the attempt that failed; a sink is
waited for by its own session only.
"""

from __future__ import annotations

from collections.abc import Callable

from lonedot.delivery.connection import Connection
from lonedot.delivery.jobs import SessionFault
from lonedot.sinks.bindings import Binding, Chains
from lonedot.sinks.calls import Decision
from lonedot.sinks.events import Event
from lonedot.sinks.inquiry import AskElsewhere, HopNote, ask_hop
from lonedot.terms.outcome import Stage

__all__ = ["SessionSinks", "wants_sessions"]


def wants_sessions(chains: Chains) -> bool:
    """Something is bound to the sessions themselves, so that they belong to one virtual server."""
    bound = chains.delivery
    return bound is not None and (Event.SESSION_START in bound or Event.SESSION_END in bound)


class SessionSinks:
    """Those of one virtual server, as they are bound at the moment of asking."""

    def __init__(
        self,
        chains: Callable[[], Chains],
        elsewhere: AskElsewhere,
        noted: Callable[[str, HopNote], None],
    ) -> None:
        """`noted` is told what is worth a line in the log, with the session's id; it must not raise."""
        self._chains = chains
        self._elsewhere = elsewhere
        self._noted = noted

    def at(self, event: Event) -> tuple[Binding, ...]:
        """Those bound to the event."""
        bound = self._chains().delivery
        return () if bound is None else bound.get(event, ())

    async def ask(self, connection: Connection, event: Event) -> None:
        """Ask those of the event.

        Raises:
            SessionFault: the session is not wanted.
        """
        bound = self.at(event)
        if not bound:
            return
        judgement = await ask_hop(connection.hop_at(event), bound, self._elsewhere)
        for note in judgement.notes:
            what = "failed" if note.fault is not None else "refuses"
            connection.note(f"sink {note.binding} at {event.value} {what}: {note.words}")
            self._noted(connection.session, note)
        if judgement.decision is not Decision.ACCEPT:
            final = judgement.decision is Decision.REJECT
            raise SessionFault(
                Stage.LOCAL,
                f"sink {judgement.binding} does not let this next hop be used: {judgement.words}",
                status=judgement.enhanced or ("5.3.0" if final else "4.3.0"),
                is_final=final,
            )
