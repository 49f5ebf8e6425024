"""Programs that a test talks to and that this repository does not bring.

`need` is the one way to ask for such a program: a test without its peer is skipped with the line that
installs it, and fails instead when LONEDOT_PEERS=required, so that no check is lost unseen in CI.
"""

import os
import shutil
from pathlib import Path

import pytest

# Debian keeps mail servers where an ordinary user's PATH does not look.
_SYSTEM_FOLDERS = "/usr/sbin:/sbin:/usr/local/sbin"


def find(program: str) -> Path | None:
    """Where the program is, system folders included; None when it is not installed."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), _SYSTEM_FOLDERS))
    found = shutil.which(program, path=path)
    return Path(found) if found else None


def need(program: str, package: str) -> Path:
    """Where the program is. Without it the calling test is skipped, or fails when peers are required.

    `package` is the Debian package that brings the program.
    """
    found = find(program)
    if found is not None:
        return found
    reason = (
        f"{program} is not installed: apt-get install -y {package} (./dev test --peers installs all peers)"
    )
    if os.environ.get("LONEDOT_PEERS") == "required":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
