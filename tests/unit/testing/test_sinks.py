"""The kit for the author of a sink: what it makes, what it reports, and that its assertions fail when they should."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot import (
    Defer,
    Discard,
    Edit,
    Hold,
    Hop,
    Message,
    Next,
    Reject,
    Result,
    Session,
    Sink,
    Stop,
    Verdict,
    sink,
)
from lonedot.message.ledger import Action
from lonedot.sinks.calls import Decision
from lonedot.sinks.events import EVENTS, Event, Kind, Reads, Shows
from lonedot.testing import (
    Ran,
    ask_sink,
    bound,
    make_envelope,
    make_hop,
    make_message,
    make_outcomes,
    make_session,
    run_sink,
)

LETTER = "Subject: an order\nTo: sales@example.com\n\nten crates\n"


@sink("adds", effects={"header"}, rule="RCPT TO=*@example.com")
def adds(message: Message) -> Verdict:
    return Next([Edit.add_field("X-Department", str(message.settings.get("value", "sales")))])


@sink("adds", effects={"header"})
def adds_everywhere(message: Message) -> Verdict:
    return Next([Edit.add_field("X-Department", "sales")])


@sink("nothing")
def nothing(message: Message) -> Verdict:
    return Next()


@sink("raises", on_error="skip")
def raises(message: Message) -> Verdict:
    raise RuntimeError("the directory is down")


@sink("bad", effects={"header", "body"})
def damages(message: Message) -> Verdict:
    return Next([Edit.replace_body(b"one\ntwo\n")])


@sink("undeclared")
def undeclared(message: Message) -> Verdict:
    return Next([Edit.add_field("X-Department", "sales")])


@sink("forwards", effects={"envelope"})
def forwards(message: Message) -> Verdict:
    return Next([Edit.add_recipient("b@example.com")])


# --- making --------------------------------------------------------------------------------------


def test_a_text_has_its_lines_ended_by_crlf() -> None:
    message = make_message("Subject: grüße\n\none\r\ntwo\n")
    assert message.octets() == "Subject: grüße\r\n\r\none\r\ntwo\r\n".encode()
    assert message.headers.get("subject") == "grüße".encode()
    assert b"".join(message.body_chunks()) == b"one\r\ntwo\r\n"


@given(st.binary(max_size=200))
def test_octets_stay_as_they_are(octets: bytes) -> None:
    assert make_message(octets).octets() == octets


def test_a_message_has_an_envelope_facts_and_settings() -> None:
    message = make_message(
        recipients=["a@b.example", "c@d.example"],
        sender="",
        settings={"largest": 5},
        client="198.51.100.7",
        helo="copier",
        trusted=False,
    )
    assert [r.address.text for r in message.envelope.recipients] == ["a@b.example", "c@d.example"]
    assert message.envelope.reverse_path.is_null
    assert message.settings == {"largest": 5}
    assert (message.facts.client, message.facts.helo, message.facts.trusted) == (
        "198.51.100.7",
        "copier",
        False,
    )


def test_one_recipient_may_be_a_text() -> None:
    assert make_envelope("a@b.example") == make_envelope(["a@b.example"])


def test_options_are_those_of_a_configuration() -> None:
    binding = bound(adds, name="other", priority=5, rule="", effects=["body"], on_error="skip")
    assert (binding.name, binding.priority, binding.rule) == ("other", 5, None)
    assert bound(binding) is binding
    with pytest.raises(ValueError, match="bound already; it takes no name"):
        bound(binding, name="x")
    with pytest.raises(ValueError, match="protective"):
        bound(adds, role="protective", on_damage="undo")


# --- running -------------------------------------------------------------------------------------


def test_what_came_of_it() -> None:
    ran = run_sink(adds, make_message(LETTER, recipients="sales@example.com"))
    assert ran.was_called and ran.error is None
    assert ran.verdict == Next([Edit.add_field("X-Department", "sales")])
    assert ran.octets == b"X-Department: sales\r\n" + make_message(LETTER).octets()
    assert ran.decision is Decision.ACCEPT
    assert ran.entry is not None and ran.entry.action is Action.KEPT
    assert ran.findings == ()
    assert ran.before.octets() == make_message(LETTER).octets()


def test_the_message_may_be_text_or_octets() -> None:
    for content in (LETTER, make_message(LETTER).octets()):
        assert run_sink(adds_everywhere, content).before.octets() == make_message(LETTER).octets()


def test_settings_come_from_the_message_or_the_options() -> None:
    message = make_message(LETTER, recipients="a@example.com", settings={"value": "one"})
    run_sink(adds, message).assert_added("X-Department", "one")
    run_sink(adds, message, settings={"value": "two"}).assert_added("X-Department", "two")
    run_sink(bound(adds, settings={"value": "three"}), message).assert_added("X-Department", "three")


def test_a_rule_that_does_not_match() -> None:
    ran = run_sink(adds, make_message(LETTER, recipients="a@elsewhere.example"))
    assert (ran.was_called, ran.verdict, ran.entry) == (False, None, None)
    ran.assert_untouched()
    with pytest.raises(AssertionError, match=r"it was not called\nthe rule RCPT TO=\*@example\.com does not"):
        ran.assert_added("X-Department")


def test_what_a_sink_raises_is_kept_and_its_policy_applied() -> None:
    ran = run_sink(raises, LETTER)
    assert isinstance(ran.error, RuntimeError)
    assert ran.decision is Decision.ACCEPT
    assert run_sink(raises, LETTER, on_error="defer").decision is Decision.DEFER
    with pytest.raises(AssertionError, match="raised    RuntimeError: the directory is down") as caught:
        ran.assert_untouched()
    assert caught.value.__cause__ is ran.error


def test_what_is_no_verdict_is_a_failure() -> None:
    @sink("odd")  # type: ignore[arg-type]  # what is tested
    def odd(message: Message) -> int:
        return 5

    ran = run_sink(odd, LETTER)
    assert ran.verdict is None
    with pytest.raises(AssertionError, match="returned int; at 'arrival' a sink returns Next"):
        ran.assert_sound()


@pytest.mark.parametrize(
    ("verdict", "decision"),
    [
        (Next(), Decision.ACCEPT),
        (Stop(), Decision.ACCEPT),
        (Hold("look at it"), Decision.HOLD),
        (Reject("no"), Decision.REJECT),
        (Discard("a test"), Decision.DISCARD),
    ],
)
def test_every_verdict(verdict: Verdict, decision: Decision) -> None:
    ran = run_sink(sink("one")(lambda message: verdict), LETTER)
    assert (ran.verdict, ran.decision) == (verdict, decision)
    assert ran.words == getattr(verdict, "words", "")
    ran.assert_sound()
    ran.assert_untouched()


def test_a_sink_that_splits_is_run_for_one_recipient() -> None:
    ran = run_sink(adds_everywhere, make_message(LETTER, recipients="a@example.com"), split=True)
    ran.assert_added("X-Department", "sales")
    with pytest.raises(ValueError, match="give it a message for one of them"):
        run_sink(
            adds_everywhere, make_message(LETTER, recipients=["a@example.com", "b@c.example"]), split=True
        )


# --- asserting -----------------------------------------------------------------------------------


def test_assertions_that_hold() -> None:
    ran = run_sink(adds_everywhere, LETTER)
    ran.assert_sound()
    ran.assert_added("X-Department")
    ran.assert_added("x-department", "sales")
    ran.assert_edits([Edit.add_field("X-Department", "sales")])
    run_sink(nothing, LETTER).assert_untouched()


@pytest.mark.parametrize("value", ["grüße aus Köln", "a " * 60, "plain"])
def test_a_value_is_compared_as_it_is_written(value: str) -> None:
    written = sink("writes", effects={"header"})(lambda m: Next([Edit.add_field("X-Long", value)]))
    run_sink(written, LETTER).assert_added("X-Long", value.strip())


def test_a_field_that_was_there_is_not_added() -> None:
    message = "X-Department: sales\n\nhello\n"
    run_sink(adds_everywhere, message).assert_added("X-Department", "sales")
    with pytest.raises(AssertionError, match="it added no field X-Department"):
        run_sink(nothing, message).assert_added("X-Department", "sales")


FAILING: list[tuple[Sink, Callable[[Ran], None], str]] = [
    (nothing, lambda r: r.assert_added("X-A"), r"sink 'nothing': it added no field X-A\nreturned  Next"),
    (
        adds_everywhere,
        lambda r: r.assert_added("X-Department", "other"),
        r"it added X-Department: 'sales', not 'other'",
    ),
    (adds_everywhere, lambda r: r.assert_untouched(), r"octets    \+X-Department: sales<CR><LF>"),
    (damages, lambda r: r.assert_sound(), r"what it did is not taken(.|\n)*bare-lf \(damage\)"),
    (damages, lambda r: r.assert_untouched(), "what it did is not taken"),
    (undeclared, lambda r: r.assert_added("X-Department"), r"header-undeclared \(violation\)"),
    (undeclared, lambda r: r.assert_added("X-Department"), r"declares  effects: none; role: cosmetic"),
    (forwards, lambda r: r.assert_untouched(), r"\+ sender@example.com to recipient@example.org, b@example"),
    (
        adds_everywhere,
        lambda r: r.assert_edits([Edit.add_field("X-Department", "other")]),
        r"- AddField\(octets=X-Department: other<CR><LF>, where='top'\)\n(.|\n)*"
        r"\+ AddField\(octets=X-Department: sales<CR><LF>, where='top'\)",
    ),
    (adds_everywhere, lambda r: r.assert_edits([]), r"\+ AddField"),
    (nothing, lambda r: r.assert_edits([Edit.remove_field("X-A")]), r"- RemoveField\(name='X-A'"),
    (damages, lambda r: r.assert_edits([Edit.replace_body(b"one\ntwo\n")]), "what it did is not taken"),
]


@pytest.mark.parametrize(("wrong", "claim", "words"), FAILING)
def test_a_false_assertion_fails_and_says_why(wrong: Sink, claim: Callable[[Ran], None], words: str) -> None:
    ran = run_sink(wrong, LETTER)
    with pytest.raises(AssertionError) as caught:
        claim(ran)
    assert re.search(words, str(caught.value)), str(caught.value)


def test_a_story_shows_long_edits_in_part() -> None:
    body = b"x" * 70 + b"\r\n"
    large = sink("large", effects={"body"})(lambda m: Next([Edit.replace_body(body * 1000)]))
    story = run_sink(large, LETTER).story().splitlines()
    assert all(len(line) < 600 for line in story)


# --- sessions ------------------------------------------------------------------------------------


@sink("strangers", on="rcpt")
def strangers(session: Session) -> Verdict:
    if len(session.envelope.recipients) >= 2 and not session.trusted:
        return Reject(f"too many for {session.client}: {session.recipient.address.text}")
    return Next()


def test_a_sink_of_a_session_is_called_with_one() -> None:
    assert strangers(make_session()) == Next()
    many = make_session("rcpt", recipient="c@d.example", before=["a@b.example", "b@b.example"])
    assert strangers(many) == Reject("too many for 192.0.2.1: c@d.example")
    with pytest.raises(ValueError, match="called at 'rcpt' with a Session: use ask_sink"):
        run_sink(strangers, LETTER)


@pytest.mark.parametrize("event", [event for event, facts in EVENTS.items() if facts.shows is Shows.SESSION])
def test_a_session_shows_what_the_event_shows(event: Event) -> None:
    session = make_session(event, settings={"a": 1})
    reads = EVENTS[event].reads
    shown: list[tuple[bool, Callable[[], object]]] = [
        (Reads.COMMAND in reads, lambda: session.command),
        (Reads.ENVELOPE in reads, lambda: session.envelope),
        (Reads.CREDENTIALS in reads, lambda: session.credentials),
        (event is Event.RCPT, lambda: session.recipient),
    ]
    for is_shown, look in shown:
        if is_shown:
            assert look()
        else:
            with pytest.raises(LookupError):
                look()
    assert session.settings == {"a": 1}
    assert bool(session.helo) is (event is not Event.CONNECT)


def test_a_session_of_an_event_by_its_old_name() -> None:
    session = make_session("OnMailCommand", sender="")
    assert (session.command.verb, session.command.argument) == (b"MAIL", b"FROM:<>")
    assert session.envelope.recipients == ()
    assert make_session("verb", command=("vrfy", "ann")).command.verb == b"VRFY"
    for wrong in ("arrival", "nothing", "session-start"):
        with pytest.raises(ValueError, match=r"use make_message|there is no event|use make_hop"):
            make_session(wrong)


# --- asking --------------------------------------------------------------------------------------


@sink("silent", on="helo", rule="EHLO=copier*")
def silent(session: Session) -> Verdict:
    return Next()


@sink("breaks", on="mail")
def breaks(session: Session) -> Verdict:
    raise RuntimeError("no directory")


@sink("holds", on="mail")
def holds(session: Session) -> Verdict:
    return Hold("here nothing is held")


@sink("only TLS", on="session-start")
def only_tls(hop: Hop) -> Verdict:
    return Next() if hop.tls else Defer(f"{hop.host} without TLS")


def test_what_a_sink_of_a_session_says() -> None:
    refused = ask_sink(strangers, make_session("rcpt", recipient="c@d.example", before=["a@b.example"] * 2))
    refused.assert_refused("too many for 192.0.2.1: c@d.example")
    assert (refused.decision, refused.code, refused.enhanced) == (Decision.REJECT, 550, "5.7.1")
    ask_sink(strangers, make_session()).assert_passed()
    with pytest.raises(AssertionError, match="it did not refuse"):
        ask_sink(strangers, make_session()).assert_refused()
    with pytest.raises(AssertionError, match=r"refused with 'too many(.|\n)*not 'no'"):
        refused.assert_refused("no")


def test_the_rule_of_a_sink_of_a_session() -> None:
    asked = ask_sink(silent, make_session("helo"))
    assert not asked.was_called
    asked.assert_passed()
    with pytest.raises(AssertionError, match="it was not called"):
        asked.assert_sound()
    ask_sink(silent, make_session("helo", helo="copier-1")).assert_sound()


def test_a_sink_of_a_session_that_fails() -> None:
    asked = ask_sink(breaks, make_session("mail"))
    assert isinstance(asked.error, RuntimeError)
    assert asked.decision is Decision.DEFER
    assert ask_sink(breaks, make_session("mail"), on_error="skip").decision is Decision.ACCEPT
    with pytest.raises(AssertionError, match="it failed\nraised    RuntimeError: no directory"):
        asked.assert_passed()
    wrong = ask_sink(holds, make_session("mail"))
    assert (wrong.verdict, wrong.error) == (None, None)
    with pytest.raises(AssertionError, match=r"it failed(.|\n)*returned Hold"):
        wrong.assert_refused()


def test_a_sink_of_a_next_hop() -> None:
    ask_sink(only_tls, make_hop()).assert_refused("mx.example.org without TLS")
    ask_sink(only_tls, make_hop(tls="TLSv1.3 X")).assert_passed()
    assert only_tls(make_hop(host="a.example")) == Defer("a.example without TLS")


def test_what_is_asked_must_be_what_it_takes() -> None:
    for wrong, words in (
        (make_session("mail"), "with a Hop, not a Session"),
        (make_hop("session-end"), "this shows 'session-end'"),
    ):
        with pytest.raises(ValueError, match=words):
            ask_sink(only_tls, wrong)
    with pytest.raises(ValueError, match="shows no next hop"):
        make_hop("dsn")


# --- delivery ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event", [e for e, f in EVENTS.items() if f.kind is Kind.DELIVERY and f.shows is Shows.MESSAGE]
)
def test_a_message_at_a_delivery_event_shows_what_the_event_shows(event: Event) -> None:
    reads = EVENTS[event].reads
    seen: list[Message] = []

    def looks(message: Message) -> Next:
        seen.append(message)
        return Next()

    run_sink(sink("looks", on=event)(looks)).assert_sound()
    (message,) = seen
    shown: list[tuple[bool, Callable[[], object]]] = [
        (Reads.HOP in reads, lambda: message.hop),
        (event is Event.PER_RECIPIENT, lambda: message.recipient),
        (event is Event.BEFORE_DATA, lambda: message.replies),
        (event in (Event.OUTCOME, Event.DSN), lambda: message.outcomes),
        (event is Event.DSN, lambda: message.report),
    ]
    for is_shown, look in shown:
        if is_shown:
            assert look()
        else:
            with pytest.raises(LookupError):
                look()


def test_a_report_is_shown_where_reports_are() -> None:
    @sink("signs", on="dsn", effects={"header"})
    def signs(message: Message) -> Verdict:
        return Next([Edit.add_field("X-Report", message.report.value)])

    ran = run_sink(signs)
    ran.assert_added("X-Report", "failed")
    assert ran.before.envelope.reverse_path.is_null
    assert [part.content_type for part in ran.before.parts][2] == "message/delivery-status"
    assert ran.before.octets() == make_message(event="dsn").octets()


def test_what_a_delivery_event_shows_can_be_said() -> None:
    @sink("later", on="outcome")
    def later(message: Message) -> Verdict:
        if any(outcome.result is Result.DEFERRED for _, outcome in message.outcomes):
            return Hold(f"deferred by {message.hop.host}")
        return Next()

    deferred = make_message(
        LETTER,
        event="outcome",
        outcomes=make_outcomes(["a@b.example"], "deferred", "4.2.1 busy", 421),
        hop=make_hop("outcome", host="slow.example"),
    )
    assert run_sink(later, deferred).words == "deferred by slow.example"
    run_sink(later, LETTER).assert_untouched()
    ((_, outcome),) = deferred.outcomes
    assert outcome.reply is not None and outcome.reply.text == "421 4.7.1 4.2.1 busy"
    with pytest.raises(ValueError, match="say event="):
        make_message(outcomes=make_outcomes())
