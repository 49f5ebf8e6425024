"""Sinks in the running relay: verdicts, failures, rules, order, declared effects, and a ledger that can be replayed."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lonedot import Discard, Edit, Hold, Message, Next, Reject, Stop, sink
from lonedot.app.relay import AppFault
from lonedot.message.edits import AnyEdit
from lonedot.message.encode import DataEncoder, canonicalise
from lonedot.message.findings import Code
from lonedot.message.fold import fold
from lonedot.message.ledger import Action
from lonedot.sinks import child, inline
from lonedot.sinks.bindings import Binding, firing_order
from lonedot.sinks.builtin.faulty import x_recipient_list
from lonedot.sinks.builtin.x_recipient import x_recipient
from lonedot.sinks.load import bind
from lonedot.sinks.verdicts import Verdict
from lonedot.spool.interface import Filter, MessageState, RecipientStatus, Stored
from lonedot.spool.sqlite import CONTENT_LIMIT
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import StrictSink
from tests.system.talk import MESSAGE, connected, finished, first_config, id_of, submit

NOBODY = first_config(1)
LARGE = MESSAGE + (b"x" * 70 + b"\r\n") * (CONTENT_LIMIT // 60)


def made(
    function: Callable[[Message], object],
    *,
    name: str = "plug-in",
    priority: int | None = None,
    rule: str | None = None,
    effects: Sequence[str] = ("header",),
    role: str | None = None,
    on_damage: str | None = None,
    on_error: str | None = None,
    reads: Sequence[str] = (),
) -> Binding:
    """A binding of a function that may also return what no sink should."""
    declared = sink(name, effects=effects, reads=reads)(function)  # type: ignore[arg-type]  # nonsense is what is tested
    return bind(
        declared,
        sink_class="tests:plug_in",
        priority=priority,
        rule=rule,
        role=role,
        on_damage=on_damage,
        on_error=on_error,
    )


def adds(field: str, **options: object) -> Binding:
    """A sink that adds the field `field: yes`."""
    return made(
        lambda message: Next([Edit.add_field(field, "yes")]),
        name=field,
        **options,  # type: ignore[arg-type]  # those of `made`
    )


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


# --- verdicts ------------------------------------------------------------------------------------


async def test_stop_ends_the_chain_and_keeps_its_edits(tmp_path: Path) -> None:
    stored = await outcome(
        tmp_path,
        adds("X-First", priority=1),
        made(lambda m: Stop([Edit.add_field("X-Second", "yes")]), name="second", priority=2),
        adds("X-Third", priority=3),
    )
    assert isinstance(stored, Stored)
    assert stored.state is MessageState.QUEUED
    assert [(e.binding, e.verdict) for e in stored.ledger[1:]] == [("X-First", "next"), ("second", "stop")]
    assert stored.ledger[2].action is Action.KEPT


async def test_hold_keeps_it_with_the_words_until_it_is_released(tmp_path: Path) -> None:
    with StrictSink() as receiver:
        holding = made(lambda m: Hold("looks odd", [Edit.add_field("X-Held", "yes")]))
        toml = first_config(receiver.port)
        async with running_relay(tmp_path, toml, bindings=[holding]) as relay:
            id = await submit(relay)
            stored = relay.spool.show(id)
            assert (stored.state, stored.reason) == (MessageState.HELD, "plug-in: looks odd")
            assert receiver.arrivals == []
            await relay.spool.release([id], relay.clock.now())
            relay.scheduler.kick()
            await finished(relay, id)
    assert b"X-Held: yes" in receiver.arrivals[0].content


async def test_reject_gives_its_words_to_the_client(tmp_path: Path) -> None:
    answer = await outcome(tmp_path, made(lambda m: Reject("no scans today")))
    assert answer == "550 5.7.1 no scans today"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("line one\r\n250 2.0.0 Ok", "550 5.7.1 line one 250 2.0.0 Ok"),
        ("grüße\x00\x1b[1m", "550 5.7.1 gr??e??[1m"),
        ("", "550 5.7.1 Refused"),
        ("long " * 500, "550 5.7.1 " + ("long " * 500)[:400].rstrip()),
    ],
)
async def test_words_of_a_sink_cannot_break_the_reply(tmp_path: Path, words: str, answer: str) -> None:
    said = await outcome(tmp_path, made(lambda m: Reject(words)))
    assert isinstance(said, str)
    assert said.rstrip() == answer


async def test_discard_accepts_and_sends_to_nobody(tmp_path: Path) -> None:
    stored = await outcome(
        tmp_path, made(lambda m: Discard("a test message")), adds("X-Later", priority=30000)
    )
    assert isinstance(stored, Stored)
    assert stored.state is MessageState.FINISHED
    assert [r.status for r in stored.recipients] == [RecipientStatus.DELETED]
    assert "plug-in" in stored.reason and "a test message" in stored.reason
    assert len(stored.ledger) == 2


# --- failures ------------------------------------------------------------------------------------


def raises(message: Message) -> Verdict:
    raise RuntimeError("the directory is down")


NONSENSE: list[object] = [
    None,
    True,
    "next",
    Next,
    Next(edits=None),  # type: ignore[arg-type]
    Next(edits=["edit"]),  # type: ignore[list-item]
    Next(edits=[Edit.replace_message(b"x"), Edit.add_field("X", "y")]),
    Reject(None),  # type: ignore[arg-type]
    Hold(5),  # type: ignore[arg-type]
    Discard(b"octets"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("on_error", ["defer", "skip", "reject", "hold"])
async def test_a_sink_that_raises(tmp_path: Path, on_error: str) -> None:
    result = await outcome(tmp_path, made(raises, on_error=on_error), adds("X-Later", priority=30000))
    match on_error:
        case "defer":
            assert result == "451 4.3.0 The message could not be checked; try again later"
        case "reject":
            assert isinstance(result, str)
            assert result.startswith("550 5.7.1 plug-in failed")
        case "skip":
            assert isinstance(result, Stored)
            assert result.state is MessageState.QUEUED
            assert [entry.action for entry in result.ledger[1:]] == [Action.SKIPPED, Action.KEPT]
            assert "RuntimeError: the directory is down" in result.ledger[1].words
        case _:
            assert isinstance(result, Stored)
            assert result.state is MessageState.HELD
            assert "the directory is down" in result.reason
            assert len(result.ledger) == 2


@pytest.mark.parametrize("returned", NONSENSE, ids=repr)
async def test_a_sink_that_returns_nonsense_is_one_that_failed(tmp_path: Path, returned: object) -> None:
    stored = await outcome(tmp_path, made(lambda m: returned, on_error="skip"))
    assert isinstance(stored, Stored)
    assert stored.state is MessageState.QUEUED
    assert stored.ledger[1].action is Action.SKIPPED
    assert "plug-in failed" in stored.ledger[1].words


async def test_a_failing_sink_is_an_event_and_the_next_message_is_fine(tmp_path: Path) -> None:
    calls: list[str] = []

    def first_time(message: Message) -> Next:
        calls.append(message.id)
        if len(calls) == 1:
            raise ValueError("not yet")
        return Next()

    async with (
        running_relay(tmp_path, NOBODY, bindings=[made(first_time)]) as relay,
        connected(relay) as client,
    ):
        await client.envelope()
        assert (await client.content()).startswith("451")
        await client.envelope()
        id_of(await client.content())
    events = "".join(path.read_text() for path in (tmp_path / "spool" / "evidence" / "events").iterdir())
    assert "plug-in failed: ValueError: not yet" in events


# --- rules and order -----------------------------------------------------------------------------


async def test_rules_choose_the_messages_and_priority_the_order(tmp_path: Path) -> None:
    bindings = firing_order(
        [
            adds("X-Last", priority=32767),
            adds("X-B", priority=5),
            adds("X-A", priority=5),
            adds("X-First", priority=0, rule="RCPT TO=*@dest.example"),
            adds("X-Sender", priority=6, rule="MAIL FROM=erp*@office.example; RCPT TO=boss@*"),
            adds("X-Never", priority=7, rule="EHLO=*.other.example"),
        ]
    )
    async with running_relay(tmp_path, NOBODY, bindings=bindings) as relay:
        plain = relay.spool.show(await submit(relay, MESSAGE, "a@dest.example"))
        from_erp = relay.spool.show(
            await submit(relay, MESSAGE, "a@else.example", sender="ERP-1@Office.example")
        )
        mixed = relay.spool.show(await submit(relay, MESSAGE, "a@else.example", "b@DEST.example"))
    names = [[entry.binding for entry in stored.ledger[1:]] for stored in (plain, from_erp, mixed)]
    assert names == [
        ["X-First", "X-A", "X-B", "X-Last"],
        ["X-A", "X-B", "X-Sender", "X-Last"],
        ["X-First", "X-A", "X-B", "X-Last"],
    ]


# --- declared effects ----------------------------------------------------------------------------

OVERSTEPPING: dict[str, tuple[AnyEdit, tuple[str, ...], Code]] = {
    "header": (Edit.add_field("X-Sly", "yes"), ("body", "envelope"), Code.HEADER_UNDECLARED),
    "body": (Edit.replace_body(b"other\r\n"), ("header", "envelope"), Code.BODY_UNDECLARED),
    "envelope": (Edit.add_recipient("spy@evil.example"), ("header", "body"), Code.ENVELOPE_UNDECLARED),
}


@pytest.mark.parametrize("effect", OVERSTEPPING)
@pytest.mark.parametrize("role", ["cosmetic", "protective"])
async def test_what_was_not_declared_is_not_done(tmp_path: Path, effect: str, role: str) -> None:
    edit, declared, code = OVERSTEPPING[effect]
    stored = await outcome(tmp_path, made(lambda m: Next([edit]), effects=declared, role=role))
    assert isinstance(stored, Stored)
    entry = stored.ledger[1]
    assert code in [finding.code for finding in entry.findings]
    assert entry.changes == ()
    assert entry.after == entry.before
    assert [r.recipient.address.text for r in stored.recipients] == ["anna@dest.example"]
    if role == "cosmetic":
        assert (stored.state, entry.action) == (MessageState.QUEUED, Action.UNDONE)
    else:
        assert (stored.state, entry.action) == (MessageState.HELD, Action.HELD)
        assert stored.reason.startswith("plug-in")


async def test_an_envelope_edit_that_was_declared_reaches_the_next_hop(tmp_path: Path) -> None:
    def redirect(message: Message) -> Next:
        return Next(
            [
                Edit.remove_recipient("anna@dest.example"),
                Edit.add_recipient("bert@dest.example"),
                Edit.change_reverse_path("bounces@office.example"),
            ]
        )

    with StrictSink() as receiver:
        bindings = [made(redirect, effects=["envelope"])]
        async with running_relay(tmp_path, first_config(receiver.port), bindings=bindings) as relay:
            stored = await finished(
                relay, await submit(relay, MESSAGE, "anna@dest.example", "c@dest.example")
            )
    arrival = receiver.arrivals[0]
    assert arrival.recipients == (b"c@dest.example", b"bert@dest.example")
    assert arrival.reverse_path == b"bounces@office.example"
    assert stored.ledger[1].before == stored.ledger[1].after


async def test_a_sink_that_removes_every_recipient_without_discarding_has_failed(tmp_path: Path) -> None:
    """Mail that goes to nobody must be said so: with Discard, which is in the message's history."""
    answer = await outcome(
        tmp_path, made(lambda m: Next([Edit.remove_recipient("anna@dest.example")]), effects=["envelope"])
    )
    assert isinstance(answer, str)
    assert answer.startswith("451")


@pytest.mark.parametrize(
    "path", ["a@b.example>\r\nRCPT TO:<spy@evil.example", "no address", "<a@b.example>", ""]
)
async def test_an_address_that_is_none_is_a_failure_of_the_sink(tmp_path: Path, path: str) -> None:
    stored = await outcome(
        tmp_path, made(lambda m: Next([Edit.add_recipient(path)]), effects=["envelope"], on_error="skip")
    )
    assert isinstance(stored, Stored)
    assert stored.ledger[1].action is Action.SKIPPED
    assert len(stored.recipients) == 1


# --- X-Recipient ---------------------------------------------------------------------------------


async def test_x_recipient_never_discloses_a_blind_copy(tmp_path: Path) -> None:
    binding = bind(x_recipient, sink_class="lonedot.sinks.builtin.x_recipient:x_recipient")
    with StrictSink() as receiver:
        async with running_relay(tmp_path, first_config(receiver.port), bindings=[binding]) as relay:
            await finished(relay, await submit(relay, MESSAGE, "anna@dest.example", "blind@dest.example"))
            await finished(relay, await submit(relay, MESSAGE, "anna@dest.example"))
    first, second, one = receiver.arrivals
    assert {first.recipients, second.recipients} == {(b"anna@dest.example",), (b"blind@dest.example",)}
    for arrival in receiver.arrivals:
        (recipient,) = arrival.recipients
        assert arrival.content.startswith(b"X-Recipient: " + recipient + b"\r\n")
        assert recipient == b"blind@dest.example" or b"blind" not in arrival.content
    assert one.recipients == (b"anna@dest.example",)


# --- large bodies --------------------------------------------------------------------------------


async def test_a_large_body_is_given_to_sinks_in_a_thread_of_its_own(tmp_path: Path) -> None:
    """The loop goes on while a sink reads; what it read is what came."""
    threads: list[int] = []
    digests: list[str] = []
    may_go_on = threading.Event()

    def reads(message: Message) -> Next:
        threads.append(threading.get_ident())
        digest = hashlib.sha256()
        for chunk in message.body_chunks():
            digest.update(chunk)
        digests.append(digest.hexdigest())
        assert may_go_on.wait(60)
        return Next([Edit.add_field("X-Read", digest.hexdigest())])

    with StrictSink() as receiver:
        async with (
            running_relay(
                tmp_path, first_config(receiver.port), bindings=[made(reads, reads=["body"])]
            ) as relay,
            connected(relay) as client,
            connected(relay) as other,
        ):
            await client.envelope()
            sending = asyncio.create_task(client.content(LARGE))
            while not digests:
                assert (await other.say("NOOP")).startswith("250")
                await asyncio.sleep(0.01)
            may_go_on.set()
            await finished(relay, id_of(await sending))
    body = LARGE.partition(b"\r\n\r\n")[2]
    assert digests == [hashlib.sha256(body).hexdigest()]
    assert threads[0] != threading.get_ident()
    assert receiver.arrivals[0].content.endswith(b"\r\n\r\n" + body)
    assert b"X-Read: " in receiver.arrivals[0].content


async def test_a_large_body_that_no_sink_reads_needs_no_thread(tmp_path: Path) -> None:
    threads: list[int] = []

    def looks(message: Message) -> Next:
        threads.append(threading.get_ident())
        return Next([Edit.add_field("X-Size", str(message.size))])

    with StrictSink() as receiver:
        async with (
            running_relay(tmp_path, first_config(receiver.port), bindings=[made(looks)]) as relay,
            connected(relay) as client,
        ):
            await client.envelope()
            await finished(relay, id_of(await client.content(LARGE)))
    assert threads == [threading.get_ident()]
    assert b"X-Size: " in receiver.arrivals[0].content
    assert receiver.arrivals[0].content.endswith(LARGE.partition(b"\r\n\r\n")[2])


async def test_a_sink_that_raises_on_a_large_body_is_451(tmp_path: Path) -> None:
    answer = await outcome(tmp_path, made(raises), octets=LARGE)
    assert isinstance(answer, str)
    assert answer.startswith("451 4.3.0")
    assert list((tmp_path / "spool").rglob("*.body")) == []


async def test_a_client_gone_while_a_sink_reads_costs_nothing(tmp_path: Path) -> None:
    """It was received whole, so it is taken; the client that did not hear so will send it again."""
    began, may_go_on = threading.Event(), threading.Event()

    def waits(message: Message) -> Next:
        began.set()
        assert may_go_on.wait(60)
        return Next()

    with StrictSink() as receiver:
        async with running_relay(
            tmp_path, first_config(receiver.port), bindings=[made(waits, reads=["body"])]
        ) as relay:
            async with connected(relay) as client:
                await client.envelope()
                sending = asyncio.create_task(client.content(LARGE))
                await asyncio.to_thread(began.wait, 60)
                sending.cancel()
            may_go_on.set()
            await asyncio.to_thread(receiver.wait_for, 1)
    assert len(receiver.arrivals) == 1


# --- from the configuration ----------------------------------------------------------------------


ENDLESS = "import time\ntime.sleep(600)\n"
FATAL = "import os\nos._exit(0)\n"
STAMP = (
    "from lonedot import Edit, Message, Next, sink\n\n\n"
    '@sink("Stamp", effects={"header"})\n'
    "def stamp(message: Message) -> Next:\n"
    '    return Next([Edit.add_field("X-Stamp", "1")])\n'
)
TABLE = '[[sink]]\nname = "Stamp"\nfile = "stamp.py"\nevent = "end-of-data"\n'


@pytest.mark.parametrize("isolation", ["inline", "process"])
@pytest.mark.parametrize(("code", "said"), [(ENDLESS, "not loaded after 2 s"), (FATAL, "Stamp|stamp")])
async def test_code_whose_import_does_not_come_back(
    tmp_path: Path, code: str, said: str, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay does not start with it; one that runs keeps what it has, and serves meanwhile."""
    monkeypatch.setattr(inline, "LOAD_SECONDS", 2.0)
    monkeypatch.setattr(child, "LOAD_SECONDS", 2.0)
    file = tmp_path / "stamp.py"
    toml = first_config(1, more=f'\n{TABLE}isolation = "{isolation}"\n')
    file.write_text(code + STAMP)
    with pytest.raises(AppFault, match=said):
        async with running_relay(tmp_path, toml):
            pass
    file.write_text(STAMP)
    async with running_relay(tmp_path, toml) as relay:
        await submit(relay)
        file.write_text(code + STAMP)
        reloading = asyncio.create_task(relay.reload_told())
        stored = relay.spool.show(await submit(relay))
        assert stored.ledger[-1].action is Action.KEPT
        await reloading
        stored = relay.spool.show(await submit(relay))
        assert stored.ledger[-1].action is Action.KEPT
        file.write_text(STAMP.replace("X-Stamp", "X-New"))
        await relay.reload_told()
        stored = relay.spool.show(await submit(relay))
        assert fold(relay.spool.content(stored.id), stored.ledger).head.count(b"X-New: 1") == 1


async def test_sinks_come_from_files_and_packages_named_in_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "stamp.py").write_text(
        "from lonedot import Edit, Message, Next, sink\n\n\n"
        '@sink("Stamp", priority=100, effects={"header"})\n'
        "def stamp(message: Message) -> Next:\n"
        '    return Next([Edit.add_field(str(message.settings["field"]), "1")])\n'
    )
    more = """
[[sink]]
name = "Stamp it"
file = "stamp.py:stamp"
rule = "RCPT TO=*@dest.example"
settings = { field = "X-Stamp" }

[[sink]]
name = "Recipient"
import = "lonedot.sinks.builtin.x_recipient:x_recipient"
priority = 50

[[sink]]
name = "Off"
file = "stamp.py"
enabled = false
"""
    with StrictSink() as receiver:
        async with running_relay(tmp_path, first_config(receiver.port, more=more)) as relay:
            stored = await finished(relay, await submit(relay))
    assert [entry.binding for entry in stored.ledger] == ["lonedot", "Recipient", "Stamp it"]
    assert b"X-Stamp: 1\r\nX-Recipient: anna@dest.example\r\nReceived: " in receiver.arrivals[0].content


# --- replay --------------------------------------------------------------------------------------


def footer(message: Message) -> Next:
    """Puts one line more under the body."""
    body = b"".join(message.body_chunks())
    return Next([Edit.splice_body(len(body), len(body), b"-- \r\nfooter\r\n")])


EIGHT_BIT = (
    b"From: <c@office.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\ncaf\xe9\r\n.\r\n..dots\r\n"
)
REPLAYED = {
    "clean": MESSAGE,
    "bare line feeds": b"Subject: x\n\n%PDF\n.\n..\n%%EOF\n\r\n",
    "bare carriage returns": b"Subject: x\r\n\r\na\rb\r.\r\r\n",
    "no body": b"Subject: x\r\n",
    "no header": b"\r\njust text\r\n",
    "empty": b"",
    "a line that is no field": b"Subject: x\r\nnot a field\r\n\r\ntext\r\n",
    "long lines": b"Subject: x\r\n\r\n" + b"z" * 3000 + b"\r\n",
    "eight bit": EIGHT_BIT,
    "large": LARGE,
    "large with bare line feeds": LARGE + b"a\nb\r\n" * 100,
    "large eight bit": EIGHT_BIT + (b"\xe9" * 70 + b"\r\n") * (CONTENT_LIMIT // 60),
}
EXTENSIONS = {
    "eight bit hop": ("PIPELINING", "8BITMIME", "SIZE 104857600"),
    "seven bit hop": ("PIPELINING",),
}


@pytest.mark.parametrize("hop", EXTENSIONS)
async def test_the_ledger_replayed_on_the_arrival_form_is_what_was_sent(tmp_path: Path, hop: str) -> None:
    """Octet for octet as the next hop got it, and its digests those on record."""
    bindings = firing_order(
        [
            adds("X-One", priority=1),
            bind(x_recipient_list, sink_class="tests:faulty", priority=2),
            made(footer, name="footer", effects=["body"], priority=3),
            adds("X-Last", priority=4),
        ]
    )
    with StrictSink(extensions=EXTENSIONS[hop]) as receiver:
        toml = first_config(receiver.port, server='keep_content = "all"')
        async with running_relay(tmp_path, toml, bindings=bindings) as relay:
            for number, (name, octets) in enumerate(REPLAYED.items()):
                id = await submit(relay, octets, f"{number}@dest.example")
                stored = await finished(relay, id)
                assert stored.recipients[0].status is RecipientStatus.DELIVERED, name
                arrival = relay.spool.content(id)
                assert arrival.octets() == octets, name
                attempt = stored.attempts[0]
                assert attempt.wire is not None
                content = fold(arrival, (*stored.ledger, *attempt.suffix), 0, verify=True)
                encoder = DataEncoder(canonicalise(content), "DATA")
                replayed = b"".join(encoder.chunks())
                wire = receiver.wait_for(number + 1)[number].wire
                assert replayed == wire, name
                assert (len(wire), wire[-64:]) == (attempt.wire.size, attempt.wire.tail), name
                record = encoder.record()
                assert (record.head_sha256, record.body_sha256) == (
                    attempt.wire.head_sha256,
                    attempt.wire.body_sha256,
                ), name
                assert (hop == "seven bit hop") <= wire.isascii()
        assert receiver.faults == []
        assert all(not arrival.bare_octets for arrival in receiver.arrivals)
