"""Routes: those that are never used, mail that would go in a circle, logins that would be shown to the network."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from lonedot.config import disk
from lonedot.config.addresses import Endpoint
from lonedot.config.faults import Severity
from lonedot.config.given import Drafts, Found, Given
from lonedot.config.model import Route
from lonedot.config.reach import TARGETS
from lonedot.config.secrets import program_of
from lonedot.config.values import Unfit
from lonedot.delivery.routing import TlsPolicy

__all__ = ["covers", "judge"]


def judge(drafts: Drafts) -> Iterator[Found]:
    """Everything to say about `[[route]]`."""
    if "route" not in drafts.present:
        yield Found(
            (),
            Severity.FAULT,
            "route",
            "no route: mail could go nowhere",
            'write [[route]] with to = "*" and smarthost = "host:port" below it',
        )
        return
    yield from _judge_order(drafts.routes)
    yield from _judge_reach(drafts)
    for given in drafts.routes:
        if given.value is not None:
            yield from _judge_target(given, given.value)
            yield from _judge_conditions(drafts, given, given.value)
            yield from _judge_loop(drafts, given, given.value)
            yield from _judge_login(drafts, given, given.value)
            yield from _judge_tls(given, given.value)
            yield from _judge_times(given, given.value)


# --- which route is taken ------------------------------------------------------------------------


def covers(wide: str, narrow: str) -> bool:
    """Everything that matches the pattern `narrow` also matches `wide`."""
    wide, narrow = wide.lower(), narrow.lower()
    if wide in ("*", narrow):
        return True
    if narrow == "*" or "@" in wide:
        return False
    domain = narrow.rpartition("@")[2]
    if wide.startswith("*."):
        return domain.removeprefix("*").endswith(wide[1:])
    return domain == wide


def _judge_order(routes: Sequence[Given[Route]]) -> Iterator[Found]:
    earlier: list[tuple[str, str]] = []
    names: dict[str, str] = {}
    for given in routes:
        if given.value is None or not given.knows("to"):
            continue
        by = [next((where for wide, where in earlier if covers(wide, to)), "") for to in given.value.to]
        if all(by):
            yield given.warning(
                "to",
                f"is never used: {by[0]} stands before it and takes the same recipients",
                "put the narrower route first",
            )
        else:
            for number, where in enumerate(by):
                if where:
                    place = (*given.path, "to", number)
                    what = f'"{given.value.to[number]}" is never used: {where} takes it before'
                    yield Found(
                        place, Severity.WARNING, f"{given.where}: to", what, "remove it, or change the order"
                    )
        name = given.value.name
        if name in names:
            yield given.fault("name", f'"{name}" is also the name of {names[name]}', "use different names")
        names.setdefault(name, given.where)
        if not any(given.has(name) for name in CONDITIONS):
            earlier += [(to, given.where) for to in given.value.to]  # else what it does not take goes on


def _judge_reach(drafts: Drafts) -> Iterator[Found]:
    if any(given.value is None or not given.knows("to") for given in drafts.routes):
        return
    patterns = [to for given in drafts.routes if given.value is not None for to in given.value.to]

    rewrites = [given.value for given in drafts.rewrites if given.value is not None and given.has("to")]

    def reached(wanted: str) -> bool:
        by = (one.into for one in rewrites if wanted != "*" and any(covers(to, wanted) for to in one.to))
        wanted = next(by, wanted)
        return any(covers(to, wanted) for to in patterns)

    for given in drafts.listeners:
        listener = given.value
        if listener is None:
            continue
        if given.knows("relay_from") and listener.relay_from and not reached("*"):
            yield given.note(
                "relay_from",
                "its clients may send anywhere, but no route has the pattern *",
                'nothing if that is meant (other recipients are refused); else add a route with to = "*"',
            )
        for number, domain in enumerate(listener.relay_to if given.knows("relay_to") else ()):
            if not reached(domain):
                place = (*given.path, "relay_to", number)
                what = f"mail for {domain} is taken, but no route leads there"
                yield Found(
                    place,
                    Severity.FAULT,
                    f"{given.where}: relay_to",
                    what,
                    f'add a route with to = "{domain}"',
                )
    server = drafts.server.value
    if server is not None and drafts.server.knows("postmaster", "hostname"):
        postmaster = server.postmaster.text
        if not reached(postmaster):
            yield drafts.server.warning(
                "postmaster",
                f"no route leads to {postmaster}, and everybody may write to postmaster",
                "set postmaster to an address that a route takes",
            )


# --- where it leads, and for what -----------------------------------------------------------------


def _judge_target(given: Given[Route], route: Route) -> Iterator[Found]:
    if not given.knows(*TARGETS):
        return
    named = [name for name in TARGETS if given.has(name) and getattr(route, name) is not False]
    if not named:
        do = "write smarthost, mx = true, lmtp, maildir, pipe, drop = true, discard = true or hold"
        yield given.fault("", "leads nowhere", do)
    for extra in named[1:]:
        yield given.fault(extra, f"stands beside {named[0]}", "keep one of the two, or make two routes")
    for name, target in _OF_TARGET:
        if given.has(name) and not set(target.split(" or ")) & set(named):
            yield given.warning(name, f"is not used: the route has no {target}", "remove it")
    if route.login and named and named[0] != "smarthost":
        yield given.fault("login", f"cannot be used with {named[0]}", "remove it, or name a smarthost")


_OF_TARGET = (
    ("ip", "mx"),
    ("mx_port", "mx"),
    ("maildir_create", "maildir"),
    ("pipe_user", "pipe"),
    ("pipe_seconds", "pipe"),
    ("pipe_memory", "pipe"),
    ("pipe_environment", "pipe"),
    ("line_end", "maildir or pipe"),
)

CONDITIONS = ("from", "listener", "network", "size_over", "size_under", "header")

_WITHOUT_LISTENER = ("pickup", "sendmail", "dsn", "list")


def _judge_conditions(drafts: Drafts, given: Given[Route], route: Route) -> Iterator[Found]:
    if (
        given.knows("size_over", "size_under")
        and route.size_over is not None
        and route.size_under is not None
        and route.size_under <= route.size_over + 1
    ):
        yield given.warning("size_under", "leaves no size over for it", "make it larger than size_over")
    if not given.knows("listener") or any(not one.knows("name", "address") for one in drafts.listeners):
        return
    names = {one.value.name for one in drafts.listeners if one.value is not None}
    for number, name in enumerate(route.listener):
        if name not in names and name not in _WITHOUT_LISTENER:
            what = f'there is no listener "{name}"'
            do = f"use one of: {', '.join(sorted(names))}"
            yield Found(
                (*given.path, "listener", number), Severity.FAULT, f"{given.where}: listener", what, do
            )


# --- circles -------------------------------------------------------------------------------------


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _judge_loop(drafts: Drafts, given: Given[Route], route: Route) -> Iterator[Found]:
    server = drafts.server.value
    hostname = server.hostname if server is not None else ""
    if not given.knows("smarthost"):
        return
    for number, hop in enumerate(route.smarthost):
        for listener in drafts.listeners:
            if listener.value is None or not listener.knows("address"):
                continue
            if _meets(hop, listener.value.address, hostname):
                place = (*given.path, "smarthost", number)
                what = f"{hop} is this relay's own {listener.where}: mail would go in a circle"
                yield Found(place, Severity.FAULT, f"{given.where}: smarthost", what, "name the next server")
                break


def _meets(hop: Endpoint, own: Endpoint, hostname: str) -> bool:
    if hop.port != own.port:
        return False
    host = hop.host.lower()
    if host in (own.host.lower(), hostname):
        return True
    if _is_loopback(host):
        return own.host in ("0.0.0.0", "::", "localhost") or (host == "localhost" and _is_loopback(own.host))
    return False


# --- login and TLS -------------------------------------------------------------------------------


_PASSWORD_KEYS = ("password", "password_file", "password_env", "password_command")
"""Where a password may come from."""


def _judge_login(drafts: Drafts, given: Given[Route], route: Route) -> Iterator[Found]:
    sources = [name for name in _PASSWORD_KEYS if given.has(name)]
    if not given.knows("login", *_PASSWORD_KEYS):
        return
    for extra in sources[1:]:
        yield given.fault(extra, f"stands beside {sources[0]}", "keep one of the two")
    if sources and not route.login:
        yield given.fault(sources[0], "is a password without a login", 'write login = "…"')
    if not route.login:
        return
    if not sources:
        yield given.fault("login", "has no password", "write password_file, password_env or password_command")
    file = drafts.file_of((*given.path, "password"))
    if given.has("password") and disk.mode_of(file) & 0o077:
        yield given.warning(
            "password", f"others can read it in {file}", f"use password_file, or run chmod 600 {file}"
        )
    if given.has("password_file") and route.password_file is not None:
        mode = disk.mode_of(route.password_file)
        if mode & 0o007:
            yield given.fault(
                "password_file",
                f"{route.password_file} can be read by everybody (mode {mode:04o})",
                f"run chmod 600 {route.password_file}",
            )
    if given.has("password_command"):
        yield from _judge_command(drafts, given, route.password_command)
    if not given.has("password"):
        unfit = disk.find_password(route)
        if isinstance(unfit, Unfit):
            yield given.fault("password_env" if route.password_env else "password_file", unfit.what, unfit.do)
    if (
        route.tls is TlsPolicy.OFF
        and given.knows("tls", "smarthost")
        and not all(_is_loopback(hop.host) for hop in route.smarthost)
    ):
        yield given.fault(
            "tls", "is off, so the password would cross the network in clear", 'write tls = "required"'
        )


def _judge_command(drafts: Drafts, given: Given[Route], command: Sequence[str]) -> Iterator[Found]:
    program = program_of(command)
    if isinstance(program, Unfit):
        yield given.fault("password_command", program.what, program.do)
    file = drafts.file_of((*given.path, "password_command"))
    mode = disk.mode_of(file)
    if mode & 0o002:
        what = f"anybody may write {file} (mode {mode:04o}), and what it names is run"
        yield given.fault("password_command", what, f"run chmod o-w {file}")


def _judge_tls(given: Given[Route], route: Route) -> Iterator[Found]:
    if not given.knows("tls", "tls_ca", "ehlo_off", "smarthost"):
        return
    if route.tls_ca is not None:
        if route.tls is not TlsPolicy.VERIFIED:
            yield given.warning("tls_ca", f"is not used: tls is {route.tls.value}", 'write tls = "verified"')
        unfit = disk.check_ca(route.tls_ca)
        if unfit is not None:
            yield given.fault("tls_ca", unfit.what, unfit.do)
    needs_starttls = any(hop.port != 465 for hop in route.smarthost)
    if (
        route.tls in (TlsPolicy.REQUIRED, TlsPolicy.VERIFIED)
        and "STARTTLS" in route.ehlo_off
        and (needs_starttls or route.mx)
    ):
        yield given.fault("ehlo_off", "switches STARTTLS off, and tls asks for it", "remove STARTTLS here")


def _judge_times(given: Given[Route], route: Route) -> Iterator[Found]:
    if not given.knows("expire", "delay_notice", "retry_minutes"):
        return
    if given.has("delay_notice") and route.delay_notice >= route.expire:
        yield given.warning(
            "delay_notice", "is never sent: the message expires before", "make it shorter than expire"
        )
    if route.retry_minutes[0] * 60 >= route.expire.total_seconds():
        yield given.warning(
            "retry_minutes", "the first retry comes after the message has expired", "make it shorter"
        )
