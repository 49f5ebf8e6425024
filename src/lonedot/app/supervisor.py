"""The parent of the relay: starts its workers, watches their inline sinks, starts them again. Run by its path.

`lonedot serve` becomes this program: it keeps its process id, and holds no code of the relay.
A worker is the command as it was given, started once more with `LONEDOT_WATCH` in its environment. Between the two:

- shared memory (`lonedot.sinks.board`), one for each worker: its state, and which inline sink runs since when;
- one more shared memory, the same for all workers and over their deaths, of which the parent knows nothing;
- a pair of sockets for each worker: its end is the end of the parent, on which the worker drains and stops; over it
  the worker hands the parent each listening socket that it opens, and says which are no more. The parent passes that
  on to the other workers;
- the listening sockets: the parent has them from the start on, never accepts, and hands them to each worker;
- the lock of the spool: one open file, held by the parent and every worker, free when the last of them has ended;
- signals: SIGHUP is passed on to the first worker; the first SIGTERM or SIGINT has all drain, the second ends them.

Rules:
1. The first worker is started alone; the others when it is ready. A worker that ends by itself before it was ever
   ready (a fault in the configuration) ends the parent, with its exit code. So does one that stopped in order. Any
   other end is a death, and that worker is started again; the others go on.
2. What ran when a worker was killed or died is on disk before the next one is started.
3. Nothing is imported here at run time but small modules of the standard library and `lonedot.sinks.board`.
4. A listening socket is closed only when a worker says so, or when the parent is told to stop.
"""

from __future__ import annotations

import _socket  # the part of `socket` that is written in C: the rest of it is larger than all of this
import contextlib
import json
import os
import signal
import sys
import time
from array import array
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

if __name__ == "__main__":  # run by its path, with nothing but the standard library to be found
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from lonedot.sinks import board

__all__ = ["Backoff", "Supervisor", "Suspect", "suspects"]

LOOK_SECONDS = 0.25
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 30.0
LIFE_SECONDS = 60.0
"""A worker that lived so long has earned a quick start of the next one."""
KEPT_STALLS = 100
"""Entries of `stalled.json` that wait to be booked."""

SOCKETS_ENVIRONMENT = "LONEDOT_SOCKETS"
"""As `lonedot.reception.sockets` reads it: a JSON object, key to descriptor."""
SHARED_SIZE = 1 << 20
"""Octets that all workers share; none is used before a worker writes there."""
SOCKETS_LIMIT = 1024
KEY_LIMIT = 1024
"""Octets of one message of a worker: a sign and a key."""

_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""A worker that dies of these was killed by somebody; the sink that ran meanwhile need not have to do with it."""


class Suspect(NamedTuple):
    """A sink that ran when its worker ended."""

    running: board.Running
    ran_seconds: float


class Backoff:
    """How long to wait before the next start."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = FIRST_PAUSE_SECONDS

    def after(self, lived_seconds: float) -> float:
        """The pause behind a life of that length: doubled each time, short again after a long life."""
        if lived_seconds >= LIFE_SECONDS:
            self._next = FIRST_PAUSE_SECONDS
        pause = self._next
        self._next = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return pause


def suspects(running: list[board.Running], seen: dict[int, float], now: float) -> list[Suspect]:
    """Those over their deadline that were so at the last look too; `seen` is what was over it then, and is renewed.

    One look is not enough: a machine or a process that was stopped for a while finds every sink late.
    """
    late = [one for one in running if now - one.since > one.deadline_seconds]
    found = [Suspect(one, now - one.since) for one in late if seen.get(one.place) == one.since]
    seen.clear()
    seen.update({one.place: one.since for one in late})
    return found


class _Worker:
    """One worker, from the parent's side."""

    __slots__ = (
        "backoff",
        "board",
        "code",
        "line",
        "line_of_worker",
        "memory",
        "number",
        "pid",
        "seen",
        "start_at",
        "started_at",
        "was_ready",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.memory = os.memfd_create("lonedot-watch", os.MFD_CLOEXEC)
        os.ftruncate(self.memory, board.SIZE)
        self.board = board.Board(self.memory)
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        ours.setblocking(False)
        theirs.setblocking(False)
        self.line = ours
        self.line_of_worker = theirs
        self.backoff = Backoff()
        self.seen: dict[int, float] = {}
        self.pid = 0
        """0: it does not run."""
        self.started_at = 0.0
        self.start_at: float | None = None
        """When it is to be started, by the monotonic clock."""
        self.was_ready = False
        """One of this number was."""
        self.code = 0
        """How the last one ended, as an exit code."""

    @property
    def stalled_file(self) -> str:
        return board.stalled_file(self.number)


class Supervisor:
    """One parent and its workers."""

    def __init__(self, command: list[str], count: int = 1) -> None:
        """`command`: of a worker; `count`: how many."""
        self._command = command
        self._workers = [_Worker(number) for number in range(count)]
        self._shared = os.memfd_create("lonedot-shared", os.MFD_CLOEXEC)
        os.ftruncate(self._shared, SHARED_SIZE)
        self._sockets = _handed_over()
        self._lock = _lock_handed_over()
        self._stops = 0
        """How often we were told to stop."""
        self._is_told = False
        """The service manager knows that we are ready."""
        self._is_reload_due = False
        self._notify_socket = os.environ.pop("NOTIFY_SOCKET", "")

    def close(self) -> None:
        """Let go of what is shared with the workers, which then drain and stop."""
        for worker in self._workers:
            worker.line.close()
            worker.line_of_worker.close()
            _close([worker.memory])
        _close([self._shared, *self._sockets.values()])
        if self._lock >= 0:
            _close([self._lock])

    def run(self) -> int:
        """Until every worker has stopped; the exit code."""
        # One that is ignored, as whoever started us may have it, hides deaths.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        if not self._start(self._workers[0]):
            return 1
        while True:
            self._heed(self._until_next_start(LOOK_SECONDS))
            for worker in self._workers:
                if not worker.pid:
                    continue
                code = _reaped(worker.pid)
                if code is None:
                    self._look(worker)
                else:
                    self._ended(worker, code)
            if self._stops:
                if not any(worker.pid for worker in self._workers):
                    return max(worker.code for worker in self._workers)
                continue
            self._start_due()

    # -- the workers ---------------------------------------------------------------------------------

    def _until_next_start(self, longest: float) -> float:
        due = [worker.start_at for worker in self._workers if worker.start_at is not None]
        return min([longest, *[max(0.0, at - time.monotonic()) for at in due]])

    def _start_due(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            if worker.start_at is not None and worker.start_at <= now and not self._start(worker):
                worker.start_at = time.monotonic() + worker.backoff.after(0)

    def _start(self, worker: _Worker) -> bool:
        """Start it; False when the system has no process for it."""
        worker.board.clear()
        worker.seen.clear()
        worker.code = 0
        self._heed_worker(worker)
        _drain(
            worker.line_of_worker
        )  # what was told to the one before: the next one is told all at its start
        line = worker.line_of_worker.fileno()
        lent = [worker.memory, line, self._shared, *self._sockets.values()]
        if self._lock >= 0:
            lent.append(self._lock)
        said = (worker.memory, line, worker.number, len(self._workers), self._shared, self._lock)
        environment = {
            **os.environ,
            board.ENVIRONMENT: ",".join(map(str, said)),
            SOCKETS_ENVIRONMENT: json.dumps(self._sockets),
        }
        worker.started_at = time.monotonic()
        try:
            for descriptor in lent:
                os.set_inheritable(descriptor, True)
            worker.pid = os.posix_spawn(self._command[0], self._command, environment, setsigmask=())
        except OSError as error:
            self._say("worker.not-started", worker=worker.number, words=str(error))
            return False
        finally:
            for descriptor in lent:
                os.set_inheritable(descriptor, False)
        worker.start_at = None
        return True

    def _ended(self, worker: _Worker, code: int) -> None:
        """Book how it ended: it is started again after a while, or all are to stop."""
        lived = time.monotonic() - worker.started_at
        state = worker.board.state
        worker.pid = 0
        # It may have been ready so briefly that nobody looked.
        worker.was_ready = worker.was_ready or state == board.READY
        worker.code = code if code >= 0 else 128 - code
        if state == board.STOPPED or (state == board.STARTING and code >= 0 and not worker.was_ready):
            if not self._stops:
                self._stop()
            return
        if state == board.STARTING and self._stops and code == -signal.SIGTERM:
            worker.code = 0  # told to stop before there was anything to drain
            return
        running = [Suspect(one, time.monotonic() - one.since) for one in worker.board.running()]
        if running and -code not in _FROM_OUTSIDE:
            how = f"ended with code {code}" if code >= 0 else f"died of signal {-code}"
            # Of several nobody can say which it was: they are named, and none is blamed.
            self._leave(
                worker, [_entry(one, f"the relay {how} while it ran", len(running) == 1) for one in running]
            )
        if self._stops:
            return
        worker.code = 0
        pause = worker.backoff.after(lived)
        worker.start_at = time.monotonic() + pause
        self._say(
            "worker.died",
            worker=worker.number,
            code=code,
            lived_seconds=round(lived, 3),
            again_in_seconds=pause,
        )

    def _look(self, worker: _Worker) -> None:
        """See how far it is, and end it when a sink of it does not."""
        self._heed_worker(worker)
        if worker.board.state == board.READY:
            if not worker.was_ready:
                worker.was_ready = True
                self._became_ready(worker)
            if self._is_reload_due and worker.number == 0:
                # Not before it is ready: it would die of a signal that it does not expect yet.
                self._is_reload_due = False
                os.kill(worker.pid, signal.SIGHUP)
        stalled = suspects(worker.board.running(), worker.seen, time.monotonic())
        if not stalled:
            return
        self._leave(
            worker,
            [
                _entry(
                    one, f"ran for {one.ran_seconds:.1f} s; deadline {one.running.deadline_seconds:g} s", True
                )
                for one in stalled
            ],
        )
        for one in stalled:
            self._say(
                "sink.stalled",
                worker=worker.number,
                binding=one.running.binding,
                id=one.running.id,
                ran_seconds=round(one.ran_seconds, 3),
            )
        os.kill(worker.pid, signal.SIGKILL)

    def _became_ready(self, worker: _Worker) -> None:
        """For the first time."""
        if worker.number == 0:
            for other in self._workers[1:]:
                if not other.pid and not other.was_ready:
                    other.start_at = time.monotonic()
        if not self._is_told and all(one.was_ready for one in self._workers):
            self._is_told = True
            self._notify(b"READY=1")

    # -- listening sockets ---------------------------------------------------------------------------

    def _heed_worker(self, worker: _Worker) -> None:
        """Take what it has said about listening sockets since the last look, and pass it on to the others."""
        while True:
            try:
                said, ancillary, _, _ = worker.line.recvmsg(
                    KEY_LIMIT, _socket.CMSG_SPACE(array("i").itemsize), _socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            if not said:
                return
            got = _descriptors(ancillary)
            key = os.fsdecode(said[1:])
            if self._stops or (got and len(self._sockets) >= SOCKETS_LIMIT):
                _close(got)
            elif said[:1] == b"+" and len(got) == 1:
                _close([self._sockets.pop(key)] if key in self._sockets else [])
                self._sockets[key] = got[0]
                self._pass_on(worker, said, [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, got)])
            elif said[:1] == b"-" and key in self._sockets:
                _close([self._sockets.pop(key)])
                self._pass_on(worker, said, [])

    def _pass_on(self, teller: _Worker, said: bytes, ancillary: list[tuple[int, int, array[int]]]) -> None:
        for worker in self._workers:
            if worker is not teller and worker.pid:
                try:
                    worker.line.sendmsg([said], ancillary)
                except OSError as error:  # far behind, or about to end
                    self._say("worker.not-told", worker=worker.number, words=str(error))

    def _stop_listening(self) -> None:
        """Nobody shall wait at a relay that goes."""
        _close(self._sockets.values())
        self._sockets.clear()

    # -- signals -------------------------------------------------------------------------------------

    def _heed(self, seconds: float) -> None:
        """Wait for a signal, no longer than that, and do what it says."""
        told = signal.sigtimedwait(_SIGNALS, max(0.0, seconds))
        match told.si_signo if told is not None else 0:
            case signal.SIGHUP:
                self._is_reload_due = True
            case signal.SIGTERM | signal.SIGINT:
                self._stop()

    def _stop(self) -> None:
        """Have the workers drain; told again, end them at once."""
        self._stops += 1
        if self._stops == 1:
            self._notify(b"STOPPING=1")
            self._stop_listening()
        for worker in self._workers:
            worker.start_at = None
            if worker.pid:
                os.kill(worker.pid, signal.SIGTERM if self._stops == 1 else signal.SIGKILL)

    # -- what is left and told -----------------------------------------------------------------------

    def _leave(self, worker: _Worker, entries: list[dict[str, object]]) -> None:
        """Add to the spool's `stalled.json`, or that of a further worker, synced."""
        folder = worker.board.spool
        if not folder:
            return
        path = os.path.join(folder, worker.stalled_file)
        try:
            with open(path, "rb") as stream:
                before = json.load(stream)
        except (OSError, ValueError):
            before = []
        kept = [*(before if isinstance(before, list) else []), *entries][-KEPT_STALLS:]
        draft = f"{path}.new"
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "wb") as stream:
                stream.write(json.dumps(kept).encode())
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(draft, path)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            self._say("stalled.not-written", words=str(error))

    def _say(self, what: str, **fields: object) -> None:
        """One line of the log, as the worker writes them."""
        now = time.time()
        if self._workers[0].board.logs_json:
            at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03d}Z"
            line = json.dumps({"at": at, "level": "error", "event": what, **fields})
        else:
            words = " ".join(f"{name}={json.dumps(value)}" for name, value in fields.items())
            line = f"{time.strftime('%H:%M:%S', time.localtime(now))} error: {what} {words}"
        try:
            os.write(2, line.encode() + b"\n")
        except OSError:
            pass  # nobody reads it

    def _notify(self, what: bytes) -> None:
        """Tell the service manager, where there is one (`sd_notify`, Type=notify)."""
        if not self._notify_socket:
            return
        import socket  # noqa: PLC0415 — most parents need none

        address = self._notify_socket
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
            try:
                line.sendto(what, "\0" + address[1:] if address.startswith("@") else address)
            except OSError:
                pass  # it only helps


def _handed_over() -> dict[str, int]:
    """The listening sockets that this program was started with, by key."""
    try:
        said = json.loads(os.environ.pop(SOCKETS_ENVIRONMENT, "{}"))
        sockets = {str(key): int(number) for key, number in said.items()}
        for number in sockets.values():
            os.set_inheritable(number, False)
    except (ValueError, TypeError, AttributeError, OSError):
        return {}
    return sockets


def _lock_handed_over() -> int:
    """Descriptor of the lock of the spool; -1 when there is none."""
    try:
        descriptor = int(os.environ.pop(board.LOCK_ENVIRONMENT, "-1"))
        if descriptor >= 0:
            os.set_inheritable(descriptor, False)
    except (ValueError, OSError):
        return -1
    return descriptor


def _reaped(pid: int) -> int | None:
    """How that child ended (negative: the signal), None while it lives."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> array[int]:
    got = array("i")
    for _, _, octets in ancillary:
        got.frombytes(octets[: len(octets) - len(octets) % got.itemsize])
    return got


def _drain(line: _socket.socket) -> None:
    """Forget what waits there."""
    while True:
        try:
            said, ancillary, _, _ = line.recvmsg(
                KEY_LIMIT, _socket.CMSG_SPACE(array("i").itemsize), _socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        _close(_descriptors(ancillary))
        if not said:
            return


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _entry(suspect: Suspect, words: str, is_blamed: bool) -> dict[str, object]:
    """As `lonedot.app.stalls` reads it."""
    running = suspect.running
    return {
        "at": time.time(),
        "guid": running.guid,
        "binding": running.binding,
        "id": running.id,
        "words": words,
        "is_blamed": is_blamed,
    }


if __name__ == "__main__":
    sys.exit(Supervisor(sys.argv[2:], int(sys.argv[1])).run())
