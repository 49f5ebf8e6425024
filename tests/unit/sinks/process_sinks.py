"""Sinks for the tests of isolation: each does one thing that a sink may do, or must not.

Loaded by path in processes of their own. What a test wants to know of the inside comes back as the words of a `Hold`.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import sys
from typing import cast

import msgspec

from lonedot import Defer, Discard, Edit, Hold, Message, Next, Reject, Stop, Verdict, sink
from lonedot.message.edits import AddRecipient, AnyEdit
from lonedot.sinks import wire

CALLS = 0
HOARD: list[bytes] = []
LINE = int(sys.argv[2]) if len(sys.argv) > 2 and sys.argv[0] == "-c" else -1


@sink("stamp", effects={"header"}, priority=77, rule="RCPT TO=*")
def stamp(message: Message) -> Verdict:
    field = str(message.settings.get("field", "X-Stamp"))
    return Next([Edit.add_field(field, message.envelope.recipients[0].address.text)])


class Wanted(msgspec.Struct, frozen=True):
    limit: int = 5


@sink("typed", settings=Wanted)
def typed(message: Message, wanted: Wanted) -> Verdict:
    return Hold(str(wanted.limit))


@sink("digest", reads={"body"})
def digest(message: Message) -> Verdict:
    """What it was shown of the body, in chunks and at once."""
    whole = hashlib.sha256()
    for chunk in message.body_chunks():
        whole.update(chunk)
    at_once = hashlib.sha256(message.octets()[len(message.octets()) - sum(map(len, message.body_chunks())) :])
    return Hold(f"{message.size} {whole.hexdigest()} {at_once.hexdigest()}")


@sink("size")
def size(message: Message) -> Verdict:
    return Hold(str(message.size))


@sink("parts", reads={"body"})
def parts(message: Message) -> Verdict:
    with message.open_body() as file:
        file.seek(-2, 2)
        return Hold(f"{[part.path for part in message.parts]} {message.root.octets()[:3]!r} {file.read()!r}")


class Counts:
    """Kept between calls."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, message: Message) -> Verdict:
        self._count += 1
        return Hold(str(self._count))


counts = sink("counts")(Counts)


@sink("write")
def write(message: Message) -> Verdict:
    """Tries to write to every descriptor that is not its line or its output."""
    written = []
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in (0, 1, 2, LINE):
            try:
                os.pwrite(int(name), b"x", 0)
                written.append(name)
            except OSError:
                pass
    return Hold(f"written {written}")


@sink("inside")
def inside(message: Message) -> Verdict:
    umask = os.umask(0)
    os.umask(umask)
    return Hold(
        json.dumps(
            {
                "environment": sorted(os.environ),
                "descriptors": len(os.listdir("/proc/self/fd")),
                "stdin": os.readlink("/proc/self/fd/0"),
                "umask": umask,
                "leads": os.getpgid(0) == os.getpid() == os.getsid(0),
                "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
                "memory": resource.getrlimit(resource.RLIMIT_AS)[1],
                "nice": os.nice(0),
                "pid": os.getpid(),
            }
        )[:500]
    )


@sink("who")
def who(message: Message) -> Verdict:
    """Every identity it has."""
    ids = [*os.getresuid(), *os.getresgid(), *os.getgroups()]
    return Hold(" ".join(map(str, ids)))


@sink("verdict")
def verdict(message: Message) -> Verdict:
    """The verdict that the settings name."""
    verdicts: dict[object, Verdict] = {
        "next": Next(),
        "stop": Stop([Edit.add_field("X-Stop", "here")]),
        "hold": Hold("a look \udcff, please", [Edit.add_field("X-Held", "yes")]),
        "reject": Reject("no", 554, "5.6.0"),
        "defer": Defer("later", 450, "4.2.0"),
        "discard": Discard("away"),
    }
    return verdicts[message.settings["verdict"]]


@sink("key")
def key(message: Message) -> Verdict:
    return Hold(message.key)


@sink("raises")
def raises(message: Message) -> Verdict:
    raise ValueError("it hurt")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


@sink("raises-badly")
def raises_badly(message: Message) -> Verdict:
    raise Unspeakable


@sink("nonsense")
def nonsense(message: Message) -> Verdict:
    return cast(Verdict, 42)


@sink("nonsense-edits", effects={"header"})
def nonsense_edits(message: Message) -> Verdict:
    return Next(cast("list[AnyEdit]", [object()]))


@sink("wrong-edits", effects={"header"})
def wrong_edits(message: Message) -> Verdict:
    return Next(cast("list[AnyEdit]", [7]))


@sink("no-address", effects={"envelope"})
def no_address(message: Message) -> Verdict:
    return Next([AddRecipient(b"x@a.example>\r\nRSET")])


@sink("huge")
def huge(message: Message) -> Verdict:
    return Next([Edit.replace_body(bytes(wire.ANSWER_LIMIT))])


@sink("leaves")
def leaves(message: Message) -> Verdict:
    raise SystemExit(1)


@sink("exits")
def exits(message: Message) -> Verdict:
    print("these are its last words", file=sys.stderr, flush=True)
    os._exit(3)


@sink("killed")
def killed(message: Message) -> Verdict:
    os.kill(os.getpid(), signal.SIGKILL)
    return Next()


@sink("hangs")
def hangs(message: Message) -> Verdict:
    while True:
        signal.pause()


@sink("sometimes")
def sometimes(message: Message) -> Verdict:
    """Does what the subject says."""
    match message.headers.get("Subject"):
        case b"hang":
            return hangs(message)
        case b"die":
            return killed(message)
        case b"raise":
            return raises(message)
    return Hold(str(os.getpid()))


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
    """Leaves a process that keeps every descriptor."""
    pid = os.fork()
    if not pid:
        while True:
            signal.pause()
    return Hold(str(pid))


@sink("forks-and-dies")
def forks_and_dies(message: Message) -> Verdict:
    if os.fork():
        os._exit(0)
    while True:
        signal.pause()


@sink("prints")
def prints(message: Message) -> Verdict:
    """More than any pipe holds."""
    for number in range(5000):
        print(f"line {number}", "x" * 100)
    sys.stdout.flush()
    return Hold("printed")


# --- what no sink does: it speaks on the line itself -------------------------------------------------


@sink("garbage")
def garbage(message: Message) -> Verdict:
    os.write(LINE, wire.FRAME_HEAD.pack(5) + b"\xc1\xc1\xc1\xc1\xc1")
    return hangs(message)


@sink("floods")
def floods(message: Message) -> Verdict:
    while True:
        os.write(LINE, b"\x7f" * 65536)


@sink("floods-slowly")
def floods_slowly(message: Message) -> Verdict:
    """Announces what is allowed, and goes on for ever."""
    os.write(LINE, wire.FRAME_HEAD.pack(wire.ANSWER_LIMIT))
    while True:
        os.write(LINE, bytes(65536))


@sink("answers-twice")
def answers_twice(message: Message) -> Verdict:
    global CALLS  # noqa: PLW0603  # the number of the call
    CALLS += 1
    os.write(LINE, wire.frame(wire.Said(CALLS, Hold("first"))))
    return Hold("second")


@sink("answers-another")
def answers_another(message: Message) -> Verdict:
    os.write(LINE, wire.frame(wire.Said(1000, Next())))
    return hangs(message)


@sink("closes")
def closes(message: Message) -> Verdict:
    os.close(LINE)
    return hangs(message)


@sink("many-edits", effects={"header"})
def many_edits(message: Message) -> Verdict:
    return Next([Edit.remove_field("X-None")] * 20_000)
