"""POP3 accounts against a server with faults: each message once, whatever breaks where; nothing deleted before it is in
custody; one message that cannot be taken keeps no other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from lonedot.message.fold import fold
from lonedot.reception.pop3 import MAX_FAILURES, Pop3Account
from lonedot.reception.pop3_account import AccountSettings, Mode, Pop3Tls
from lonedot.reception.pop3_journal import FORGOTTEN_SECONDS
from lonedot.reception.pop3_recipients import RECIPIENTS_FROM
from lonedot.sinks.load import bind
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Defer, Next, Reject, Verdict
from lonedot.sinks.view import Message
from lonedot.spool.interface import SpoolFault
from lonedot.terms.address import Address
from lonedot.terms.ids import MessageId
from tests.unit.reception.pop3_server import Fault, Pop3Server
from tests.unit.reception.room import Room

VERBS = ("hello", "CAPA", "AUTH", "UIDL", "LIST", "RETR", "DELE", "QUIT")
DAY = 86400.0


def mail(number: int, body: bytes = b"text\r\n.\r\n..dots\r\n") -> bytes:
    return b"From: c@b.example\r\nSubject: n%d\r\n\r\n%s" % (number, body)


class Told:
    """The observer of accounts."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.refusals: list[tuple[str, str, bool]] = []
        self.looks: list[tuple[int, str, int]] = []

    def pop3_taken(self, account: str, uidl: str, id: MessageId) -> None:
        self.taken.append(uidl)

    def pop3_refused(self, account: str, uidl: str, words: str, for_good: bool) -> None:
        self.refusals.append((uidl, words, for_good))

    def pop3_looked(self, account: str, taken: int, words: str, failed: int) -> None:
        self.looks.append((taken, words, failed))


class Place:
    """An account and its server; `look` is a look, `fresh` a restart of the relay."""

    def __init__(self, folder: Path, server: Pop3Server) -> None:
        self.room = Room()
        self.room.give_timers_back()
        self.folder = folder / "pop3"
        self.server = server
        self.told = Told()
        self.settings = AccountSettings(
            name="home",
            host="127.0.0.1",
            port=server.port,
            user="anna",
            password=b"secret",
            tls=Pop3Tls.NONE,
            timeout_seconds=5.0,
            mailbox=Address(b"anna@a.example"),
            max_size=1_000_000,
            recipients_from=RECIPIENTS_FROM,
        )
        self.account = self.fresh()

    def fresh(self, **changes: object) -> Pop3Account:
        self.settings = msgspec.structs.replace(self.settings, **changes)
        self.account = Pop3Account(
            self.settings, self.folder, self.room.acceptor, self.room.has_route, self.told, "r1"
        )
        return self.account

    async def look(self, *, again: bool = False) -> str:
        """What went wrong."""
        if again:
            self.account.poll(again=True)
        await self.account.look()
        return self.account.status.words

    def crash(self, *, with_journal: bool = False) -> None:
        """The relay is started anew; `with_journal`: what was not synced is gone."""
        if with_journal:
            for path in self.folder.glob("*"):
                path.unlink()
        self.fresh()

    @property
    def subjects(self) -> list[str]:
        """Of what is in custody."""
        found = []
        for given in self.room.spool.accepted:
            octets = fold(given.arrival, given.ledger, verify=True).octets()
            found += [line[9:].decode() for line in octets.split(b"\r\n") if line.startswith(b"Subject: ")]
        return sorted(found)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with Pop3Server().running() as server:
        server.mailbox = [(f"u{number}", mail(number)) for number in range(3)]
        yield Place(tmp_path, server)


# -- taking --------------------------------------------------------------------------------------------


async def test_mail_is_taken_whole_and_deleted(place: Place) -> None:
    assert await place.look() == ""
    assert place.subjects == ["n0", "n1", "n2"]
    assert place.server.mailbox == []
    given = place.room.spool.accepted[0]
    assert given.arrival.head + given.arrival.body.octets() == mail(0)
    assert given.envelope.reverse_path.is_null
    assert [one.address.text for one in given.envelope.recipients] == ["anna@a.example"]
    assert (given.facts.source, given.facts.listener, given.facts.trusted) == ("pop3", "home", False)
    assert place.told.looks == [(3, "", 0)]
    assert place.room.spool.bodies == 0


async def test_a_large_message_goes_to_its_file(place: Place) -> None:
    octets = mail(9, (b"x" * 70 + b"\r\n") * 8000)
    place.server.mailbox = [("u9", octets)]
    assert await place.look() == ""
    (given,) = place.room.spool.accepted
    assert place.room.spool.content(given.id).octets() == octets
    assert place.room.spool.bodies == 0


async def test_faulty_line_ends_and_long_lines_are_mended_as_entry_0(place: Place) -> None:
    octets = mail(1, b"one\ntwo\rthree\r\n" + b"y" * 2000 + b"\r\n")
    place.server.mailbox = [("u1", octets)]
    assert await place.look() == ""
    (given,) = place.room.spool.accepted
    assert given.arrival.head + given.arrival.body.octets() == octets
    queued = fold(given.arrival, given.ledger, verify=True).octets()
    assert b"one\r\ntwo\r\nthree\r\n" in queued
    assert max(map(len, queued.split(b"\r\n"))) <= 998
    assert given.ledger[0].event == "door" and given.ledger[0].findings


async def test_user_and_pass_where_there_is_no_sasl(place: Place) -> None:
    place.server.has_sasl = False
    assert await place.look() == ""
    assert place.server.verbs("PASS") == ["PASS secret"]
    assert len(place.subjects) == 3


async def test_what_stays_is_not_fetched_again(place: Place) -> None:
    place.fresh(leave_on_server=True)
    assert await place.look() == ""
    place.crash()
    place.server.mailbox.append(("u3", mail(3)))
    assert await place.look() == ""
    assert len(place.server.verbs("RETR")) == 4
    assert (place.subjects, len(place.server.mailbox)) == (["n0", "n1", "n2", "n3"], 4)


async def test_what_stays_is_deleted_after_its_time(place: Place) -> None:
    place.fresh(leave_on_server=True, delete_after_seconds=7 * DAY)
    assert await place.look() == ""
    place.room.clock.advance(6 * DAY)
    assert await place.look() == ""
    assert len(place.server.mailbox) == 3
    place.room.clock.advance(2 * DAY)
    assert await place.look() == ""
    assert (place.server.mailbox, len(place.server.verbs("RETR"))) == ([], 3)


# -- faults at each step -------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.SILENT])
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("crash", ["goes on", "starts anew", "has lost its journal"])
async def test_a_fault_at_any_step_loses_and_duplicates_nothing(
    place: Place, verb: str, fault: Fault, crash: str
) -> None:
    place.server.faults = {verb: [None, fault] if verb in ("RETR", "DELE") else [fault]}
    first = await place.look()
    if not (fault is Fault.ERR and verb in ("CAPA", "LIST", "RETR", "DELE", "QUIT")):
        # A server that closes the line in place of the answer to QUIT, or says more, has told it too late.
        assert first, (verb, fault)
    if crash != "goes on":
        place.crash(with_journal=crash == "has lost its journal")
    for _ in range(3):
        if await place.look() == "" and not place.server.mailbox:
            break
    assert place.account.status.words == ""
    assert place.subjects == ["n0", "n1", "n2"]
    assert place.server.mailbox == []
    assert place.room.spool.bodies == 0


async def test_a_silent_server_is_not_waited_for(place: Place) -> None:
    place.fresh(timeout_seconds=0.05)
    place.server.faults = {"RETR": [Fault.SILENT]}
    assert "nothing came for 0.05 seconds, at RETR" in await place.look()
    place.fresh(timeout_seconds=5.0)
    assert await place.look() == ""
    assert place.subjects == ["n0", "n1", "n2"]


async def test_a_message_that_ends_in_another_way_is_named(place: Place) -> None:
    place.fresh(timeout_seconds=0.05)
    place.server.raw["u0"] = b"+OK\r\n" + mail(0, b"%%EOF\n") + b".\r\n"
    assert "LF . CR LF" in await place.look()
    assert await place.look() != ""
    assert place.subjects == ["n1", "n2"]  # it was tried last
    for _ in range(MAX_FAILURES):
        await place.look()
    assert place.told.refusals[-1][2] is True
    assert await place.look() == ""
    assert [uidl for uidl, _ in place.server.mailbox] == ["u0"]


async def test_a_login_that_is_refused_is_tried_more_and_more_rarely(place: Place) -> None:
    place.server.has_sasl = False
    place.server.password = "another"
    pauses = []
    for _ in range(3):
        words = await place.look()
        assert "refuses the login of anna" in words and "secret" not in words
        pauses.append(place.account._pause())
    assert pauses == [600.0, 1200.0, 2400.0]
    assert [failed for _, _, failed in place.told.looks] == [1, 2, 3]
    place.server.password = "secret"
    assert await place.look() == ""
    assert place.account._pause() == 300.0


async def test_a_server_without_uidl_is_told(place: Place) -> None:
    place.server.has_uidl = False
    assert "has no UIDL" in await place.look()
    assert place.subjects == []


# -- a message that cannot be taken ----------------------------------------------------------------------


async def test_one_that_is_not_given_keeps_no_other_and_is_left_in_the_end(place: Place) -> None:
    place.server.raw["u0"] = b"-ERR cannot open it\r\n"
    for _ in range(MAX_FAILURES + 2):
        assert await place.look() == ""
    assert place.subjects == ["n1", "n2"]
    assert len(place.server.verbs("RETR")) == MAX_FAILURES + 2
    assert [for_good for _, _, for_good in place.told.refusals] == [False] * (MAX_FAILURES - 1) + [True]
    assert place.account.status.refused == 1
    del place.server.raw["u0"]
    assert await place.look(again=True) == ""
    assert (place.subjects, place.server.mailbox) == (["n0", "n1", "n2"], [])


async def test_one_that_is_too_large_is_left_at_once(place: Place) -> None:
    place.server.mailbox.insert(0, ("big", mail(9, b"x\r\n" * 400_000)))
    place.server.sizes["big"] = 10
    assert await place.look() == ""
    assert (place.subjects, [uidl for uidl, _ in place.server.mailbox]) == (["n0", "n1", "n2"], ["big"])
    assert place.told.refusals == [("big", "it is larger than 1000000 octets", True)]
    assert await place.look() == ""
    assert len(place.server.verbs("RETR")) == 4
    assert place.room.spool.bodies == 0


async def test_one_that_is_refused_at_the_door_is_left_at_once(place: Place) -> None:
    place.server.mailbox.insert(0, ("nul", mail(9, b"a\0b\r\n")))
    assert await place.look() == ""
    assert (len(place.subjects), len(place.server.mailbox)) == (3, 1)
    ((uidl, words, for_good),) = place.told.refusals
    assert (uidl, for_good) == ("nul", True) and "NUL" in words


async def test_sinks_of_end_of_data_are_asked_and_what_they_refuse_stays(place: Place) -> None:
    @sink("no n1", on="end-of-data")
    def no_n1(message: Message) -> Verdict:
        return Reject("not this one") if message.headers.subject == "n1" else Next()

    place.room.acceptor.rebind([bind(no_n1, sink_class="test:no_n1")], "r2")
    assert await place.look() == ""
    assert (place.subjects, [uidl for uidl, _ in place.server.mailbox]) == (["n0", "n2"], ["u1"])
    ((uidl, words, for_good),) = place.told.refusals
    assert (uidl, for_good) == ("u1", True) and "not this one" in words


async def test_what_a_sink_puts_off_is_tried_at_every_look(place: Place) -> None:
    @sink("away", on="end-of-data")
    def away(message: Message) -> Verdict:
        return Defer("the scanner is away")

    place.room.acceptor.rebind([bind(away, sink_class="test:away")], "r2")
    for _ in range(MAX_FAILURES + 2):
        assert await place.look() == ""
    assert (place.subjects, len(place.server.mailbox)) == ([], 3)
    place.room.acceptor.rebind([], "r3")
    assert await place.look() == ""
    assert (len(place.subjects), place.server.mailbox) == (3, [])


async def test_a_disk_that_fails_counts_against_no_message(place: Place) -> None:
    place.room.spool.fault = SpoolFault("broken")
    for _ in range(MAX_FAILURES + 1):
        assert await place.look() == ""
    assert (place.subjects, len(place.server.mailbox)) == ([], 3)
    assert not any(for_good for _, _, for_good in place.told.refusals)
    place.room.spool.fault = None
    assert await place.look() == ""
    assert (len(place.subjects), place.server.mailbox) == (3, [])


# -- UIDL ------------------------------------------------------------------------------------------------


async def test_new_numbers_for_old_mail_fetch_nothing_twice(place: Place) -> None:
    place.fresh(leave_on_server=True)
    await place.look()
    place.server.mailbox = [(f"new-{uidl}", octets) for uidl, octets in place.server.mailbox]
    assert await place.look() == ""
    place.server.mailbox.append(("new-u3", mail(3)))
    assert await place.look() == ""
    assert place.subjects == ["n0", "n1", "n2", "n3"]


async def test_an_old_number_for_new_mail_loses_nothing(place: Place) -> None:
    await place.look()
    place.server.mailbox = [("u0", mail(7)), ("u1", mail(8))]
    assert await place.look() == ""
    assert (place.subjects, place.server.mailbox) == (["n0", "n1", "n2", "n7", "n8"], [])


async def test_another_size_is_looked_into(place: Place) -> None:
    """A server that used a number again although the message was there: nothing is deleted on its word."""
    place.fresh(leave_on_server=True)
    await place.look()
    place.server.mailbox[0] = ("u0", mail(77))
    place.fresh(leave_on_server=False)
    assert await place.look() == ""
    assert (place.subjects, place.server.mailbox) == (["n0", "n1", "n2", "n77"], [])


@pytest.mark.parametrize("stays", [True, False])
async def test_two_messages_with_one_number_are_both_taken_once(place: Place, stays: bool) -> None:
    place.fresh(leave_on_server=stays)
    place.server.mailbox = [("same", mail(1)), ("same", mail(2)), ("u3", mail(3))]
    for _ in range(3):
        assert await place.look() == ""
    assert place.subjects == ["n1", "n2", "n3"]
    assert len(place.server.mailbox) == (3 if stays else 0)


async def test_what_the_server_has_long_forgotten_is_forgotten(place: Place) -> None:
    await place.look()
    place.room.clock.advance(FORGOTTEN_SECONDS + 2 * DAY)
    await place.look()
    (path,) = place.folder.glob("*.jsonl")
    assert path.read_bytes() == b""


# -- for whom --------------------------------------------------------------------------------------------


async def test_a_global_mailbox(place: Place) -> None:
    place.fresh(mode=Mode.GLOBAL, domains=("a.example",), undeliverable=Address(b"post@a.example"))
    place.server.mailbox = [
        (
            "1",
            b"Delivered-To: account@provider.example\r\nX-Original-To: Joe@A.example\r\nTo: x@a.example\r\n\r\n.\r\n",
        ),
        ("2", b"From: a@b.example\r\nTo: ann@a.example, who@b.example\r\nCc: bob@a.example\r\n\r\n.\r\n"),
        ("3", b"From: a@b.example\r\nTo: list@b.example\r\n\r\n.\r\n"),
    ]
    assert await place.look() == ""
    found = [[one.address.text for one in given.envelope.recipients] for given in place.room.spool.accepted]
    assert found == [["Joe@A.example"], ["ann@a.example", "bob@a.example"], ["post@a.example"]]
    assert all(given.envelope.reverse_path.is_null for given in place.room.spool.accepted)


async def test_what_has_no_route_waits(place: Place) -> None:
    place.fresh(mailbox=Address(b"anna@nowhere.example"))
    for _ in range(MAX_FAILURES + 1):
        assert await place.look() == ""
    assert (place.subjects, len(place.server.mailbox)) == ([], 3)
    place.fresh(mailbox=Address(b"anna@a.example"))
    assert await place.look() == ""
    assert len(place.subjects) == 3


# -- the schedule ----------------------------------------------------------------------------------------


async def test_it_stops_in_the_middle_and_goes_on_later(place: Place) -> None:
    place.server.faults = {"RETR": [None, Fault.SILENT]}
    place.account.start()
    await place.server.is_silent.wait()
    await place.account.stop()
    assert place.subjects == ["n0"]
    place.fresh()
    assert await place.look() == ""
    assert place.subjects == ["n0", "n1", "n2"]
