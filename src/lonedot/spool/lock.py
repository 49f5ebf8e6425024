"""The lock of a spool: one process has it; the kernel takes it back when that process dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from lonedot.spool.interface import SpoolLocked

__all__ = ["SpoolLock"]


class SpoolLock:
    """Held from construction to `release`.

    Raises:
        SpoolLocked: another process has it; the words name it.
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 64, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise SpoolLocked(f"the spool {path.parent} is in use by process {holder}") from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Let it go. May be called twice."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1
