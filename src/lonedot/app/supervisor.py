"""The parent of the relay: starts it, watches its inline sinks, starts it again when it dies. Run by its path.

`lonedot serve` becomes this program: it keeps its process id, and holds no code of the relay.
The worker is the command as it was given, started once more with `LONEDOT_WATCH` in its environment. Between the two:

- shared memory (`lonedot.sinks.board`): the worker's state, and which inline sink runs since when;
- a pair of sockets: its end is the end of the parent, on which the worker drains and stops; over it the worker hands
  the parent each listening socket that it opens, and says which are no more;
- the listening sockets: the parent has them from the start on, never accepts, and hands them to each worker;
- signals: SIGHUP is passed on; the first SIGTERM or SIGINT has the worker drain, the second ends it at once.

Rules:
1. A worker that ends by itself before it ever listened (a fault in the configuration) ends the parent, with its exit
   code. So does one that stopped in order. Any other end is a death, and the worker is started again.
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


class Supervisor:
    """One parent and its one worker."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._memory = os.memfd_create("lonedot-watch", os.MFD_CLOEXEC)
        os.ftruncate(self._memory, board.SIZE)
        self._board = board.Board(self._memory)
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        ours.setblocking(False)
        self._line = ours
        self._line_of_worker = theirs.detach()
        self._sockets = _handed_over()
        self._backoff = Backoff()
        self._seen: dict[int, float] = {}
        self._pid = 0
        self._started_at = 0.0
        self._stops = 0
        """How often we were told to stop."""
        self._was_ready = False
        """A worker of ours was."""
        self._is_reload_due = False
        self._notify_socket = os.environ.pop("NOTIFY_SOCKET", "")

    def close(self) -> None:
        """Let go of what is shared with the worker, which then drains and stops."""
        self._line.close()
        _close((self._line_of_worker, *self._sockets.values()))

    def run(self) -> int:
        """Until the worker has stopped in order; the exit code."""
        signal.signal(
            signal.SIGCHLD, signal.SIG_DFL
        )  # one that is ignored, as whoever started us may have it, hides deaths
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        if not self._start():
            return 1
        while True:
            self._heed(LOOK_SECONDS)
            code = self._reaped()
            if code is None:
                self._look()
                continue
            ended = self._ended(code)
            if ended is not None:
                return ended

    # -- the worker ----------------------------------------------------------------------------------

    def _start(self) -> bool:
        """Start the worker; False when the system has no process for it."""
        self._board.clear()
        self._seen.clear()
        self._heed_worker()
        pipe = self._line_of_worker
        for descriptor in (self._memory, pipe, *self._sockets.values()):
            os.set_inheritable(descriptor, True)
        environment = {
            **os.environ,
            board.ENVIRONMENT: f"{self._memory},{pipe}",
            SOCKETS_ENVIRONMENT: json.dumps(self._sockets),
        }
        self._started_at = time.monotonic()
        try:
            self._pid = os.posix_spawn(self._command[0], self._command, environment, setsigmask=())
        except OSError as error:
            self._say("worker.not-started", words=str(error))
            return False
        return True

    def _reaped(self) -> int | None:
        """How the worker ended (negative: the signal), None while it lives."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def _ended(self, code: int) -> int | None:
        """Book a death and start again; the parent's own exit code when it is over."""
        lived = time.monotonic() - self._started_at
        state = self._board.state
        self._pid = 0
        self._was_ready = (
            self._was_ready or state == board.READY
        )  # it may have been so briefly that nobody looked
        own_code = code if code >= 0 else 128 - code
        if state == board.STOPPED:
            return own_code
        if state == board.STARTING and code >= 0 and not self._was_ready:
            return own_code
        if state == board.STARTING and self._stops and code == -signal.SIGTERM:
            return 0  # told to stop before there was anything to drain
        running = [Suspect(one, time.monotonic() - one.since) for one in self._board.running()]
        if running and -code not in _FROM_OUTSIDE:
            how = f"ended with code {code}" if code >= 0 else f"died of signal {-code}"
            # Of several nobody can say which it was: they are named, and none is blamed.
            self._leave([_entry(one, f"the relay {how} while it ran", len(running) == 1) for one in running])
        if self._stops:
            return own_code
        pause = self._backoff.after(lived)
        self._say("worker.died", code=code, lived_seconds=round(lived, 3), again_in_seconds=pause)
        while True:
            until = time.monotonic() + pause
            while (left := until - time.monotonic()) > 0:
                if self._heed(left):
                    return 0  # nothing runs
            if self._start():
                return None
            pause = self._backoff.after(0)

    def _look(self) -> None:
        """See how far the worker is, and end it when a sink of it does not."""
        self._heed_worker()
        if self._board.state == board.READY:
            if not self._was_ready:
                self._was_ready = True
                self._notify(b"READY=1")
            if self._is_reload_due:
                # Not before it is ready: it would die of a signal that it does not expect yet.
                self._is_reload_due = False
                os.kill(self._pid, signal.SIGHUP)
        stalled = suspects(self._board.running(), self._seen, time.monotonic())
        if not stalled:
            return
        self._leave(
            [
                _entry(
                    one, f"ran for {one.ran_seconds:.1f} s; deadline {one.running.deadline_seconds:g} s", True
                )
                for one in stalled
            ]
        )
        for one in stalled:
            self._say(
                "sink.stalled",
                binding=one.running.binding,
                id=one.running.id,
                ran_seconds=round(one.ran_seconds, 3),
            )
        os.kill(self._pid, signal.SIGKILL)

    # -- listening sockets ---------------------------------------------------------------------------

    def _heed_worker(self) -> None:
        """Take what the worker has said about listening sockets since the last look."""
        while True:
            try:
                said, ancillary, _, _ = self._line.recvmsg(
                    KEY_LIMIT, _socket.CMSG_SPACE(array("i").itemsize), _socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            if not said:
                return
            got = array("i")
            for _, _, octets in ancillary:
                got.frombytes(octets[: len(octets) - len(octets) % got.itemsize])
            key = os.fsdecode(said[1:])
            if self._stops or (got and len(self._sockets) >= SOCKETS_LIMIT):
                _close(got)
            elif said[:1] == b"+" and len(got) == 1:
                _close([self._sockets.pop(key)] if key in self._sockets else [])
                self._sockets[key] = got[0]
            elif said[:1] == b"-" and key in self._sockets:
                _close([self._sockets.pop(key)])

    def _stop_listening(self) -> None:
        """Nobody shall wait at a relay that goes."""
        _close(self._sockets.values())
        self._sockets.clear()

    # -- signals -------------------------------------------------------------------------------------

    def _heed(self, seconds: float) -> bool:
        """Wait for a signal, no longer than that, and do what it says. Whether we are to stop."""
        told = signal.sigtimedwait(_SIGNALS, max(0.0, seconds))
        match told.si_signo if told is not None else 0:
            case signal.SIGHUP:
                self._is_reload_due = True
            case signal.SIGTERM | signal.SIGINT:
                self._stops += 1
                if self._stops == 1:
                    self._notify(b"STOPPING=1")
                    self._stop_listening()
                if self._pid:
                    os.kill(self._pid, signal.SIGTERM if self._stops == 1 else signal.SIGKILL)
        return self._stops > 0

    # -- what is left and told -----------------------------------------------------------------------

    def _leave(self, entries: list[dict[str, object]]) -> None:
        """Add to the spool's `stalled.json`, synced."""
        folder = self._board.spool
        if not folder:
            return
        path = os.path.join(folder, board.STALLED_FILE)
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
        if self._board.logs_json:
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
    sys.exit(Supervisor(sys.argv[1:]).run())
