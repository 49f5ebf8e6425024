"""What can be done with POP3 accounts through the control socket."""

from __future__ import annotations

import msgspec

from lonedot.admin.mailboxes import Mailboxes
from lonedot.admin.operations import Desk, Operation
from lonedot.admin.values import AdminError, NoArguments
from lonedot.reception.pop3_account import AccountStatus

__all__ = ["POP3_LIST", "POP3_POLL", "Accounts", "PollArguments"]


class PollArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    again: bool = False
    """Also what was left at the server for good."""


class Accounts(msgspec.Struct, frozen=True):
    accounts: tuple[AccountStatus, ...]
    asked_at: float


async def list_accounts(desk: Desk, _: NoArguments) -> Accounts:
    """All accounts and how they fare."""
    return Accounts(_mailboxes(desk).statuses(), desk.clock.now())


async def poll(desk: Desk, wanted: PollArguments) -> AccountStatus:
    """Look now; the answer is how it was before."""
    return _mailboxes(desk).poll(wanted.name, again=wanted.again)


def _mailboxes(desk: Desk) -> Mailboxes:
    if desk.mailboxes is None:
        raise AdminError("the relay is down, and only a running one fetches mail", "", "lonedot serve")
    return desk.mailboxes


POP3_LIST = Operation("pop3-list", NoArguments, Accounts, list_accounts)
POP3_POLL = Operation("pop3-poll", PollArguments, AccountStatus, poll)
