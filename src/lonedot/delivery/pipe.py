"""Delivery to a program: one message for one recipient on its standard input, its exit status is the outcome.

Rules: no shell, and no part of an argument is ever put together from an address; the program has the rights of one
user, no way to more, only the variables that the route states, and a deadline behind which its whole process group is
killed; it sees the end of its input only when our octets were those that were accepted. A status that is not in the
table, a signal, or a deadline defers: a program that breaks down says nothing against a message.
"""

from __future__ import annotations

import time

from lonedot.delivery.deposit import Deposit, DepositReport, refused
from lonedot.delivery.routing import Pipe
from lonedot.delivery.transcript import NOTE, Line
from lonedot.message.filed import FileEncoder
from lonedot.sinks.programs import (
    Program,
    Run,
    Runs,
    Unfit,
    arguments_of,
    fault_of_command,
    plain,
    signal_name,
)
from lonedot.terms.address import Address
from lonedot.terms.outcome import Outcome, Result, Stage

__all__ = ["TAKEN", "PipeCarrier", "fault_of_command"]

TAKEN = "taken by the program"

# sysexits.h, with the enhanced status code that it means; what is not here defers with 4.3.0.
_STATUS: dict[int, tuple[str, str]] = {
    64: ("5.3.0", "EX_USAGE"),
    65: ("5.6.0", "EX_DATAERR: it cannot use the message"),
    66: ("4.3.0", "EX_NOINPUT"),
    67: ("5.1.1", "EX_NOUSER: it does not know the recipient"),
    68: ("5.1.2", "EX_NOHOST"),
    69: ("5.3.0", "EX_UNAVAILABLE"),
    70: ("4.3.0", "EX_SOFTWARE"),
    71: ("4.3.0", "EX_OSERR"),
    72: ("4.3.0", "EX_OSFILE"),
    73: ("4.2.0", "EX_CANTCREAT"),
    74: ("4.3.0", "EX_IOERR"),
    75: ("4.3.0", "EX_TEMPFAIL"),
    76: ("5.5.0", "EX_PROTOCOL"),
    77: ("5.7.0", "EX_NOPERM: it does not accept the message"),
    78: ("4.3.5", "EX_CONFIG"),
}


class PipeCarrier:
    """Runs the program of one route."""

    def __init__(self, target: Pipe) -> None:
        self._target = target
        self._program = Program(target.command, target.user, target.memory, target.environment)
        self._runs = Runs()

    def place(self, recipient: Address) -> str:
        return f"pipe:{self._target.command[0]}"

    def stop(self) -> None:
        self._runs.stop()

    def put(self, deposit: Deposit) -> DepositReport:
        place = self.place(deposit.recipient)
        encoder = FileEncoder(deposit.canonical, self._target.line_end)
        began = time.monotonic()
        try:
            arguments = arguments_of(
                self._target.command, deposit.sender.octets, deposit.recipient.octets, deposit.id
            )
            run = self._runs.run(self._program, arguments, encoder.chunks(), self._target.seconds)
        except Unfit as error:
            return DepositReport(refused(place, error.words, error.status))
        except OSError as error:
            return DepositReport(refused(place, f"the program could not be started: {error}", "4.3.0"))
        lines: list[Line] = [(time.monotonic() - began, NOTE, f"exit status {run.status}".encode())]
        if run.said:
            lines.append((time.monotonic() - began, NOTE, b"it said: " + run.said))
        if run.cause is not None:
            return DepositReport(refused(place, str(run.cause), "4.3.0"), lines=lines, cause=run.cause)
        sent = encoder.record() if run.took_all else None
        return DepositReport(self._outcome(place, run, plain(run.said)), sent, lines)

    def _outcome(self, place: str, run: Run, said: str) -> Outcome:
        behind = f": {said}" if said else ""
        if run.is_late:
            words = f"the program was killed: it ran longer than {self._target.seconds:g} seconds{behind}"
            return refused(place, words, "4.3.0")
        if run.status == 0:
            words = TAKEN if run.took_all else f"{TAKEN}, which did not read all of it"
            return Outcome(Result.DELIVERED, Stage.CONTENT, words, None, place, "2.0.0")
        if run.status < 0:
            if self._runs.is_stopped:
                return refused(place, "the relay stopped while the program ran", "4.3.0")
            return refused(place, f"the program was ended by {signal_name(-run.status)}{behind}", "4.3.0")
        status, meaning = _STATUS.get(run.status, ("4.3.0", ""))
        words = f"the program ended with status {run.status}{f' ({meaning})' if meaning else ''}{behind}"
        return refused(place, words, status)
