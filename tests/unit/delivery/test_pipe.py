"""Programs of a route: what they are given, what rights they have, and what their end makes of a message."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pwd
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from lonedot.delivery.pipe import TAKEN, fault_of_command
from lonedot.delivery.routing import Pipe, Route
from lonedot.message.content import Content, FileBody
from lonedot.message.filed import LineEnd
from lonedot.message.measure import measure
from lonedot.terms.outcome import Outcome, Result, Stage
from tests.unit.delivery.outbound import claim, message, outbound, route

ANNA = b"anna@example.org"
# A program must not run as root: there it is given the rights of somebody who has none.
USER = "nobody" if os.geteuid() == 0 else ""


def to(*command: str, **changes: object) -> Route:
    target = msgspec.structs.replace(Pipe(command, USER), **changes)
    return route(0, target=target)


def python(text: str, *arguments: str) -> tuple[str, ...]:
    return ("/usr/bin/env", "python3", "-c", text, *arguments)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the program may write, whoever it is: pytest's own folders are open to one user alone."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o777)
        yield path


async def ended(*command: str, content: Content | None = None, **changes: object) -> Outcome:
    async with outbound(to(*command, **changes)) as out:
        return await out.outcome(claim(ANNA, content=content))


@pytest.mark.parametrize("line_end", [LineEnd.LF, LineEnd.CRLF])
async def test_it_reads_the_message_to_its_end(folder: Path, line_end: LineEnd) -> None:
    content = message(b"one\r\n.two\r\n.\r\n")
    file = folder / "got"
    async with outbound(to("/bin/sh", "-c", f"cat >{file}", line_end=line_end)) as out:
        delivery = await out.send(claim(ANNA, content=content))
    octets = content.octets()
    if line_end is LineEnd.LF:
        octets = octets.replace(b"\r\n", b"\n")
    assert file.read_bytes() == octets
    (attempt,) = delivery.attempts
    ((_, outcome),) = attempt.outcomes
    assert (outcome.result, outcome.stage, outcome.reason) == (Result.DELIVERED, Stage.CONTENT, TAKEN)
    assert attempt.next_hop == "pipe:/bin/sh"
    assert attempt.wire is not None
    split = octets.index(b"one")
    assert attempt.wire.head_sha256 == hashlib.sha256(octets[:split]).digest()
    assert attempt.wire.body_sha256 == hashlib.sha256(octets[split:]).digest()
    assert (attempt.wire.mode, attempt.wire.size) == (line_end.value, len(octets))


async def test_arguments_are_whole_and_no_shell_sees_them(folder: Path) -> None:
    file = folder / "got"
    text = f"import sys; open({str(file)!r}, 'w').write(repr(sys.argv[1:])); sys.stdin.read()"
    sender, recipient = b"$(id)@example.com", b"`id`;c@example.org"
    async with outbound(to(*python(text, "-f", "{sender}", "{recipient}", "{id}"))) as out:
        what = claim(recipient, sender=sender)
        await out.outcome(what)
    wanted = ["-f", sender.decode(), recipient.decode(), str(what.message.id)]
    assert file.read_text() == repr(wanted)


async def test_the_null_reverse_path_is_an_empty_argument(folder: Path) -> None:
    file = folder / "got"
    async with outbound(to("/bin/sh", "-c", f'printf "<%s>" "$1" >{file}; cat', "sh", "{sender}")) as out:
        await out.outcome(claim(ANNA, sender=b""))
    assert file.read_text() == "<>"


@pytest.mark.parametrize(
    ("sender", "recipient", "status"),
    [(b"-oQ@x.example", ANNA, "5.1.7"), (b"a@x.example", b"-t@y.example", "5.1.3")],
)
async def test_an_address_is_never_an_option(
    folder: Path, sender: bytes, recipient: bytes, status: str
) -> None:
    file = folder / "ran"
    async with outbound(to("/bin/sh", "-c", f"touch {file}", "sh", "{sender}", "{recipient}")) as out:
        outcome = await out.outcome(claim(recipient, sender=sender))
    assert (outcome.result, outcome.status) == (Result.FAILED, status)
    assert not file.exists()


async def test_its_rights_are_the_least(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_RELAY", "yes")
    file = folder / "got"
    text = (
        "import json, os, resource, sys; sys.stdin.read(); status = open('/proc/self/status').read(); "
        f"json.dump([sorted(os.environ), os.getcwd(), os.getuid(), os.getgroups(), os.getpgid(0) == os.getpid(), "
        "'NoNewPrivs:\\t1' in status, sorted(map(int, os.listdir('/proc/self/fd')))[:-1], "
        "resource.getrlimit(resource.RLIMIT_AS)[0], resource.getrlimit(resource.RLIMIT_CORE)[0], "
        f"os.umask(0)], open({str(file)!r}, 'w'))"
    )
    memory = 512 * 1024 * 1024
    outcome = await ended(*python(text), memory=memory, environment=(("ROLE", "filing"),))
    assert outcome.result is Result.DELIVERED
    names, where, user, groups, leads, no_new, descriptors, space, core, mask = msgspec.json.decode(
        file.read_bytes()
    )
    assert set(names) - {"LC_CTYPE"} == {"PATH", "LANG", "ROLE"}
    assert (where, leads, no_new, space, core, mask) == ("/", True, True, memory, 0, 0o077)
    assert set(descriptors) <= {0, 1, 2, 3}
    if USER:
        assert user == pwd.getpwnam(USER).pw_uid
        assert 0 not in groups
    else:
        assert user == os.geteuid()
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != memory


@pytest.mark.skipif(os.geteuid() != 0, reason="about a relay that runs as root")
async def test_root_lends_its_rights_to_nobody() -> None:
    async with outbound(route(0, target=Pipe(("/bin/cat",)))) as out:
        outcome = await out.outcome(claim(ANNA))
    assert outcome.result is Result.DEFERRED
    assert "names no `user`" in outcome.reason


async def test_a_user_who_is_not_there_defers() -> None:
    outcome = await ended("/bin/cat", user="nobody-of-that-name")
    assert (outcome.result, outcome.status) == (Result.DEFERRED, "4.3.5")


@pytest.mark.parametrize(
    ("number", "result", "status"),
    [
        (64, Result.FAILED, "5.3.0"),
        (65, Result.FAILED, "5.6.0"),
        (67, Result.FAILED, "5.1.1"),
        (69, Result.FAILED, "5.3.0"),
        (77, Result.FAILED, "5.7.0"),
        (75, Result.DEFERRED, "4.3.0"),
        (78, Result.DEFERRED, "4.3.5"),
        (1, Result.DEFERRED, "4.3.0"),
        (126, Result.DEFERRED, "4.3.0"),
        (255, Result.DEFERRED, "4.3.0"),
    ],
)
async def test_the_exit_status_is_the_outcome(number: int, result: Result, status: str) -> None:
    outcome = await ended("/bin/sh", "-c", f"cat >/dev/null; echo because 1>&2; exit {number}")
    assert (outcome.result, outcome.status) == (result, status)
    assert f"status {number}" in outcome.reason and outcome.reason.endswith(": because")


async def test_a_signal_defers() -> None:
    outcome = await ended("/bin/sh", "-c", "kill -SEGV $$")
    assert outcome.result is Result.DEFERRED
    assert "SIGSEGV" in outcome.reason


async def test_what_is_not_there_defers_with_its_name() -> None:
    outcome = await ended("/no/such/program")
    assert outcome.result is Result.DEFERRED
    assert "/no/such/program could not be started: [Errno 2]" in outcome.reason


async def test_at_the_deadline_its_whole_group_is_killed(folder: Path) -> None:
    # The child of the program holds the write end of a pipe: when it is gone, its end is read.
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    heard = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        outcome = await ended("/bin/sh", "-c", f"sleep 600 >{fifo} & wait", seconds=0.5)
        assert outcome.result is Result.DEFERRED
        assert "ran longer than 0.5 seconds" in outcome.reason
        await asyncio.wait_for(asyncio.to_thread(_read_to_end, heard), 10)
    finally:
        os.close(heard)


def _read_to_end(descriptor: int) -> None:
    os.set_blocking(descriptor, True)
    while os.read(descriptor, 4096):
        pass


async def test_what_it_says_is_kept_in_bounds() -> None:
    text = (
        "import sys; sys.stdin.read(); sys.stdout.write('x' * 5_000_000 + '\\x1b[31m the end'); sys.exit(75)"
    )
    async with outbound(to(*python(text))) as out:
        outcome = await out.outcome(claim(ANNA))
        assert len(out.transcripts.text) < 5000
    assert outcome.reason.endswith("the end")
    assert len(outcome.reason) < 500 and "\x1b" not in outcome.reason


async def test_who_ends_well_without_reading_has_taken_it(folder: Path) -> None:
    head, body = b"Subject: large\r\n\r\n", b"x" * 70 + b"\r\n"
    body *= 10_000
    (folder / "body").write_bytes(body)
    content = Content(head, FileBody(folder / "body", len(body)), measure(head), measure(body))
    async with outbound(to("/bin/true")) as out:
        delivery = await out.send(claim(ANNA, content=content))
    ((_, outcome),) = delivery.outcomes
    assert outcome.result is Result.DELIVERED and "did not read all" in outcome.reason
    assert delivery.attempts[0].wire is None


async def test_altered_octets_never_come_to_their_end(folder: Path) -> None:
    (folder / "body").write_bytes(b"paid\r\n")
    head = b"Subject: altered\r\n\r\n"
    content = Content(head, FileBody(folder / "body", 6), measure(head), measure(b"owed\r\n"))
    file = folder / "done"
    async with outbound(to("/bin/sh", "-c", f"cat >/dev/null; touch {file}")) as out:
        delivery = await out.send(claim(ANNA, content=content))
    assert delivery.is_altered and delivery.hold and delivery.outcomes == ()
    assert not file.exists()


async def test_no_more_at_one_time_than_the_route_allows(folder: Path) -> None:
    text = (
        "import os, sys, time; sys.stdin.read(); here = os.path.join(sys.argv[1], 'running'); "
        "os.mkdir(here); time.sleep(0.05); os.rmdir(here)"
    )
    one = msgspec.structs.replace(to(*python(text, str(folder))), connections=1)
    async with outbound(one) as out:
        deliveries = await asyncio.gather(*(out.send(claim(ANNA)) for _ in range(4)))
    # A second one beside it could not make the folder, and would end with status 1.
    assert [outcome.result for one in deliveries for _, outcome in one.outcomes] == [Result.DELIVERED] * 4


async def test_when_the_relay_stops_the_program_is_ended(folder: Path) -> None:
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    fifo.chmod(0o666)
    async with outbound(to("/bin/sh", "-c", f"echo up >{fifo}; exec sleep 600")) as out:
        waiting = out.post(claim(ANNA))
        await asyncio.to_thread(fifo.read_bytes)
        await out.courier.close(0.1)
        delivery = await asyncio.wait_for(waiting, 10)
    ((_, outcome),) = delivery.outcomes
    assert outcome.result is Result.DEFERRED


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        (("/usr/bin/procmail", "-f", "{sender}", "{recipient}"), ""),
        ((), "whole path"),
        (("procmail",), "whole path"),
        (("/bin/sh", "-c", "mail {recipient}"), "an argument of its own"),
        (("/bin/echo", "--to={id}"), "an argument of its own"),
    ],
)
def test_faults_of_a_command(command: tuple[str, ...], fault: str) -> None:
    found = fault_of_command(command)
    assert fault in found and bool(found) == bool(fault)
