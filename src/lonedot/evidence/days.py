"""Lines in files by day: appended in memory, written in large pieces, found again by file, offset and length.

A file is named by its day (UTC) and a number: `2026-11-22-0003.jsonl`. Every start of a process and every failure
to write begins a new number, so a place that was promised and never written can never be taken by another line.
Several processes may write into one folder, each into a file of its own.

Rules: nothing here raises because of the disk; what could not be written is counted in `lost`. `append` may be
called from the loop while `read` runs in a thread.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["FLUSH_AT", "DayFiles"]

FLUSH_AT = 64 * 1024
"""Octets at which what was appended is written without being asked."""

_RETRY_SECONDS = 1.0
"""After a failure to open a file, the next try comes no sooner."""

_PROCESSES = 64
"""As many may begin a file at the same moment."""

_NAME = re.compile(r"(\d{4}-\d\d-\d\d)-(\d{4,9})")


class DayFiles:
    """The files of one folder. `on_loss` is called once when lines begin to be lost, with the reason."""

    def __init__(self, folder: Path, on_loss: Callable[[str], None] | None = None) -> None:
        self.folder = folder
        self.lost = 0
        """Lines that could not be written since the start."""
        self._on_loss = on_loss
        self._is_losing = False
        self._is_torn = False
        self._gather = threading.Lock()
        self._write = threading.Lock()
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._fd = -1
        self._stem = ""
        self._offset = 0
        """Where the next line will stand."""
        self._day_ends = 0.0
        self._retry_at = 0.0

    def append(self, line: bytes, now: float) -> tuple[str, int] | None:
        """Take one line (its LF included). Its file and offset; None when it is lost.

        Args:
            now: seconds since 1970; decides the file.
        """
        for _ in range(2):
            with self._gather:
                if now < self._day_ends and self._fd >= 0:
                    stem, offset = self._stem, self._offset
                    self._pending.append(line)
                    self._offset += len(line)
                    self._pending_size += len(line)
                    is_full = self._pending_size >= FLUSH_AT
                    break
            with self._write, self._gather:
                self._turn(now)
        else:
            self.lost += 1
            return None
        if is_full:
            self.flush()
        return stem, offset

    def flush(self) -> None:
        """Write what was appended to the system (not synced: evidence is no promise)."""
        with self._write:
            with self._gather:
                pending, fd = self._pending, self._fd
                if not pending:
                    return
                self._pending, self._pending_size = [], 0
            self._hand_over(pending, fd)

    def close(self) -> None:
        """Write what was appended and close the file. Appending opens a new one."""
        self.flush()
        with self._write, self._gather:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    def read(self, stem: str, offset: int, length: int) -> bytes | None:
        """What stands there; None when there is no such file or it is shorter."""
        if _NAME.fullmatch(stem) is None or offset < 0 or length < 0:
            return None
        if stem == self._stem:
            self.flush()
        try:
            with self._path(stem).open("rb") as file:
                if offset + length > os.fstat(file.fileno()).st_size:
                    return None
                file.seek(offset)
                octets = file.read(length)
        except OSError:
            return None
        return octets if len(octets) == length else None

    def stems(self) -> list[str]:
        """The files that are there, oldest first."""
        try:
            names = [path.stem for path in self.folder.glob("*.jsonl")]
        except OSError:
            return []
        return sorted((name for name in names if _NAME.fullmatch(name)), key=_order)

    def size_of(self, stem: str) -> int:
        """Octets in a file as it is on the disk; 0 when it is gone."""
        try:
            return self._path(stem).stat().st_size
        except OSError:
            return 0

    def forget(self, before: float) -> int:
        """Remove the files of days that ended before that time; how many."""
        day = time.strftime("%Y-%m-%d", time.gmtime(before))
        removed = 0
        for stem in self.stems():
            if stem[:10] < day and stem != self._stem:
                try:
                    self._path(stem).unlink()
                    removed += 1
                except OSError:
                    pass
        return removed

    # --- files ---

    def _path(self, stem: str) -> Path:
        return self.folder / f"{stem}.jsonl"

    def _turn(self, now: float) -> None:
        """Begin the file of the day (both locks are held)."""
        if now < self._retry_at and self._fd < 0:
            return
        old_fd, pending = self._fd, self._pending
        self._pending, self._pending_size = [], 0
        if old_fd >= 0:
            self._fd = -1
            if self._is_torn:
                self.lost += len(pending)
            elif pending:
                self._hand_over(pending, old_fd)
            os.close(old_fd)
        self._is_torn = False
        second = int(now)
        day = time.strftime("%Y-%m-%d", time.gmtime(second))
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            stem, self._fd = self._create(day)
        except OSError as error:
            self._retry_at = now + _RETRY_SECONDS
            self._lose(0, error)
            return
        self._stem = stem
        self._offset = 0
        self._day_ends = float(second - second % 86400 + 86400)

    def _create(self, day: str) -> tuple[str, int]:
        """The next file of the day, which nobody else has; raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        taken = [_order(stem)[1] for stem in self.stems() if stem.startswith(day)]
        first = max(taken, default=-1) + 1
        for number in range(first, first + _PROCESSES):
            stem = f"{day}-{number:04d}"
            try:
                return stem, os.open(self._path(stem), flags, 0o600)
            except FileExistsError:
                continue  # another process was quicker
        raise FileExistsError(errno.EEXIST, "every number is taken at once", str(self.folder))

    def _hand_over(self, pending: list[bytes], fd: int) -> None:
        octets = b"".join(pending)
        view = memoryview(octets)
        try:
            while view:
                view = view[os.write(fd, view) :]
        except OSError as error:
            self._lose(len(pending), error)
            # The promised places of what follows are no longer true: the next line begins a new file.
            self._is_torn = True
            self._day_ends = 0.0
        else:
            self._is_losing = False

    def _lose(self, lines: int, error: OSError) -> None:
        self.lost += lines
        if not self._is_losing:
            self._is_losing = True
            if self._on_loss is not None:
                self._on_loss(f"{self.folder}: {error.strerror or error}")


def _order(stem: str) -> tuple[str, int]:
    return stem[:10], int(stem[11:])
