"""Sinks in the session: each event, each verdict, what fails, and that without bindings not an octet changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from lonedot.message.edits import Edit
from lonedot.message.ledger import Action
from lonedot.sinks.bindings import Binding
from lonedot.sinks.events import EVENTS, Event, Shows
from lonedot.sinks.load import bind
from lonedot.sinks.protocol import Command, Session
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Accept, Defer, Discard, Hold, Next, Reject, Stop, Verdict
from lonedot.sinks.view import Message
from lonedot.spool.interface import MessageState
from lonedot.terms.reply import reply
from tests.unit.reception.room import Line, Room, settle

MESSAGE = (
    b"From: c@a.example\r\nDate: Sun, 22 Nov 2026 12:29:25 +0000\r\nMessage-ID: <1@a.example>\r\n\r\nbody\r\n"
)
ENVELOPE = b"MAIL FROM:<c@a.example>\r\nRCPT TO:<d@b.example>\r\n"
TEXT = MESSAGE + b".\r\n"
IN_SESSION = [e for e in Event if EVENTS[e].shows is Shows.SESSION and e is not Event.AUTH]


def bound(event: Event, returned: object, name: str = "S", priority: int = 1, **options: str) -> Binding:
    """A binding that always says the same."""

    def call(shown: Message | Session) -> Verdict:
        return cast(Verdict, returned)

    effects = ["header"] if EVENTS[event].shows_message else []
    made = sink(name, on=event, effects=effects, priority=priority)(call)
    return bind(made, sink_class="tests:s", rule=options.get("rule"), on_error=options.get("on_error"))


class Watch:
    """A binding on every event that notes what it is shown and lets it pass."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.shown: list[Session] = []
        self.messages: list[Message] = []

    def session(self, session: Session) -> Verdict:
        self.events.append(session.event)
        self.shown.append(session)
        return Next()

    def message(self, event: Event) -> Binding:
        def call(message: Message) -> Verdict:
            self.events.append(event)
            self.messages.append(message)
            return Next()

        return bind(sink(f"watch-{event.value}", on=event.value)(call), sink_class="tests:watch")

    @property
    def bindings(self) -> list[Binding]:
        asked = [
            bind(
                sink(f"watch-{event.value}", on=event)(self.session),  # type: ignore[arg-type]  # one of IN_SESSION
                sink_class="tests:watch",
            )
            for event in IN_SESSION
        ]
        return [*asked, self.message(Event.END_OF_DATA), self.message(Event.ARRIVAL)]


def bdat(content: bytes) -> bytes:
    return ENVELOPE + b"BDAT %d LAST\r\n" % len(content) + content


# -- what is asked when ----------------------------------------------------------------------------------


async def test_a_message_meets_every_event_in_order() -> None:
    watch = Watch()
    room = Room(bindings=watch.bindings)
    line = room.connect(greeted=False)
    line.say(
        b"EHLO copier\r\nVRFY joe\r\n" + ENVELOPE + b"rcpt to:<E@b.example> NOTIFY=NEVER\r\nDATA\r\n", TEXT
    )
    await settle()
    assert line.codes() == [220, 250, 252, 250, 250, 250, 354, 250]
    assert [event.value for event in watch.events] == [
        "connect",
        "helo",
        "verb",
        "mail",
        "rcpt",
        "rcpt",
        "data",
        "end-of-data",
        "arrival",
    ]
    connect, helo, verb, mail, rcpt, second, data = watch.shown
    assert {session.client for session in watch.shown} == {"192.0.2.1"}
    assert {session.id for session in watch.shown} == {str(line.session.id)}
    assert {(session.listener, session.trusted, session.tls) for session in watch.shown} == {("in", True, "")}
    assert [session.helo for session in watch.shown] == ["", *["copier"] * 6]
    with pytest.raises(LookupError):
        _ = connect.command
    assert helo.command == Command(b"EHLO", b"copier")
    assert verb.command == Command(b"VRFY", b"joe")
    assert mail.command == Command(b"MAIL", b"FROM:<c@a.example>")
    assert mail.envelope.reverse_path.octets == b"c@a.example"
    assert mail.envelope.recipients == ()
    assert rcpt.recipient.address.octets == b"d@b.example"
    assert rcpt.envelope.recipients == ()
    assert second.command == Command(b"RCPT", b"to:<E@b.example> NOTIFY=NEVER")
    assert [r.address.octets for r in second.envelope.recipients] == [b"d@b.example"]
    assert [r.address.octets for r in data.envelope.recipients] == [b"d@b.example", b"E@b.example"]
    assert data.command == Command(b"DATA", b"")
    ledger = room.spool.accepted[0].ledger
    assert [(entry.event, entry.binding) for entry in ledger[1:]] == [
        ("end-of-data", "watch-end-of-data"),
        ("arrival", "watch-arrival"),
    ], "nobody who only let a command pass is in the ledger"
    assert room.what_was_noted() == []


async def test_bdat_is_one_data_event() -> None:
    watch = Watch()
    room = Room(bindings=watch.bindings)
    line = room.connect()
    watch.events.clear()
    line.say(ENVELOPE + b"BDAT %d\r\n" % len(MESSAGE) + MESSAGE + b"BDAT 3 LAST\r\nx\r\n")
    await settle()
    assert line.codes() == [250, 250, 250, 250]
    assert watch.events == [Event.MAIL, Event.RCPT, Event.DATA, Event.END_OF_DATA, Event.ARRIVAL]
    assert watch.shown[-1].command.verb == b"BDAT"


async def test_what_the_relay_refuses_itself_is_not_shown() -> None:
    watch = Watch()
    room = Room(bindings=watch.bindings, trusted=False)
    line = room.connect()
    watch.events.clear()
    line.say(b"MAIL FROM:c d\r\nRCPT TO:<d@b.example>\r\nEHLO\r\nDATA\r\n")
    assert line.codes() == [501, 503, 501, 503]
    assert watch.events == []
    line.say(b"MAIL FROM:<c@a.example>\r\nRCPT TO:<d@b.example>\r\nDATA\r\n")
    assert line.codes() == [250, 550, 554]
    assert watch.events == [Event.MAIL]


async def test_verb_is_for_every_command_that_no_other_event_is_for() -> None:
    watch = Watch()
    room = Room(bindings=watch.bindings)
    line = room.connect()
    watch.events.clear()
    watch.shown.clear()
    line.say(b"NOOP\r\nHELP me\r\nRSET\r\nxexch50 1 2\r\nVRFY\r\nETRN x\r\nQUIT\r\n")
    assert line.codes() == [250, 214, 250, 500, 501, 502, 221]
    assert watch.events == [Event.VERB] * 7
    assert [(s.command.verb, s.command.argument) for s in watch.shown] == [
        (b"NOOP", b""),
        (b"HELP", b"me"),
        (b"RSET", b""),
        (b"XEXCH50", b"1 2"),
        (b"VRFY", b""),
        (b"ETRN", b"x"),
        (b"QUIT", b""),
    ]


# -- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (Reject("not you"), b"554 5.7.1 not you\r\n"),
        (Reject("not you", code=521, enhanced="5.3.2"), b"554 5.3.2 not you\r\n"),
        (Defer("not now"), b"421 4.7.1 not now\r\n"),
    ],
)
async def test_a_refusal_at_connect_takes_the_place_of_the_greeting(verdict: Verdict, code: bytes) -> None:
    room = Room(bindings=[bound(Event.CONNECT, verdict)])
    line = room.connect(greeted=False)
    assert line.heard() == code
    await settle()
    assert line.wire.lost()
    assert room.open == 0
    assert room.noted_ == [("sink.refused", f"S at connect: {verdict.words}")]  # type: ignore[union-attr]


async def test_the_limits_of_the_listener_come_before_the_sinks() -> None:
    watch = Watch()
    room = Room(bindings=watch.bindings)
    room.refusal = reply(421, "4.7.0", "too many")
    line = room.connect(greeted=False)
    assert line.heard() == b"421 4.7.0 too many\r\n"
    assert watch.events == []


async def test_a_refused_greeting_is_no_greeting() -> None:
    def call(session: Session) -> Verdict:
        return Reject("who are you") if session.helo == "copier" else Next()

    room = Room(bindings=[bind(sink("names", on="helo")(call), sink_class="tests:s")])
    line = room.connect(greeted=False)
    line.say(b"EHLO copier\r\n" + bdat(MESSAGE) + b"MAIL FROM:<>\r\nEHLO scanner\r\n" + ENVELOPE)
    assert line.codes() == [220, 550, 503, 503, 503, 503, 250, 250, 250]
    assert room.noted_[0] == ("sink.refused", "names at helo: who are you")


async def test_a_greeting_refused_later_changes_nothing() -> None:
    def call(session: Session) -> Verdict:
        return Reject("who are you") if session.helo == "other" else Next()

    room = Room(bindings=[bind(sink("names", on="helo")(call), sink_class="tests:s")])
    line = room.connect(greeted=False)
    line.say(b"EHLO copier\r\n" + ENVELOPE + b"EHLO other\r\nDATA\r\n", TEXT)
    await settle()
    assert line.codes() == [220, 250, 250, 250, 550, 354, 250]
    assert room.spool.accepted[0].facts.helo == "copier"


# -- answers of their own --------------------------------------------------------------------------------


async def test_accept_at_connect_is_the_banner() -> None:
    room = Room(bindings=[bound(Event.CONNECT, Accept("The mail of the office"))])
    line = room.connect(greeted=False)
    assert line.heard() == b"220 relay.example.com The mail of the office\r\n"
    line.say(b"EHLO copier\r\n" + bdat(MESSAGE))
    await settle()
    assert line.codes() == [250, 250, 250, 250]


async def test_accept_at_helo_adds_words_and_keywords() -> None:
    room = Room(bindings=[bound(Event.HELO, Accept("hello", keywords=("XEXCH50", "X-LIMIT 1 2")))])
    line = room.connect(greeted=False)
    line.heard()
    line.say(b"HELO copier\r\n")
    assert line.heard() == b"250 relay.example.com hello\r\n"
    line.say(b"EHLO copier\r\n")
    lines = line.heard().split(b"\r\n")
    assert lines[0] == b"250-relay.example.com hello"
    assert lines[-3:] == [b"250-XEXCH50", b"250 X-LIMIT 1 2", b""]
    assert b"250-PIPELINING" in lines
    line.say(ENVELOPE)
    assert line.codes() == [250, 250]


async def test_accept_at_mail_and_rcpt_has_words_of_its_own() -> None:
    bindings = [
        bound(Event.MAIL, Accept("from you, gladly")),
        bound(Event.RCPT, Accept("no", enhanced="2.1.9"), "first", 1, rule="RCPT TO=d@*"),
        bound(Event.RCPT, Reject("nobody asks me"), "second", 2, rule="RCPT TO=d@*"),
    ]
    room = Room(bindings=bindings)
    line = room.connect()
    line.say(ENVELOPE + b"RCPT TO:<e@b.example>\r\nDATA\r\n", TEXT)
    assert line.heard() == (
        b"250 2.1.0 from you, gladly\r\n250 2.1.9 no\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n"
    )
    await settle()
    assert len(room.spool.accepted[0].envelope.recipients) == 2


async def test_a_new_verb() -> None:
    room = Room(bindings=[bound(Event.VERB, Accept("done", code=254), rule="XEXCH50=*;VRFY=joe")])
    line = room.connect()
    line.say(b"XEXCH50 12 2\r\nXOTHER\r\nVRFY joe\r\nVRFY ann\r\nNOOP\r\n")
    assert line.codes() == [254, 500, 254, 252, 250]


async def test_an_accepted_rset_forgets_the_transaction() -> None:
    room = Room(bindings=[bound(Event.VERB, Accept("fine"))])
    line = room.connect()
    line.say(ENVELOPE + b"RSET\r\nDATA\r\n")
    assert line.heard() == b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 fine\r\n503 5.5.1 MAIL first\r\n"
    assert room.budget.used == 0 and not room.spool.accepted


async def test_quit_cannot_be_refused() -> None:
    room = Room(bindings=[bound(Event.VERB, Reject("stay"))])
    line = room.connect()
    line.say(b"QUIT\r\n")
    assert line.codes() == [221]
    await settle()
    assert line.wire.lost() and room.open == 0


async def test_refused_commands_are_bounded() -> None:
    room = Room(bindings=[bound(Event.VERB, Reject("no"))])
    line = room.connect()
    line.say(b"NOOP\r\n" * 300)
    codes = line.codes()
    assert codes[-1] == 421 and set(codes[:-1]) == {550} and len(codes) < 200


# -- refusals of a verb ----------------------------------------------------------------------------------


async def test_verb() -> None:
    room = Room(bindings=[bound(Event.VERB, Reject("nobody asks here", code=502, enhanced="5.5.1"))])
    line = room.connect()
    line.say(b"VRFY joe\r\nEXPN list\r\n" + ENVELOPE)
    assert line.heard() == b"502 5.5.1 nobody asks here\r\n" * 2 + b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n"


async def test_mail_refused_begins_no_transaction() -> None:
    room = Room(bindings=[bound(Event.MAIL, Defer("later"), rule="MAIL FROM=c@*")])
    line = room.connect()
    line.say(ENVELOPE + b"MAIL FROM:<e@a.example>\r\n")
    assert line.codes() == [451, 503, 250]


async def test_one_recipient_refused_and_the_others_taken() -> None:
    room = Room(bindings=[bound(Event.RCPT, Reject("full"), rule="RCPT TO=full@*")])
    line = room.connect()
    line.say(ENVELOPE + b"RCPT TO:<full@b.example>\r\nRCPT TO:<e@b.example>\r\nDATA\r\n", TEXT)
    await settle()
    assert line.codes() == [250, 250, 550, 250, 354, 250]
    recipients = room.spool.accepted[0].envelope.recipients
    assert [r.address.octets for r in recipients] == [b"d@b.example", b"e@b.example"]


async def test_all_recipients_refused() -> None:
    room = Room(bindings=[bound(Event.RCPT, Reject("full"))])
    line = room.connect()
    line.say(ENVELOPE + b"DATA\r\n")
    assert line.codes() == [250, 550, 554]


async def test_data_refused_may_be_said_again_or_reset() -> None:
    verdicts: list[Verdict] = [Defer("busy"), Reject("no"), Next()]

    def call(session: Session) -> Verdict:
        return verdicts.pop(0)

    room = Room(bindings=[bind(sink("gate", on="data")(call), sink_class="tests:s")])
    line = room.connect()
    line.say(ENVELOPE + b"DATA\r\n", b"DATA\r\n", b"RSET\r\n" + ENVELOPE + b"DATA\r\n", TEXT)
    await settle()
    assert line.codes() == [250, 250, 451, 550, 250, 250, 250, 354, 250]
    assert room.spool.writers == 0 and room.budget.used == 0


async def test_a_refused_bdat_drops_its_octets_and_the_rest_of_the_message() -> None:
    room = Room(bindings=[bound(Event.DATA, Reject("no"))])
    line = room.connect()
    trap = b"RSET\r\n" * 3
    line.say(ENVELOPE + b"BDAT %d\r\n" % len(trap) + trap + b"BDAT 2 LAST\r\n\r\n" + b"RSET\r\nNOOP\r\n")
    assert line.codes() == [250, 250, 550, 503, 250, 250]
    assert room.spool.accepted == [] and room.budget.used == 0


async def test_421_from_a_sink_ends_the_session() -> None:
    room = Room(bindings=[bound(Event.RCPT, Defer("go away", code=421))])
    line = room.connect()
    line.say(ENVELOPE + b"NOOP\r\n")
    assert line.codes() == [250, 421]
    await settle()
    assert line.wire.lost()


async def test_too_many_refused_by_sinks_are_too_many() -> None:
    room = Room(bindings=[bound(Event.RCPT, Reject("no"))])
    line = room.connect()
    line.say(b"MAIL FROM:<c@a.example>\r\n" + b"RCPT TO:<d@b.example>\r\n" * 101)
    assert line.codes() == [250, *[550] * 100, 421]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("one\r\n250 2.0.0 Ok", b"550 5.7.1 one 250 2.0.0 Ok\r\n"),
        ("gr\u00fc\u00dfe\x00", b"550 5.7.1 gr??e?\r\n"),
        (" \r\n", b"550 5.7.1 Refused\r\n"),
        ("x" * 2000, b"550 5.7.1 " + b"x" * 400 + b"\r\n"),
    ],
)
async def test_words_cannot_break_the_reply(words: str, told: bytes) -> None:
    line = Room(bindings=[bound(Event.MAIL, Reject(words))]).connect()
    line.say(b"MAIL FROM:<c@a.example>\r\n")
    assert line.heard() == told


# -- pipelining ------------------------------------------------------------------------------------------


async def test_a_pipelined_group_is_answered_in_order_and_in_one_write() -> None:
    room = Room(
        bindings=[
            bound(Event.RCPT, Reject("full"), rule="RCPT TO=full@*"),
            bound(Event.MAIL, Defer("later"), rule="MAIL FROM=late@*"),
        ]
    )
    line = room.connect()
    writes = len(line.wire.writes)
    line.say(
        b"MAIL FROM:<late@a.example>\r\nRSET\r\n" + ENVELOPE + b"RCPT TO:<full@b.example>\r\nRSET\r\n"
        b"RCPT TO:<full@b.example>\r\n" + ENVELOPE + b"RCPT TO:<full@b.example>\r\nDATA\r\n"
    )
    assert len(line.wire.writes) == writes + 1
    assert line.codes() == [451, 250, 250, 250, 550, 250, 503, 250, 250, 550, 354]


# -- order -----------------------------------------------------------------------------------------------


async def test_priority_and_stop() -> None:
    room = Room(
        bindings=[
            bound(Event.MAIL, Reject("third"), "c", 30),
            bound(Event.MAIL, Stop(), "b", 20, rule="MAIL FROM=b@*"),
            bound(Event.MAIL, Next(), "a", 10),
            bound(Event.RCPT, Reject("rcpt"), "d", 0),
        ]
    )
    line = room.connect()
    line.say(b"MAIL FROM:<a@a.example>\r\nMAIL FROM:<b@a.example>\r\nRCPT TO:<d@b.example>\r\n")
    assert line.heard() == b"550 5.7.1 third\r\n250 2.1.0 Ok\r\n550 5.7.1 rcpt\r\n"


# -- failures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on_error", "codes"),
    [("defer", [451, 503]), ("hold", [451, 503]), ("reject", [550, 503]), ("skip", [250, 250])],
)
@pytest.mark.parametrize("returned", [None, Hold("odd"), Discard("odd"), Next([Edit.add_field("X-A", "1")])])
async def test_a_failing_sink_is_handled_by_on_error(
    on_error: str, codes: Sequence[int], returned: object
) -> None:
    room = Room(bindings=[bound(Event.MAIL, returned, on_error=on_error)])
    line = room.connect()
    line.say(ENVELOPE)
    heard = line.heard()
    assert [int(answer[:3]) for answer in heard.split(b"\r\n") if answer] == codes
    assert b"returned" not in heard
    (words,) = [words for what, words in room.noted_ if what == "sink.failed"]
    assert words.startswith("S at mail: ") and "at event 'mail'" in words


async def test_a_failing_sink_at_connect_defers_with_421() -> None:
    line = Room(bindings=[bound(Event.CONNECT, None)]).connect(greeted=False)
    assert line.heard() == b"421 4.3.0 The command could not be checked; try again later\r\n"
    line = Room(bindings=[bound(Event.CONNECT, None, on_error="skip")]).connect(greeted=False)
    assert line.codes() == [220]


# -- end of data -----------------------------------------------------------------------------------------


async def sent(*bindings: Binding) -> tuple[Room, Line]:
    room = Room(bindings=bindings)
    line = room.connect()
    line.say(ENVELOPE + b"DATA\r\n", TEXT)
    await settle()
    return room, line


async def test_edits_at_the_end_of_data_are_committed_with_the_acceptance() -> None:
    room, line = await sent(
        bound(Event.ARRIVAL, Next([Edit.add_field("X-Second", "yes")]), "late", 0),
        bound(Event.END_OF_DATA, Next([Edit.add_field("X-First", "yes")]), "early", 30000),
    )
    assert line.codes() == [250, 250, 354, 250]
    (given,) = room.spool.accepted
    assert [(entry.binding, entry.event, entry.action) for entry in given.ledger[1:]] == [
        ("early", "end-of-data", Action.KEPT),
        ("late", "arrival", Action.KEPT),
    ]
    assert given.ledger[2].before == given.ledger[1].after


@pytest.mark.parametrize(
    ("verdict", "code", "state"),
    [
        (Hold("odd"), 250, MessageState.HELD),
        (Discard("odd"), 250, MessageState.FINISHED),
        (Stop(), 250, MessageState.QUEUED),
        (Reject("odd", code=554), 554, None),
        (Defer("odd", code=452), 452, None),
    ],
)
async def test_every_verdict_at_the_end_of_data(
    verdict: Verdict, code: int, state: MessageState | None
) -> None:
    room, line = await sent(bound(Event.END_OF_DATA, verdict))
    assert line.codes() == [250, 250, 354, code]
    assert [given.state for given in room.spool.accepted] == ([] if state is None else [state])


# -- one set of sinks from MAIL to the end ---------------------------------------------------------------


async def test_a_message_meets_the_sinks_that_were_bound_at_its_mail() -> None:
    room = Room()
    line = room.connect()
    line.say(ENVELOPE + b"DATA\r\n")
    room.acceptor.rebind([bound(event, Reject("new")) for event in (Event.RCPT, Event.ARRIVAL)], "r2")
    line.say(TEXT + ENVELOPE)
    await settle()
    assert line.codes() == [250, 250, 354, 250, 250, 550]
    room.acceptor.rebind([], "r3")
    line.say(b"RCPT TO:<e@b.example>\r\nRSET\r\n" + ENVELOPE)
    assert line.codes() == [550, 250, 250, 250]


# -- no bindings -----------------------------------------------------------------------------------------

DIALOG = (
    b"EHLO copier\r\nVRFY joe\r\nNOOP\r\n" + ENVELOPE + b"RCPT TO:<x@nowhere.example>\r\nDATA\r\n",
    TEXT + bdat(MESSAGE) + b"HELO again\r\nDATA\r\nQUIT\r\n",
)


async def heard_by(bindings: Sequence[Binding]) -> list[bytes]:
    room = Room(bindings=bindings)
    line = room.connect(greeted=False)
    line.say(*DIALOG)
    await settle()
    ids = [given.id.encode() for given in room.spool.accepted]
    assert len(ids) == 2
    writes = line.wire.writes
    for id in ids:
        writes = [octets.replace(id, b"ID") for octets in writes]
    return writes


async def test_sinks_that_let_everything_pass_change_no_octet_and_no_write() -> None:
    plain = await heard_by([])
    assert await heard_by(Watch().bindings) == plain
