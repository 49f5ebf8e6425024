"""The logins of routes: passwords out of files, variables, and programs that tell them.

Rule: it blocks as long as the slowest program does, so a relay that works has it done in a thread. A command that only
explains routes does not come here: nobody's password store opens for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from lonedot.app.settings import route_from
from lonedot.config.model import Config, Route
from lonedot.config.secrets import ask
from lonedot.config.values import Secret, Unfit
from lonedot.delivery import routing
from lonedot.protocol.client import Login

__all__ = ["routes_from"]

_AT_ONCE = 16
"""Programs that are asked at the same time."""

_Told = Mapping[tuple[str, ...], Secret | Unfit]


def routes_from(config: Config) -> list[routing.Route]:
    """The routes with all that an attempt needs. It blocks for about 10 seconds at most for each 16 programs.

    Raises:
        OSError, ValueError: a password cannot be had.
    """
    told = _told_by_programs(config.routes)
    return [route_from(route, config, _login(route, told)) for route in config.routes]


def _told_by_programs(routes: Sequence[Route]) -> _Told:
    """Each program is asked once, however many routes name it."""
    commands = list(dict.fromkeys(route.password_command for route in routes if _is_asked(route)))
    if not commands:
        return {}
    with ThreadPoolExecutor(min(_AT_ONCE, len(commands)), thread_name_prefix="password") as executor:
        return dict(zip(commands, executor.map(ask, commands), strict=True))


def _is_asked(route: Route) -> bool:
    return bool(route.login and route.password_command)


def _login(route: Route, told: _Told) -> Login | None:
    if not route.login:
        return None
    if route.password_file is not None:
        password = route.password_file.read_text().splitlines()[0]
    elif route.password_env:
        password = os.environ[route.password_env]
    elif route.password_command:
        answer = told[route.password_command]
        if isinstance(answer, Unfit):
            raise ValueError(f"route {route.name}: {answer.what}; {answer.do}")
        password = answer.reveal()
    elif route.password is not None:
        password = route.password.reveal()
    else:
        raise ValueError(f"route {route.name}: login without a password")
    return Login(route.login.encode(), password.encode())
