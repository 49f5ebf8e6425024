"""What Exchange servers say to each other: who is told, who may, which lengths are none, and octets in a session."""

from __future__ import annotations

import pytest

from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin.xexch50 import ExchangeSettings, xexch50, xexch50_offer
from lonedot.sinks.calls import Decision
from lonedot.sinks.load import bind
from lonedot.sinks.settings import SettingsFault, typed
from lonedot.sinks.verdicts import READ_LIMIT, Accept
from lonedot.testing import Asked, ask_sink, make_session
from tests.unit.reception.room import Room, settle

ENVELOPE = b"MAIL FROM:<c@a.example>\r\nRCPT TO:<d@b.example>\r\n"
TEXT = b"From: c@a.example\r\n\r\nbody\r\n.\r\n"


def asked(verb: str, argument: str, trusted: bool = True, **settings: Setting) -> Asked:
    session = make_session("verb", command=(verb, argument), trusted=trusted, settings=settings)
    return ask_sink(xexch50, session)


# --- lengths ------------------------------------------------------------------------------------------


HOSTILE = [
    "",
    "2",
    "-1 2",
    "+4 2",
    "0 2",
    "0x10 2",
    "4.0 2",
    "4 2 3",
    "4 x",
    "٤ 2",
    "2147483648 2",
    "4294967295 2",
    "4294967300 2",
    "9223372036854775808 2",
    "18446744073709551620 2",
    "-2147483648 2",
    "9" * 400 + " 2",
    "4\t2",
]


@pytest.mark.parametrize("argument", HOSTILE)
def test_a_hostile_length_is_a_fault_of_syntax(argument: str) -> None:
    """CVE-2003-0714: a length that is negative, or wraps, made others allocate and write beyond."""
    one = asked("XEXCH50", argument)
    one.assert_refused()
    assert (one.code, one.decision) == (501, Decision.REJECT)


@pytest.mark.parametrize(("octets", "code"), [(1, 0), (1 << 20, 0), ((1 << 20) + 1, 552), (1 << 30, 552)])
def test_more_than_is_wanted_is_refused_before_it_is_read(octets: int, code: int) -> None:
    one = asked("XEXCH50", f"{octets} 2")
    assert one.code == code
    if not code:
        assert one.verdict == Accept(f"{octets} octets received", read=octets)


def test_the_bound_is_a_setting() -> None:
    assert asked("XEXCH50", "10 2", max_octets=9).code == 552
    for wrong in (0, -1, READ_LIMIT + 1):
        with pytest.raises(SettingsFault, match="max_octets"):
            typed(ExchangeSettings, {"max_octets": wrong})


@pytest.mark.parametrize(
    ("argument", "code"),
    [
        ("LAST CHUNK={00000045} DIGEST_QUERY 00", 0),
        ("first chunk=x", 0),
        ("NEXT CHUNK=", 0),
        ("LAST CHUNK={FFFFFFFF} x", 501),
        ("LAST CHUNK={000000045} x", 0),  # no length: nine digits are text
        ("CHUNK=", 501),
        ("", 501),
        ("QUERY", 501),
    ],
)
def test_chunks_of_link_state(argument: str, code: int) -> None:
    one = asked("X-LINK2STATE", argument)
    assert one.code == code
    assert code or one.verdict == Accept()


# --- who may ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("argument", ["10 2", "-1 2", "", "9" * 400])
@pytest.mark.parametrize("verb", ["XEXCH50", "X-LINK2STATE"])
def test_of_a_stranger_nothing_is_parsed(verb: str, argument: str) -> None:
    one = asked(verb, argument, trusted=False)
    one.assert_refused("Need to authenticate first")
    assert (one.code, one.enhanced) == (504, "5.7.0")


def may(trusted: bool = False, client: str = "192.0.2.1", **settings: Setting) -> bool:
    session = make_session(
        "verb", command=("XEXCH50", "4 2"), trusted=trusted, client=client, settings=settings
    )
    return ask_sink(xexch50, session).code != 504


def test_who_may() -> None:
    assert may(trusted=True)
    assert not may()
    assert may(networks="192.0.2.0/24, 2001:db8::/32")
    assert not may(trusted=True, networks="198.51.100.0/24")
    assert not may(networks="192.0.2.0/24", client="")
    assert not may(trusted=True, logins="*"), "nobody has logged in"
    assert may(trusted=True, listeners="in")
    assert not may(trusted=True, listeners="out")


def test_settings_that_are_none_are_named() -> None:
    with pytest.raises(SettingsFault, match=r"networks: '10\.0\.0\.1/8' is no network"):
        typed(ExchangeSettings, {"networks": "10.0.0.1/8"})
    with pytest.raises(SettingsFault, match="verbs: TURN; write some of XEXCH50, X-LINK2STATE"):
        typed(ExchangeSettings, {"verbs": "TURN"})


def test_a_verb_that_is_not_among_them_is_not_recognised() -> None:
    asked("X-LINK2STATE", "LAST CHUNK=", verbs="XEXCH50").assert_passed()


# --- the offer ----------------------------------------------------------------------------------------


def offered(trusted: bool = True, verb: str = "EHLO", **settings: Setting) -> tuple[str, ...]:
    session = make_session("helo", trusted=trusted, command=(verb, "a"), settings=settings)
    verdict = ask_sink(xexch50_offer, session).verdict
    return verdict.keywords if isinstance(verdict, Accept) else ()


def test_the_offer() -> None:
    assert offered() == ("XEXCH50", "X-LINK2STATE")
    assert offered(trusted=False) == ()
    assert offered(trusted=False, offer="all") == ("XEXCH50", "X-LINK2STATE")
    assert offered(offer="none") == ()
    assert offered(verbs="x-link2state") == ("X-LINK2STATE",)
    assert offered(verb="HELO") == ()


# --- in a session -------------------------------------------------------------------------------------


def room(trusted: bool = True) -> Room:
    sinks = (xexch50, xexch50_offer)
    return Room(bindings=[bind(one, sink_class="x:x") for one in sinks], trusted=trusted)


async def test_a_blob_between_recipients_and_data_is_dropped_and_the_message_arrives() -> None:
    there = room()
    line = there.connect(greeted=False)
    line.say(b"EHLO exchange\r\n")
    assert line.heard().endswith(b"250-XEXCH50\r\n250 X-LINK2STATE\r\n")
    blob = b"\r\n.\r\nQUIT\r\nRSET\r\n\0\xff\n"
    line.say(ENVELOPE + b"XEXCH50 %d 1\r\n" % len(blob), blob[:5], blob[5:] + b"DATA\r\n", TEXT)
    await settle()
    assert line.codes() == [250, 250, 354, 250, 354, 250]
    (accepted,) = there.spool.accepted
    assert [one.address.octets for one in accepted.envelope.recipients] == [b"d@b.example"]
    transcript = b"".join(line for script in there.scripts for _, line in script.lines)
    assert b"[%d octets, not kept]" % len(blob) in transcript
    assert b"\0" not in transcript


async def test_a_stranger_is_told_to_log_in_and_its_mail_goes_on() -> None:
    line = room(trusted=False).connect(greeted=False)
    line.say(b"EHLO exchange\r\n")
    assert b"XEXCH50" not in line.heard()
    line.say(b"XEXCH50 2147483647 2\r\n")
    assert line.heard() == b"504 5.7.0 Need to authenticate first\r\n"
    line.say(b"XEXCH50 -1 2\r\nMAIL FROM:<c@a.example>\r\n")
    assert line.codes() == [504, 250]


async def test_a_client_that_stops_inside_the_blob_is_not_waited_for() -> None:
    there = room()
    line = there.connect()
    line.say(ENVELOPE + b"XEXCH50 1000 1\r\n", b"x" * 999)
    assert line.codes() == [250, 250, 354]
    await there.pass_time(there.settings.command_seconds + 1)
    assert line.codes() == [421]
    await settle()
    assert line.wire.lost() and there.open == 0 and there.budget.used == 0


async def test_a_connection_that_is_lost_inside_the_blob_leaves_nothing() -> None:
    there = room()
    line = there.connect()
    line.say(ENVELOPE + b"XEXCH50 1000 1\r\n", b"x" * 10)
    line.session.connection_lost(None)
    await settle()
    assert there.open == 0 and there.budget.used == 0 and not there.spool.accepted
