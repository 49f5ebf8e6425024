"""Intersite: mail for an exact address is handed over and consumed; nobody else is sent it.

It goes to a program, a folder or an HTTP endpoint, and a receipt stands in the ledger; or it is sent over a route, such
as an LMTP one. As the sink that took the mail of directory replication it listens to `_IsmService` by default.

Rules a change here must keep:
1. A message is consumed only when it was handed over: what fails is asked again later, from custody.
2. It is called for each recipient alone. For a message with several nothing is consumed.
3. Every try for one message carries the same key, so that who takes it can take it once.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from lonedot.message.filed import LineEnd
from lonedot.sinks.bindings import Role
from lonedot.sinks.calls import Failure
from lonedot.sinks.filing import fault_of_folder, put_into_folder
from lonedot.sinks.foreign import idempotency_key, octets_of, pairs_of, words_of
from lonedot.sinks.posting import Posted, Poster, endpoint_of, signed
from lonedot.sinks.programs import Program, fault_of_command, plain
from lonedot.sinks.running import MessageProgram
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Defer, Discard, Redirect, Reject, Verdict
from lonedot.sinks.view import Message

__all__ = ["Intersite", "IntersiteSettings"]

_PLACES = ("command", "folder", "url", "route")
_AT_ONCE = 4
_ANSWER_OCTETS = 64 * 1024
_REFUSED = frozenset({65, 67, 69, 76, 77, 100})
"""Exit statuses that are for good: those of sysexits.h, and 100 of older mail filters."""
_LATER = frozenset({75, 111})
_BUSY = (429, 503)


class IntersiteSettings(msgspec.Struct, frozen=True):
    """The settings of a binding: one of `command`, `folder`, `url` and `route`."""

    command: str = ""
    """Whole path of a program and its arguments; it reads the message on standard input."""
    folder: str = ""
    """Whole path of a folder; each message is a file in it."""
    url: str = ""
    """Endpoint that the message is posted to."""
    route: str = ""
    """Name of the route that it is sent over."""
    line_ends: LineEnd = LineEnd.CRLF
    """How lines end in what a program or a file is given."""
    user: str = ""
    """Whose rights the program has; needed where the relay runs as root."""
    environment: str = ""
    """Variables of the program, as `NAME=VALUE NAME=VALUE`."""
    memory: int = 512 * 1024 * 1024
    """Octets of address space of the program."""
    key_file: str = ""
    """File with the key by which requests are signed; empty: they are not."""
    ca_file: str = ""
    """File with the certificates that are trusted; empty: those of the system."""

    def __post_init__(self) -> None:
        given = [name for name in _PLACES if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"write one of {', '.join(_PLACES)}, not {' and '.join(given) or 'none'}")
        if self.command and (fault := fault_of_command(words_of("command", self.command))):
            raise ValueError(f"command: {fault}")
        if self.folder and (fault := fault_of_folder(self.folder)):
            raise ValueError(f"folder: {fault}")
        if self.url:
            endpoint_of(self.url)
        pairs_of("environment", self.environment)
        if not 16 * 1024 * 1024 <= self.memory <= 1 << 40:
            raise ValueError(f"memory = {self.memory}: write octets, {16 * 1024 * 1024} to {1 << 40}")


@sink(
    "Intersite",
    settings=IntersiteSettings,
    on="arrival",
    priority=8192,
    rule="RCPT TO=_IsmService@*",
    reads={"body"},
    role=Role.PROTECTIVE,
    split=True,
)
class Intersite:
    """Hands the message over and consumes it."""

    def __init__(self, settings: IntersiteSettings) -> None:
        self._settings = settings
        self._program: MessageProgram | None = None
        self._poster: Poster | None = None
        if settings.command:
            command = words_of("command", settings.command)
            environment = pairs_of("environment", settings.environment)
            program = Program(command, settings.user, settings.memory, environment)
            self._program = MessageProgram(program, _AT_ONCE, settings.line_ends)
            self._name = command[0]
        elif settings.url:
            self._poster = Poster(endpoint_of(settings.url), settings.ca_file, _ANSWER_OCTETS)
            self._name = settings.url.partition("?")[0]

    async def __call__(self, message: Message) -> Verdict:
        if len(message.envelope.recipients) != 1:
            raise Failure("it consumes mail of one recipient: write split = true for the binding")
        if self._program is not None:
            return await self._run(self._program, message)
        if self._poster is not None:
            return await self._post(self._poster, message)
        if self._settings.folder:
            return Discard(f"filed as {await self._file(message)}")
        return Redirect(self._settings.route)

    async def close(self) -> None:
        if self._program is not None:
            self._program.close()
        if self._poster is not None:
            self._poster.close()

    async def _run(self, program: MessageProgram, message: Message) -> Verdict:
        run = await program.run(message)
        said = plain(run.said)
        if run.status == 0:
            if not run.took_all:
                raise Failure(f"{self._name} ended with status 0 and has not read the whole message")
            return Discard(_receipt(self._name, message, said))
        if run.status in _REFUSED:
            return Reject(said or "Not taken")
        if run.status in _LATER:
            return Defer(said or "Try again later")
        raise Failure(f"{self._name} ended with status {run.status}" + (f": {said}" if said else ""))

    async def _post(self, poster: Poster, message: Message) -> Verdict:
        posted = Posted(message.size, lambda: octets_of(message))
        envelope = message.envelope
        fields = [
            ("Content-Type", "message/rfc822"),
            ("Idempotency-Key", idempotency_key(message)),
            ("X-Lonedot-Id", message.id),
            ("X-Lonedot-Sender", _field(envelope.reverse_path.octets)),
            ("X-Lonedot-Recipient", _field(envelope.recipients[0].address.octets)),
        ]
        if self._settings.key_file:
            fields.append(("X-Lonedot-Signature", await signed(posted, self._settings.key_file)))
        reply = await poster.post(posted, fields)
        if 200 <= reply.status <= 299:
            return Discard(_receipt(self._name, message, reply.words))
        if reply.status in _BUSY:
            return Defer("Try again later")
        raise Failure(f"{self._name} answers {reply.words}")

    async def _file(self, message: Message) -> Path:
        name = f"{message.id}.{idempotency_key(message)[:16]}"
        octets = octets_of(message, self._settings.line_ends)
        return await asyncio.to_thread(put_into_folder, self._settings.folder, name, octets)


def _receipt(name: str, message: Message, said: str) -> str:
    """What stands in the ledger: who took it, under which key, and what was said."""
    return f"taken by {name} under the key {idempotency_key(message)}" + (f": {said}" if said else "")


def _field(octets: bytes) -> str:
    """An address in a field of a request, which is ASCII: other octets in percents."""
    return "".join(
        chr(octet) if 0x20 < octet < 0x7F and octet != 0x25 else f"%{octet:02X}" for octet in octets
    )
