"""What the tables of a configuration say together, and what the disk says about them.

Everything here is a pure question to the drafts and to files; the answers are `Found` values. A key that could not
be read is not judged a second time.
"""

from __future__ import annotations

import ipaddress
import pwd
import stat
from collections.abc import Iterator

from lonedot.config import (
    check_domains,
    check_listeners,
    check_pop3,
    check_rewrites,
    check_routes,
    check_sendmail,
    check_sinks,
    check_sources,
    disk,
)
from lonedot.config.given import Drafts, Found

__all__ = ["judge"]


def judge(drafts: Drafts) -> Iterator[Found]:
    """Everything that can be said against the tables together."""
    yield from _judge_server(drafts)
    yield from check_listeners.judge(drafts)
    yield from check_routes.judge(drafts)
    yield from check_rewrites.judge(drafts)
    yield from check_sinks.judge(drafts)
    yield from check_sources.judge(drafts)
    yield from _judge_metrics(drafts)
    yield from check_domains.judge(drafts)
    yield from check_sendmail.judge(drafts)
    yield from check_pop3.judge(drafts)


def _judge_metrics(drafts: Drafts) -> Iterator[Found]:
    given = drafts.metrics
    if given is None or given.value is None or given.value.address is None or not given.has("address"):
        return
    address = given.value.address
    for listener in drafts.listeners:
        if listener.value is None or not listener.knows("address"):
            continue
        if check_listeners.collide(listener.value.address, address):
            yield given.fault("address", f"{address} is taken by {listener.where}", "use another port")
    try:
        is_loopback = ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        is_loopback = address.host == "localhost"
    if not is_loopback:
        yield given.warning(
            "address",
            f"{address} can be reached from other machines, and there is no login",
            'write "127.0.0.1:9125", or let a firewall admit the machine that collects alone',
        )


def _judge_server(drafts: Drafts) -> Iterator[Found]:
    given = drafts.server
    server = given.value
    if server is None:
        return
    if given.knows("spool"):
        state = disk.state_of(server.spool)
        if state is None:
            if disk.state_of(server.spool.parent) is None:
                yield given.fault(
                    "spool",
                    f"the folder {server.spool.parent} does not exist",
                    f"run mkdir -p {server.spool.parent}",
                )
        elif not stat.S_ISDIR(state.st_mode):
            yield given.fault(
                "spool", f"{server.spool} is not a folder", "name a folder, or move the file away"
            )
        elif state.st_mode & 0o077:
            yield given.warning(
                "spool",
                f"{server.spool} can be entered by others (mode {stat.S_IMODE(state.st_mode):04o}); mail lies there",
                f"run chmod 700 {server.spool}",
            )
    if given.has("user") and server.user:
        try:
            pwd.getpwnam(server.user)
        except KeyError:
            yield given.fault(
                "user",
                f"there is no user {server.user}",
                f"run useradd --system {server.user}, or name another",
            )
    if given.has("registry") and server.registry is not None and disk.state_of(server.registry) is None:
        yield given.note("registry", f"{server.registry} does not exist yet", "nothing; it counts as empty")
