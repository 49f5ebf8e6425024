"""A program that is given messages, for sinks that are coroutines: what it is told besides, and how many run at once.

Rule: a call that is cancelled kills what it has started, with its group.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec

from lonedot.message.filed import LineEnd
from lonedot.sinks.calls import Failure
from lonedot.sinks.foreign import idempotency_key, octets_of
from lonedot.sinks.programs import Program, Run, Runs, Unfit, arguments_of, plain, signal_name
from lonedot.sinks.view import Message

__all__ = ["LONGEST_SECONDS", "MessageProgram"]

ENVIRONMENT_OCTETS = 12 * 1024
"""Of recipients that are named in a variable; more are counted only."""
LONGEST_SECONDS = 3600.0
"""No run is longer; the deadline of the binding is what usually ends one."""


class MessageProgram:
    """One program, `at_once` times at most."""

    def __init__(self, program: Program, at_once: int, line_end: LineEnd) -> None:
        self._program = program
        self._at_once = at_once
        self._line_end = line_end
        self._threads: ThreadPoolExecutor | None = None
        """Of its own: programs that are slow must not take those by which files are read."""

    async def run(self, message: Message, answer_limit: int = -1) -> Run:
        """Give it the message; it has ended by itself, with some status.

        `answer_limit`: see `Runs.run`.

        Raises:
            Failure: it could not be started, was killed, or says too much.
        """
        arguments, program = self._asked(message)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._at_once, "lonedot-program")
        runs = Runs()
        chunks = octets_of(message, self._line_end)
        work = partial(runs.run, program, arguments, chunks, LONGEST_SECONDS, answer_limit)
        name = program.command[0]
        try:
            run = await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except Unfit as error:
            raise Failure(error.words) from error
        except OSError as error:
            raise Failure(f"{name} could not be started: {error}") from error
        finally:
            runs.stop()  # where the call is cancelled, a thread still waits for it
        said = plain(run.said)
        behind = f": {said}" if said else ""
        if run.cause is not None:
            raise Failure(f"the message could not be read for {name}: {run.cause}") from run.cause
        if run.is_late:
            raise Failure(f"{name} ran longer than {LONGEST_SECONDS:g} s and was killed{behind}")
        if run.is_answer_too_long:
            raise Failure(f"{name} handed back more than {answer_limit} octets")
        if run.status < 0:
            raise Failure(f"{name} was ended by {signal_name(-run.status)}{behind}")
        return run

    def close(self) -> None:
        """Let go of the threads. It may be run again afterwards."""
        if self._threads is not None:
            self._threads.shutdown(wait=False)
            self._threads = None

    def _asked(self, message: Message) -> tuple[list[bytes], Program]:
        """Arguments, and the program with the variables of this message.

        Raises:
            Failure: they cannot be made for it.
        """
        envelope, program = message.envelope, self._program
        sender = envelope.reverse_path.octets
        recipients = [one.address.octets for one in envelope.recipients]
        if "{recipient}" in program.command and len(recipients) != 1:
            raise Failure(
                "its command has {recipient} and the message has several: write split = true for the binding"
            )
        first = recipients[0] if recipients else b""
        try:
            arguments = arguments_of(program.command, sender, first, message.id)
        except Unfit as error:
            raise Failure(error.words) from error
        named = b" ".join(recipients)
        variables = {
            "LONEDOT_ID": message.id,
            "LONEDOT_KEY": idempotency_key(message),
            "LONEDOT_SENDER": _variable(sender),
            "LONEDOT_RECIPIENT_COUNT": str(len(recipients)),
            "LONEDOT_CLIENT": message.facts.client,
            "LONEDOT_HELO": message.facts.helo,
            "LONEDOT_LOGIN": message.facts.login,
        }
        if len(named) <= ENVIRONMENT_OCTETS:
            variables["LONEDOT_RECIPIENTS"] = _variable(named)
        told = tuple((name, value.replace("\0", "")) for name, value in variables.items())
        return arguments, msgspec.structs.replace(program, environment=(*told, *program.environment))


def _variable(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")
