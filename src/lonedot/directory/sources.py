"""Who has a mailbox in a domain: the places that can be asked, and a memory of what they said.

Rules: a name is put into a path or a query only as a value, never as syntax; what cannot be asked raises, and is never
taken for no.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from lonedot.directory.faults import DirectoryFault
from lonedot.directory.file import DirectoryFile, LineFault, LineFaults, lines_of
from lonedot.directory.names import key_of, read_address

__all__ = ["FileRecipients", "MaildirRecipients", "Recipients", "Remembered"]

KNOWN_SECONDS = 300.0
"""For so long a yes is remembered."""
UNKNOWN_SECONDS = 30.0
"""And a no: somebody new can write and be written to soon."""
REMEMBERED = 10_000
"""Names of one domain."""
ASK_SECONDS = 20.0

_FOLDER = re.compile(r"[^\x00-\x20/\\\x7f]{1,64}")


class Recipients(Protocol):
    """A place that knows who has a mailbox."""

    async def has(self, local: str) -> bool:
        """Somebody of that name has one.

        Raises:
            DirectoryFault: it cannot be asked now.
        """
        ...

    def known(self, local: str) -> bool | None:
        """The answer where it is at hand; None: it has to be asked. Raises as `has`."""
        ...


class FileRecipients:
    """A file with one name or address a line."""

    def __init__(self, path: Path, domain: str, is_case_sensitive: bool = False) -> None:
        self._sensitive = is_case_sensitive

        def parse(text: str) -> frozenset[str]:
            names = set()
            faults = []
            for number, line in lines_of(text):
                try:
                    address = read_address(line, domain)
                except ValueError as error:
                    faults.append(LineFault(number, str(error), "write one name or address"))
                    continue
                if address.domain == domain.encode():
                    names.add(key_of(address.local, is_case_sensitive))
            if faults:
                raise LineFaults(faults)
            return frozenset(names)

        self._file = DirectoryFile(path, parse)

    def known(self, local: str) -> bool:
        return local in self._file.read()

    async def has(self, local: str) -> bool:
        return self.known(local)


class MaildirRecipients:
    """A folder for each: `/srv/mail/{local}`."""

    def __init__(self, pattern: str, domain: str) -> None:
        """`pattern` has `{local}` once, and perhaps `{domain}`."""
        before, _, after = pattern.replace("{domain}", domain).partition("{local}")
        self._before, self._after = before, after

    def known(self, local: str) -> bool | None:
        if local.startswith(".") or not _FOLDER.fullmatch(local):
            return False  # it would lead out of the folder, or is no name of a folder
        return None

    async def has(self, local: str) -> bool:
        if self.known(local) is False:
            return False
        return await asyncio.to_thread(self._is_there, local)

    def _is_there(self, local: str) -> bool:
        path = Path(self._before + local + self._after)
        root = Path(self._before).parent if not self._before.endswith("/") else Path(self._before)
        try:
            if path.is_dir():
                return True
            if root.is_dir():
                return False
        except OSError as error:
            raise DirectoryFault(f"{path} cannot be looked at: {error.strerror or error}") from error
        # A disk that is not mounted has no folders: nobody is unknown because of that.
        raise DirectoryFault(f"the folder {root} is not there")


class Remembered:
    """Another's answers, remembered for a while. One question for a name at a time, and so long."""

    def __init__(
        self, asked: Recipients, clock: Callable[[], float], ask_seconds: float = ASK_SECONDS
    ) -> None:
        self._asked = asked
        self._clock = clock
        self._ask_seconds = ask_seconds
        self._answers: OrderedDict[str, tuple[bool, float]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[bool]] = {}

    def known(self, local: str) -> bool | None:
        kept = self._answers.get(local)
        if kept is not None and kept[1] > self._clock():
            return kept[0]
        return self._asked.known(local)

    async def has(self, local: str) -> bool:
        known = self.known(local)
        if known is not None:
            return known
        task = self._asking.get(local)
        if task is None:
            task = asyncio.ensure_future(self._in_time(self._asked.has(local)))
            self._asking[local] = task
            task.add_done_callback(lambda done: self._answered(local, done))
        # Who goes away must not end the question for the others who wait for it.
        return await asyncio.shield(task)

    async def _in_time(self, asking: Awaitable[bool]) -> bool:
        try:
            async with asyncio.timeout(self._ask_seconds):
                return await asking
        except TimeoutError as error:
            raise DirectoryFault(f"no answer after {self._ask_seconds:g} s") from error
        except OSError as error:
            raise DirectoryFault(str(error)) from error

    def _answered(self, local: str, task: asyncio.Task[bool]) -> None:
        del self._asking[local]
        if task.cancelled() or task.exception() is not None:
            return
        answer = task.result()
        self._answers[local] = answer, self._clock() + (KNOWN_SECONDS if answer else UNKNOWN_SECONDS)
        self._answers.move_to_end(local)
        if len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
