"""What a pool asks before it opens a connection, where several workers share what a route allows."""

from __future__ import annotations

from typing import Protocol

__all__ = ["ASK_SECONDS", "Leases"]

ASK_SECONDS = 0.1
"""Who wants a connection and got none asks again after this."""


class Leases(Protocol):
    """The connections of one next hop, over all workers. Nothing here waits."""

    def take(self) -> bool:
        """One more may be opened. False: not now; that it is wanted is noted, and is to be said again soon."""
        ...

    def give(self) -> None:
        """One is gone, or came to nothing."""
        ...

    def renounce(self) -> None:
        """No more are wanted."""
        ...

    def is_owed(self, leaving: int) -> bool:
        """One of ours is to be closed behind its message, for another worker; `leaving`: so many already are."""
        ...

    def is_wanted(self) -> bool:
        """Another worker waits for one that lies idle here."""
        ...
