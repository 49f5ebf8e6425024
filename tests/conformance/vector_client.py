"""Plays a framing vector over a real socket and judges what came of it (tests/vectors/README.md)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import quopri
import socket
import ssl
import struct
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec

Json = dict[str, object]

REPLY_SECONDS = 10.0
SETTLE_SECONDS = 0.5


class Played(msgspec.Struct):
    """What the client saw."""

    replies: list[str]
    """First digit of each content reply; `hang` when none came in time, `drop` when the connection was lost."""
    faults: list[str]
    skipped: str = ""
    size_limit: int = 0


def octets_of(segments: Sequence[object], sender: str, size_limit: int) -> bytes:
    made = b""
    for segment in segments:
        if isinstance(segment, str):
            made += segment.replace("{{SENDER}}", sender).encode("latin-1")
        else:
            assert isinstance(segment, dict)
            if "rep" in segment:
                made += str(segment["rep"]).encode("latin-1") * int(cast(int, segment["n"]))
            else:
                piece = str(segment["oversize"]).encode("latin-1")
                made += piece * (int(size_limit * 1.15) // len(piece) + 1)
    return made


class VectorClient:
    """One vector, one connection."""

    def __init__(self, vector: Json, host: str, port: int, sender: str, context: ssl.SSLContext) -> None:
        self.vector = vector
        self.host, self.port, self.sender = host, port, sender
        self.context = context
        self.played = Played([], [])
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self.lost = False

    async def play(self) -> Played:
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=1 << 20)
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._steps()
        finally:
            self.writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await self.writer.wait_closed()
        return self.played

    async def _reply(self) -> str:
        """The code and text of one reply; `hang` or `drop`."""
        lines = []
        while True:
            try:
                line = await asyncio.wait_for(self.reader.readline(), REPLY_SECONDS)
            except TimeoutError:
                return "hang"
            except (OSError, ssl.SSLError):
                line = b""
            if not line.endswith(b"\r\n"):
                self.lost = True
                return "drop"
            lines.append(line)
            if line[3:4] != b"-":
                return b"".join(lines).decode("latin-1")

    async def _command(self, line: str) -> str:
        await self._send(line.encode() + b"\r\n")
        return await self._reply()

    async def _send(self, octets: bytes) -> None:
        try:
            self.writer.write(octets)
            await self.writer.drain()
        except (OSError, ssl.SSLError):
            self.lost = True

    async def _steps(self) -> None:
        await self._reply()
        for step in cast(list[Json], self.vector["steps"]):
            if "open" in step:
                if not await self._open(str(step["open"]), str(step.get("mail", ""))):
                    return
            elif "send" in step:
                await self._send_split(step)
            elif "read" in step:
                if not await self._read(step):
                    break
            elif "silence_ms" in step:
                await self._silence(int(cast(int, step["silence_ms"])) / 1000)
            elif "sleep_ms" in step:
                await asyncio.sleep(int(cast(int, step["sleep_ms"])) / 1000)
            elif "starttls" in step:
                try:
                    await self.writer.start_tls(self.context, server_hostname="localhost")
                except (OSError, ssl.SSLError):
                    self.lost = True
            else:
                await self._close(str(step["close"]))
                return
        await self._settle()

    async def _close(self, how: str) -> None:
        match how:
            case "fin":
                self.writer.close()
            case "half":
                self.writer.write_eof()
                with contextlib.suppress(OSError, TimeoutError):
                    await asyncio.wait_for(self.reader.read(4096), SETTLE_SECONDS)
            case "rst":
                raw = self.writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.writer.transport.abort()
            case _:
                raise ValueError(how)

    async def _open(self, how: str, mail: str) -> bool:
        ehlo = await self._command("EHLO vector.test")
        keywords = {line[4:].split()[0].upper() for line in ehlo.splitlines()}
        for line in ehlo.splitlines():
            words = line[4:].split()
            if words[0].upper() == "SIZE":
                self.played.size_limit = int(words[1])
        missing = set(cast(list[str], self.vector.get("needs", []))) - keywords
        if missing:
            self.played.skipped = f"not offered: {missing}"
            return False
        if how == "ehlo":
            return True
        id = self.vector["id"]
        for line in (f"MAIL FROM:<{self.sender}>{mail}", f"RCPT TO:<{id}.a@dest.test>"):
            answer = await self._command(line)
            assert answer.startswith("2"), (line, answer)
        if how == "data":
            answer = await self._command("DATA")
            assert answer.startswith("354"), answer
        return True

    async def _send_split(self, step: Json) -> None:
        octets = octets_of(cast(list[object], step["send"]), self.sender, self.played.size_limit)
        split = step.get("split")
        cuts: list[int] = []
        if split == "each":
            cuts = list(range(1, len(octets)))
        elif isinstance(split, str) and split.startswith("last:"):
            cuts = list(range(len(octets) - int(split[5:]), len(octets)))
        elif isinstance(split, list):
            cuts = sorted(cut if cut >= 0 else len(octets) + cut for cut in cast(list[int], split))
        gap = int(cast(int, step.get("gap_ms", 0))) / 1000
        start = 0
        for cut in [*cuts, len(octets)]:
            if cut > start:
                await self._send(octets[start:cut])
                if gap:
                    await asyncio.sleep(gap)
                start = cut

    async def _read(self, step: Json) -> bool:
        """False when the rest of the steps is left out."""
        want = str(step.get("want", ""))
        for _ in range(int(cast(int, step["read"]))):
            if self.lost:
                return False
            answer = await self._reply()
            if answer == "hang" and step.get("optional"):
                return True
            digit = answer if answer in ("hang", "drop") else answer[0]
            if step.get("content", True):
                self.played.replies.append(digit)
            if digit == "hang":
                self.played.faults.append("hang")
                return False
            if digit == "drop" or (want and digit not in want):
                return False
        return True

    async def _silence(self, seconds: float) -> None:
        try:
            octets = await asyncio.wait_for(self.reader.read(1000), seconds)
        except TimeoutError:
            return
        except (OSError, ssl.SSLError):
            octets = b""
        if octets:
            self.played.faults.append(f"said {octets!r} where nothing may be said")
        else:
            self.lost = True

    async def _settle(self) -> None:
        """Any reply nobody asked for is a failure, except 4xx or 5xx and a close."""
        if self.lost:
            return
        try:
            octets = await asyncio.wait_for(self.reader.read(4096), SETTLE_SECONDS)
        except TimeoutError:
            await self._command("QUIT")
            return
        except (OSError, ssl.SSLError):
            return
        if octets and not (octets[:1] in b"45" and self.reader.at_eof()):
            self.played.faults.append(f"desync: unasked {octets!r}")


def judge(
    vector: Json,
    allow: Sequence[Json],
    played: Played,
    messages: Mapping[str, Sequence[bytes]],
    bounced: bool,
) -> list[str]:
    """Why none of the outcomes fits; empty when one does.

    Args:
        messages: content by key (`a`, `b`) as the next hop got it.
        bounced: a DSN for it reached the next hop.
    """
    if played.faults:
        return played.faults
    reasons = []
    for outcome in allow:
        reason = _misfit(vector, outcome, played, messages, bounced)
        if not reason:
            return []
        reasons.append(reason)
    return reasons


def _misfit(
    vector: Json, outcome: Json, played: Played, messages: Mapping[str, Sequence[bytes]], bounced: bool
) -> str:
    wanted = outcome["reply"]
    if wanted == "drop":
        if "2" in played.replies or not (played.replies and played.replies[-1] == "drop"):
            return f"replies {played.replies}, wanted a lost connection"
    elif wanted != "any":
        digits = cast(list[str], wanted)
        got = played.replies
        if len(got) != len(digits):
            return f"replies {got}, wanted {digits}"
        for place, (digit, permitted) in enumerate(zip(got, digits, strict=True)):
            last = place == len(digits) - 1
            if digit == "drop" and not (last and "d" in permitted):
                return f"replies {got}, wanted {digits}"
            if digit != "drop" and digit not in permitted:
                return f"replies {got}, wanted {digits}"
    if bool(outcome.get("dsn")) != bounced:
        return f"bounced: {bounced}"
    expected = cast("dict[str, object]", outcome["msgs"])
    if set(expected) != {key for key, found in messages.items() if found}:
        return (
            f"messages {sorted(key for key, found in messages.items() if found)}, wanted {sorted(expected)}"
        )
    for key, contents in expected.items():
        if len(messages[key]) != 1:
            return f"{len(messages[key])} messages to {key}"
        forms = contents if isinstance(contents, list) else [contents]
        content = messages[key][0]
        if not any(_fits(str(vector.get("match", "body")), cast(Json, form), content) for form in forms):
            labels = [cast(Json, form).get("label") for form in forms]
            return f"content of {key} ends {content[-80:]!r}, wanted one of {labels}"
    return ""


def _fits(match: str, form: Json, content: bytes) -> bool:
    if form.get("any"):
        return True
    head, _, body = content.partition(b"\r\n\r\n")
    length = int(cast(int, form["len"]))
    if match == "tail":
        body = content[-length:] if length else b""
    elif match == "decoded":
        body = decoded(head, body)
    return len(body) == length and hashlib.sha256(body).hexdigest() == form["sha256"]


def decoded(head: bytes, body: bytes) -> bytes:
    """The body with quoted-printable or base64 undone."""
    lower = head.lower()
    if b"content-transfer-encoding: quoted-printable" in lower:
        return quopri.decodestring(body)
    if b"content-transfer-encoding: base64" in lower:
        return base64.b64decode(body)
    return body
