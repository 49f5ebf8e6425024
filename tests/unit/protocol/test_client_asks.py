"""The client machine where its shell wants to be asked: before EHLO, and before DATA."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.protocol.client import (
    GREETED,
    READY,
    RECIPIENTS_ANSWERED,
    ClientEvent,
    ClientOptions,
    Phase,
    SessionFailed,
    TransactionEnded,
)
from lonedot.protocol.client_plan import Plan
from lonedot.protocol.errors import LocalProtocolError, RemoteProtocolError
from lonedot.terms.outcome import Stage
from tests.unit.protocol.test_client import CHUNK, CHUNKED, ONE, PIPELINED, PLAIN, THREE, Dialog

ASKS = ClientOptions(b"relay.example.com", asks_at_greeting=True)


def begun(plan: Plan, ehlo: bytes = PIPELINED) -> Dialog:
    dialog = Dialog.ready(ehlo)
    dialog.machine.begin(plan, asks=True)
    return dialog


# --- before EHLO --------------------------------------------------------------------------------------


def test_nothing_is_said_to_a_greeting_before_the_shell_says_so() -> None:
    dialog = Dialog(ASKS)
    assert dialog.told(b"220 peer\r\n") == [GREETED]
    assert dialog.wrote() == b""
    dialog.machine.go_on()
    assert dialog.wrote() == b"EHLO relay.example.com\r\n"
    assert dialog.told(PIPELINED) == [READY]
    assert dialog.machine.keywords == (b"PIPELINING",)


def test_a_session_that_is_not_wanted_is_taken_leave_of() -> None:
    dialog = Dialog(ASKS)
    dialog.told(b"220 peer\r\n")
    dialog.machine.quit()
    assert dialog.wrote() == b"QUIT\r\n"


def test_a_greeting_that_refuses_is_not_asked_about() -> None:
    (event,) = Dialog(ASKS).told(b"554 no\r\n")
    assert isinstance(event, SessionFailed)


@pytest.mark.parametrize("reply", [b"250 hello\r\n", b"500 what\r\n"])
def test_a_reply_while_the_shell_decides_ends_the_session(reply: bytes) -> None:
    dialog = Dialog(ASKS)
    dialog.told(b"220 peer\r\n")
    with pytest.raises(RemoteProtocolError):
        dialog.told(reply)


def test_octets_that_came_meanwhile_are_found_when_it_goes_on() -> None:
    dialog = Dialog(ASKS)
    dialog.told(b"220 peer\r\n")
    dialog.machine.feed(b"250 ")
    with pytest.raises(RemoteProtocolError):
        dialog.machine.go_on()


def test_a_server_may_end_the_session_while_the_shell_decides() -> None:
    dialog = Dialog(ASKS)
    dialog.told(b"220 peer\r\n")
    (event,) = dialog.told(b"421 later\r\n")
    assert isinstance(event, SessionFailed)
    assert dialog.machine.phase is Phase.CLOSED


# --- before DATA --------------------------------------------------------------------------------------


def test_data_is_not_pipelined_where_the_shell_asks() -> None:
    dialog = begun(THREE)
    assert dialog.wrote() == (b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\nRCPT TO:<d@y>\r\n")
    assert dialog.told(b"250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n") == [RECIPIENTS_ANSWERED]
    assert [reply and reply.code for reply in dialog.machine.recipient_replies] == [250, 550, 250]
    dialog.machine.go_on()
    assert dialog.wrote() == b"DATA\r\n"
    assert not dialog.machine.wants_content


def test_without_pipelining_as_well() -> None:
    dialog = begun(ONE, PLAIN)
    assert dialog.wrote() == b"MAIL FROM:<a@x>\r\n"
    assert dialog.told(b"250 ok\r\n") == []
    assert dialog.wrote() == b"RCPT TO:<b@y>\r\n"
    assert dialog.told(b"250 ok\r\n") == [RECIPIENTS_ANSWERED]
    dialog.machine.go_on()
    assert dialog.wrote() == b"DATA\r\n"


def test_bdat_goes_with_its_content_when_it_may() -> None:
    dialog = begun(CHUNK, CHUNKED)
    assert b"BDAT" not in dialog.wrote()
    assert dialog.told(b"250 ok\r\n250 ok\r\n250 ok\r\n") == [RECIPIENTS_ANSWERED]
    dialog.machine.go_on()
    assert dialog.machine.wants_content
    assert dialog.wrote() == b"BDAT 10 LAST\r\n"
    dialog.machine.content_sent()
    (event,) = dialog.told(b"250 done\r\n")
    assert dialog.codes(event) == (Stage.CONTENT, 250, [250, 250])


@pytest.mark.parametrize("plan", [THREE, CHUNK])
def test_what_is_withheld_is_reset_before_the_next_transaction(plan: Plan) -> None:
    dialog = begun(plan, CHUNKED)
    dialog.wrote()
    dialog.told(b"250 ok\r\n" * (1 + len(plan.rcpt)))
    dialog.machine.withhold()
    assert dialog.machine.phase is Phase.READY
    assert dialog.wrote() == b""
    dialog.machine.begin(ONE, asks=True)
    assert dialog.wrote() == b"RSET\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\n"


def test_nobody_is_asked_about_what_the_next_hop_refuses() -> None:
    dialog = begun(THREE)
    dialog.wrote()
    (event,) = dialog.told(b"250 ok\r\n550 no\r\n550 no\r\n450 later\r\n")
    assert dialog.codes(event) == (Stage.RCPT, 0, [550, 550, 450])
    dialog = begun(ONE)
    dialog.wrote()
    (event,) = dialog.told(b"550 no\r\n503 no\r\n")
    assert dialog.codes(event) == (Stage.MAIL, 550, [503])


def test_421_while_the_shell_decides_leaves_the_message_open() -> None:
    dialog = begun(ONE)
    dialog.wrote()
    dialog.told(b"250 ok\r\n250 ok\r\n")
    (event,) = dialog.told(b"421 later\r\n")
    assert dialog.codes(event) == (Stage.DATA, 421, [250])
    assert dialog.machine.phase is Phase.CLOSED


def test_an_unasked_reply_while_the_shell_decides_ends_the_session() -> None:
    dialog = begun(ONE)
    dialog.wrote()
    with pytest.raises(RemoteProtocolError):
        dialog.told(b"250 ok\r\n250 ok\r\n354 go on\r\n")


def test_there_is_nothing_to_decide_where_nobody_asks() -> None:
    dialog = Dialog.ready()
    with pytest.raises(LocalProtocolError):
        dialog.machine.go_on()
    with pytest.raises(LocalProtocolError):
        dialog.machine.withhold()


@given(
    replies=st.lists(
        st.sampled_from([b"250 ok\r\n", b"450 later\r\n", b"550 no\r\n"]), min_size=4, max_size=4
    ),
    ehlo=st.sampled_from([PIPELINED, PLAIN, CHUNKED]),
    cuts=st.sets(st.integers(1, 60)),
)
def test_asking_changes_neither_the_outcome_nor_its_order(
    replies: list[bytes], ehlo: bytes, cuts: set[int]
) -> None:
    """Whoever always goes on ends where a machine that asks nobody ends, however the octets come."""

    def run(asks: bool) -> list[ClientEvent]:
        dialog = Dialog.ready(ehlo)
        machine = dialog.machine
        machine.begin(THREE, asks=asks)
        left = list(replies)
        ended: list[ClientEvent] = []
        buffer = b""
        while not ended:
            out = dialog.wrote()
            lines = out.split(b"\r\n")[:-1]
            if not lines:
                break
            for line in lines:
                if line == b"DATA":
                    buffer += b"354 go\r\n" if asks or b"250 ok\r\n" in replies[1:] else b"554 nobody\r\n"
                elif line == b".":
                    buffer += b"554 nothing\r\n"
                else:
                    buffer += left.pop(0)
            pieces = [p for p in _cut(buffer, cuts) if p]
            buffer = b""
            for piece in pieces:
                machine.feed(piece)
                while (event := machine.next_event()) is not None:
                    if event is RECIPIENTS_ANSWERED:
                        assert asks
                        machine.go_on()
                    elif isinstance(event, TransactionEnded):
                        ended.append(event)
                    else:
                        machine.content_sent()
                        buffer += b"250 done\r\n"
            if buffer:
                machine.feed(buffer)
                buffer = b""
                while (event := machine.next_event()) is not None:
                    ended.append(event)
        return ended

    assert run(True) == run(False)


def _cut(octets: bytes, cuts: set[int]) -> list[bytes]:
    places = [0, *sorted(cut for cut in cuts if cut < len(octets)), len(octets)]
    return [octets[a:b] for a, b in itertools.pairwise(places)]
