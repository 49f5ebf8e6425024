"""The program bridge: any program that reads a message on standard input is a sink.

It is run once for each message, without a shell, with limits and rights of its own (`sinks.programs`). Its exit status
says what becomes of the message; on standard output it may hand back the message, or a verdict in JSON.

Rules a change here must keep:
1. A status that is not in the table, a signal, the deadline and an answer that cannot be used are errors of the sink:
   `on_error` decides, and nothing passes that the program has not passed.
2. A call that is cancelled leaves no process behind.
3. What the program prints for people is bounded and cleaned before it stands in any words.
"""

from __future__ import annotations

import enum

import msgspec

from lonedot.message.edits import Edit
from lonedot.message.filed import LineEnd
from lonedot.sinks.bindings import Role
from lonedot.sinks.calls import Failure
from lonedot.sinks.foreign import pairs_of, verdict_from, words_of
from lonedot.sinks.programs import NOT_STARTED, Program, Run, fault_of_command, plain
from lonedot.sinks.running import MessageProgram
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Defer, Discard, Hold, Next, Reject, Stop, Verdict
from lonedot.sinks.view import Message

__all__ = ["ProgramFilter", "ProgramSettings", "Returns", "Status"]

ANSWER_OCTETS = 64 * 1024 * 1024


class Returns(enum.Enum):
    """What the program prints on standard output."""

    NOTHING = "nothing"
    """Words for people, as on standard error."""
    MESSAGE = "message"
    """The message as it is to be."""
    JSON = "json"
    """A verdict."""


class Status(enum.Enum):
    """What an exit status says."""

    PASS = "pass"  # noqa: S105  # no password
    STOP = "stop"
    REJECT = "reject"
    DEFER = "defer"
    HOLD = "hold"
    DISCARD = "discard"
    ERROR = "error"


# sysexits.h, and what filters of other mail servers say. What is not here is an error of the sink.
_STATUSES = {
    0: Status.PASS,
    65: Status.REJECT,  # EX_DATAERR
    67: Status.REJECT,  # EX_NOUSER
    68: Status.REJECT,  # EX_NOHOST
    69: Status.REJECT,  # EX_UNAVAILABLE, by which filters behind a queue say it
    75: Status.DEFER,  # EX_TEMPFAIL
    76: Status.REJECT,  # EX_PROTOCOL
    77: Status.REJECT,  # EX_NOPERM
    99: Status.DISCARD,
    100: Status.REJECT,
    111: Status.DEFER,
}


class ProgramSettings(msgspec.Struct, frozen=True):
    """The settings of a binding."""

    command: str
    """Whole path of the program and its arguments, apart by spaces; quotes around what holds some. `{sender}`,
    `{recipient}` and `{id}` may be whole arguments."""
    returns: Returns = Returns.NOTHING
    line_ends: LineEnd = LineEnd.LF
    """How lines end in what it reads."""
    statuses: str = ""
    """Exit statuses besides the usual ones, as `1=reject 2=hold`."""
    environment: str = ""
    """Variables, as `NAME=VALUE NAME=VALUE`."""
    user: str = ""
    """Whose rights it has; needed where the relay runs as root."""
    memory: int = 512 * 1024 * 1024
    """Octets of address space."""
    at_once: int = 8
    """How many may run at the same time; the next call waits, and its deadline runs meanwhile."""
    largest_answer: int = ANSWER_OCTETS
    """Octets that it may hand back. They are in memory meanwhile."""

    def __post_init__(self) -> None:
        fault = fault_of_command(words_of("command", self.command))
        if fault:
            raise ValueError(f"command: {fault}")
        for name, value in pairs_of("environment", self.environment):
            if "\0" in name + value:
                raise ValueError("environment: must not hold NUL")
        table_of(self.statuses)
        if not 16 * 1024 * 1024 <= self.memory <= 1 << 40:
            raise ValueError(f"memory = {self.memory}: write octets, {16 * 1024 * 1024} to {1 << 40}")
        if not 1 <= self.at_once <= 50:
            raise ValueError(f"at_once = {self.at_once}: write 1 to 50")
        if not 0 < self.largest_answer <= 1 << 30:
            raise ValueError(f"largest_answer = {self.largest_answer}: write octets, 1 to {1 << 30}")


def table_of(statuses: str) -> dict[int, Status]:
    """What each exit status says.

    Raises:
        ValueError: it is not written as `1=reject 2=hold`.
    """
    table = dict(_STATUSES)
    for code, name in pairs_of("statuses", statuses):
        try:
            said = Status(name)
        except ValueError:
            names = ", ".join(status.value for status in Status)
            raise ValueError(f"statuses: {name!r} is none of {names}") from None
        if not (code.isascii() and code.isdigit() and int(code) <= 255):
            raise ValueError(f"statuses: {code!r} is no exit status; write 0 to 255")
        if int(code) == NOT_STARTED:
            raise ValueError(f"statuses: {NOT_STARTED} says that the program could not be started")
        table[int(code)] = said
    return table


@sink(
    "Program",
    settings=ProgramSettings,
    on="arrival",
    effects={"header", "body", "envelope"},
    reads={"body"},
    role=Role.PROTECTIVE,
)
class ProgramFilter:
    """Runs the program on the message, and takes what it says."""

    def __init__(self, settings: ProgramSettings) -> None:
        self._settings = settings
        self._table = table_of(settings.statuses)
        command = words_of("command", settings.command)
        self._name = command[0]
        environment = pairs_of("environment", settings.environment)
        program = Program(command, settings.user, settings.memory, environment)
        self._running = MessageProgram(program, settings.at_once, settings.line_ends)

    async def __call__(self, message: Message) -> Verdict:
        limit = -1 if self._settings.returns is Returns.NOTHING else self._settings.largest_answer
        return self._verdict(await self._running.run(message, limit))

    async def close(self) -> None:
        self._running.close()

    def _verdict(self, run: Run) -> Verdict:
        """What the run says.

        Raises:
            Failure: nothing that can be used.
        """
        said = plain(run.said)
        name = self._name
        match self._table.get(run.status, Status.ERROR):
            case Status.PASS:
                return self._passed(run)
            case Status.STOP:
                return Stop()
            case Status.REJECT:
                return Reject(said or "Refused by a filter")
            case Status.DEFER:
                return Defer(said or "Try again later")
            case Status.HOLD:
                return Hold(said or f"{name} ended with status {run.status}")
            case Status.DISCARD:
                return Discard(said or f"{name} ended with status {run.status}")
            case Status.ERROR:
                raise Failure(f"{name} ended with status {run.status}" + (f": {said}" if said else ""))

    def _passed(self, run: Run) -> Verdict:
        match self._settings.returns:
            case Returns.NOTHING:
                return Next()
            case Returns.MESSAGE:
                if not run.answer:
                    raise Failure(f"{self._name} ended with status {run.status} and no message")
                return Next([Edit.replace_message(run.answer)])
            case Returns.JSON:
                return verdict_from(run.answer)
