"""Which files are opened: plain ones alone. A pipe or a device that is named would be waited for, for ever."""

from __future__ import annotations

import stat
from pathlib import Path

from lonedot.config.values import Unfit

__all__ = ["not_plain"]


def not_plain(path: Path) -> Unfit | None:
    """Why that must not be opened; None when it may be, or is not there."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None  # opening it says more
    if stat.S_ISREG(mode):
        return None
    kind = "a folder" if stat.S_ISDIR(mode) else "no plain file"
    return Unfit(f"{path} is {kind}", "name a file")
