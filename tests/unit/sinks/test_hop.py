"""What delivery events show, the chain of a session with a next hop, and both in processes of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.message.report import ReportKind
from lonedot.sinks.bindings import Binding, Isolation, OnError, SinkCall, check_fit, guid_for
from lonedot.sinks.calls import Answer, Call, Decision
from lonedot.sinks.events import EVENTS, Event, Kind, Shows
from lonedot.sinks.hop import Departure, Hop
from lonedot.sinks.hosts import Hosts
from lonedot.sinks.inquiry import HopCall, HopJudgement, advance_hop, inquire
from lonedot.sinks.process import DeadlineExceeded, ProcessDied
from lonedot.sinks.registry import Bag
from lonedot.sinks.verdicts import Defer, Hold, Next, Reject, Stop, Verdict
from lonedot.sinks.view import Message
from lonedot.terms.address import Address
from lonedot.terms.envelope import Recipient
from lonedot.terms.outcome import Outcome, Result, Stage
from lonedot.terms.reply import Reply
from tests.unit.sinks.making import CONTENT, ENVELOPE, FACTS

SINKS = Path(__file__).with_name("hop_sinks.py")
HOP = Hop(
    event=Event.SESSION_START,
    id="s1",
    route="out",
    next_hop="mx[192.0.2.1]:25",
    host="mx",
    address="192.0.2.1",
    port=25,
    tls="TLSv1.3",
    offered=("SIZE 1000",),
)
JOE = Recipient(Address(b"joe@b.example"))
REPLY = Reply(550, "5.1.1", (b"no",))
OUTCOME = Outcome(Result.FAILED, Stage.RCPT, "no", REPLY, "mx", "5.1.1")
WHOLE = Departure(
    event=Event.OUTCOME,
    hop=HOP,
    recipient=JOE,
    replies=((JOE, REPLY), (JOE, None)),
    outcomes=((JOE, OUTCOME),),
    report=ReportKind.DELAY,
)


def bound(call: Callable[[Hop], object], name: str = "sink", on_error: OnError = OnError.DEFER) -> Binding:
    return Binding(
        name,
        guid_for(name),
        cast(SinkCall, call),
        f"tests:{name}",
        event=Event.SESSION_START,
        on_error=on_error,
    )


def ask(bindings: Sequence[Binding]) -> HopJudgement:
    step = advance_hop(inquire(HOP, bindings))
    assert isinstance(step, HopJudgement)
    return step


def apart(name: str, event: Event, deadline: float = 30.0, **settings: str | int) -> Binding:
    bound_ = bound(lambda hop: Next(), name)
    return msgspec.structs.replace(
        bound_,
        event=event,
        isolation=Isolation.PROCESS,
        sink_class=f"{SINKS}:{name}",
        deadline_seconds=deadline,
        settings=Bag(settings),
    )


@pytest.mark.parametrize("what", ["hop", "recipient", "replies", "outcomes", "report"])
def test_what_an_event_does_not_show_is_a_fault_to_ask_for(what: str) -> None:
    plain = Message("id", ENVELOPE, FACTS, CONTENT, {})
    with pytest.raises(LookupError, match="only some delivery events"):
        getattr(plain, what)
    bare = Message("id", ENVELOPE, FACTS, CONTENT, {}, departure=Departure(event=Event.OUTCOME))
    with pytest.raises(LookupError, match="event 'outcome' shows no"):
        getattr(bare, what)
    assert getattr(Message("id", ENVELOPE, FACTS, CONTENT, {}, departure=WHOLE), what)


_VERDICTS = st.sampled_from(
    [Next(), Stop(), Reject("no"), Defer("later"), Hold("keep"), None, "nonsense", ValueError("x")]
)


@given(said=st.lists(st.tuples(_VERDICTS, st.sampled_from(OnError)), max_size=5))
def test_the_first_refusal_is_the_answer(said: list[tuple[object, OnError]]) -> None:
    """Against a plain reading of the rules."""
    asked: list[int] = []

    def make(number: int, verdict: object) -> Callable[[Hop], object]:
        def call(hop: Hop) -> object:
            asked.append(number)
            if isinstance(verdict, Exception):
                raise verdict
            return verdict

        return call

    bindings = [bound(make(n, verdict), f"b{n}", on_error) for n, (verdict, on_error) in enumerate(said)]
    judgement = ask(bindings)
    expected, who, faults = Decision.ACCEPT, "", 0
    reached = -1
    for reached, (verdict, on_error) in enumerate(said):
        match verdict:
            case Next():
                continue
            case Stop():
                break
            case Reject():
                expected = Decision.REJECT
            case Defer():
                expected = Decision.DEFER
            case _:
                faults += 1
                if on_error is OnError.SKIP:
                    continue
                expected = Decision.REJECT if on_error is OnError.REJECT else Decision.DEFER
        who = f"b{reached}"
        break
    assert (judgement.decision, judgement.binding) == (expected, who)
    assert asked == list(range(reached + 1))
    assert sum(note.fault is not None for note in judgement.notes) == faults


def test_the_settings_of_each_binding_are_its_own() -> None:
    shown: list[Hop] = []

    def look(hop: Hop) -> Verdict:
        shown.append(hop)
        return Next()

    one = msgspec.structs.replace(bound(look, "a"), settings={"limit": 1})
    two = msgspec.structs.replace(bound(look, "b"), settings={"limit": 2})
    ask([one, two])
    assert [hop.settings for hop in shown] == [{"limit": 1}, {"limit": 2}]


async def said_by(binding: Binding, call: Call | HopCall) -> Answer:
    hosts = Hosts()
    try:
        return await hosts(call)
    finally:
        await hosts.close()


async def test_a_process_is_shown_the_hop_and_its_settings() -> None:
    binding = apart("describe", Event.SESSION_START, Limit=3)
    hop = msgspec.structs.replace(HOP, settings=binding.settings)
    answer = await said_by(binding, HopCall(binding, hop))
    assert answer.error is None
    assert answer.returned == Reject("out mx 192.0.2.1 25 TLSv1.3 SIZE 1000 limit=3")


async def test_a_process_is_shown_all_that_a_delivery_event_shows() -> None:
    binding = apart("repeat", Event.OUTCOME)
    shown = Message("id", ENVELOPE, FACTS, CONTENT, {}, binding.guid, (0,), WHOLE)
    answer = await said_by(binding, Call(binding, shown))
    assert answer.error is None
    words = f"mx[192.0.2.1]:25 joe@b.example [550, None] failed {ReportKind.DELAY.value}"
    assert isinstance(answer.returned, Hold)
    assert answer.returned.words == words


@pytest.mark.parametrize(("name", "fault"), [("dies", ProcessDied), ("sleeps", DeadlineExceeded)])
async def test_a_process_that_dies_or_sleeps_is_an_answer(name: str, fault: type[Exception]) -> None:
    binding = apart(name, Event.SESSION_START, 30.0 if name == "dies" else 0.2)
    answer = await said_by(binding, HopCall(binding, HOP))
    assert isinstance(answer.error, fault)


@pytest.mark.parametrize("event", [event for event in Event if EVENTS[event].kind is Kind.DELIVERY])
def test_a_delivery_event_has_no_copies_to_split(event: Event) -> None:
    with pytest.raises(ValueError, match=event.value):
        check_fit("odd", event, (), None, split=True)


def test_only_the_sessions_show_a_hop() -> None:
    hops = {event for event in Event if EVENTS[event].shows is Shows.HOP}
    assert hops == {Event.SESSION_START, Event.SESSION_END}
