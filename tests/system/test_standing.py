"""A running relay and bindings that fail: switched off by itself, held, brought back, and tried in shadow."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from lonedot import Edit, Hold, Message, Next, Verdict, sink
from lonedot.admin.client import connect
from lonedot.admin.sinks import ApplyArguments, Bindings, ListedBinding, Taken
from lonedot.admin.sinks_operations import APPLY, BINDINGS
from lonedot.admin.values import NoArguments
from lonedot.app import Relay
from lonedot.cli import run
from lonedot.diagnosis.tell import tell
from lonedot.diagnosis.why import Transcripts, journey
from lonedot.evidence.events import Event, EventKind
from lonedot.message.ledger import Action
from lonedot.sinks.bindings import Binding, Mode, Role
from lonedot.sinks.load import bind
from lonedot.sinks.registry import Selected, Status, Switch
from lonedot.sinks.sink import Sink
from lonedot.sinks.standing import Measure
from lonedot.spool.interface import Filter, MessageState, Stored
from lonedot.terms.ids import MessageId
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, connected, eventually, finished, first_config, id_of, submit, until

REGISTRY = 'registry = "sinks.toml"'
BROKEN = """
from lonedot import Edit, Message, Next, sink

@sink("broken", effects={"header"}, on_error="skip")
def broken(message: Message) -> Next:
    raise RuntimeError("no database")

@sink("scanner", role="protective")
def scanner(message: Message) -> Next:
    raise RuntimeError("no answer")

@sink("stamp", effects={"header"})
def stamp(message: Message) -> Next:
    return Next([Edit.add_field("X-Stamp", "yes")])
"""
WORST = """
import os, time
from lonedot import Message, Next, sink

@sink("dies")
def dies(message: Message) -> Next:
    os._exit(3)

@sink("hangs")
def hangs(message: Message) -> Next:
    time.sleep(600)
    return Next()
"""
ROWS = """\
# Kept by hand.
[[binding]]
name = "broken"
sink = "broken.py:broken"
maximum_faults = 3

[[binding]]
name = "stamp"
sink = "broken.py:stamp"
"""
MAXIMUM = 3


async def listed(relay: Relay, name: str) -> ListedBinding:
    client = await connect(relay.config.server.paths)
    try:
        listing: Bindings = await client.call(BINDINGS, NoArguments())
    finally:
        await client.close()
    return next(one for one in listing.bindings if one.name == name)


async def enable(relay: Relay, name: str) -> Taken:
    client = await connect(relay.config.server.paths)
    try:
        return await client.call(APPLY, ApplyArguments((Switch(Selected((name,)), Status.ENABLED),)))
    finally:
        await client.close()


def events(relay: Relay, kind: EventKind) -> list[Event]:
    return relay.events.read(kinds=[kind])


async def sinks_of(relay: Relay) -> list[str]:
    """The bindings that the next message meets."""
    stored = await finished(relay, await submit(relay))
    return [entry.binding for entry in stored.ledger[1:]]


async def test_a_faulty_cosmetic_binding_goes_off_and_is_brought_back(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    registry = tmp_path / "sinks.toml"
    registry.write_text(ROWS)
    with StrictSink() as receiver:
        toml = first_config(receiver.port, server=REGISTRY)
        async with running_relay(tmp_path, toml) as relay:
            async with connected(relay) as early:
                # A message that has begun keeps the set that it began with.
                assert (await early.envelope())[0].startswith("250")
                for _ in range(MAXIMUM):
                    assert await sinks_of(relay) == ["broken", "stamp"]
                assert (await early.content()).startswith("250")
            assert await sinks_of(relay) == ["stamp"]
            (told,) = events(relay, EventKind.BINDING_SWITCHED_OFF)
            assert "broken: 3 faults: 3 raised, since " in told.words and "no database" in told.words
            row = await listed(relay, "broken")
            assert row.is_enabled and row.standing is not None
            assert (row.standing.measure, len(row.standing.faults)) == (Measure.OFF, MAXIMUM)
            revisions = {m.facts.revision for m in map(relay.spool.show, await ids(relay))}
            assert sum("~" in revision for revision in revisions) == 1 and len(revisions) == 2
            state = tmp_path / "spool" / "bindings.json"
            await eventually(lambda: state.exists() and b'"off"' in state.read_bytes())
        assert registry.read_text() == ROWS, "a person's file is not edited"
        async with running_relay(tmp_path, toml) as relay:
            assert await sinks_of(relay) == ["stamp"], "it survives a restart"
            taken = await enable(relay, "broken")
            assert taken.done == (
                f"enabled 'broken' {row.guid}: it had switched itself off after 3 faults: 3 raised",
            )
            assert await sinks_of(relay) == ["broken", "stamp"]
            assert (await listed(relay, "broken")).standing != row.standing
        assert registry.read_text() == ROWS
        assert json.loads(state.read_bytes())["bindings"][0]["measure"] == "none"
    assert len(receiver.arrivals) == 7


async def ids(relay: Relay) -> list[MessageId]:
    return [MessageId(row.id) for row in relay.spool.listing(Filter(states=tuple(MessageState)))]


GROUPED = """
[[binding]]
name = "one"
group = "g"
sink = "broken.py:broken"
maximum_faults = 1

[[binding]]
name = "two"
group = "g"
sink = "broken.py:broken"
maximum_faults = 1
"""


async def test_enabling_names_groups_and_what_is_disabled_besides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    registry = tmp_path / "sinks.toml"
    registry.write_text(GROUPED)
    config = ["-c", str(tmp_path / "lonedot.toml")]

    async def lonedot(*arguments: str) -> tuple[int, str]:
        code = await asyncio.to_thread(run, ["sinks", *arguments, *config])
        said = capsys.readouterr()
        return code, said.out + said.err

    with StrictSink() as receiver:
        async with running_relay(tmp_path, first_config(receiver.port, server=REGISTRY)) as relay:
            assert await sinks_of(relay) == ["one", "two"]
            assert await sinks_of(relay) == []
            code, said = await lonedot("enable", "--group", "g")
            assert code == 0 and said.count("it had switched itself off") == 2
            assert registry.read_text() == GROUPED
            assert await sinks_of(relay) == ["one", "two"]
            code, said = await lonedot("show", "one")
            assert "1 fault since" in said and "no database" in said
            assert (await lonedot("disable", "one"))[0] == 0
            written = registry.read_text()
            assert written.count("disabled") == 1
            assert await sinks_of(relay) == []
            code, said = await lonedot("enable", "one", "two")
            assert code == 0 and said.count("it had switched itself off") == 2
            assert registry.read_text() == written.replace("disabled", "enabled")
            assert await sinks_of(relay) == ["one", "two"]
            code, said = await lonedot("enable", "tow")
            assert code != 0 and "did you mean 'two'?" in said
            assert await sinks_of(relay) == [], "what failed cleared nothing"
            code, said = await lonedot("remove", "one")
            assert code == 0
            row = await listed(relay, "two")
            assert row.standing is not None and row.standing.measure is Measure.OFF
            assert (await lonedot("add", "one", "broken.py:broken", "--mode", "shadow"))[0] == 0
            assert (await listed(relay, "one")).mode is Mode.SHADOW
            assert await sinks_of(relay) == ["one"], "one that is removed takes its faults along"


async def test_one_of_the_configuration_too_and_enabled_while_the_relay_is_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    table = '\n[[sink]]\nname = "broken"\nfile = "broken.py:broken"\nmaximum_faults = 1\n'
    with StrictSink() as receiver:
        toml = first_config(receiver.port, more=table)
        async with running_relay(tmp_path, toml) as relay:
            assert await sinks_of(relay) == ["broken"]
            assert await sinks_of(relay) == []
        command = ["-c", str(tmp_path / "lonedot.toml")]
        assert await asyncio.to_thread(run, ["sinks", "list", *command]) == 0
        assert "off by itself: 1 fault since 20" in capsys.readouterr().out
        assert await asyncio.to_thread(run, ["sinks", "enable", "broken", *command]) == 0
        assert "it had switched itself off after 1 fault: 1 raised" in capsys.readouterr().out
        assert await asyncio.to_thread(run, ["sinks", "list", *command]) == 0
        assert "off by itself" not in capsys.readouterr().out
        async with running_relay(tmp_path, toml) as relay:
            assert await sinks_of(relay) == ["broken"]


async def test_a_protective_binding_is_never_switched_off_and_holds(tmp_path: Path) -> None:
    @sink("scanner", role="protective")
    def scanner(message: Message) -> Next:
        raise RuntimeError("no answer")

    made = bind(scanner, sink_class="tests:scanner", maximum_faults=MAXIMUM)
    async with running_relay(tmp_path, first_config(1), bindings=[made]) as relay:
        for _ in range(MAXIMUM):
            async with connected(relay) as client:
                await client.envelope()
                assert (await client.content()).startswith("451 ")
        for _ in range(MAXIMUM * 2):
            stored = relay.spool.show(await submit(relay))
            assert stored.state is MessageState.HELD
            assert stored.ledger[-1].action is Action.HELD
        (told,) = events(relay, EventKind.BINDING_HOLDS)
        assert told.words.startswith("scanner: 3 faults: 3 raised")
        assert events(relay, EventKind.BINDING_SWITCHED_OFF) == []


async def test_a_sink_of_the_session_is_counted_too(tmp_path: Path) -> None:
    @sink("greets", on="helo", on_error="skip")
    def greets(session: object) -> Verdict:
        raise RuntimeError("no list")

    made = bind(greets, sink_class="tests:greets", maximum_faults=2)
    async with running_relay(tmp_path, first_config(1), bindings=[made]) as relay:
        for count in (0, 1, 1, 1):
            async with connected(relay):
                pass
            await eventually(lambda: len(events(relay, EventKind.SINK_FAILED)) >= 1)
            assert len(events(relay, EventKind.BINDING_SWITCHED_OFF)) == count
        assert len(events(relay, EventKind.SINK_FAILED)) == 2


FAILING = """
from lonedot import sink

@sink("failing", on="{event}", role="{role}", on_error="{on_error}")
def failing(shown):
    raise RuntimeError("no list")
"""


def is_settled(stored: Stored) -> bool:
    """Its sinks were asked, or one of them put it off or had it held."""
    return stored.transport is None or stored.transport.deferrals > 0 or stored.state is MessageState.HELD


ASKED = ("helo", "mail", "rcpt", "data")


@pytest.mark.parametrize("isolation", ["inline", "process"])
@pytest.mark.parametrize("event", [*ASKED, "end-of-data", "arrival"])
@pytest.mark.parametrize("role", list(Role))
async def test_too_many_faults_at_any_event(tmp_path: Path, role: Role, event: str, isolation: str) -> None:
    """A cosmetic binding is not called any more; past a protective one nothing goes, however often it fails."""
    on_error = "skip" if role is Role.COSMETIC else "defer"
    (tmp_path / "failing.py").write_text(FAILING.format(event=event, role=role.value, on_error=on_error))
    table = (
        f'\n[[sink]]\nname = "failing"\nfile = "failing.py:failing"\nisolation = "{isolation}"\n'
        f"deadline = 60\nmaximum_faults = {MAXIMUM}\n"
    )

    def called() -> int:
        return len(events(relay, EventKind.SINK_FAILED))

    async with running_relay(tmp_path, first_config(1, more=table)) as relay:
        for _ in range(MAXIMUM * 2):
            async with connected(relay, ehlo=False) as client:
                await client.reply()
                answers = [await client.say("EHLO client.example"), *await client.envelope()]
                answers.append(await client.content())
            went = all(answer.startswith(("2", "3")) for answer in answers)
            assert went or role is Role.PROTECTIVE
            if not went:
                continue
            stored = await until(relay, id_of(answers[-1]), is_settled)
            if role is Role.PROTECTIVE:
                assert stored.state is MessageState.HELD or stored.transport is not None
        off, holds = events(relay, EventKind.BINDING_SWITCHED_OFF), events(relay, EventKind.BINDING_HOLDS)
        if role is Role.COSMETIC:
            assert (len(off), len(holds)) == (1, 0)
            assert called() == MAXIMUM
            assert off[0].fields["binding"] == "failing" and f"{MAXIMUM} raised" in off[0].words
        else:
            assert (len(off), len(holds)) == (0, 1)
            assert called() >= MAXIMUM * 2
            assert events(relay, EventKind.SINK_DAMAGED) == [], "what failed has damaged nothing"


async def test_a_state_that_cannot_be_read_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir(mode=0o700)
    (tmp_path / "spool" / "bindings.json").write_bytes(b"{")
    async with running_relay(tmp_path, first_config(1)) as relay:
        (told,) = events(relay, EventKind.SPOOL_FAULT)
        assert "bindings.json" in told.words and "every binding is called again" in told.words
        await submit(relay)


# --- shadow --------------------------------------------------------------------------------------


FAULTY = """
[[sink]]
name = "story"
import = "lonedot.sinks.builtin.faulty:x_recipient_list"
mode = "shadow"
maximum_faults = 2
"""


def in_shadow(declared: Sink) -> Binding:
    return bind(declared, sink_class="tests:shadow", mode=Mode.SHADOW)


async def test_the_faulty_sink_in_shadow_changes_nothing_and_is_named(tmp_path: Path) -> None:
    with StrictSink() as receiver:
        toml = first_config(receiver.port, more=FAULTY)
        async with running_relay(tmp_path, toml) as relay:
            stored = await finished(relay, await submit(relay))
            (entry,) = stored.ledger[1:]
            assert (entry.binding, entry.action, entry.changes) == ("story", Action.SHADOWED, ())
            assert entry.fault == "damage" and entry.attempted is not None
            told = "\n".join(line.text for line in tell(journey(stored, Transcripts(), relay.clock.now())))
            assert 'THE SINK "story", IN SHADOW, WOULD HAVE DAMAGED THE MESSAGE.' in told
            assert "Nothing of it was done: the binding is in shadow." in told
            row = await listed(relay, "story")
            assert row.standing is not None and len(row.standing.faults) == 1
            await finished(relay, await submit(relay))
            assert await sinks_of(relay) == [], "its faults count as those of any other"
    assert all(arrival.content.endswith(MESSAGE.partition(b"\r\n\r\n")[2]) for arrival in receiver.arrivals)
    assert b"X-Handled-By" not in receiver.arrivals[0].content


async def test_a_shadow_cannot_hold_or_refuse_and_its_role_does_not_matter(tmp_path: Path) -> None:
    @sink("holds", role="protective")
    def holds(message: Message) -> Verdict:
        return Hold("odd", [Edit.add_field("X-Held", "yes")])

    @sink("exits", role="protective", on_error="reject")
    def exits(message: Message) -> Verdict:
        raise SystemExit(1)

    with StrictSink() as receiver:
        made = [in_shadow(holds), in_shadow(exits)]
        assert {one.role for one in made} == {Role.PROTECTIVE}
        async with running_relay(tmp_path, first_config(receiver.port), bindings=made) as relay:
            stored = await finished(relay, await submit(relay))
            assert [(e.binding, e.action) for e in stored.ledger[1:]] == [
                ("exits", Action.SHADOWED),
                ("holds", Action.SHADOWED),
            ]
    assert b"X-Held" not in receiver.arrivals[0].content


async def test_a_registry_puts_a_binding_in_shadow(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "sinks.toml").write_text(ROWS.replace('stamp"\n', 'stamp"\nmode = "shadow"\n', 1))
    with StrictSink() as receiver:
        toml = first_config(receiver.port, server=REGISTRY)
        async with running_relay(tmp_path, toml) as relay:
            assert (await listed(relay, "stamp")).mode is Mode.SHADOW
            stored = await finished(relay, await submit(relay))
            entry = stored.ledger[-1]
            assert (entry.binding, entry.action) == ("stamp", Action.SHADOWED)
            assert "would have changed the message" in entry.words and len(entry.proposed) == 1
    assert b"X-Stamp" not in receiver.arrivals[0].content
    assert msgspec.json.decode(msgspec.json.encode(entry), type=type(entry)) == entry


async def test_a_process_that_dies_or_hangs_in_shadow_costs_no_mail_and_goes_off(tmp_path: Path) -> None:
    (tmp_path / "worst.py").write_text(WORST)
    tables = "".join(
        f'\n[[sink]]\nname = "{name}"\nfile = "worst.py:{name}"\nisolation = "process"\nmode = "shadow"\n'
        f"maximum_faults = {maximum}\n"
        for name, maximum in (("dies", 2), ("hangs", 1))
    )
    with StrictSink() as receiver:
        toml = first_config(receiver.port, more=tables)
        async with running_relay(tmp_path, toml) as relay:
            stored = await finished(relay, await submit(relay))
            assert [(e.binding, e.action, e.fault) for e in stored.ledger[1:]] == [
                ("dies", Action.SHADOWED, "died"),
                ("hangs", Action.SHADOWED, "deadline"),
            ]
            assert await sinks_of(relay) == ["dies"]
            assert await sinks_of(relay) == []
            told = events(relay, EventKind.BINDING_SWITCHED_OFF)
            assert [one.fields["binding"] for one in told] == ["hangs", "dies"]
    assert len(receiver.arrivals) == 3
