"""Whatever sinks say in an attempt: each recipient has one outcome, and what left is what the ledger says."""

from __future__ import annotations

import asyncio
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from lonedot.message.content import Content
from lonedot.message.edits import Edit
from lonedot.message.fold import fold
from lonedot.queue.courier import Delivery
from lonedot.sinks.bindings import Binding, Mode, OnError
from lonedot.sinks.events import Event
from lonedot.sinks.hop import Hop
from lonedot.sinks.verdicts import Defer, Hold, Next, Reject, Stop, Verdict
from lonedot.sinks.view import Message
from lonedot.spool.interface import Claim
from lonedot.terms.outcome import Result
from tests.unit.delivery.outbound import claim, outbound, route
from tests.unit.delivery.peer import Peer, running
from tests.unit.delivery.test_delivery_sinks import bound, chains, elsewhere

_EVENTS = (Event.MESSAGE_START, Event.PER_RECIPIENT, Event.BEFORE_DATA, Event.OUTCOME, Event.SESSION_END)
_SAID = st.sampled_from(
    [Next(), Stop(), Reject("no"), Defer("later"), Hold("keep"), "edit", "damage", "nonsense", "raise"]
)
_ANSWERS = st.sampled_from([b"250 ok\r\n", b"450 4.2.1 later\r\n", b"550 5.1.1 no\r\n"])
_OFFERS = st.sampled_from(
    [(b"PIPELINING", b"8BITMIME"), (b"PIPELINING", b"8BITMIME", b"CHUNKING"), (b"8BITMIME",), ()]
)
RECIPIENTS = (b"a@example.org", b"b@example.org", b"c@example.org")


def speaking(said: object) -> object:
    """A sink that always says this."""

    def call(shown: Message | Hop) -> Verdict:
        if said == "edit":
            return Next([Edit.add_field("X-Seen", "yes")])
        if said == "damage":
            return Next([Edit.replace_message(b"Subject: x\n\nbroken")])
        if said == "raise":
            raise ValueError("broken")
        return cast(Verdict, said)

    return call


@st.composite
def bindings(draw: st.DrawFn) -> list[Binding]:
    made = []
    for number in range(draw(st.integers(1, 5))):
        made.append(
            bound(
                draw(st.sampled_from(_EVENTS)),
                cast("type[Next]", speaking(draw(_SAID))),
                f"b{number}",
                apart=draw(st.booleans()),
                on_error=draw(st.sampled_from(OnError)),
                mode=Mode.LIVE,
            )
        )
    return made


async def attempt(
    said: list[Binding], answers: list[bytes], offer: tuple[bytes, ...], step: int
) -> tuple[Claim, Delivery, Peer]:
    peer = Peer(
        offer=offer,
        answers={b"<%s>" % to: answer for to, answer in zip(RECIPIENTS, answers, strict=True)},
    )
    what = claim(*RECIPIENTS)
    async with running(peer):
        over = route(peer.port, recipients_per_transaction=step)
        async with outbound(over, chains=chains(*said), elsewhere=elsewhere) as out:
            return what, await out.send(what), peer


@given(
    said=bindings(),
    answers=st.lists(_ANSWERS, min_size=3, max_size=3),
    offer=_OFFERS,
    step=st.integers(1, 3),
)
@settings(max_examples=60, deadline=None)
def test_each_recipient_has_one_outcome_and_what_left_is_what_the_ledger_says(
    said: list[Binding], answers: list[bytes], offer: tuple[bytes, ...], step: int
) -> None:
    what, delivery, peer = asyncio.run(attempt(said, answers, offer, step))
    numbers = [number for number, _ in delivery.outcomes]
    assert len(set(numbers)) == len(numbers)
    assert delivery.hold or sorted(numbers) == [0, 1, 2]
    delivered = {number for number, outcome in delivery.outcomes if outcome.result is Result.DELIVERED}
    named = {
        number
        for number, to in enumerate(RECIPIENTS)
        if answers[number].startswith(b"250")
        and any(line == b"RCPT TO:<%s>" % to for received in peer.messages for line in received.recipients)
    }
    assert delivered == named
    sent = [one for one in delivery.attempts if any(o.result is Result.DELIVERED for _, o in one.outcomes)]
    assert len(sent) == len(peer.messages)
    for one, received in zip(sent, peer.messages, strict=True):
        for number, _ in one.outcomes:
            content = fold(cast(Content, what.arrival), one.suffix, number, verify=True)
            end = b"" if received.mode == "BDAT" else b".\r\n"
            assert received.octets == content.octets() + end
