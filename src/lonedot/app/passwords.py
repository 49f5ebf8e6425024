"""The logins of routes and of POP3 accounts: passwords out of files, variables, and programs that tell them.

Rule: it blocks as long as the slowest program does, so a relay that works has it done in a thread. A command that only
explains routes does not come here: nobody's password store opens for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from lonedot.app.settings import route_from
from lonedot.config.model import Config, Pop3, Route
from lonedot.config.secrets import ask
from lonedot.config.values import Secret, Unfit
from lonedot.delivery import routing
from lonedot.protocol.client import Login
from lonedot.reception.pop3_account import AccountSettings

__all__ = ["accounts_from", "routes_from"]

_AT_ONCE = 16
"""Programs that are asked at the same time."""

_Told = Mapping[tuple[str, ...], Secret | Unfit]


def routes_from(config: Config) -> list[routing.Route]:
    """The routes with all that an attempt needs. It blocks for about 10 seconds at most for each 16 programs.

    Raises:
        OSError, ValueError: a password cannot be had.
    """
    told = _told_by_programs([route.password_command for route in config.routes if route.login])
    return [route_from(route, config, _login(route, told)) for route in config.routes]


def accounts_from(config: Config) -> tuple[AccountSettings, ...]:
    """The POP3 accounts with their passwords. It blocks as `routes_from` does.

    Raises:
        OSError, ValueError: a password cannot be had.
    """
    told = _told_by_programs([account.password_command for account in config.pop3])
    return tuple([_account(account, config, told) for account in config.pop3])


def _account(account: Pop3, config: Config, told: _Told) -> AccountSettings:
    after = account.delete_after
    return AccountSettings(
        name=account.name,
        host=account.host,
        port=account.at_port,
        user=account.user,
        password=_password(account, f"account {account.name}", told).encode(),
        tls=account.tls,
        tls_ca=account.tls_ca,
        tls_verify=account.tls_verify,
        every_seconds=account.every.total_seconds(),
        timeout_seconds=account.timeout.total_seconds(),
        leave_on_server=account.leave_on_server,
        delete_after_seconds=float("inf") if after is None else after.total_seconds(),
        mode=account.mode,
        mailbox=account.mailbox,
        domains=account.domains,
        undeliverable=account.undeliverable,
        recipients_from=account.recipients_from,
        max_size=account.max_size or config.server.max_size,
        source=account.source,
    )


def _told_by_programs(wanted: Sequence[tuple[str, ...]]) -> _Told:
    """Each program is asked once, however many name it."""
    commands = list(dict.fromkeys(filter(None, wanted)))
    if not commands:
        return {}
    with ThreadPoolExecutor(min(_AT_ONCE, len(commands)), thread_name_prefix="password") as executor:
        return dict(zip(commands, executor.map(ask, commands), strict=True))


def _login(route: Route, told: _Told) -> Login | None:
    if not route.login:
        return None
    return Login(route.login.encode(), _password(route, f"route {route.name}", told).encode())


def _password(one: Route | Pop3, whose: str, told: _Told) -> str:
    if one.password_file is not None:
        return one.password_file.read_text().splitlines()[0]
    if one.password_env:
        return os.environ[one.password_env]
    if one.password_command:
        answer = told[one.password_command]
        if isinstance(answer, Unfit):
            raise ValueError(f"{whose}: {answer.what}; {answer.do}")
        return answer.reveal()
    if one.password is not None:
        return one.password.reveal()
    raise ValueError(f"{whose}: login without a password")
