"""Sinks in the session of a running relay: through real sockets, from the configuration, and in what is kept."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest

from lonedot import Defer, Edit, Message, Next, Reject, Session, Stop, Verdict, sink
from lonedot.app import AppFault
from lonedot.config.faults import ConfigFaults
from lonedot.evidence.events import EventKind
from lonedot.sinks.bindings import Binding
from lonedot.sinks.load import bind
from lonedot.sinks.sink import Sink
from lonedot.spool.interface import Filter, MessageState
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, connected, eventually, finished, first_config, id_of, submit

NOBODY = first_config(1)


def bound(declared: Sink) -> Binding:
    return bind(declared, sink_class="tests:bound")


@sink("Full", on="rcpt", rule="RCPT TO=full@*")
def full(session: Session) -> Verdict:
    return Defer(f"{session.recipient.address.text} is full", code=452, enhanced="4.2.2")


@sink("Names", on="helo")
def names(session: Session) -> Verdict:
    return Reject("say who you are") if session.helo == "localhost" else Next()


@sink("Size", on="mail")
def size(session: Session) -> Verdict:
    return Reject("too large", code=552, enhanced="5.3.4") if b"SIZE=" in session.command.argument else Next()


@sink("Stamp", on="end-of-data", effects={"header"})
def stamp(message: Message) -> Verdict:
    return Next([Edit.add_field("X-Stamp", message.facts.helo)])


@sink("Fails", on="data")
def fails(session: Session) -> Verdict:
    raise RuntimeError("no database")


async def test_refusals_and_what_is_accepted_beside_them(tmp_path: Path) -> None:
    with StrictSink() as receiver:
        bindings = [bound(one) for one in (full, names, size, stamp)]
        async with running_relay(tmp_path, first_config(receiver.port), bindings=bindings) as relay:
            async with connected(relay) as client:
                assert await client.say("EHLO localhost") == "550 5.7.1 say who you are"
                assert (await client.say("EHLO copier")).startswith("250")
                assert await client.say("MAIL FROM:<c@office.example> SIZE=9") == "552 5.3.4 too large"
                replies = await client.envelope("full@dest.example", "anna@dest.example")
                assert replies == [
                    "250 2.1.0 Ok",
                    "452 4.2.2 full@dest.example is full",
                    "250 2.1.5 Ok",
                ]
                id = id_of(await client.content())
            stored = await finished(relay, id)
        assert [r.recipient.address.text for r in stored.recipients] == ["anna@dest.example"]
        assert [(entry.binding, entry.event) for entry in stored.ledger[1:]] == [("Stamp", "end-of-data")]
        assert b"X-Stamp: copier\r\n" in receiver.arrivals[0].content


async def test_a_pipelined_group_is_answered_in_order(tmp_path: Path) -> None:
    async with running_relay(tmp_path, NOBODY, bindings=[bound(full)]) as relay, connected(relay) as client:
        client.write(
            b"MAIL FROM:<c@office.example>\r\nRCPT TO:<full@dest.example>\r\nRCPT TO:<b@dest.example>\r\n"
            b"RSET\r\nRCPT TO:<full@dest.example>\r\nMAIL FROM:<c@office.example>\r\n"
            b"RCPT TO:<full@dest.example>\r\nRCPT TO:<b@dest.example>\r\nDATA\r\n"
        )
        codes = [(await client.reply())[:3] for _ in range(9)]
        assert codes == ["250", "452", "250", "250", "503", "250", "452", "250", "354"]
        client.write(b"a: b\r\n\r\n.\r\n")
        assert (await client.reply()).startswith("250 ")


async def test_bdat(tmp_path: Path) -> None:
    @sink("Late", on="data", rule="MAIL FROM=late@*")
    def late(session: Session) -> Verdict:
        return Defer("not now")

    async with running_relay(tmp_path, NOBODY, bindings=[bound(late), bound(stamp)]) as relay:
        async with connected(relay) as client:
            for sender, answer in (("late@office.example", "451 4.7.1 not now"), ("c@office.example", "250")):
                await client.envelope(sender=sender)
                client.write(b"BDAT %d LAST\r\n" % len(MESSAGE) + MESSAGE)
                assert (await client.reply()).startswith(answer)
                assert (await client.say("RSET")).startswith("250")
        assert len(relay.spool.listing(Filter(states=tuple(MessageState)))) == 1


async def test_connect(tmp_path: Path) -> None:
    @sink("Doorman", on="connect")
    def doorman(session: Session) -> Verdict:
        return Reject(f"not you, {session.client}, at {session.listener}")

    async with (
        running_relay(tmp_path, NOBODY, bindings=[bound(doorman)]) as relay,
        connected(relay, ehlo=False) as client,
    ):
        assert await client.ended() == b"554 5.7.1 not you, 127.0.0.1, at in\r\n"


async def test_stop_skips_the_others_of_its_event_only(tmp_path: Path) -> None:
    @sink("Friends", on="mail", priority=1, rule="MAIL FROM=*@office.example")
    def friends(session: Session) -> Verdict:
        return Stop()

    @sink("Nobody", on="mail", priority=2)
    def nobody(session: Session) -> Verdict:
        return Reject("no")

    async with (
        running_relay(tmp_path, NOBODY, bindings=[bound(nobody), bound(friends), bound(full)]) as relay,
        connected(relay) as client,
    ):
        assert (await client.say("MAIL FROM:<x@else.example>")).startswith("550")
        assert (await client.say("MAIL FROM:<x@office.example>")).startswith("250")
        assert (await client.say("RCPT TO:<full@dest.example>")).startswith("452")


async def test_a_sink_that_fails_is_in_the_event_log_and_not_in_the_reply(tmp_path: Path) -> None:
    async with running_relay(tmp_path, NOBODY, bindings=[bound(fails)]) as relay:
        async with connected(relay) as client:
            await client.envelope()
            answer = await client.say("DATA")
            assert answer == "451 4.3.0 The command could not be checked; try again later"
            assert (await client.say("NOOP")).startswith("250")
        (told,) = [event for event in relay.events.read() if event.kind is EventKind.SINK_FAILED]
        assert told.words == "Fails at data: RuntimeError: no database"
        assert told.fields["client"] == "127.0.0.1"


async def test_pickup_meets_arrival_alone(tmp_path: Path) -> None:
    seen: list[str] = []

    @sink("End", on="end-of-data")
    def end(message: Message) -> Verdict:
        seen.append("end-of-data")
        return Next()

    @sink("Arrival", on="arrival")
    def arrival(message: Message) -> Verdict:
        seen.append(f"arrival {message.facts.source}")
        return Next()

    with StrictSink() as receiver:
        toml = first_config(receiver.port, more="[pickup]\npoll_seconds = 0.05\n")
        async with running_relay(tmp_path, toml, bindings=[bound(arrival), bound(end)]) as relay:
            await finished(relay, await submit(relay))
            assert seen == ["end-of-data", "arrival smtp"]
            seen.clear()
            folder = relay.config.pickup.folder
            (folder / "new.tmp").write_bytes(
                b"x-sender: c@a.example\r\nx-receiver: d@b.example\r\n" + MESSAGE
            )
            (folder / "new.tmp").rename(folder / "new.eml")
            await eventually(lambda: seen)
            assert seen == ["arrival pickup"]


# -- from the configuration ------------------------------------------------------------------------------

FILE = """
from lonedot import Next, Reject, Session, Verdict, sink

@sink("Gate", on="OnRcptCommand")
def gate(session: Session) -> Verdict:
    word = str(session.settings["word"]).encode()
    return Reject("closed") if word in session.command.argument else Next()
"""
TABLE = '\n[[sink]]\nname = "Gate"\nfile = "gate.py"\nsettings = { word = "gate@" }\n'


def configured(folder: Path, more: str = "") -> str:
    (folder / "gate.py").write_text(FILE)
    return first_config(1, more=TABLE + more)


async def test_the_event_is_what_the_code_says(tmp_path: Path) -> None:
    async with running_relay(tmp_path, configured(tmp_path)) as relay, connected(relay) as client:
        assert await client.envelope("gate@dest.example", "b@dest.example") == [
            "250 2.1.0 Ok",
            "550 5.7.1 closed",
            "250 2.1.5 Ok",
        ]


async def test_the_configuration_may_say_another(tmp_path: Path) -> None:
    toml = configured(tmp_path, 'event = "OnMailCommand"\n')
    async with running_relay(tmp_path, toml) as relay, connected(relay) as client:
        assert await client.say("MAIL FROM:<gate@office.example>") == "550 5.7.1 closed"
        assert (await client.envelope("gate@dest.example"))[1] == "250 2.1.5 Ok"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('event = "arrival"\n', "takes a Session"),
        ('effects = ["header"]\n', "there is no message to edit yet"),
        ('event = "mail"\nrule = "RCPT TO=*"\n', "RCPT TO is not known yet"),
    ],
)
async def test_what_does_not_fit_keeps_the_relay_from_starting(tmp_path: Path, more: str, words: str) -> None:
    with pytest.raises(AppFault, match=words):
        async with running_relay(tmp_path, configured(tmp_path, more)):
            raise AssertionError("it started")


async def test_an_unknown_event_is_a_fault_by_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigFaults) as raised:
        async with running_relay(tmp_path, configured(tmp_path, 'event = "departure"\n')):
            raise AssertionError("it started")
    (fault,) = raised.value.faults
    assert fault.line > 0
    assert fault.what == '"departure" is not an event'
    assert fault.do.startswith("use one of: connect, helo,")


# -- in processes of their own ---------------------------------------------------------------------------

CHILD = """
import os, signal, time
from lonedot import Next, Reject, Session, Verdict, sink

@sink("Child", on="rcpt", rule="RCPT TO=*@dest.example")
def child(session: Session) -> Verdict:
    name = session.recipient.address.local
    if name == b"who":
        argument, before = session.command.argument.decode(), len(session.envelope.recipients)
        shown = (session.client, session.helo, session.listener, argument, before)
        return Reject(f"{os.getpid()} {shown}")
    if name == b"raise":
        raise RuntimeError("secret words")
    if name == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == b"hang":
        time.sleep(600)
    return Next()
"""
CHILD_TABLE = '\n[[sink]]\nname = "Child"\nfile = "child.py"\nisolation = "process"\ndeadline = "2s"\n'


def with_child(folder: Path, port: int, more: str = "") -> str:
    (folder / "child.py").write_text(CHILD)
    return first_config(port, more=CHILD_TABLE + more)


async def test_a_sink_of_the_session_in_a_process(tmp_path: Path) -> None:
    toml = with_child(tmp_path, 1)
    async with running_relay(tmp_path, toml) as relay, connected(relay) as client:
        replies = await client.envelope("a@dest.example", "who@dest.example")
        assert replies[1] == "250 2.1.5 Ok"
        pid, shown = replies[2].removeprefix("550 5.7.1 ").split(" ", 1)
        assert int(pid) != os.getpid()
        assert shown == "('127.0.0.1', 'client.example', 'in', 'TO:<who@dest.example>', 1)"
        for name in ("raise", "die"):
            answer = await client.say(f"RCPT TO:<{name}@dest.example>")
            assert answer == "451 4.3.0 The command could not be checked; try again later"
        assert (await client.say("RCPT TO:<b@dest.example>")).startswith("250")
        told = [event.words for event in relay.events.read() if event.kind is EventKind.SINK_FAILED]
        assert len(told) == 2
        assert all(words.startswith("Child at rcpt: ") for words in told)
        assert "RuntimeError: secret words" in told[0]


async def test_one_that_hangs_costs_its_session_the_deadline_and_nobody_else(tmp_path: Path) -> None:
    with StrictSink() as receiver:
        toml = with_child(tmp_path, receiver.port)
        async with (
            running_relay(tmp_path, toml) as relay,
            connected(relay) as client,
            connected(relay) as other,
        ):
            await client.envelope("a@dest.example")
            client.write(b"RCPT TO:<hang@dest.example>\r\nRCPT TO:<b@dest.example>\r\nDATA\r\n")
            # Neither waits for the process: no rule of the sink matches.
            assert (await other.envelope("x@else.example"))[1] == "250 2.1.5 Ok"
            id = id_of(await other.content())
            answers = [await client.reply() for _ in range(3)]
            assert [answer[:3] for answer in answers] == ["451", "250", "354"]
            client.write(MESSAGE + b".\r\n")
            assert (await client.reply()).startswith("250 ")
            await finished(relay, id)


async def test_a_lost_connection_takes_its_question_back(tmp_path: Path) -> None:
    async with running_relay(tmp_path, with_child(tmp_path, 1)) as relay:
        for _ in range(3):
            async with connected(relay) as client:
                client.write(b"MAIL FROM:<c@office.example>\r\nRCPT TO:<hang@dest.example>\r\n")
                # Written when the session begins to wait for the sink.
                assert (await client.reply()).startswith("250")
                reset = struct.pack("ii", 1, 0)
                client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        async with connected(relay) as client:
            # It stands behind the first, which may cost its deadline; the others are not asked any more.
            assert (await client.envelope("b@dest.example"))[1] == "250 2.1.5 Ok"
        assert [event for event in relay.events.read() if event.kind is EventKind.SINK_FAILED] == []
        assert relay.spool.listing(Filter(states=tuple(MessageState))) == []
