"""The code of inline sinks on its way into the relay: loaded by a child first, then here.

An import that never returns, exits or crashes cannot be stopped from inside. So code that this process has not run yet
is loaded by a child before, in the same environment, and with a deadline.

Rules a change here must keep:
1. The child judges hangs and deaths alone. What the code raises, it raises here as well, and is told from here.
2. The child has no limits: what needs much memory to load may have it in the relay too.
3. Whoever loads code into the relay goes through here. A sink in a process of its own is never loaded here.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys

from lonedot.sinks.board import ENVIRONMENT
from lonedot.sinks.load import SinkNotLoaded, load_class, offered_as
from lonedot.sinks.sink import Sink

__all__ = ["LOAD_SECONDS", "load_inline", "main"]

LOAD_SECONDS = 30.0
"""For a process to start and load the code."""

_RETURNED = 86
"""Exit code of the child when the import came back, whatever came of it."""
_PR_SET_PDEATHSIG = 1
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from lonedot.sinks.inline import main; main(sys.argv[2:])"
)


def load_inline(sink_class: str) -> Sink:
    """The sink at `file.py`, `file.py:attribute` or `package.module:attribute`, for this process. Blocks.

    Raises:
        SinkNotLoaded: there is none, its code does not run, or loading it hangs or ends the process.
    """
    if not _is_known(sink_class):
        _load_apart(sink_class)
    return load_class(sink_class)


def _is_known(sink_class: str) -> bool:
    """Nothing runs here that did not run before, or it is code of our own."""
    place, colon, _ = sink_class.rpartition(":")
    if sink_class.endswith(".py") or place.endswith(".py"):
        return False
    if not colon and "." not in sink_class:
        return all(_is_known(offered) for offered in offered_as(sink_class) if offered != sink_class)
    module = place or sink_class
    return module in sys.modules or module.startswith("lonedot.")


def _load_apart(sink_class: str) -> None:
    """Have a child load it, and end the child with all that it has started.

    Raises:
        SinkNotLoaded: that hangs, or ends the child.
    """
    search = json.dumps([os.path.abspath(folder) for folder in sys.path])
    command = [sys.executable, "-I", "-c", _PROGRAM, search, str(os.getpid()), sink_class]
    environment = {name: value for name, value in os.environ.items() if name != ENVIRONMENT}
    try:
        process = subprocess.Popen(  # noqa: S603  # our own program
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )
    except OSError as error:
        raise SinkNotLoaded(f"{sink_class!r}: no process can be started to load it: {error}") from error
    has_ended = False
    try:
        has_ended = _wait(process, LOAD_SECONDS)
    finally:
        code = _end(process)
    if not has_ended:
        raise SinkNotLoaded(
            f"{sink_class!r} is not loaded after {LOAD_SECONDS:g} s: what its code does when it is imported must end"
        )
    if code != _RETURNED:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise SinkNotLoaded(f"{sink_class!r}: importing it ends the process ({how})")


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it ends in that time. It stays to be waited for, so that its number remains its own."""
    descriptor = os.pidfd_open(process.pid)
    try:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        return bool(waiting.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def _end(process: subprocess.Popen[bytes]) -> int:
    """Kill it, with its group, which may outlive it; how it ended."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except OSError:
        process.kill()
    return process.wait()


def main(arguments: list[str]) -> None:
    """`PARENT CLASS`: the program of the child."""
    parent, sink_class = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):  # it ended before that took hold
        os._exit(0)
    try:
        load_class(sink_class)
    except SinkNotLoaded:
        pass  # the relay will hear it itself
    os._exit(_RETURNED)
