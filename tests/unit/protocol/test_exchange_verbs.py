"""XEXCH50 and X-LINK2STATE in the machine: counted octets behind a command, and that none of them is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.protocol.client import ClientMachine, ClientOptions, TransactionEnded
from lonedot.protocol.client_plan import Plan
from lonedot.protocol.errors import LocalProtocolError
from lonedot.protocol.events import Closed, CommandHeard, ContentMode, MailGiven, QuitGiven, Refused
from lonedot.protocol.exchange_verbs import LINK_STATE_LINE
from lonedot.protocol.server import ServerLimits, ServerMachine, ServerOptions
from lonedot.terms.reply import reply
from tests.unit.protocol.driver import OK, OPTIONS

TAKEN = reply(250, "2.0.0", "Taken")
NOT_YET = reply(504, "5.7.0", "Need to authenticate first")
BLOB = b"MAIL FROM:<x@blob>\r\n.\r\nQUIT\r\n\0\r\n\n\xff DATA"


class Talk:
    """A session that has octets read behind XEXCH50, as many as its argument says."""

    def __init__(self, options: ServerOptions = OPTIONS, answer: bool = True) -> None:
        self.heard: list[bytes] = []
        self.machine = ServerMachine(options, self.heard.append)
        self.machine.asked = frozenset({b"XEXCH50", b"X-LINK2STATE"})
        self.events: list[object] = []
        self._answers = answer
        self.feed(b"EHLO a\r\n")

    def feed(self, octets: bytes) -> bytes:
        self.machine.feed(octets)
        while (event := self.machine.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, CommandHeard) and event.verb == b"XEXCH50":
                count = int(event.argument.split()[0])
                if self._answers:
                    self.machine.respond_behind(TAKEN, count)
                else:
                    self.machine.respond(NOT_YET)
            elif isinstance(event, CommandHeard | MailGiven):
                self.machine.respond(OK)
        return self.machine.take_output()

    def codes(self, octets: bytes) -> list[int]:
        return [int(line[:3]) for line in self.feed(octets).split(b"\r\n") if line[3:4] == b" "]


@given(st.data())
def test_exactly_so_many_octets_are_no_commands_however_they_are_cut(data: st.DataObject) -> None:
    whole = b"XEXCH50 %d 2\r\n%sNOOP\r\nMAIL FROM:<a@b.example>\r\n" % (len(BLOB), BLOB)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=12)))
    talk = Talk()
    written = b"".join(
        talk.feed(whole[start:end]) for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)
    )
    codes = [line[:3] for line in written.split(b"\r\n") if line]
    assert codes == [b"354", b"250", b"250", b"250"]
    assert b"250 2.0.0 Taken\r\n" in written
    assert [one.reverse_path.octets for one in talk.events if isinstance(one, MailGiven)] == [b"a@b.example"]
    assert not any(isinstance(one, Closed | Refused | QuitGiven) for one in talk.events)
    assert talk.heard == [
        b"EHLO a",
        b"XEXCH50 %d 2" % len(BLOB),
        b"NOOP",
        b"MAIL FROM:<a@b.example>",
    ]


def test_nothing_of_them_is_kept() -> None:
    talk = Talk()
    assert talk.codes(b"XEXCH50 1000000 2\r\n") == [354]
    assert talk.machine.in_content
    for _ in range(9):
        assert talk.feed(bytes(100_000)) == b""
        assert talk.machine.buffered == 0
    assert talk.codes(bytes(99_999)) == []
    assert talk.codes(b"\0") == [250]
    assert not talk.machine.in_content


def test_a_refused_one_cuts_off_a_client_that_sends_its_octets_all_the_same() -> None:
    talk = Talk(answer=False)
    assert talk.codes(b"XEXCH50 20 2\r\n") == [504]
    assert talk.feed(b"binary octets\r\nMAIL FROM:<x@y>\r\n").startswith(
        b"500 5.5.1 Not a command, and the octets"
    )
    assert talk.machine.is_closed
    assert not any(isinstance(one, MailGiven) for one in talk.events)


def test_a_refused_one_lets_mail_go_on() -> None:
    talk = Talk(answer=False)
    assert talk.codes(b"XEXCH50 20 2\r\nMAIL FROM:<x@y>\r\nXUNKNOWN\r\n") == [504, 250, 500]
    assert not talk.machine.is_closed


def test_without_a_sink_neither_is_recognised() -> None:
    talk = Talk()
    talk.machine.asked = frozenset()
    assert talk.codes(b"XEXCH50 4 2\r\n") == [500]
    assert talk.codes(b"X-LINK2STATE LAST CHUNK={00000001}\r\n") == [500]
    assert talk.codes(b"XEXCH50 4 2\r\nabcd\r\n") == [500, 500]
    assert talk.machine.is_closed


def test_too_many_of_them_end_the_session() -> None:
    talk = Talk(ServerOptions(b"mx.example.org", limits=ServerLimits(idle_commands=3)))
    assert talk.codes(b"XEXCH50 1 1\r\nx" * 2) == [354, 250, 354, 250]
    assert talk.codes(b"XEXCH50 1 1\r\nxNOOP\r\n") == [354, 421]
    assert isinstance(talk.events[-1], Closed)


def test_a_line_of_link_state_may_be_longer_than_others_and_is_bounded() -> None:
    talk = Talk()
    longest = b"X-LINK2STATE LAST CHUNK={00000001} "
    longest += b"x" * (LINK_STATE_LINE - 2 - len(longest)) + b"\r\n"
    assert talk.codes(longest) == [250]
    assert talk.codes(b"X" + longest) == [500]
    assert talk.codes(longest.replace(b"x\r\n", b"xx\r\n")) == [500]
    assert talk.codes(b"X-LINK2STATE FIRST CHUNK=" + b"\x90" * 100_000 + b"\r\n") == [500]


def test_octets_are_asked_for_only_behind_a_command_that_was_heard() -> None:
    machine = ServerMachine(OPTIONS)
    with pytest.raises(LocalProtocolError):
        machine.respond_behind(TAKEN, 4)
    machine.asked = frozenset({b"XEXCH50"})
    machine.feed(b"EHLO a\r\nXEXCH50 4 2\r\n")
    while not isinstance(machine.next_event(), CommandHeard):
        pass
    with pytest.raises(LocalProtocolError):
        machine.respond_behind(NOT_YET, 4)
    with pytest.raises(LocalProtocolError):
        machine.respond_behind(TAKEN, 0)
    machine.respond_behind(TAKEN, 4)
    machine.fail(reply(421, "4.4.2", "Nothing heard for too long; closing"))
    machine.respond_behind(TAKEN, 4)  # nobody is there any more
    assert machine.is_closed


def test_our_client_sends_neither() -> None:
    client = ClientMachine(ClientOptions(b"relay.example.com"))
    client.feed(b"220 exchange\r\n")
    assert client.next_event() is None
    wrote = client.take_output()[0]
    client.feed(
        b"250-exchange\r\n250-PIPELINING\r\n250-XEXCH50\r\n250-X-LINK2STATE\r\n250-X-EXPS NTLM\r\n250 OK\r\n"
    )
    assert client.next_event() is not None
    client.begin(Plan(ContentMode.DATA, b"MAIL FROM:<a@x>", (b"RCPT TO:<b@y>",), 10, False))
    wrote += client.take_output()[0]
    client.feed(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert client.next_event() is not None
    client.content_sent()
    wrote += client.take_output()[0]
    client.feed(b"250 taken\r\n")
    assert isinstance(client.next_event(), TransactionEnded)
    client.quit()
    wrote += client.take_output()[0]
    assert [line.split(b" ")[0] for line in wrote.split(b"\r\n")] == [
        b"EHLO",
        b"MAIL",
        b"RCPT",
        b"DATA",
        b"QUIT",
        b"",
    ]
