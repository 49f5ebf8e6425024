"""The registry of a running relay: changed while mail flows, by tools, by hand, and while the relay is down."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lonedot.admin.client import ControlClient, connect
from lonedot.admin.sinks import ApplyArguments
from lonedot.admin.sinks_operations import APPLY, BINDINGS, RELOAD
from lonedot.admin.values import AdminError, NoArguments
from lonedot.app import Relay
from lonedot.cli import run
from lonedot.message.ledger import Splice
from lonedot.sinks.registry import Add, Change, Selected, SetKey, Status, Switch
from lonedot.sinks.registry_file import read_audit
from lonedot.spool.interface import Filter, MessageState, Stored
from lonedot.terms.ids import MessageId
from lonedot.testing.process import RelayProcess
from lonedot.testing.relay import running_relay
from tests.system.talk import MESSAGE, connected, first_config, id_of, submit, until

CONFIG = first_config(1, server='registry = "sinks.toml"')
EDITS = 1000 if os.environ.get("LONEDOT_CRASH") == "long" else 200
SESSIONS = 3

MARKS = """
import os

from lonedot import Edit, Message, Next, sink

@sink("first", priority=10, effects={"header"})
def first(message: Message) -> Next:
    return Next(edits=[Edit.add_field("X-First", str(message.settings["value"]))])

@sink("second", priority=20, effects={"header"})
def second(message: Message) -> Next:
    return Next(edits=[Edit.add_field("X-Second", str(message.settings["VALUE"]))])

@sink("process", priority=30, effects={"header"})
def process(message: Message) -> Next:
    return Next(edits=[Edit.add_field("X-Process", str(os.getpid()))])
"""
REGISTRY = """\
# Kept by hand.
[[binding]]
name = "first"
sink = "marks.py:first"
[binding.sink_properties]
value = 0

[[binding]]
name = "second"
sink = "marks.py:second"
[binding.sink_properties]
value = 0
"""


@contextlib.asynccontextmanager
async def controlled(relay: Relay) -> AsyncIterator[ControlClient]:
    """The control socket of a relay."""
    client = await connect(relay.config.server.paths)
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "marks.py").write_text(MARKS)
    (tmp_path / "sinks.toml").write_text(REGISTRY)
    return tmp_path


def marks(stored: Stored) -> dict[str, str]:
    """What each sink wrote into the message."""
    found: dict[str, str] = {}
    for entry in stored.ledger:
        for change in entry.changes:
            if isinstance(change, Splice) and entry.binding != "lonedot":
                value = re.search(rb": (\S+)", change.octets)
                assert value is not None
                found[entry.binding] = value[1].decode()
    return found


@pytest.mark.timeout(900)  # the long form is 1 000 edits
async def test_edited_while_mail_flows_no_message_sees_half_a_change(folder: Path) -> None:
    chance = random.Random(20100401)
    expected: dict[str, dict[str, str]] = {}
    accepted: list[MessageId] = []
    async with running_relay(folder, CONFIG) as relay, controlled(relay) as client:
        listing = await client.call(BINDINGS, NoArguments())
        expected[listing.revision] = {"first": "0", "second": "0"}
        prefix = listing.revision.partition("+")[0]
        is_done = asyncio.Event()

        async def send() -> None:
            async with connected(relay) as session:
                while not is_done.is_set():
                    await session.envelope()
                    accepted.append(id_of(await session.content()))

        async with asyncio.TaskGroup() as group:
            for _ in range(SESSIONS):
                group.create_task(send())
            is_on = True
            for number in range(1, EDITS + 1):
                changes: list[Change] = [
                    SetKey(Selected((name,)), "sink_properties.value", number) for name in ("first", "second")
                ]
                if chance.random() < 0.3:
                    is_on = not is_on
                    status = Status.ENABLED if is_on else Status.DISABLED
                    changes.append(Switch(Selected(("second",)), status))
                taken = await client.call(APPLY, ApplyArguments(tuple(changes)))
                both = {"first": str(number), "second": str(number)}
                expected[f"{prefix}+{taken.after}"] = both if is_on else {"first": str(number)}
            is_done.set()

        assert len(expected) == EDITS + 1
        rows = relay.spool.listing(Filter(states=tuple(MessageState), limit=1_000_000))
        assert sorted(row.id for row in rows) == sorted(accepted)  # nothing lost, nothing twice
        seen: set[str] = set()
        for id in accepted:
            stored = relay.spool.show(id)
            assert {entry.revision for entry in stored.ledger} == {stored.facts.revision}
            assert marks(stored) == expected[stored.facts.revision]
            seen.add(stored.facts.revision)
        assert len(seen) > EDITS / 10
    assert len(read_audit(folder / "sinks.toml")) == EDITS
    assert (folder / "sinks.toml").read_text().startswith("# Kept by hand.\n[[binding]]\n")


async def test_a_message_keeps_the_bindings_that_it_began_with(folder: Path) -> None:
    async with (
        running_relay(folder, CONFIG) as relay,
        connected(relay) as session,
        controlled(relay) as control,
    ):
        before = (await control.call(BINDINGS, NoArguments())).revision
        await session.envelope()
        await control.call(APPLY, ApplyArguments((Switch(Selected(("first", "second")), Status.DISABLED),)))
        stored = relay.spool.show(id_of(await session.content()))
        assert marks(stored) == {"first": "0", "second": "0"} and stored.facts.revision == before
        await session.envelope()
        stored = relay.spool.show(id_of(await session.content()))
        assert marks(stored) == {} and stored.facts.revision != before


async def test_a_change_that_cannot_be_taken_changes_nothing(folder: Path) -> None:
    async with running_relay(folder, CONFIG) as relay, controlled(relay) as control:
        before = await control.call(BINDINGS, NoArguments())
        bad: list[tuple[Change, str]] = [
            (Add({"name": "x", "sink": "marks.py:third"}), "has no third"),
            (Add({"name": "x", "sink": "marks.py:Edit"}), "is not a sink"),
            (SetKey(Selected(("first",)), "priority", 40000), "out of range"),
            (SetKey(Selected(("frist",)), "priority", 4), "did you mean 'first'"),
            (SetKey(Selected(("first",)), "event", "mail"), "takes a Message"),
        ]
        for change, words in bad:
            with pytest.raises(AdminError, match=words):
                await control.call(
                    APPLY, ApplyArguments((Switch(Selected(("second",)), Status.DISABLED), change))
                )
        assert await control.call(BINDINGS, NoArguments()) == before
        assert (folder / "sinks.toml").read_text() == REGISTRY
        assert marks(relay.spool.show(await submit(relay))) == {"first": "0", "second": "0"}


async def test_a_hand_s_edit_and_changed_code_are_taken_on_reload(folder: Path) -> None:
    async with running_relay(folder, CONFIG) as relay, controlled(relay) as control:
        (folder / "sinks.toml").write_text(REGISTRY.replace("value = 0", "value = 5"))
        (folder / "marks.py").write_text(MARKS.replace('"X-First", str', '"X-First", "v" + str'))
        assert marks(relay.spool.show(await submit(relay))) == {"first": "0", "second": "0"}
        taken = await control.call(RELOAD, NoArguments())
        assert taken.before != taken.after
        assert marks(relay.spool.show(await submit(relay))) == {"first": "v5", "second": "5"}
        (folder / "sinks.toml").write_text("[[binding]]\nname = 1\n")
        with pytest.raises(AdminError, match="sink: is missing"):
            await control.call(RELOAD, NoArguments())
        assert marks(relay.spool.show(await submit(relay))) == {"first": "v5", "second": "5"}


async def test_a_process_goes_on_when_another_binding_changes(folder: Path) -> None:
    apart = '[[binding]]\nname = "process"\nsink = "marks.py:process"\nisolation = "process"\n'
    (folder / "sinks.toml").write_text(REGISTRY + apart)
    async with running_relay(folder, CONFIG) as relay, controlled(relay) as control:

        async def marked() -> dict[str, str]:
            stored = await until(relay, await submit(relay), lambda stored: "process" in marks(stored))
            return marks(stored)

        async def after(change: Change) -> dict[str, str]:
            await control.call(APPLY, ApplyArguments((change,)))
            return await marked()

        before = (await marked())["process"]
        assert before != str(os.getpid())
        other = await after(SetKey(Selected(("first",)), "sink_properties.value", 1))
        assert other == {"first": "1", "second": "0", "process": before}
        own = await after(SetKey(Selected(("process",)), "priority", 5))
        assert own["process"] not in (before, str(os.getpid()))


def test_commands_at_once_lose_nothing(folder: Path) -> None:
    commands = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "lonedot", "sinks", "add", f"n{number}", "marks.py:first"),
                *("--property", "value=1", "--registry", str(folder / "sinks.toml")),
            ],
            stdout=subprocess.DEVNULL,
        )
        for number in range(5)
    ]
    assert [command.wait(60) for command in commands] == [0] * 5
    text = (folder / "sinks.toml").read_text()
    assert text.startswith(REGISTRY)
    assert sorted(re.findall(r'name = "(n\d)"', text)) == ["n0", "n1", "n2", "n3", "n4"]
    lines = read_audit(folder / "sinks.toml")
    assert [line.before for line in lines[1:]] == [line.after for line in lines[:-1]]


def test_commands_at_a_relay_of_its_own_and_without_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def sinks(*words: str, code: int = 0) -> str:
        assert run([*words, "-c", str(folder / "lonedot.toml")]) == code
        said = capsys.readouterr()
        return said.out + said.err

    def shown(name: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(sinks("sinks", "show", name, "--json"))
        return found

    with RelayProcess(folder, CONFIG) as relay:
        assert "in force: revision" in sinks("sinks", "set", "first", "priority", "7")
        assert "in force" in sinks("sinks", "list")
        assert shown("first")["priority"] == 7
        assert "disabled 'second'" in sinks("smtpreg", "/disable", "1", "OnArrival", "second")
        assert "no difference" in sinks("sinks", "diff", str(folder / "sinks.toml"))
        text = (folder / "sinks.toml").read_text()
        (folder / "sinks.toml").write_text(text.replace("priority = 7", "priority = 8"))
        assert "~ first: priority: 8 -> 7" in sinks("sinks", "diff", str(folder / "sinks.toml"), code=1)
        os.kill(relay.pid, signal.SIGHUP)
        while shown("first")["priority"] != 8:
            pass
        assert "as before" in sinks("sinks", "reload")
        assert relay.stop() == 0
        assert "written: revision" in sinks("sinks", "enable", "second")
        assert "no relay runs" in sinks("sinks", "list")
        relay.start()
        assert shown("second")["status"] == "enabled"
    users = {line.uid for line in read_audit(folder / "sinks.toml")}
    assert users == {os.getuid()} and len(read_audit(folder / "sinks.toml")) == 3


def test_a_relay_does_not_start_with_a_faulty_registry_and_the_command_can_mend_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = folder / "lonedot.toml"
    config.write_text(CONFIG)
    (folder / "marks.py").unlink()
    assert run(["check", "-c", str(config)]) == 1
    assert f"{folder / 'sinks.toml'}:4:1: fault: binding 1: sink" in capsys.readouterr().out
    assert run(["serve", "-c", str(config)]) == 1
    assert run(["sinks", "disable", "first", "second", "-c", str(config)]) == 0
    assert run(["check", "-c", str(config)]) == 0


async def test_a_relay_without_a_registry_lists_and_refuses_changes(tmp_path: Path) -> None:
    more = '[[sink]]\nname = "x"\nimport = "lonedot.sinks.builtin.x_recipient:x_recipient"\n'
    async with running_relay(tmp_path, first_config(1, more=more)) as relay, controlled(relay) as control:
        listing = await control.call(BINDINGS, NoArguments())
        assert [one.name for one in listing.bindings] == ["x"] and listing.registry == ""
        assert listing.revision == relay.config.revision
        with pytest.raises(AdminError, match="names no registry"):
            await control.call(APPLY, ApplyArguments((Add({"name": "y", "sink": "m:s"}),)))


async def test_configuration_and_registry_fire_in_one_order(folder: Path) -> None:
    more = '[[sink]]\nname = "between"\nimport = "lonedot.sinks.builtin.x_recipient:x_recipient"\npriority = 15\n'
    async with running_relay(folder, CONFIG + more) as relay:
        stored = relay.spool.show(await submit(relay, MESSAGE))
        assert [entry.binding for entry in stored.ledger[1:]] == ["first", "between", "second"]
