"""Sinks for `test_faults`: each does one thing that no sink should, or that looks harmless and is not."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from typing import cast

from lonedot import Edit, Message, Next, Verdict, sink
from lonedot.sinks import wire

LINE = int(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[0] == "-c" else -1
HOARD: list[bytes] = []


@sink("stamp", effects={"header"}, priority=1)
def stamp(message: Message) -> Verdict:
    """The one that does as it should."""
    return Next([Edit.add_field("X-Stamp", "yes")])


@sink("raises")
def raises(message: Message) -> Verdict:
    raise ValueError("it hurt")


@sink("nonsense")
def nonsense(message: Message) -> Verdict:
    return cast(Verdict, 42)


@sink("exits")
def exits(message: Message) -> Verdict:
    os._exit(3)


@sink("killed")
def killed(message: Message) -> Verdict:
    os.kill(os.getpid(), signal.SIGKILL)
    return Next()


@sink("crashes")
def crashes(message: Message) -> Verdict:
    ctypes.string_at(0)
    return Next()


@sink("hangs")
def hangs(message: Message) -> Verdict:
    while True:
        time.sleep(600)


@sink("late")
def late(message: Message) -> Verdict:
    time.sleep(1.0)
    return Next()


@sink("garbage")
def garbage(message: Message) -> Verdict:
    os.write(LINE, wire.FRAME_HEAD.pack(5) + b"\xc1\xc1\xc1\xc1\xc1")
    return hangs(message)


@sink("floods")
def floods(message: Message) -> Verdict:
    while True:
        os.write(LINE, b"\x7f" * 65536)


@sink("leaks")
def leaks(message: Message) -> Verdict:
    while True:
        HOARD.append(bytes(4 * 1024 * 1024))


@sink("leaks-descriptors")
def leaks_descriptors(message: Message) -> Verdict:
    while True:
        os.open("/dev/null", os.O_RDONLY)


@sink("forks")
def forks(message: Message) -> Verdict:
    """Goes on twice: both answer."""
    os.fork()
    return Next()


@sink("forks-and-dies")
def forks_and_dies(message: Message) -> Verdict:
    if os.fork():
        os._exit(0)
    while True:
        signal.pause()


@sink("closes")
def closes(message: Message) -> Verdict:
    """All descriptors that it has, the line to the relay among them."""
    os.closerange(0, 256)
    return Next()


@sink("surroundings")
def surroundings(message: Message) -> Verdict:
    """What belongs to the whole process and not to a sink."""
    os.chdir("/")
    os.umask(0)
    os.environ.clear()
    sys.path.clear()
    sys.stdout.close()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return Next()


@sink("dies-later")
def dies_later(message: Message) -> Verdict:
    """Answers, and has a thread that ends the process a moment after."""
    threading.Timer(0.05, os._exit, (4,)).start()
    return Next()
