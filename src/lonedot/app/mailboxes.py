"""POP3 accounts of a relay: made from a configuration, and again from the next one. Only the first worker has any.

Rule: an account whose settings are the same goes on as it is; two never look at one mailbox at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lonedot.admin.values import AdminError
from lonedot.app.observer import RelayObserver
from lonedot.reception.acceptance import Acceptor
from lonedot.reception.pop3_account import AccountSettings, AccountStatus
from lonedot.terms.address import Address

if TYPE_CHECKING:
    from lonedot.reception.pop3 import Pop3Account

__all__ = ["Mailboxes"]


class Mailboxes:
    """Satisfies `admin.mailboxes.Mailboxes`."""

    def __init__(
        self,
        folder: Path,
        acceptors: Callable[[], Mapping[int, Acceptor]],
        has_route: Callable[[Address], bool],
        observer: RelayObserver,
    ) -> None:
        """`folder`: of the journals."""
        self._folder = folder
        self._acceptors = acceptors
        self._has_route = has_route
        self._observer = observer
        self._accounts: list[Pop3Account] = []

    async def open(self, settings: Sequence[AccountSettings], revision: str) -> None:
        """Look after these accounts and no others."""
        kept = [one for one in self._accounts if one.settings in settings]
        for account in self._accounts:
            if account not in kept:
                await account.stop()
        self._accounts = kept
        for account in kept:
            account.revision = revision
        known = [one.settings for one in kept]
        fresh = [one for one in settings if one not in known]
        if not fresh:
            return
        # Who fetches nothing does not load it.
        from lonedot.reception.pop3 import Pop3Account  # noqa: PLC0415

        for one in fresh:
            acceptor = self._acceptors()[one.source]
            account = Pop3Account(one, self._folder, acceptor, self._has_route, self._observer, revision)
            account.start()
            self._accounts.append(account)

    async def close(self) -> None:
        """End all lines; what is on its way into custody gets there."""
        accounts, self._accounts = self._accounts, []
        for account in accounts:
            account.leave()
        for account in accounts:
            await account.stop()

    def statuses(self) -> tuple[AccountStatus, ...]:
        return tuple([account.status for account in self._accounts])

    def poll(self, name: str, *, again: bool) -> AccountStatus:
        for account in self._accounts:
            if account.settings.name == name:
                before = account.status
                account.poll(again=again)
                return before
        names = ", ".join(account.settings.name for account in self._accounts) or "there is none"
        raise AdminError(f"there is no POP3 account {name!r}", "", f"name one of these: {names}")
