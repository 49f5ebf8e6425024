"""A host that speaks LMTP, asked by MAIL and RCPT whether it would take mail for somebody; no message follows.

Rules: 250 and 251 are yes, a 5xx with 5.1.x or without a code of its own is no; anything else says nothing, and raises.
"""

from __future__ import annotations

import asyncio
import re

from lonedot.directory.faults import DirectoryFault

__all__ = ["LmtpRecipients"]

LINE_LIMIT = 4096
"""Octets of one line of a reply."""
LINES_LIMIT = 100
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}")
"""Signs of a Dot-string (RFC 5321 §4.1.2)."""
_UNKNOWN = (550, 551, 553, 554, 521, 556)


class LmtpRecipients:
    """Asks over one connection for each question; a memory stands before it."""

    def __init__(self, where: str, domain: str, hostname: str) -> None:
        """`where` is `unix:/path`, or host and port."""
        self._where = where
        self._domain = domain
        self._hostname = hostname

    def known(self, local: str) -> bool | None:
        """False of what cannot stand in a command without quotes; else it has to be asked."""
        return None if _NAME.fullmatch(local) else False

    async def has(self, local: str) -> bool:
        if self.known(local) is False:
            return False
        try:
            reader, writer = await self._connect()
        except OSError as error:
            raise DirectoryFault(f"{self._where} cannot be reached: {error.strerror or error}") from error
        try:
            return await self._ask(local, reader, writer)
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
            raise DirectoryFault(f"{self._where}: {error}") from error
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._where.startswith("unix:"):
            return await asyncio.open_unix_connection(self._where[5:], limit=LINE_LIMIT)
        host, _, port = self._where.rpartition(":")
        return await asyncio.open_connection(host.strip("[]"), int(port), limit=LINE_LIMIT)

    async def _ask(self, local: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await self._expect(reader, "the greeting")
        for command in (f"LHLO {self._hostname}", "MAIL FROM:<>"):
            writer.write(f"{command}\r\n".encode())
            await self._expect(reader, command)
        writer.write(f"RCPT TO:<{local}@{self._domain}>\r\n".encode())
        code, line = await _reply(reader)
        writer.write(b"RSET\r\nQUIT\r\n")
        if 200 <= code < 300:
            return True
        status = line[4:].split(" ")[0]
        if code in _UNKNOWN and (not status.startswith("5.") or status.startswith("5.1.")):
            return False
        raise DirectoryFault(f"{self._where} answered RCPT with {line[:200]!r}")

    async def _expect(self, reader: asyncio.StreamReader, what: str) -> None:
        code, line = await _reply(reader)
        if not 200 <= code < 300:
            raise DirectoryFault(f"{self._where} answered {what} with {line[:200]!r}")


async def _reply(reader: asyncio.StreamReader) -> tuple[int, str]:
    """The code and the last line of a reply. Raises ValueError when it is none."""
    for _ in range(LINES_LIMIT):
        line = (await reader.readuntil(b"\n")).decode("utf-8", "backslashreplace").rstrip("\r\n")
        if len(line) < 3 or not line[:3].isdigit():
            raise ValueError(f"{line[:80]!r} is not a reply")
        if line[3:4] != "-":
            return int(line[:3]), line
    raise ValueError(f"a reply of more than {LINES_LIMIT} lines")
