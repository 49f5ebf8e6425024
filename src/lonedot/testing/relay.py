"""A whole relay inside a test: real sockets on free ports, a real spool in a temporary folder."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from lonedot.app import Relay
from lonedot.config.load import load
from lonedot.config.model import Config
from lonedot.sinks.bindings import Binding
from lonedot.spool.disk import Disk
from lonedot.terms.clock import Clock

__all__ = ["CONFIG", "running_relay"]

CONFIG = """
[server]
hostname = "relay.example.com"
spool = "spool"
{server}

[[listener]]
name = "in"
address = "127.0.0.1:0"
relay_from = ["127.0.0.0/8"]
{listener}

[[route]]
name = "out"
to = "*"
smarthost = "127.0.0.1:{port}"
{route}
"""
"""A first configuration with room for more lines in each table."""


@contextlib.asynccontextmanager
async def running_relay(
    folder: Path,
    toml: str,
    *,
    bindings: Sequence[Binding] | None = None,
    clock: Clock | None = None,
    disk: Disk | None = None,
    change: Callable[[Config], Config] | None = None,
) -> AsyncIterator[Relay]:
    """A started relay from a configuration text; stopped at the end.

    `change` gives values that no file may hold: times too short for people, limits too small for mail.

    Raises:
        ConfigFaults: the text has faults.
        AppFault: it cannot start.
    """
    file = folder / "lonedot.toml"
    file.write_text(toml)
    config = load(file)
    if change is not None:
        config = change(config)
    relay = Relay(config, bindings=bindings, clock=clock, disk=disk)
    await relay.start()
    try:
        yield relay
    finally:
        await relay.stop()
