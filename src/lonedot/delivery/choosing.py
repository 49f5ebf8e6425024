"""Chooses the route of a recipient of a stored message.

Rule: the octets are read only where a route asks for a header field.
"""

from __future__ import annotations

from collections.abc import Callable

from lonedot.delivery.conditions import Circumstances
from lonedot.delivery.routing import RouteTable
from lonedot.message.content import Content
from lonedot.message.fold import FoldFault, fold
from lonedot.message.transforms import CannotTransform
from lonedot.spool.interface import ContentDamaged, NoSuchMessage, SpoolFault, Stored
from lonedot.terms.address import Address
from lonedot.terms.ids import MessageId

__all__ = ["RouteChooser"]


class RouteChooser:
    """One per worker. What it found out about a message is kept for that message's other recipients."""

    def __init__(self, routes: RouteTable, content_of: Callable[[MessageId], Content]) -> None:
        """`content_of` is `Spool.content`."""
        self._routes = routes
        self._content_of = content_of
        self._last: tuple[Stored, Circumstances] | None = None

    def name_for(self, address: Address, stored: Stored) -> str | None:
        """The name of the route, for the scheduler; None when no route takes it."""
        message = self._circumstances(stored) if self._routes.is_conditional else None
        route = self._routes.choose(address, message)
        return None if route is None else route.name

    def _circumstances(self, stored: Stored) -> Circumstances:
        if self._last is None or self._last[0] is not stored:
            head: list[bytes] = []

            def read() -> bytes:
                if not head:
                    head.append(self._head(stored))
                return head[0]

            facts = stored.facts
            message = Circumstances(
                stored.envelope.reverse_path, facts.listener or facts.source, facts.client, stored.size, read
            )
            self._last = stored, message
        return self._last[1]

    def _head(self, stored: Stored) -> bytes:
        """The header section of the queued form, as all recipients have it.

        Empty when it cannot be read: the attempt, which needs it too, says what is wrong.
        """
        try:
            return fold(self._content_of(stored.id), stored.ledger).head
        except (SpoolFault, NoSuchMessage, ContentDamaged, FoldFault, CannotTransform, OSError, ValueError):
            return b""
