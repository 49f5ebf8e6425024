"""POP3 accounts, as operations see them."""

from __future__ import annotations

from typing import Protocol

from lonedot.reception.pop3_account import AccountStatus

__all__ = ["Mailboxes"]


class Mailboxes(Protocol):
    """Given by the app."""

    def statuses(self) -> tuple[AccountStatus, ...]: ...

    def poll(self, name: str, *, again: bool) -> AccountStatus:
        """Have it look now; how it was before. Raises AdminError: there is no such account."""
        ...
