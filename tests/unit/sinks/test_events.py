"""The table of events: names, what may be said where, and bindings split by it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.edits import Edit, Effect
from lonedot.sinks.bindings import Binding, Isolation, chains_of, firing_order
from lonedot.sinks.events import EVENTS, Event, Kind, Reads, Says, Shows, event_named
from lonedot.sinks.load import bind
from lonedot.sinks.protocol import Session
from lonedot.sinks.reference import tables
from lonedot.sinks.sink import HopEvent, SessionEvent, Sink, sink
from lonedot.sinks.verdicts import Hold, Next, Stop, Verdict
from lonedot.sinks.view import Message
from tests.unit.sinks.making import binding, run

IN_SESSION = [event for event in Event if not EVENTS[event].shows_message]
WITH_MESSAGE = [event for event in Event if EVENTS[event].shows_message]
EVERY_NAME = [(name, event) for event in Event for name in (event.value, *EVENTS[event].old_names)]


def nothing(message: Message) -> Next:
    return Next()


def passes(session: Session) -> Next:
    return Next()


def at(event: Event, name: str = "sink", priority: int = 1) -> Binding:
    return msgspec.structs.replace(binding(nothing, name), event=event, priority=priority)


# -- names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "event"), EVERY_NAME)
def test_every_name_is_known_in_any_case(name: str, event: Event) -> None:
    assert event_named(name) is event
    assert event_named(f" {name.upper()} ") is event
    assert event_named(name.lower()) is event


def test_no_name_means_two_events() -> None:
    names = [name.lower() for name, _ in EVERY_NAME]
    assert len(names) == len(set(names))


def test_an_unknown_name_is_answered_with_those_that_exist() -> None:
    words = (
        "there is no event 'departure'; there are: connect, helo, auth, verb, mail, rcpt, data, end-of-data, "
    )
    with pytest.raises(ValueError, match=re.escape(words)):
        event_named("departure")


@pytest.mark.parametrize(("name", "event"), EVERY_NAME)
def test_a_sink_may_say_any_of_them(name: str, event: Event) -> None:
    declared: Sink = sink("S", on=name)(nothing)
    assert declared.event is event
    bound = bind(declared, sink_class="tests:s")
    assert bound.event is event
    assert sink("S", on=event)(nothing).event is event


@pytest.mark.parametrize(("kind", "shows"), [(SessionEvent, Shows.SESSION), (HopEvent, Shows.HOP)])
def test_the_types_of_events_are_those_of_the_table(kind: object, shows: Shows) -> None:
    events = {event for event in Event if EVENTS[event].shows is shows}
    names = {name for name, event in EVERY_NAME if event in events}
    assert set(get_args(kind)) == names | events


# -- the table -----------------------------------------------------------------------------------------


def test_it_has_every_event_in_the_order_in_which_a_message_meets_them() -> None:
    assert list(EVENTS) == list(Event)
    assert [EVENTS[event].kind for event in Event] == (
        [Kind.PROTOCOL] * 8 + [Kind.TRANSPORT] * 4 + [Kind.DELIVERY] * 7
    )


@pytest.mark.parametrize("event", IN_SESSION)
def test_before_there_is_a_message_nothing_can_be_edited_held_or_discarded(event: Event) -> None:
    facts = EVENTS[event]
    assert facts.effects == frozenset()
    assert not facts.says & {Says.HOLD, Says.DISCARD, Says.REDIRECT}


@pytest.mark.parametrize("event", WITH_MESSAGE)
def test_with_a_message_there_is_no_command_to_accept(event: Event) -> None:
    assert Says.ACCEPT not in EVENTS[event].says
    assert Reads.COMMAND not in EVENTS[event].reads


@pytest.mark.parametrize("event", [event for event in Event if EVENTS[event].kind is Kind.TRANSPORT])
def test_on_its_way_into_the_queue_everything_can(event: Event) -> None:
    assert EVENTS[event].effects == frozenset(Effect)
    assert EVENTS[event].says == frozenset(Says) - {Says.ACCEPT}


def test_the_page_says_all_of_it() -> None:
    page = tables(Path())
    sections = page.split("### ")[1:]
    assert [section.split("\n")[0] for section in sections] == [f"`{event.value}`" for event in Event]
    for section, event in zip(sections, Event, strict=True):
        facts = EVENTS[event]
        assert facts.fires in section
        assert all(f"`{name}`" in section for name in facts.old_names)
        assert all(f"`{said.value.capitalize()}`" in section for said in facts.says)
        assert ("| edits | none |" in section) is (not facts.effects)


# -- what does not fit ---------------------------------------------------------------------------------


@pytest.mark.parametrize("event", IN_SESSION)
def test_a_sink_of_the_session_declares_no_effects(event: Event) -> None:
    with pytest.raises(ValueError, match=r"(there is no message to edit yet|takes no such edits); use"):
        sink("S", on=event.value, effects={"header"})
    with pytest.raises(ValueError, match="effects body, header at event"):
        bind(sink("S", on=event.value)(nothing), sink_class="tests:s", effects=["header", "body"])


@pytest.mark.parametrize(
    ("event", "rule", "early"),
    [
        (Event.CONNECT, "EHLO=*", "EHLO"),
        (Event.HELO, "MAIL FROM=*", "MAIL FROM"),
        (Event.VERB, "EHLO=a;RCPT TO=*", "RCPT TO"),
        (Event.MAIL, "RCPT TO=*@a.example", "RCPT TO"),
    ],
)
def test_a_rule_that_asks_of_what_is_not_known_yet(event: Event, rule: str, early: str) -> None:
    with pytest.raises(ValueError, match=f"{early} is not known yet; use a later event"):
        sink("S", on=event.value, rule=rule)
    with pytest.raises(ValueError, match=f"{early} is not known yet"):
        bind(sink("S", on=event.value)(nothing), sink_class="tests:s", rule=rule)


@pytest.mark.parametrize(
    ("event", "rule"),
    [
        (Event.HELO, "EHLO=*"),
        (Event.MAIL, "EHLO=*;MAIL FROM=*"),
        (Event.RCPT, "RCPT TO=*"),
        (Event.DATA, "RCPT TO=*;EHLO=*"),
        (Event.END_OF_DATA, "MAIL FROM=*"),
    ],
)
def test_a_rule_that_asks_of_what_is_known(event: Event, rule: str) -> None:
    bound = bind(sink("S", on=event.value, rule=rule)(nothing), sink_class="tests:s")
    assert str(bound.rule) == rule


def test_a_binding_may_say_another_event_that_shows_the_same() -> None:
    late = sink("S", on="arrival")(nothing)
    early = sink("S", on="mail")(passes)
    assert bind(late, sink_class="tests:s", event="_EOD").event is Event.END_OF_DATA
    assert bind(early, sink_class="tests:s", event=Event.RCPT).event is Event.RCPT
    with pytest.raises(
        ValueError, match=r"takes a Message \(it says on='arrival'\); event 'rcpt' shows a Session"
    ):
        bind(late, sink_class="tests:s", event="rcpt")
    with pytest.raises(
        ValueError, match=r"takes a Session \(it says on='mail'\); event 'arrival' shows a Message"
    ):
        bind(early, sink_class="tests:s", event="arrival")
    with pytest.raises(ValueError, match="there is no event 'later'"):
        bind(late, sink_class="tests:s", event="later")


# -- split by event ------------------------------------------------------------------------------------


def test_without_bindings_there_is_nothing_to_ask() -> None:
    chains = chains_of([])
    assert chains.session is None
    assert (chains.received, chains.submitted) == ((), ())


def test_bindings_of_a_message_are_no_reason_to_ask_in_the_session() -> None:
    assert chains_of([at(Event.ARRIVAL), at(Event.END_OF_DATA)]).session is None


@given(
    st.lists(st.tuples(st.sampled_from(Event), st.integers(0, 3), st.sampled_from("abc")), max_size=12),
    st.randoms(use_true_random=False),
)
def test_every_binding_stands_in_its_chain_in_firing_order(
    rows: list[tuple[Event, int, str]], chance: object
) -> None:
    bindings = [
        msgspec.structs.replace(at(event, name, priority), guid=str(number))
        for number, (event, priority, name) in enumerate(rows)
    ]
    chains = chains_of(bindings)
    order = firing_order(bindings)
    assert chains_of(reversed(bindings)) == chains
    asked = chains.session or {}
    assert all(asked.values()), "an event without bindings does not stand there"
    in_session = [b for event in Event for b in asked.get(event, ())]
    departing = [b for event in Event for b in (chains.delivery or {}).get(event, ())]
    assert (*in_session, *chains.received, *departing) == order
    assert chains.submitted == tuple(b for b in order if EVENTS[b.event].kind is Kind.TRANSPORT)
    for one, next_one in itertools.pairwise(order):
        ranks = [list(Event).index(b.event) for b in (one, next_one)]
        assert ranks[0] <= ranks[1]
        if ranks[0] == ranks[1]:
            assert (one.priority, one.name) <= (next_one.priority, next_one.name)


# -- end of data, then arrival -------------------------------------------------------------------------


def says(verdict: Verdict, name: str, event: Event) -> Binding:
    return msgspec.structs.replace(
        binding(lambda message: verdict, name, effects={Effect.HEADER}), event=event
    )


def test_a_stop_ends_its_own_event_only() -> None:
    done = run(
        says(Stop([Edit.add_field("X-One", "1")]), "one", Event.END_OF_DATA),
        says(Next(), "two", Event.END_OF_DATA),
        says(Stop(), "three", Event.ARRIVAL),
        says(Next(), "four", Event.ARRIVAL),
    )
    assert [(entry.binding, entry.event) for entry in done.entries] == [
        ("one", "end-of-data"),
        ("three", "arrival"),
    ]


def test_a_hold_at_the_end_of_data_ends_both() -> None:
    done = run(says(Hold("odd"), "one", Event.END_OF_DATA), says(Next(), "two", Event.ARRIVAL))
    assert [entry.binding for entry in done.entries] == ["one"]


def test_arrival_sees_what_the_end_of_data_has_made() -> None:
    seen: list[bytes] = []

    def looks(message: Message) -> Next:
        seen.append(message.octets())
        return Next()

    done = run(
        says(Next([Edit.add_field("X-One", "1")]), "one", Event.END_OF_DATA),
        msgspec.structs.replace(binding(looks, "two"), event=Event.ARRIVAL),
    )
    assert seen == [done.content.octets()]
    assert b"X-One: 1\r\n" in seen[0]


def test_isolation_by_event() -> None:
    assert bind(sink("S")(nothing), sink_class="tests:s", isolation="process").isolation is Isolation.PROCESS
    bound = bind(sink("S", on="rcpt")(passes), sink_class="tests:s", isolation="process")
    assert (bound.event, bound.isolation) == (Event.RCPT, Isolation.PROCESS)
    assert not chains_of([bound]).has_apart, "that is of messages"
