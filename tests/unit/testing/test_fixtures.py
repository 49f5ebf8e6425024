"""A whole relay for the author of a sink, in coroutines and in plain functions."""

from __future__ import annotations

from pathlib import Path

import pytest

from lonedot import Edit, Hold, Message, Next, Reject, Session, Verdict, sink
from lonedot.message.ledger import Action
from lonedot.spool.interface import NoSuchMessage
from lonedot.testing import Refused, RelayThread, bound, fixtures, relay_with


@sink("Department", effects={"header"}, reads={"body"})
def department(message: Message) -> Verdict:
    if b"refuse" in message.octets():
        return Reject("not here")
    if b"hold" in message.octets():
        return Hold("look at it")
    value = str(message.settings.get("value", "sales"))
    return Next([Edit.add_field("X-Department", value)])


async def test_a_message_goes_through_a_relay() -> None:
    async with relay_with(department) as relay:
        id = await relay.send(
            "Subject: grüße\n\n.dot\nü\n", to=["a@example.com", "b@example.com"], sender="c@example.com"
        )
        (arrival,) = await relay.arrivals()
        assert arrival.headers.get("X-Department") == b"sales"
        assert arrival.headers.get("Subject") is not None
        assert arrival.body == ".dot\r\nü\r\n".encode()
        assert arrival.sender == "c@example.com"
        assert arrival.recipients == ("a@example.com", "b@example.com")
        ledger = await relay.ledger(id)
        assert [(entry.binding, entry.action) for entry in ledger[1:]] == [("Department", Action.KEPT)]
        folder = relay.folder
        assert folder.is_dir()
    assert not folder.exists()


async def test_a_folder_of_ones_own_stays(tmp_path: Path) -> None:
    async with relay_with(folder=tmp_path) as relay:
        await relay.send()
        await relay.arrivals()
    assert (tmp_path / "spool").is_dir()


async def test_the_null_reverse_path() -> None:
    async with relay_with() as relay:
        await relay.send(sender="")
        (arrival,) = await relay.arrivals()
        assert arrival.sender == ""


def test_the_same_in_a_thread() -> None:
    with RelayThread(bound(department, settings={"value": "support"})) as relay:
        relay.send("Subject: one\n\none\n")
        relay.send("Subject: two\n\ntwo\n")
        arrivals = relay.arrivals(2)
        assert sorted(arrival.body for arrival in arrivals) == [b"one\r\n", b"two\r\n"]
        assert {arrival.headers.get("X-Department") for arrival in arrivals} == {b"support"}
        host, port = relay.address
        assert host == "127.0.0.1" and port > 0
        assert relay.folder.is_dir()
    with pytest.raises(RuntimeError, match="inside the `with` block"):
        relay.send()


def test_a_refusal_says_what_the_client_was_told() -> None:
    with RelayThread(department) as relay:
        with pytest.raises(Refused) as refused:
            relay.send("Subject: refuse\n\nthis\n")
        assert (refused.value.code, refused.value.words) == (550, "5.7.1 not here")
        with pytest.raises(Refused, match="501 "):
            relay.send(to="no address")


def test_copies_of_a_sink_that_splits() -> None:
    @sink("To", effects={"header"}, split=True)
    def to(message: Message) -> Verdict:
        (recipient,) = message.envelope.recipients
        return Next([Edit.add_field("X-To", recipient.address.text)])

    with RelayThread(to) as relay:
        relay.send(to=["a@example.com", "b@example.com"])
        seen = {arrival.recipients: arrival.headers.get("X-To") for arrival in relay.arrivals(2)}
    assert seen == {("a@example.com",): b"a@example.com", ("b@example.com",): b"b@example.com"}


def test_sinks_of_the_session_are_asked_too() -> None:
    @sink("No boss", on="rcpt", rule="RCPT TO=boss@*")
    def no_boss(session: Session) -> Verdict:
        return Reject("not by mail", 551, "5.7.0")

    with RelayThread(no_boss, department) as relay:
        with pytest.raises(Refused, match=r"551 5\.7\.0 not by mail"):
            relay.send(to=["sales@example.com", "boss@example.com"])
        relay.send(to="sales@example.com")
        (arrival,) = relay.arrivals()
        assert arrival.headers.get("X-Department") == b"sales"


def test_held_mail_does_not_arrive_and_the_words_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixtures, "PATIENCE_SECONDS", 0.05)
    with RelayThread(department) as relay:
        id = relay.send("Subject: hold\n\nthis\n")
        assert relay.state(id) == "held"
        with pytest.raises(AssertionError, match=f"0 of 1 messages arrived; {id} is held Department: look"):
            relay.arrivals()
        with pytest.raises(NoSuchMessage):
            relay.ledger("0000000000000")


def test_a_relay_that_cannot_start_leaves_no_thread(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("not a folder")
    relay = RelayThread(folder=tmp_path)
    with pytest.raises(Exception, match="spool"):
        relay.__enter__()
    assert not relay._thread.is_alive()
    assert relay._loop.is_closed()
