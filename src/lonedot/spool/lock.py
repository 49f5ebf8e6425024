"""The lock of a spool: one process has it; the kernel takes it back when that process dies.

A parent may hand it to its workers: it is one open file then, and free when the last of them has closed it.
"""

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
        self._is_shared = False
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 64, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise SpoolLocked(f"the spool {path.parent} is in use by process {holder}") from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    @classmethod
    def handed(cls, descriptor: int) -> SpoolLock:
        """The lock that a parent has, and shares: `descriptor` is its open file, and ours from now on."""
        lock = cls.__new__(cls)
        lock._descriptor = descriptor
        lock._is_shared = True
        os.set_inheritable(descriptor, False)
        return lock

    @property
    def descriptor(self) -> int:
        """Its open file, for a program that this one becomes."""
        return self._descriptor

    def release(self) -> None:
        """Let it go. May be called twice."""
        if self._descriptor >= 0:
            if not self._is_shared:
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1
