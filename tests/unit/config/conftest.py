"""A folder with a configuration in it, and what is said about it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lonedot.config.load import Examined, examine

Say = Callable[..., Examined]

SERVER = '[server]\nhostname = "relay.example.com"\nspool = "spool"\n'
LISTENER = '[[listener]]\naddress = "127.0.0.1:2525"\nrelay_from = ["127.0.0.0/8"]\n'
ROUTE = '[[route]]\nto = "*"\nsmarthost = "127.0.0.1:2526"\n'


@pytest.fixture
def say(tmp_path: Path) -> Say:
    """Write the parts (the usual server, listener and route unless given) into a file, and examine it."""

    def examine_parts(
        extra: str = "", *, server: str = SERVER, listener: str = LISTENER, route: str = ROUTE
    ) -> Examined:
        file = tmp_path / "lonedot.toml"
        file.write_text(server + listener + route + extra, encoding="utf-8")
        file.chmod(0o600)
        return examine(file)

    return examine_parts
