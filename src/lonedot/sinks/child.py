"""One process of a sink, from our side: start it, kill it with all that it has started, and know how it ended.

Rules a change here must keep:
1. It inherits the line, the pipe for what it prints, and nothing else; our environment stays with us.
2. Its group is killed before it is waited for: until then nobody else can have its number.
3. Nothing here waits for it, but for `declare`, which is for the start.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping

from lonedot.observability import log
from lonedot.sinks import wire
from lonedot.sinks.bindings import MEMORY_OCTETS, Setting
from lonedot.sinks.load import SinkNotLoaded
from lonedot.sinks.settings import SettingsFault
from lonedot.sinks.sink import Sink
from lonedot.sinks.verdicts import Verdict
from lonedot.sinks.view import Message

__all__ = ["Child", "declare"]

LOAD_SECONDS = 30.0
"""For a process to start and load its sink."""
PRINTED_LINES = 100
"""Lines of one process that are logged in `PRINTED_SECONDS`."""
PRINTED_SECONDS = 10.0
PRINTED_SIGNS = 500

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from lonedot.sinks.host import main; main(sys.argv[2:])"
)
_KEPT_VARIABLES = ("TZ", "LANG", "LC_ALL", "LC_CTYPE")


class Child:
    """A process with its line and its pipe. `has_ended` is called once, when it has ended and all was read."""

    def __init__(
        self,
        name: str,
        sink_class: str,
        memory_octets: int,
        user: str,
        readable: Callable[[], None],
        has_ended: Callable[[], None],
    ) -> None:
        """Starts it.

        Raises:
            OSError: the system gives no process, or there is no such user.
        """
        self._loop = asyncio.get_running_loop()
        self._name = name
        self._has_ended = has_ended
        self.last_line = ""
        self._printed = b""
        self._lines = 0
        self._lines_since = 0.0
        read_end, write_end = os.pipe()
        try:
            self._process, self.line = _start(sink_class, memory_octets, user, write_end)
            try:
                self._exit = os.pidfd_open(self._process.pid)
            except OSError:
                self.line.close()
                _end(self._process)
                raise
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        os.set_blocking(read_end, False)
        self._output = read_end
        self.line.setblocking(False)
        self._is_open = True
        self._unsent = memoryview(b"")
        self._descriptor = -1
        self._loop.add_reader(self.line, readable)
        self._loop.add_reader(self._output, self._read_output)
        self._loop.add_reader(self._exit, self._exited)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def how_it_ended(self) -> str:
        """`exit code 3`, `signal 9`, with the last line it printed."""
        code = self._process.returncode
        words = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{words}; it printed: {self.last_line[:200]}" if self.last_line else words

    @property
    def has_sent(self) -> bool:
        """Nothing of the last frame is left to be sent."""
        return not self._unsent

    def send(self, octets: bytearray, descriptor: int) -> None:
        """A frame, and a descriptor that goes with it and is closed here."""
        assert not self._unsent and self._descriptor < 0
        self._unsent, self._descriptor = memoryview(octets), descriptor
        if not self._write():
            self._loop.add_writer(self.line, self._write_more)

    def _write(self) -> bool:
        """True when nothing is left to be sent."""
        try:
            if self._descriptor >= 0:
                rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [self._descriptor]))
                sent = self.line.sendmsg([self._unsent], [rights])
                self._close_descriptor()
            else:
                sent = self.line.send(self._unsent)
        except BlockingIOError:
            return False
        except OSError:  # it has ended; that will be told
            self._close_descriptor()
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        return not self._unsent

    def _write_more(self) -> None:
        if self._write():
            self._loop.remove_writer(self.line)

    def _close_descriptor(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def cut(self) -> None:
        """Close the line: nothing more is said or heard."""
        if self._is_open:
            self._is_open = False
            self._loop.remove_reader(self.line)
            self._loop.remove_writer(self.line)
            self.line.close()
            self._close_descriptor()
            self._unsent = memoryview(b"")

    def kill(self) -> None:
        """Kill it and its group. It has ended when `has_ended` is called."""
        if self._process.returncode is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except OSError:  # not yet a group of its own, or gone
                self._process.kill()

    def _exited(self) -> None:
        self.kill()  # what it has started; its number is its own until it is waited for
        self._process.wait()
        self._loop.remove_reader(self._exit)
        os.close(self._exit)
        self._read_output()
        self._loop.remove_reader(self._output)
        os.close(self._output)
        self._has_ended()

    # -- what it prints ------------------------------------------------------------------------------

    def _read_output(self) -> None:
        try:
            octets = os.read(self._output, 65536)
        except OSError:
            return
        if not octets:
            self._loop.remove_reader(self._output)
        *lines, rest = (self._printed + octets).split(b"\n")
        if not octets and rest:
            lines.append(rest)
            rest = b""
        self._printed = rest[-PRINTED_SIGNS * 4 :]
        for line in lines:
            if text := line.decode("utf-8", "replace").strip()[:PRINTED_SIGNS]:
                self.last_line = text
                self._log(text)

    def _log(self, text: str) -> None:
        now = self._loop.time()
        if now - self._lines_since > PRINTED_SECONDS:
            if self._lines > PRINTED_LINES:
                left_out = self._lines - PRINTED_LINES
                log.event("sink.printed", binding=self._name, words=f"({left_out} lines more)")
            self._lines, self._lines_since = 0, now
        self._lines += 1
        if self._lines <= PRINTED_LINES:
            log.event("sink.printed", binding=self._name, words=text)


def _start(
    sink_class: str, memory_octets: int, user: str, output: int
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    if user:
        if os.geteuid():
            raise OSError(f"only a relay that runs as root can run it as {user!r}")
        try:
            pwd.getpwnam(user)
        except KeyError:
            raise OSError(f"there is no user {user!r}") from None
    ours, theirs = socket.socketpair()
    arguments = [str(theirs.fileno()), str(memory_octets), str(os.getpid()), user, sink_class]
    try:
        with theirs:
            process = subprocess.Popen(  # noqa: S603  # our own program
                [
                    sys.executable,
                    "-I",
                    "-c",
                    _PROGRAM,
                    json.dumps([os.path.abspath(folder) for folder in sys.path]),
                    *arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
            )
    except BaseException:
        ours.close()
        raise
    return process, ours


def declare(
    sink_class: str,
    settings: Mapping[str, Setting] | None = None,
    *,
    memory_octets: int = MEMORY_OCTETS,
    user: str = "",
    seconds: float | None = None,
) -> Sink:
    """What a sink says of itself, asked of a process of its own: its code does not run in this one. Waits for it.

    `seconds`: at most so long; None: `LOAD_SECONDS`.

    Raises:
        SinkNotLoaded: the code cannot be used, or the process cannot be started.
        SettingsFault: the settings are not those that the sink takes.
    """
    try:
        process, line = _start(sink_class, memory_octets, user, subprocess.DEVNULL)
    except OSError as error:
        raise SinkNotLoaded(f"{sink_class!r}: its process cannot be started: {error}") from error
    fit: wire.FromSink = wire.Fit()
    seconds = LOAD_SECONDS if seconds is None else seconds
    try:
        line.settimeout(seconds)
        said = wire.decode_from_sink(_receive(line))
        if settings and isinstance(said, wire.Declared):
            line.sendall(wire.frame(wire.SettingsFrame(dict(settings))))
            fit = wire.decode_from_sink(_receive(line))
    except TimeoutError:
        raise SinkNotLoaded(f"{sink_class!r} is not loaded after {seconds:g} s") from None
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        raise SinkNotLoaded(f"{sink_class!r}: its process ended while it was loaded: {error}") from error
    finally:
        line.close()
        _end(process)
    if isinstance(fit, wire.Fit) and fit.words:
        raise SettingsFault(fit.words, fit.key)
    match said:
        case wire.NotLoaded(words):
            raise SinkNotLoaded(words)
        case wire.Declared(
            name, priority, rule, effects, role, on_damage, on_error, event, split, reads, signs
        ):
            return Sink(
                name,
                _elsewhere,
                priority,
                rule,
                effects,
                role,
                on_damage,
                on_error,
                event=event,
                split=split,
                reads=reads,
                signs=signs,
            )
    raise SinkNotLoaded(f"{sink_class!r}: its process answers what it was not asked")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that has no part in a loop, and wait for it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except OSError:
        process.kill()
    process.wait()


def _receive(line: socket.socket) -> bytes:
    octets = b""
    size = wire.FRAME_HEAD.size
    while len(octets) < size:
        chunk = line.recv(65536)
        if not chunk:
            raise OSError("it closed its line")
        octets += chunk
        if size == wire.FRAME_HEAD.size and len(octets) >= size:
            size += wire.FRAME_HEAD.unpack_from(octets)[0]
            if size > wire.ANSWER_LIMIT:
                raise OSError("it said too much")
    return octets[wire.FRAME_HEAD.size : size]


def _elsewhere(_: Message) -> Verdict:
    raise RuntimeError("this sink runs in a process of its own")
