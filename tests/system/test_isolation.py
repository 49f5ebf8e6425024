"""Sinks in processes of their own in the running relay: whatever they do costs a deadline, never a message."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import smtplib
from pathlib import Path

import msgspec
import pytest

from lonedot.app import Relay
from lonedot.app.relay import AppFault
from lonedot.message.fold import fold
from lonedot.message.ledger import Action
from lonedot.sinks.bindings import Binding, Isolation, firing_order, guid_for
from lonedot.sinks.builtin.x_recipient import x_recipient
from lonedot.sinks.child import declare
from lonedot.sinks.events import Event
from lonedot.sinks.load import bind
from lonedot.spool.interface import Filter, MessageState, Stored
from lonedot.terms.ids import MessageId
from lonedot.testing.process import RelayProcess
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import (
    MESSAGE,
    connected,
    eventually,
    finished,
    first_config,
    id_of,
    submit,
    until,
)

SINKS = Path(__file__).parents[1] / "unit" / "sinks" / "process_sinks.py"
NOBODY = first_config(1)
LARGE = MESSAGE + (b"x" * 70 + b"\r\n") * 15_000
NO_CUSTODY = "451 4.3.0"


def apart(
    name: str,
    *,
    deadline: float = 60.0,
    on_error: str | None = None,
    rule: str | None = None,
    priority: int | None = None,
    settings: dict[str, str | int | float | bool] | None = None,
    event: Event = Event.END_OF_DATA,
) -> Binding:
    """A binding of one of the sinks for tests, as the configuration would make it; the client waits for it."""
    sink_class = f"{SINKS}:{name}"
    return bind(
        declare(sink_class),
        sink_class=sink_class,
        isolation=Isolation.PROCESS,
        deadline_seconds=deadline,
        on_error=on_error,
        rule=rule,
        priority=priority,
        settings=settings,
        maximum_faults=0,
        event=event,
    )


def asked(stored: Stored) -> bool:
    """All of its sinks were called."""
    return stored.transport is None


def with_subject(words: str) -> bytes:
    return MESSAGE.replace(b"Subject: hello", b"Subject: " + words.encode())


async def outcome(folder: Path, *bindings: Binding, octets: bytes = MESSAGE) -> str | Stored:
    """What becomes of one message: the reply that refused it, or what is stored."""
    async with running_relay(folder, NOBODY, bindings=firing_order(bindings)) as relay:
        async with connected(relay) as client:
            await client.envelope()
            answer = await client.content(octets)
            assert (await client.say("NOOP")).startswith("250")
        if not answer.startswith("250"):
            assert relay.spool.listing(Filter(states=tuple(MessageState))) == []
            return answer
        return relay.spool.show(id_of(answer))


# --- as inline ----------------------------------------------------------------------------------------


async def test_its_edits_are_applied_and_booked_like_those_of_any_sink(tmp_path: Path) -> None:
    with StrictSink() as receiver:
        bindings = [apart("stamp", settings={"field": "X-Apart"})]
        async with running_relay(tmp_path, first_config(receiver.port), bindings=bindings) as relay:
            id = await submit(relay)
            stored = await finished(relay, id)
    entry = stored.ledger[-1]
    assert (entry.binding, entry.binding_id, entry.event) == ("stamp", guid_for("stamp"), "end-of-data")
    assert (entry.action, entry.verdict) == (Action.KEPT, "next")
    assert entry.took_seconds > 0
    assert b"X-Apart: anna@dest.example\r\n" in receiver.arrivals[0].content
    assert receiver.faults == []


@pytest.mark.parametrize("octets", [MESSAGE, LARGE], ids=["small", "large"])
async def test_inline_and_process_share_a_chain(tmp_path: Path, octets: bytes) -> None:
    """In their order; each sees what the one before it has made, also where the body lies in a file."""
    stored = await outcome(
        tmp_path,
        bind(x_recipient, sink_class="tests:x_recipient", name="first", priority=1, event="end-of-data"),
        apart("stamp", priority=2),
        bind(x_recipient, sink_class="tests:x_recipient", name="third", priority=3, event="end-of-data"),
        apart("digest", priority=4),
        octets=octets,
    )
    assert isinstance(stored, Stored)
    assert [entry.binding for entry in stored.ledger[1:]] == ["first", "stamp", "third", "digest"]
    assert stored.state is MessageState.HELD
    body = octets.partition(b"\r\n\r\n")[2]
    size, chunked, at_once = stored.reason.rpartition(": ")[2].split()
    assert chunked == at_once == hashlib.sha256(body).hexdigest()
    assert int(size) == stored.size


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("reject", "554 5.6.0 no"),
        ("defer", "450 4.2.0 later"),
        ("hold", MessageState.HELD),
        ("discard", MessageState.FINISHED),
        ("next", MessageState.QUEUED),
    ],
)
async def test_every_verdict(tmp_path: Path, verdict: str, expected: str | MessageState) -> None:
    found = await outcome(tmp_path, apart("verdict", settings={"verdict": verdict}))
    assert (found.state if isinstance(found, Stored) else found) == expected


async def test_what_it_did_not_declare_is_undone(tmp_path: Path) -> None:
    stored = await outcome(tmp_path, apart("verdict", settings={"verdict": "stop"}))
    assert isinstance(stored, Stored)
    assert stored.ledger[-1].action is Action.UNDONE


# --- faults: what each of them does is in `test_faults` ---------------------------------------------------


async def test_one_that_hangs_holds_up_only_what_it_is_called_for(tmp_path: Path) -> None:
    hanging = apart("hangs", deadline=30.0, rule="RCPT TO=hang@dest.example")
    bindings = [hanging, apart("stamp", priority=1)]
    async with (
        running_relay(tmp_path, NOBODY, bindings=bindings) as relay,
        connected(relay) as stuck,
        connected(relay) as client,
    ):
        await stuck.envelope("hang@dest.example")
        waiting = asyncio.create_task(stuck.content())
        for _ in range(20):
            await client.envelope()
            assert (await client.content()).startswith("250")
        assert not waiting.done()
        os.kill(relay.hosts.host(hanging).pid, signal.SIGKILL)
        assert (await waiting).startswith(NO_CUSTODY)
        assert (await stuck.say("NOOP")).startswith("250")


async def test_pickup_goes_on_behind_one_that_hangs(tmp_path: Path) -> None:
    with StrictSink() as receiver:
        toml = first_config(receiver.port) + "\n[pickup]\npoll_seconds = 0.05\n"
        hanging = apart("hangs", deadline=0.3, rule="RCPT TO=hang@dest.example", event=Event.ARRIVAL)
        async with running_relay(tmp_path, toml, bindings=[hanging]) as relay:
            folder = relay.config.pickup.folder
            for name, to in (("a.eml", b"hang@dest.example"), ("b.eml", b"anna@dest.example")):
                (folder / name).write_bytes(MESSAGE.replace(b"anna@dest.example", to))
            await eventually(lambda: receiver.arrivals)
        assert receiver.arrivals[0].recipients == (b"anna@dest.example",)


async def test_a_stop_does_not_wait_for_one_that_hangs(tmp_path: Path) -> None:
    toml = first_config(1, server="drain_seconds = 0.3")
    hanging = apart("hangs", deadline=300.0)
    async with running_relay(tmp_path, toml, bindings=[hanging]) as relay, connected(relay) as client:
        await client.envelope()
        waiting = asyncio.create_task(client.content())
        await eventually(lambda: not relay.hosts.host(hanging).is_idle)
        await asyncio.wait_for(relay.stop(), 20)
        assert not (await waiting).startswith("250")
    async with running_relay(tmp_path, toml) as relay:
        assert relay.spool.listing(Filter(states=tuple(MessageState))) == []


@pytest.mark.parametrize("on_error", ["defer", "skip", "hold"])
async def test_kills_under_load_lose_nothing(tmp_path: Path, on_error: str) -> None:
    """200 messages in five sessions, the process killed at every seventh: accepted ones arrive and say who failed.

    Without the sink's work nothing leaves, unless `on_error` says so.
    """
    sessions, each = 5, 40
    bound = apart("stamp", on_error=on_error)
    accepted: list[MessageId] = []
    deferred = 0

    async def session(relay: Relay, number: int) -> None:
        nonlocal deferred
        async with connected(relay) as client:
            for turn in range(each):
                await client.envelope()
                answer = await client.content(with_subject(f"{number}-{turn}"))
                if answer.startswith("250"):
                    accepted.append(id_of(answer))
                else:
                    assert answer.startswith(NO_CUSTODY), answer
                    deferred += 1
                if (number * each + turn) % 7 == 0 and (pid := relay.hosts.host(bound).pid):
                    os.kill(pid, signal.SIGKILL)

    with StrictSink() as receiver:
        async with running_relay(tmp_path, first_config(receiver.port), bindings=[bound]) as relay:
            await asyncio.gather(*(session(relay, number) for number in range(sessions)))
            ledgers = []
            for id in accepted:
                if relay.spool.show(id).state is MessageState.HELD:
                    ledgers.append(relay.spool.show(id).ledger)
                    continue
                ledgers.append((await finished(relay, id)).ledger)
            assert len(relay.spool.listing(Filter(states=tuple(MessageState), limit=1000))) == len(accepted)
    assert len(accepted) + deferred == sessions * each
    assert receiver.faults == []
    ends = [ledger[-1] for ledger in ledgers]
    done = [entry for entry in ends if entry.action is Action.KEPT]
    failed = [entry for entry in ends if entry.action is not Action.KEPT]
    assert {entry.action for entry in failed} <= {Action.HELD if on_error == "hold" else Action.SKIPPED}
    assert all(entry.binding == "stamp" and "its process" in entry.words for entry in failed)
    assert len(done) >= sessions * each // 3
    stamped = [arrival.content.count(b"X-Stamp: ") for arrival in receiver.arrivals]
    assert stamped.count(1) == len(done)
    assert stamped.count(0) == (len(failed) if on_error == "skip" else 0)
    assert len(stamped) == stamped.count(0) + stamped.count(1)
    assert bool(deferred) == (on_error == "defer"), "no kill met a call"
    assert bool(failed) == (on_error != "defer"), "no kill met a call"


# --- from the configuration -----------------------------------------------------------------------------

SINK_FILE = """
import os
from lonedot import Edit, Message, Next, sink
import msgspec

class Settings(msgspec.Struct):
    field: str = "X-Pid"

@sink("pid", effects={"header"}, settings=Settings)
def pid(message: Message, settings: Settings) -> Next:
    return Next([Edit.add_field(settings.field, str(os.getpid()))])
"""
TABLE = """
[[sink]]
name = "Pid"
file = "pid.py"
isolation = "process"
deadline = "60s"
memory = "256 MiB"
"""


async def test_a_table_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "pid.py").write_text(SINK_FILE)
    toml = first_config(1) + TABLE + 'settings = { field = "X-Where" }\n'
    async with running_relay(tmp_path, toml) as relay:
        id = await submit(relay)
        stored = await until(relay, id, asked)
        octets = fold(relay.spool.content(id), stored.ledger, verify=True).octets()
    where = octets.partition(b"X-Where: ")[2].partition(b"\r\n")[0]
    assert int(where) != os.getpid()


@pytest.mark.parametrize(
    ("code", "more", "said"),
    [
        (SINK_FILE, 'settings = { feld = "X" }\n', "did you mean field"),
        ("import nothing_of_this_name\n", "", "nothing_of_this_name"),
        (SINK_FILE, 'user = "no-such-user-here"\n', "no-such-user-here"),
    ],
)
async def test_a_relay_does_not_start_with_what_cannot_run(
    tmp_path: Path, code: str, more: str, said: str
) -> None:
    (tmp_path / "pid.py").write_text(code)
    with pytest.raises(AppFault, match=said):
        async with running_relay(tmp_path, first_config(1) + TABLE + more):
            pass


async def test_changed_code_is_taken_on_reload(tmp_path: Path) -> None:
    (tmp_path / "pid.py").write_text(SINK_FILE)
    async with running_relay(tmp_path, first_config(1) + TABLE) as relay:
        first = await submit(relay)
        await until(relay, first, asked)
        (tmp_path / "pid.py").write_text(SINK_FILE.replace("X-Pid", "X-New-Pid"))
        await relay.reload_told()
        second = await submit(relay)
        await until(relay, second, asked)
        heads = [fold(relay.spool.content(id), relay.spool.show(id).ledger).head for id in (first, second)]
    assert b"X-Pid: " in heads[0]
    assert b"X-New-Pid: " in heads[1]


async def test_an_inline_sink_that_is_late_is_noted(tmp_path: Path) -> None:
    late = msgspec.structs.replace(
        bind(x_recipient, sink_class="tests:x_recipient", name="late"), deadline_seconds=0.0
    )
    stored = await outcome(tmp_path, late)
    assert isinstance(stored, Stored)
    entry = stored.ledger[-1]
    assert entry.action is Action.KEPT
    assert "its deadline is 0 s" in entry.words


def is_running(pid: int) -> bool:
    """It has not ended; who has ended may still wait to be waited for."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


@pytest.mark.parametrize("end", ["killed", "stopped"])
async def test_sinks_do_not_outlive_their_relay(tmp_path: Path, end: str) -> None:
    (tmp_path / "pid.py").write_text(SINK_FILE)
    with StrictSink() as receiver:
        toml = first_config(receiver.port) + TABLE
        with RelayProcess(tmp_path, toml) as relay:
            with smtplib.SMTP("127.0.0.1", relay.ports["in"], timeout=60) as client:
                client.sendmail("c@office.example", ["anna@dest.example"], MESSAGE)
            await eventually(lambda: receiver.arrivals)
            pid = int(receiver.arrivals[0].content.partition(b"X-Pid: ")[2].partition(b"\r\n")[0])
            assert is_running(pid)
            if end == "killed":
                relay.kill()
            else:
                assert relay.stop() == 0
            await eventually(lambda: not is_running(pid))
