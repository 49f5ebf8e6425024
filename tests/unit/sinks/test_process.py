"""A sink in a process of its own: real processes, whatever they do."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec
import pytest

from lonedot import Defer, Discard, Edit, Hold, Next, Reject, Stop, Verdict
from lonedot.message.content import CHUNK_SIZE, Body, Content, FileBody, MemoryBody, spliced
from lonedot.message.intake import content_from
from lonedot.message.measure import measure
from lonedot.message.transforms.crlf import repair_line_ends
from lonedot.sinks import process
from lonedot.sinks.bindings import Binding, Isolation, Setting
from lonedot.sinks.calls import Answer, Call
from lonedot.sinks.child import declare
from lonedot.sinks.events import Event
from lonedot.sinks.hosts import Hosts
from lonedot.sinks.load import SinkNotLoaded, bind, load_class
from lonedot.sinks.process import (
    BadAnswer,
    DeadlineExceeded,
    HostDown,
    ProcessDied,
    SinkRaised,
    SinkReturned,
)
from lonedot.sinks.registry import Bag
from lonedot.sinks.settings import SettingsFault
from lonedot.sinks.verdicts import EDITS_LIMIT
from lonedot.sinks.view import Message
from tests.unit.sinks.making import CONTENT, ENVELOPE, FACTS, binding

SINKS = Path(__file__).with_name("process_sinks.py")
HEAD = b"Subject: %s\r\n\r\n"
MIB = 1024 * 1024


def apart(
    name: str, *, deadline: float = 30.0, memory: int = 512 * MIB, user: str = "", file: Path = SINKS
) -> Binding:
    """A binding of one of `process_sinks`. What is not to end early has a deadline that a slow machine keeps."""
    bound = binding(lambda message: Next(), name)
    return msgspec.structs.replace(
        bound,
        isolation=Isolation.PROCESS,
        sink_class=f"{file}:{name}",
        deadline_seconds=deadline,
        memory_octets=memory,
        user=user,
    )


def call(
    bound: Binding,
    content: Content = CONTENT,
    settings: Mapping[str, Setting] | None = None,
) -> Call:
    return Call(bound, Message("id", ENVELOPE, FACTS, content, settings or {}, bound.guid))


def subject(words: bytes) -> Content:
    return content_from(HEAD % words + b"text\r\n")


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Hosts]:
    hosts = Hosts()
    try:
        yield hosts
    finally:
        await hosts.close()


async def answer(name: str, content: Content = CONTENT, **settings: Setting) -> Answer:
    async with running() as hosts:
        return await hosts(call(apart(name), content, settings))


async def held(name: str, content: Content = CONTENT, **settings: Setting) -> str:
    return words(await answer(name, content, **settings))


def words(got: Answer) -> str:
    assert isinstance(got.returned, Hold), got
    return got.returned.words


def is_gone(pid: int) -> bool:
    """True when it has ended, waited for or not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return status.rpartition(b")")[2].split()[0] in (b"Z", b"X")


async def gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while True:
            if is_gone(pid):
                return
            await asyncio.sleep(0.005)


# --- what goes to and fro -----------------------------------------------------------------------------


async def test_a_sink_sees_the_message_and_its_edits_come_back() -> None:
    got = await answer("stamp", field="X-For")
    assert got.returned == Next([Edit.add_field("X-For", "joe@b.example")])
    assert got.error is None
    assert 0 < got.took_seconds < 30


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("next", Next([])),
        ("stop", Stop([Edit.add_field("X-Stop", "here")])),
        ("hold", Hold("a look \\udcff, please", [Edit.add_field("X-Held", "yes")])),
        ("reject", Reject("no", 554, "5.6.0")),
        ("defer", Defer("later", 450, "4.2.0")),
        ("discard", Discard("away")),
    ],
)
async def test_every_verdict(name: str, expected: Verdict) -> None:
    assert (await answer("verdict", verdict=name)).returned == expected


async def test_the_key_is_the_same_for_message_binding_and_revision() -> None:
    bound = apart("key")
    async with running() as hosts:
        first, again = words(await hosts(call(bound))), words(await hosts(call(bound)))
        other = msgspec.structs.replace(bound, guid="{0}")
        assert first == again == f"id {bound.guid} {FACTS.revision}" == call(bound).message.key
        assert words(await hosts(call(other))) != first
        many = tuple(range(1000))
        keys = {first}
        for scope in ((0,), (1,), (0, 1), many, many[1:]):
            copy = Message("id", ENVELOPE, FACTS, CONTENT, {}, bound.guid, scope)
            assert words(await hosts(Call(bound, copy))) == copy.key
            assert len(copy.key) < 120
            keys.add(copy.key)
        assert len(keys) == 6, "each copy has its own"


async def test_settings_keep_the_manner_of_a_property_bag() -> None:
    async with running() as hosts:
        bound = apart("stamp")
        got = await hosts(call(bound, settings=Bag({"FIELD": "X-Bag"})))
        assert got.returned == Next([Edit.add_field("X-Bag", "joe@b.example")])
        got = await hosts(call(bound, settings={"FIELD": "X-Bag"}))
        assert got.returned == Next([Edit.add_field("X-Stamp", "joe@b.example")])


async def test_settings_of_a_type() -> None:
    assert await held("typed") == "5"
    assert await held("typed", limit=7) == "7"
    assert "settings.limit" in str((await answer("typed", limit="many")).error)


BODIES = {
    "empty": b"",
    "small": b"a line\r\n" * 10,
    "as large as a frame holds": b"0123456\r\n" * 7281 + b"789012\r\n"[:7],
    "large": b"another line\r\n" * 100_000,
}


def bodies(octets: bytes, folder: Path) -> dict[str, Body]:
    """The same octets in every kind of body."""
    file = folder / "body"
    file.write_bytes(octets)
    made: dict[str, Body] = {"memory": MemoryBody(octets), "file": FileBody(file, len(octets))}
    if octets:
        start = len(octets) // 3
        other = folder / "other"
        other.write_bytes(octets[:start] + b"XX" + octets[start + 1 :])
        made["spliced"] = spliced(
            FileBody(other, len(octets) + 1), start, start + 2, octets[start : start + 1]
        )
        lines = folder / "lines"
        lines.write_bytes(octets.replace(b"\r\n", b"\n"))
        raw = lines.read_bytes()
        content = Content(HEAD % b"x", FileBody(lines, len(raw)), measure(HEAD % b"x"), measure(raw))
        if octets.endswith(b"\r\n"):
            made["repaired while it is read"] = repair_line_ends(content).body
    return made


@pytest.mark.parametrize("octets", BODIES.values(), ids=BODIES)
async def test_bodies_of_every_size_and_kind(octets: bytes, tmp_path: Path) -> None:
    head = HEAD % b"bodies"
    expected = hashlib.sha256(octets).hexdigest()
    async with running() as hosts:
        bound = apart("digest")
        for kind, body in bodies(octets, tmp_path).items():
            content = Content(head, body, measure(head), measure(octets))
            got = words(await hosts(call(bound, content)))
            assert got == f"{len(head) + len(octets)} {expected} {expected}", kind
            assert "written []" in words(await hosts(call(apart("write"), content))), kind
        assert len(os.listdir(f"/proc/{hosts.host(bound).pid}/fd")) < 10, (
            "descriptors are closed behind a call"
        )


async def test_a_body_that_is_not_read_is_not_sent(tmp_path: Path) -> None:
    gone_file = msgspec.structs.replace(CONTENT, body=FileBody(tmp_path / "gone", 5 * MIB))
    large = msgspec.structs.replace(CONTENT, body=MemoryBody(b"x" * (5 * MIB)))
    async with running() as hosts:
        for content in (CONTENT, gone_file, large):
            bound = msgspec.structs.replace(apart("size"), reads_body=False)
            shown = Message("id", ENVELOPE, FACTS, content, {}, bound.guid, reads_body=False)
            assert words(await hosts(Call(bound, shown))) == str(content.size)
            reads = await hosts(Call(apart("digest"), shown))
            assert "BodyNotShown" in str(reads.error) and 'reads={"body"}' in str(reads.error)


async def test_parts_and_the_body_as_a_file(tmp_path: Path) -> None:
    path = tmp_path / "body"
    octets = CONTENT.body.octets() * 200_000
    path.write_bytes(octets)
    in_file = FileBody(path, len(octets))
    for body in (CONTENT.body, in_file, spliced(in_file, 5, 9, b"other")):
        end = body.octets()[-2:]
        content = msgspec.structs.replace(CONTENT, body=body)
        assert words(await answer("parts", content)) == f"['1'] {body.octets()[:3]!r} {end!r}"


async def test_an_instance_of_a_class_stays_from_call_to_call() -> None:
    bound = apart("counts")
    async with running() as hosts:
        assert [words(await hosts(call(bound))) for _ in range(3)] == ["1", "2", "3"]


async def test_what_a_sink_says_of_itself_is_told_from_its_process() -> None:
    for name, reads in (("size", False), ("digest", True)):
        declared = await asyncio.to_thread(declare, f"{SINKS}:{name}")
        assert bind(declared, sink_class="x").reads_body is reads


async def test_a_body_that_is_gone_is_an_error_of_that_call_alone(tmp_path: Path) -> None:
    content = Content(HEAD % b"x", FileBody(tmp_path / "gone", 10), measure(b""), measure(b""))
    async with running() as hosts:
        assert isinstance((await hosts(call(apart("digest"), content))).error, FileNotFoundError)
        assert words(await hosts(call(apart("digest"))))


async def test_a_body_shorter_than_it_was(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"12345")
    content = Content(HEAD % b"x", FileBody(tmp_path / "short", CHUNK_SIZE), measure(b""), measure(b""))
    assert "ends at octet 5" in str((await answer("digest", content)).error)


async def test_a_frame_larger_than_the_line_holds() -> None:
    """Header sections and settings travel in the frame; it is sent as the process reads it."""
    long = "x" * (8 * MIB)
    got = await answer("stamp", CONTENT, field="X-For", filler=long)
    assert got.returned == Next([Edit.add_field("X-For", "joe@b.example")])


# --- where it runs ------------------------------------------------------------------------------------


async def test_the_inside_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMARTHOST_PASSWORD", "…")
    with open("/dev/null") as file:
        os.set_inheritable(file.fileno(), True)
        inside = json.loads(await held("inside"))
    assert set(inside["environment"]) <= {"TZ", "LANG", "LC_ALL", "LC_CTYPE"}
    assert inside["descriptors"] <= 5, "standard ones, the line, and that of the listing"
    assert inside["stdin"] == "/dev/null"
    assert inside["umask"] == 0o077
    assert inside["leads"]
    assert inside["core"] == 0
    assert inside["memory"] == 512 * MIB
    assert inside["nice"] >= min(os.nice(0) + 5, 19)
    assert is_gone(inside["pid"]), "closed with the hosts"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_another_user() -> None:
    file = Path("/tmp") / f"lonedot-inside-{os.getpid()}.py"
    file.write_bytes(SINKS.read_bytes())
    file.chmod(0o644)
    try:
        async with running() as hosts:
            said = words(await hosts(call(apart("who", user="nobody", file=file)))).split()
            assert "0" not in said
            assert declare(f"{file}:who", user="nobody").name == "who"
    finally:
        file.unlink()


async def test_a_user_who_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BACK_OFF_SECONDS", 1000.0)
    async with running() as hosts:
        got = await hosts(call(apart("stamp", user="nobody-of-this-name")))
        assert isinstance(got.error, HostDown)
        assert "nobody-of-this-name" in str(got.error)


async def test_bindings_with_one_class_have_a_process_each() -> None:
    async with running() as hosts:
        one, other = apart("sometimes"), msgspec.structs.replace(apart("sometimes"), guid="{0}")
        first, second = await asyncio.gather(hosts(call(one)), hosts(call(other)))
        assert words(first) != words(second)


# --- faults -------------------------------------------------------------------------------------------

SAID = {
    "raises": "ValueError: it hurt",
    "raises_badly": "Unspeakable: (it cannot be shown)",
    "leaves": "SystemExit: 1",
    "leaks_descriptors": "Too many open files",
}
RETURNED = {
    "no_address": "is not a mail address",
    "nonsense": "TypeError: returned int; a sink returns",
    "nonsense_edits": "TypeError: Encoding objects of type object is unsupported",
    "wrong_edits": "Expected `object`, got `int`",
    "many_edits": f"length <= {EDITS_LIMIT}",
    "huge": f"at most {64 * MIB}",
}


@pytest.mark.parametrize(
    ("name", "said", "kind"),
    [
        *((name, said, SinkRaised) for name, said in SAID.items()),
        *((name, said, SinkReturned) for name, said in RETURNED.items()),
    ],
)
async def test_what_a_sink_does_wrong_it_says_itself_and_goes_on(
    name: str, said: str, kind: type[Exception]
) -> None:
    async with running() as hosts:
        bound = apart(name)
        first = await hosts(call(bound))
        pid = hosts.host(bound).pid
        again = await hosts(call(bound))
        for got in (first, again):
            assert type(got.error) is kind, got
            assert said in str(got.error)
        assert hosts.host(bound).pid == pid


ENDS = {
    "exits": (ProcessDied, "exit code 3; it printed: these are its last words"),
    "killed": (ProcessDied, "signal 9"),
    "forks_and_dies": (ProcessDied, "exit code 0"),
    "closes": (ProcessDied, "signal 9"),
    "garbage": (BadAnswer, "an answer that is none"),
    "floods": (BadAnswer, "octets; an answer has at most"),
    "floods_slowly": (BadAnswer, "its process"),  # too much or no answer, as the octets happen to come
    "answers_another": (BadAnswer, "what it was not asked"),
}


@pytest.mark.parametrize(("name", "kind", "said"), [(name, *end) for name, end in ENDS.items()])
async def test_what_ends_a_process_is_the_error_of_its_call(
    name: str, kind: type[Exception], said: str
) -> None:
    async with running() as hosts:
        got = await hosts(call(apart(name)))
        assert type(got.error) is kind, got
        assert said in str(got.error)


async def test_a_deadline_kills_the_process_and_the_next_call_finds_another() -> None:
    async with running() as hosts:
        bound = apart("sometimes", deadline=0.2)
        relaxed = apart("sometimes")
        first = words(await hosts(call(relaxed)))
        late = hosts(call(bound, subject(b"hang")))
        behind = hosts(call(relaxed))
        assert isinstance((await late).error, DeadlineExceeded)
        assert str((await late).error) == "no answer within 0.2 s"
        assert 0.19 <= (await late).took_seconds < 20
        assert words(await behind) != first, "who waited is not to blame"
        await gone(int(first))


async def test_an_answer_that_is_late_is_none() -> None:
    """What it says after its deadline is said to nobody: its line is closed and it is dead."""
    async with running() as hosts:
        assert isinstance((await hosts(call(apart("hangs", deadline=0.2)))).error, DeadlineExceeded)
        assert isinstance((await hosts(call(apart("hangs", deadline=0.2)))).error, DeadlineExceeded)


async def test_a_second_answer_is_not_taken_for_that_to_the_next_call() -> None:
    async with running() as hosts:
        bound = apart("answers_twice")
        for _ in range(5):
            got = await hosts(call(bound))
            assert isinstance(got.error, BadAnswer | HostDown | ProcessDied) or words(got) == "first", got


async def test_memory_over_the_limit_costs_the_call_and_a_new_process_follows() -> None:
    async with running() as hosts:
        bound = apart("leaks", memory=256 * MIB)
        for _ in range(2):
            got = await hosts(call(bound))
            assert isinstance(got.error, SinkRaised | ProcessDied), got
        sound = msgspec.structs.replace(bound, sink_class=f"{SINKS}:sometimes")
        assert words(await hosts(call(sound)))


async def test_what_a_sink_leaves_behind_goes_with_it() -> None:
    async with running() as hosts:
        bound = apart("forks")
        left = int(words(await hosts(call(bound))))
        assert not is_gone(left)
        os.kill(hosts.host(bound).pid, signal.SIGKILL)
        await gone(left)


async def test_signals_meant_for_all_are_left_to_the_relay() -> None:
    async with running() as hosts:
        bound = apart("sometimes")
        pid = int(words(await hosts(call(bound))))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
        assert words(await hosts(call(bound))) == str(pid)


async def test_what_a_sink_prints_does_not_stop_it() -> None:
    assert await held("prints") == "printed"


async def test_calls_go_on_while_the_process_is_killed_again_and_again() -> None:
    async with running() as hosts:
        bound = apart("sometimes")
        answered, died = 0, 0
        for round_ in range(12):
            calls = [hosts(call(bound)) for _ in range(10)]
            got = await calls[0]
            answered += got.error is None
            if pid := hosts.host(bound).pid:
                os.kill(pid, signal.SIGKILL)
            for one in calls[1:]:
                got = await one
                assert isinstance(got.error, ProcessDied | HostDown | None), (round_, got)
                answered += got.error is None
                died += got.error is not None
        assert answered >= 60
        assert died <= 60


async def test_a_message_that_kills_costs_the_others_nothing() -> None:
    async with running() as hosts:
        bound = apart("sometimes")
        calls = [hosts(call(bound, subject(b"die" if n in (0, 4, 8) else b"live"))) for n in range(12)]
        got = [await one for one in calls]
        assert [n for n, one in enumerate(got) if one.error is not None] == [0, 4, 8]
        assert all(isinstance(got[n].error, ProcessDied) for n in (0, 4, 8))


async def test_a_process_that_never_answers_is_started_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "BACK_OFF_SECONDS", 1000.0)
    async with running() as hosts:
        bound = apart("killed")
        first, second = await hosts(call(bound)), await hosts(call(bound))
        assert isinstance(first.error, ProcessDied)
        assert isinstance(second.error, ProcessDied), "once is no habit"
        assert hosts.host(bound).pid == 0
        third = await hosts(call(bound))
        assert isinstance(third.error, HostDown)
        assert "its process is down" in str(third.error)
        assert third.took_seconds == 0


async def test_calls_wait_for_a_short_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BACK_OFF_SECONDS", 0.05)
    async with running() as hosts:
        bound = apart("sometimes")
        calls = [hosts(call(bound, subject(b"die" if n < 3 else b"live"))) for n in range(5)]
        got = [await one for one in calls]
        assert [one.error is None for one in got] == [False, False, False, True, True]


async def test_the_end_comes_during_a_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BACK_OFF_SECONDS", 0.4)
    async with running() as hosts:
        bound = apart("killed")
        for _ in range(2):
            assert isinstance((await hosts(call(bound))).error, ProcessDied)
        waiting = hosts(call(bound))
        assert not waiting.done()
    assert waiting.cancelled()


async def test_code_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "BACK_OFF_SECONDS", 1000.0)
    file = tmp_path / "broken.py"
    file.write_text("raise RuntimeError('not today')\n")
    async with running() as hosts:
        bound = apart("sink", file=file)
        waiting = [hosts(call(bound)) for _ in range(3)]
        for one in waiting:
            assert isinstance((await one).error, HostDown)
            assert "not today" in str((await one).error)


async def test_a_process_that_cannot_be_watched_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def no_more(pid: int) -> int:
        started.append(pid)
        raise OSError("no more descriptors")

    monkeypatch.setattr(os, "pidfd_open", no_more)
    monkeypatch.setattr(process, "BACK_OFF_SECONDS", 1000.0)
    async with running() as hosts:
        got = await hosts(call(apart("stamp")))
        assert "cannot be started: no more descriptors" in str(got.error)
    assert is_gone(started[0])


async def test_too_many_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "WAITING_LIMIT", 3)
    async with running() as hosts:
        calls = [hosts(call(apart("sometimes"))) for _ in range(5)]
        got = [await one for one in calls]
        assert [one.error is None for one in got] == [True, True, True, False, False]
        assert "3 calls wait" in str(got[4].error)


async def test_who_waited_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as hosts:
        host = hosts.host(apart("sometimes"))
        assert words(await host.call(call(host.binding)))
        current, behind = host.call(call(host.binding)), host.call(call(host.binding))
        monkeypatch.setattr(process, "WAITING_SECONDS", -1.0)
        assert words(await current)
        assert "its turn had not come" in str((await behind).error)


# --- begin, change, end ---------------------------------------------------------------------------------


async def test_processes_follow_the_bindings_in_force(tmp_path: Path) -> None:
    file = tmp_path / "changing.py"
    text = SINKS.read_text()
    file.write_text(text)
    one, other = apart("sometimes", file=file), apart("stamp")
    async with running() as hosts:
        hosts.use([one, other, binding(lambda message: Next())])
        first = hosts.host(one).pid
        unused = hosts.host(other)
        assert first and unused.pid
        assert words(await hosts(call(one))) == str(first)
        hosts.use([one])
        await unused.ended.wait()
        assert words(await hosts(call(one))) == str(first), "the same binding keeps its process"
        file.write_text(text.replace("Hold(str(os.getpid()))", "Hold('changed')"))
        hosts.use([apart("sometimes", file=file)])
        assert words(await hosts(call(one))) == "changed"
        await gone(first)


async def test_the_end_cancels_who_waits() -> None:
    hosts = Hosts()
    under_way, behind = hosts(call(apart("hangs"))), hosts(call(apart("hangs")))
    host = hosts.host(apart("hangs"))
    pid = host.pid
    await hosts.close()
    assert under_way.cancelled() and behind.cancelled()
    assert host.pid == 0
    assert is_gone(pid)
    assert hosts(call(apart("hangs"))).cancelled(), "and nothing is started any more"
    await hosts.close()


# --- what a sink says of itself -------------------------------------------------------------------------


def test_a_sink_declares_itself_without_running_here() -> None:
    said = declare(f"{SINKS}:stamp")
    loaded = load_class(f"{SINKS}:stamp")
    assert (said.name, said.priority, said.rule, said.effects, said.role, said.on_damage, said.on_error) == (
        loaded.name,
        loaded.priority,
        loaded.rule,
        loaded.effects,
        loaded.role,
        loaded.on_damage,
        loaded.on_error,
    )
    assert said.event is Event.ARRIVAL
    with pytest.raises(RuntimeError, match="process of its own"):
        said(call(apart("stamp")).message)


def test_a_built_in_sink_declares_itself_too() -> None:
    assert declare("lonedot.sinks.builtin.x_recipient:x_recipient").name == "X-Recipient"


def test_settings_are_judged_by_the_process() -> None:
    assert declare(f"{SINKS}:typed", {"limit": 3}).name == "typed"
    with pytest.raises(SettingsFault, match="did you mean limit") as raised:
        declare(f"{SINKS}:typed", {"limits": 3})
    assert raised.value.key == "limits"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise ValueError('broken')", "ValueError: broken"),
        ("import os; os._exit(3)", "ended while it was loaded"),
        ("import signal; signal.pause()", "not loaded after 2 s"),
        ("import os, sys; os.write(int(sys.argv[2]), bytes(8))", "ended while it was loaded"),
        ("", "exactly one @sink"),
        ("x = bytes(1 << 40)", "MemoryError"),
    ],
)
def test_code_that_cannot_be_declared(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "faulty.py"
    file.write_text(text)
    with pytest.raises(SinkNotLoaded, match=said):
        declare(str(file), seconds=2.0)
