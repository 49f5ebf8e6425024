"""The chain of the events in a session: order, rules, verdicts, and what becomes of a sink that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.edits import Edit
from lonedot.sinks.bindings import Binding, OnError, SinkCall, guid_for
from lonedot.sinks.calls import WORDS_LIMIT, Decision
from lonedot.sinks.events import Event
from lonedot.sinks.protocol import (
    KEYWORDS_LIMIT,
    Command,
    Credentials,
    Judgement,
    Moment,
    Note,
    ProtocolCall,
    Session,
    ask,
)
from lonedot.sinks.rules import compile_rule
from lonedot.sinks.standing import Fault
from lonedot.sinks.verdicts import Accept, Defer, Discard, Hold, Next, Reject, Stop, Verdict
from lonedot.terms.address import Address
from lonedot.terms.envelope import Envelope, Recipient

JOE, ANN = Recipient(Address(b"joe@a.example")), Recipient(Address(b"ann@b.example"))
SENDER = Address(b"copier@c.example")
MOMENT = Moment(
    event=Event.RCPT,
    id="0000000000001",
    client="192.0.2.1",
    listener="in",
    trusted=True,
    tls="TLSv1.3 X",
    helo="copier",
    command=Command(b"RCPT", b"TO:<joe@a.example>"),
    envelope=Envelope(SENDER, (ANN,)),
    recipient=JOE,
)


def asked(
    call: ProtocolCall, name: str = "sink", *, rule: str = "", on_error: OnError = OnError.DEFER
) -> Binding:
    return Binding(
        name,
        guid_for(name),
        cast(SinkCall, call),
        f"tests:{name}",
        rule=compile_rule(rule),
        on_error=on_error,
        event=Event.RCPT,
        settings={"who": name},
    )


def says(returned: object, name: str = "sink", *, on_error: OnError = OnError.DEFER) -> Binding:
    return asked(lambda session: cast(Verdict, returned), name, on_error=on_error)


class Trace:
    """Bindings that note when they are asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def binding(self, name: str, returned: object, **options: str) -> Binding:
        def call(session: Session) -> Verdict:
            self.asked.append(cast(str, session.settings["who"]))
            return cast(Verdict, returned)

        return asked(call, name, **options)  # type: ignore[arg-type]  # `rule` is text


# -- verdicts and order --------------------------------------------------------------------------------


def test_nobody_objects() -> None:
    trace = Trace()
    judged = ask(MOMENT, [trace.binding("a", Next()), trace.binding("b", Next([]))])
    assert judged == Judgement()
    assert trace.asked == ["a", "b"]


def test_the_first_refusal_is_the_answer() -> None:
    trace = Trace()
    chain = [
        trace.binding("a", Next()),
        trace.binding("b", Reject("not here", code=551, enhanced="5.1.6")),
        trace.binding("c", Defer("later")),
    ]
    judged = ask(MOMENT, chain)
    assert (judged.decision, judged.words, judged.code, judged.enhanced) == (
        Decision.REJECT,
        "not here",
        551,
        "5.1.6",
    )
    assert judged.notes == (Note("b", guid_for("b"), "not here"),)
    assert trace.asked == ["a", "b"]


def test_defer_is_a_refusal_too() -> None:
    judged = ask(MOMENT, [says(Defer("full", code=452, enhanced="4.2.2"))])
    assert (judged.decision, judged.code, judged.enhanced) == (Decision.DEFER, 452, "4.2.2")


def test_stop_lets_it_pass_and_asks_nobody_else() -> None:
    trace = Trace()
    assert ask(MOMENT, [trace.binding("a", Stop()), trace.binding("b", Reject("no"))]) == Judgement()
    assert trace.asked == ["a"]


def test_accept_is_the_answer_and_asks_nobody_else() -> None:
    trace = Trace()
    judged = ask(
        MOMENT, [trace.binding("a", Accept("welcome", 250, "2.1.9")), trace.binding("b", Reject("no"))]
    )
    assert judged == Judgement(words="welcome", code=250, enhanced="2.1.9", is_answer=True)
    assert trace.asked == ["a"]


@pytest.mark.parametrize(
    ("event", "given", "words"),
    [
        (Event.CONNECT, Accept("hi", code=250), "success is 220 there"),
        (Event.CONNECT, Accept("hi", enhanced="2.0.0"), "where there is none"),
        (Event.AUTH, Accept(code=250), "success is 235 there"),
        (Event.DATA, Accept(), "returned Accept; at event 'data' a sink returns Next, Stop, Reject, Defer"),
        (Event.VERB, Accept(code=354), "reply code 354 is not in 200 to 299"),
        (Event.HELO, Accept(keywords=("SIZE 1",)), "keyword 'SIZE' is the relay's own"),
        (Event.HELO, Accept(keywords=("xa", "XA 1")), "keyword 'XA' is there twice"),
        (Event.HELO, Accept(keywords=("X A\r\n250 B",)), "not a line of the reply to EHLO"),
        (Event.HELO, Accept(keywords=("-X",)), "not a line of the reply to EHLO"),
        (Event.HELO, Accept(keywords=("X" * 501,)), "not a line of the reply to EHLO"),
        (Event.HELO, Accept(keywords=("Ü",)), "not a line of the reply to EHLO"),
        (Event.HELO, Accept(keywords=tuple(f"X{n}" for n in range(KEYWORDS_LIMIT + 1))), "33 keywords"),
        (Event.HELO, Accept(keywords=cast("tuple[str, ...]", (1,))), "AttributeError"),
    ],
)
def test_an_acceptance_that_cannot_be_told_is_a_fault(event: Event, given: Accept, words: str) -> None:
    binding = msgspec.structs.replace(says(given), event=event)
    judged = ask(msgspec.structs.replace(MOMENT, event=event), [binding])
    assert judged.decision is Decision.DEFER and not judged.is_answer
    assert words in judged.notes[0].words
    assert judged.notes[0].fault is Fault.NONSENSE


def test_a_verb_may_be_answered_with_any_success() -> None:
    binding = msgspec.structs.replace(says(Accept("done", 254, "2.9.9")), event=Event.VERB)
    judged = ask(msgspec.structs.replace(MOMENT, event=Event.VERB), [binding])
    assert (judged.code, judged.enhanced, judged.is_answer) == (254, "2.9.9", True)


SECRET = Credentials("PLAIN", b"anna", "p\u00e4ss'1\n".encode())


@pytest.mark.parametrize("error", [RuntimeError, KeyError, ValueError])
def test_a_password_is_in_no_words(error: type[Exception]) -> None:
    def call(session: Session) -> Verdict:
        shown = session.credentials
        raise error(f"{shown} {shown.password!r} {shown.password.decode()}")

    moment = msgspec.structs.replace(MOMENT, event=Event.AUTH, credentials=SECRET)
    assert "ss'1" not in repr(moment) and "ss'1" not in str(Session(moment, {}).credentials)
    judged = ask(moment, [msgspec.structs.replace(asked(call), event=Event.AUTH)])
    assert "ss'1" not in repr(judged) and "***" in judged.notes[0].words
    told = ask(moment, [msgspec.structs.replace(says(Reject(SECRET.password.decode())), event=Event.AUTH)])
    assert "ss'1" not in repr(told)


def test_only_auth_shows_credentials() -> None:
    with pytest.raises(LookupError, match="shows no credentials"):
        _ = Session(MOMENT, {}).credentials


def test_words_are_bounded() -> None:
    judged = ask(MOMENT, [says(Reject("x" * 10_000 + "\ud800"))])
    assert judged.words == "x" * WORDS_LIMIT
    assert ask(MOMENT, [says(Reject("\ud800"))]).words == "\\ud800"


# -- rules ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "is_asked"),
    [
        ("", True),
        ("RCPT TO=joe@a.example", True),
        ("RCPT TO=*@b.example", False),  # a recipient taken before is not the one that is decided
        ("MAIL FROM=*@c.example", True),
        ("MAIL FROM=*@d.example", False),
        ("EHLO=copier", True),
        ("EHLO=scanner", False),
        ("EHLO=scanner;RCPT TO=joe", True),
    ],
)
def test_a_rule_is_asked_of_the_recipient_at_hand(rule: str, is_asked: bool) -> None:
    trace = Trace()
    ask(MOMENT, [trace.binding("a", Next(), rule=rule)])
    assert trace.asked == ["a"] * is_asked


def test_at_data_one_recipient_is_enough() -> None:
    moment = msgspec.structs.replace(MOMENT, recipient=None, envelope=Envelope(SENDER, (ANN, JOE)))
    trace = Trace()
    ask(
        moment,
        [trace.binding("a", Next(), rule="RCPT TO=joe"), trace.binding("b", Next(), rule="RCPT TO=eve")],
    )
    assert trace.asked == ["a"]


# -- failures ------------------------------------------------------------------------------------------


class Slippery:
    """Raises whatever is asked of it."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__
    __iter__ = __str__
    __bool__ = __str__


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


def leaves(session: Session) -> Verdict:
    raise SystemExit(3)


def raises(error: BaseException) -> ProtocolCall:
    def call(session: Session) -> Verdict:
        raise error

    return call


FAILING: list[tuple[ProtocolCall, str]] = [
    (raises(RuntimeError("boom")), "RuntimeError: boom"),
    (leaves, "SystemExit: 3"),
    (raises(GeneratorExit()), "GeneratorExit: "),
    (raises(Mute()), "Mute: (it cannot be shown)"),
    (lambda session: cast(Verdict, None), "returned NoneType; at event 'rcpt' a sink returns"),
    (lambda session: cast(Verdict, Slippery()), "returned Slippery"),
    (lambda session: cast(Verdict, "next"), "returned str"),
    (lambda session: Hold("odd"), "returned Hold; at event 'rcpt'"),
    (lambda session: Discard("odd"), "returned Discard; at event 'rcpt'"),
    (lambda session: Next([Edit.add_field("X-A", "1")]), "returned edits at event 'rcpt'"),
    (lambda session: Stop([Edit.add_field("X-A", "1")]), "returned edits at event 'rcpt'"),
    (lambda session: Next(cast("list[object]", Slippery())), "RuntimeError: no"),  # type: ignore[arg-type]
    (lambda session: Reject(cast(str, b"no")), "TypeError: its words are bytes"),
    (lambda session: Reject("no", code=250), "reply code 250 is not in 500 to 599"),
    (lambda session: Reject("no", code=451), "reply code 451 is not in 500 to 599"),
    (lambda session: Defer("no", code=550), "reply code 550 is not in 400 to 499"),
    (lambda session: Reject("no", enhanced="4.7.1"), "enhanced status code '4.7.1' is not of the form 5.X.Y"),
    (lambda session: Reject("no", code=cast(int, "550")), "reply code '550'"),
    (lambda session: Defer("no", enhanced="4.7.1\r\n250 Ok"), "enhanced status code"),
    (lambda session: Accept(cast(str, b"yes")), "TypeError: its words are bytes"),
    (lambda session: Accept("yes", code=251), "success is 250 there"),
    (lambda session: Accept("yes", enhanced="5.1.1"), "enhanced status code '5.1.1'"),
    (lambda session: Accept("yes", keywords=("XA",)), "only the reply to EHLO has them"),
]
RAISING = [call for call, _ in FAILING[:4]]


@pytest.mark.parametrize(("call", "words"), FAILING, ids=[words for _, words in FAILING])
def test_a_sink_that_fails_is_booked_and_on_error_decides(call: ProtocolCall, words: str) -> None:
    expected = {
        OnError.DEFER: Decision.DEFER,
        OnError.HOLD: Decision.DEFER,
        OnError.REJECT: Decision.REJECT,
        OnError.SKIP: Decision.ACCEPT,
    }
    for on_error, decision in expected.items():
        judged = ask(MOMENT, [asked(call, "bad", on_error=on_error)])
        assert judged.decision is decision
        assert (judged.words, judged.code) == ("", 0), "what went wrong is not for the client"
        (note,) = judged.notes
        assert (note.binding, note.guid) == ("bad", guid_for("bad"))
        assert note.fault is (Fault.NONSENSE if call not in RAISING else Fault.RAISED)
        assert words in note.words


def test_a_skipped_sink_stops_nothing_and_every_fault_is_booked() -> None:
    bad = says(Stop([Edit.add_field("X-A", "1")]), "bad", on_error=OnError.SKIP)
    judged = ask(MOMENT, [bad, says(None, "worse", on_error=OnError.SKIP), says(Reject("no"), "last")])
    assert judged.decision is Decision.REJECT
    assert [(note.binding, note.fault) for note in judged.notes] == [
        ("bad", Fault.NONSENSE),
        ("worse", Fault.NONSENSE),
        ("last", None),
    ]


def test_ctrl_c_is_not_a_fault_of_the_sink() -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(MOMENT, [asked(raises(KeyboardInterrupt()))])


# -- what is shown -------------------------------------------------------------------------------------


def test_a_sink_is_shown_the_session() -> None:
    shown: list[Session] = []

    def looks(session: Session) -> Verdict:
        shown.append(session)
        return Next()

    ask(MOMENT, [asked(looks, "looking")])
    (session,) = shown
    assert session.event is Event.RCPT
    assert (session.id, session.client, session.helo) == ("0000000000001", "192.0.2.1", "copier")
    assert (session.listener, session.tls, session.trusted) == ("in", "TLSv1.3 X", True)
    assert session.command == Command(b"RCPT", b"TO:<joe@a.example>")
    assert session.envelope == Envelope(SENDER, (ANN,))
    assert session.recipient == JOE
    assert session.settings == {"who": "looking"}


READING: list[tuple[str, Callable[[Session], object]]] = [
    ("command", lambda session: session.command),
    ("envelope", lambda session: session.envelope),
    ("recipient", lambda session: session.recipient),
]


@pytest.mark.parametrize(("what", "read"), READING)
def test_what_an_event_does_not_show_is_a_fault(what: str, read: Callable[[Session], object]) -> None:
    moment = Moment(event=Event.CONNECT, id="1", client="192.0.2.1", listener="in", trusted=False)

    def reads(session: Session) -> Verdict:
        read(session)
        return Next()

    judged = ask(moment, [asked(reads)])
    assert judged.decision is Decision.DEFER
    assert judged.notes[0].words == f"LookupError: event 'connect' shows no {what}"


# -- any chain -----------------------------------------------------------------------------------------

RETURNS: list[object] = [Next(), Stop(), Reject("r"), Defer("d"), Hold("h"), None]


@given(st.lists(st.tuples(st.sampled_from(RETURNS), st.sampled_from(OnError)), max_size=8))
def test_any_chain_asks_in_order_up_to_the_one_that_decides(rows: list[tuple[object, OnError]]) -> None:
    trace = Trace()
    chain = [
        msgspec.structs.replace(trace.binding(str(number), returned), on_error=on_error)
        for number, (returned, on_error) in enumerate(rows)
    ]
    judged = ask(MOMENT, chain)
    expected, count = Decision.ACCEPT, 0
    for returned, on_error in rows:
        count += 1
        if isinstance(returned, Reject | Defer):
            expected = Decision.REJECT if isinstance(returned, Reject) else Decision.DEFER
        elif returned is None or isinstance(returned, Hold):
            if on_error is OnError.SKIP:
                continue
            expected = Decision.REJECT if on_error is OnError.REJECT else Decision.DEFER
        elif isinstance(returned, Next):
            continue
        break
    assert judged.decision is expected
    assert trace.asked == [str(number) for number in range(count)]
