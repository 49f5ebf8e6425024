"""The server machine's own behaviour; conversations are in tests/dialogs."""

from __future__ import annotations

import functools
import itertools
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.protocol.errors import LocalProtocolError
from lonedot.protocol.events import (
    AuthRequested,
    ChunkRefused,
    Closed,
    CommandHeard,
    ContentBegun,
    ContentChunk,
    ContentEnded,
    ContentMode,
    Event,
    Greeted,
    MailGiven,
    QuitGiven,
    RcptGiven,
    Refused,
    ResetGiven,
    TlsRequested,
    VerifyGiven,
)
from lonedot.protocol.server import (
    ANY_VERB,
    DEFAULT_KEYWORDS,
    ServerLimits,
    ServerMachine,
    ServerOptions,
    State,
)
from lonedot.terms.address import NULL_REVERSE_PATH, Address
from lonedot.terms.envelope import BodyType, Notify, Recipient, Ret
from lonedot.terms.reply import Reply, reply
from tests.dialogs.script import SCRIPTS, read_script
from tests.unit.protocol.driver import GO_AHEAD, OK, OPTIONS, Driver, accept

OPENING = b"EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n"
LOGINS = msgspec.structs.replace(OPTIONS, auth_mechanisms=(b"PLAIN", b"LOGIN"), auth_requires_tls=False)


def opened(options: ServerOptions = OPTIONS, *, data: bool = False) -> Driver:
    driver = Driver(options)
    driver.feed(OPENING)
    if data:
        driver.feed(b"DATA\r\n")
    driver.events.clear()
    driver.heard.clear()
    return driver


# --- events -----------------------------------------------------------------------------------------------------------


def test_events_of_a_message() -> None:
    driver = Driver()
    driver.feed(
        b"EHLO copier.example\r\nMAIL FROM:<a@b.example> BODY=8BITMIME SMTPUTF8 SIZE=12 RET=FULL ENVID=QQ\r\n"
        b"RCPT TO: <c@d.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;e@f\r\nDATA\r\n"
    )
    driver.feed(b"text\r\n.\r\nQUIT\r\n")
    mail = MailGiven(Address(b"a@b.example"), BodyType.EIGHT_BIT_MIME, True, 12, Ret.FULL, b"QQ", "")
    recipient = Recipient(Address(b"c@d.example"), int(Notify.SUCCESS | Notify.DELAY), b"rfc822;e@f")
    assert driver.events == [
        Greeted(b"EHLO", b"copier.example"),
        mail,
        RcptGiven(recipient, "space after the colon"),
        ContentBegun(ContentMode.DATA),
        ContentChunk(b"text\r\n"),
        ContentEnded(ContentMode.DATA, 6, over_limit=False),
        QuitGiven(),
    ]
    assert driver.messages[0].recipients == [recipient]
    assert driver.machine.is_closed


def test_a_null_reverse_path_is_the_value() -> None:
    driver = Driver()
    driver.feed(b"HELO x\r\nMAIL FROM:<>\r\n")
    mail = driver.events[-1]
    assert isinstance(mail, MailGiven)
    assert mail.reverse_path == NULL_REVERSE_PATH
    assert mail.body is BodyType.UNSTATED


def test_one_segment_gives_one_chunk_and_the_end() -> None:
    driver = opened(data=True)
    machine = driver.machine
    machine.feed(b"0123456789" * 1024 + b"\r\n.\r\n")
    chunk = machine.next_event()
    assert isinstance(chunk, ContentChunk)
    assert len(chunk.octets) == 10242
    assert machine.next_event() == ContentEnded(ContentMode.DATA, 10242, over_limit=False)
    assert machine.next_event() is None


def test_chunks_are_handed_out_as_they_come() -> None:
    driver = opened()
    machine = driver.machine
    machine.feed(b"BDAT 6 LAST\r\nabc")
    assert machine.next_event() == ContentBegun(ContentMode.BDAT)
    assert machine.next_event() is None
    machine.respond(OK)
    assert machine.next_event() == ContentChunk(b"abc")
    machine.feed(b"defNOOP\r\n")
    assert machine.next_event() == ContentChunk(b"def")
    assert machine.next_event() == ContentEnded(ContentMode.BDAT, 6, over_limit=False)
    machine.respond(OK)
    assert machine.next_event() is None
    assert machine.take_output() == b"250 2.0.0 OK\r\n250 2.0.0 OK\r\n"


def test_a_greeting_in_a_transaction_resets_first() -> None:
    driver = opened()
    driver.feed(b"HELO y\r\n")
    assert driver.events == [ResetGiven(), Greeted(b"HELO", b"y")]


def test_a_failed_chunk_tells_the_shell_to_drop_what_it_has() -> None:
    options = msgspec.structs.replace(OPTIONS, limits=ServerLimits(size=10))
    driver = opened(options)
    driver.feed(b"BDAT 8\r\n12345678BDAT 8 LAST\r\n12345678")
    refusal = reply(552, "5.3.4", "Message larger than the SIZE limit")
    assert driver.events == [
        ContentBegun(ContentMode.BDAT),
        ContentChunk(b"12345678"),
        Refused(b"BDAT 8 LAST", refusal),
        ChunkRefused(refusal),
    ]


def test_data_after_bdat_tells_the_shell_to_drop_what_it_has() -> None:
    driver = opened()
    driver.feed(b"BDAT 1\r\nx")
    driver.events.clear()
    driver.feed(b"DATA\r\n")
    refusal = reply(503, "5.5.1", "DATA after BDAT; RSET first")
    assert driver.events == [Refused(b"DATA", refusal), ChunkRefused(refusal)]


def test_what_is_over_the_limit_is_not_handed_out() -> None:
    options = msgspec.structs.replace(OPTIONS, limits=ServerLimits(size=10))
    driver = opened(options, data=True)
    driver.feed(b"0123456789abcd\r\n.\r\n")
    assert driver.events == [ContentChunk(b"0123456789"), ContentEnded(ContentMode.DATA, 16, over_limit=True)]
    assert not driver.is_closed


def test_twice_the_limit_ends_the_session() -> None:
    options = msgspec.structs.replace(OPTIONS, limits=ServerLimits(size=10))
    driver = opened(options, data=True)
    driver.feed(b"x" * 21)
    assert driver.events == [ContentChunk(b"x" * 10), Closed("a message of more than twice the SIZE limit")]
    assert driver.output.endswith(b"552 5.3.4 Message far larger than the SIZE limit. Closing\r\n")


def test_exactly_twice_the_limit_is_still_read_to_its_end() -> None:
    options = msgspec.structs.replace(OPTIONS, limits=ServerLimits(size=10))
    driver = opened(options, data=True)
    driver.feed(b"x" * 18 + b"\r\n.\r\n")
    assert driver.events[-1] == ContentEnded(ContentMode.DATA, 20, over_limit=True)


def test_verification_and_expansion_are_decided_by_the_shell() -> None:
    driver = Driver()
    driver.feed(b"vrfy ann smith\r\nEXPN list\r\n")
    assert driver.events == [VerifyGiven(b"VRFY", b"ann smith"), VerifyGiven(b"EXPN", b"list")]


def test_refused_commands_are_cut() -> None:
    driver = Driver()
    driver.feed(b"FROB " + b"x" * 300 + b"\r\n")
    refused = driver.events[0]
    assert isinstance(refused, Refused)
    assert refused.command == (b"FROB " + b"x" * 300)[:128]


# --- decisions --------------------------------------------------------------------------------------------------------


def test_nothing_is_read_behind_an_open_decision() -> None:
    machine = ServerMachine(OPTIONS)
    machine.feed(b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
    assert isinstance(machine.next_event(), Greeted)
    assert isinstance(machine.next_event(), MailGiven)
    assert machine.is_deciding
    assert machine.next_event() is None
    machine.feed(b"NOOP\r\n")
    assert machine.next_event() is None
    assert machine.take_output() == b"250 mx.example.org\r\n"
    assert machine.buffered == len(b"RCPT TO:<c@d>\r\nNOOP\r\n")
    machine.respond(OK)
    assert isinstance(machine.next_event(), RcptGiven)
    machine.respond(OK)
    assert machine.next_event() is None
    assert machine.buffered == 0
    assert machine.take_output() == b"250 2.0.0 OK\r\n" * 3
    assert machine.take_output() == b""


def test_an_answer_without_a_question_is_our_fault() -> None:
    with pytest.raises(LocalProtocolError):
        ServerMachine(OPTIONS).respond(OK)


@pytest.mark.parametrize(
    ("octets", "answer"),
    [
        (b"HELO x\r\nMAIL FROM:<a@b>\r\n", GO_AHEAD),
        (b"HELO x\r\nMAIL FROM:<a@b>\r\n", reply(150, "", "No")),
        (b"HELO x\r\nMAIL FROM:<a@b>\r\n", Reply(250, "", (b"two\r\nlines",))),
        (b"HELO x\r\nMAIL FROM:<a@b>\r\n", Reply(250, "", (b"bare\nLF",))),
        (b"HELO x\r\nMAIL FROM:<a@b>\r\n", Reply(250, "", (b"bare\rCR",))),
        (b"HELO x\r\nMAIL FROM:<a@b>\r\n", Reply(250, "", (b"NUL\0",))),
        (b"HELO x\r\nMAIL FROM:<a@b>\r\n", Reply(250, "", (b"x" * 510,))),
        (OPENING + b"DATA\r\n", OK),
        (OPENING + b"BDAT 1\r\n", GO_AHEAD),
        (b"VRFY x\r\n", GO_AHEAD),
    ],
)
def test_an_answer_that_does_not_fit_is_our_fault(octets: bytes, answer: Reply) -> None:
    machine = ServerMachine(OPTIONS)
    machine.feed(octets)
    last = Greeted(b"", b"")
    while (event := machine.next_event()) is not None:
        last = event  # type: ignore[assignment]
        if isinstance(event, MailGiven | RcptGiven) and octets.startswith(OPENING):
            machine.respond(OK)
    machine.take_output()
    with pytest.raises(LocalProtocolError):
        machine.respond(answer)
    assert machine.take_output() == b"", last
    assert machine.is_deciding


def test_an_answer_before_its_question_was_read_is_our_fault() -> None:
    driver = opened(data=True)
    driver.machine.feed(b"text\r\n.\r\n")
    assert isinstance(driver.machine.next_event(), ContentChunk)
    with pytest.raises(LocalProtocolError):
        driver.machine.respond(OK)
    assert isinstance(driver.machine.next_event(), ContentEnded)
    driver.machine.respond(OK)


def test_late_answers_give_the_same_as_answers_at_once() -> None:
    """The client fills the buffer while the shell thinks; nothing is lost or answered out of turn."""
    octets = OPENING + b"BDAT 5\r\nfirstBDAT 6 LAST\r\nsecond" + b"NOOP\r\nVRFY x\r\nQUIT\r\n"
    at_once = Driver()
    at_once.feed(octets)
    machine = ServerMachine(OPTIONS)
    events: list[Event] = []
    for place in range(len(octets)):
        machine.feed(octets[place : place + 1])
        while (event := machine.next_event()) is not None:
            events.append(event)
        if place % 50 == 49 and machine.is_deciding:
            machine.respond(accept(events[-1]))
    while machine.is_deciding:
        machine.respond(accept(events[-1]))
        while (event := machine.next_event()) is not None:
            events.append(event)
    assert machine.take_output() == at_once.output
    content = b"".join(event.octets for event in events if isinstance(event, ContentChunk))
    assert content == at_once.messages[0].content == b"firstsecond"
    assert [type(e) for e in events if not isinstance(e, ContentChunk)] == [
        type(e) for e in at_once.events if not isinstance(e, ContentChunk)
    ]


def test_an_accepted_end_of_data_needs_a_fitting_answer() -> None:
    driver = opened(data=True)
    driver.machine.feed(b".\r\n")
    assert isinstance(driver.machine.next_event(), ContentEnded)
    with pytest.raises(LocalProtocolError):
        driver.machine.respond(GO_AHEAD)
    driver.machine.respond(OK)
    assert not driver.machine.in_transaction


@pytest.mark.parametrize("code", [421, 521])
def test_an_answer_that_closes_closes(code: int) -> None:
    driver = Driver(decide=lambda event: reply(code, "", "Go away"))
    driver.feed(b"HELO x\r\nMAIL FROM:<a@b>\r\nNOOP\r\n")
    assert driver.events[-1] == Closed(f"{code} Go away")
    assert driver.output.endswith(b"%d Go away\r\n" % code)
    assert driver.machine.buffered == 0


def test_the_shell_can_end_the_session_at_any_time() -> None:
    machine = ServerMachine(OPTIONS)
    machine.feed(b"HELO x\r\nMAIL FROM:<a@b>\r\nNOOP\r\n")
    machine.next_event()
    machine.next_event()
    machine.fail(reply(421, "4.3.2", "Shutting down"))
    assert machine.next_event() == Closed("421 4.3.2 Shutting down")
    assert machine.next_event() is None
    assert machine.take_output() == b"250 mx.example.org\r\n421 4.3.2 Shutting down\r\n"
    machine.respond(OK)  # a decision that came too late goes nowhere
    machine.feed(b"NOOP\r\n")
    machine.fail(reply(421, "", "Again"))
    assert machine.next_event() is None
    assert machine.take_output() == b""
    assert machine.buffered == 0
    assert machine.state is State.CLOSED


# --- input ------------------------------------------------------------------------------------------------------------


def test_consumed_spans_the_data_phase() -> None:
    driver = opened(data=True)
    machine = driver.machine
    text = b"..a\r\nb\r\n.\r\n"
    start = machine.consumed
    machine.feed(text + b"NOOP\r\nQUIT\r\n")
    while not isinstance(machine.next_event(), ContentEnded):
        pass
    assert machine.consumed - start == len(text)


def test_an_endless_line_takes_no_memory() -> None:
    machine = ServerMachine(OPTIONS)
    for _ in range(15):
        machine.feed(b"x" * 4096)
        assert machine.next_event() is None
        assert machine.buffered < 4096
    assert machine.take_output() == b""
    machine.feed(b"x" * 8192)
    assert isinstance(machine.next_event(), Refused)
    assert isinstance(machine.next_event(), Closed)


def test_plaintext_fed_behind_starttls_ends_the_session() -> None:
    driver = Driver(msgspec.structs.replace(OPTIONS, tls_available=True))
    driver.feed(b"EHLO x\r\nSTARTTLS\r\n")
    assert driver.wants_tls
    driver.feed(b"RSET\r\n")
    assert driver.events[-1] == Closed("plaintext behind STARTTLS")


def test_plaintext_fed_during_the_handshake_ends_the_session() -> None:
    machine = ServerMachine(msgspec.structs.replace(OPTIONS, tls_available=True))
    machine.feed(b"EHLO x\r\nSTARTTLS\r\n")
    machine.next_event()
    assert isinstance(machine.next_event(), TlsRequested)
    machine.feed(b"RSET\r\n")
    machine.tls_started()
    assert machine.next_event() == Closed("plaintext behind STARTTLS")


def test_starttls_in_a_transaction_resets_it() -> None:
    driver = opened(msgspec.structs.replace(OPTIONS, tls_available=True))
    driver.feed(b"STARTTLS\r\n")
    assert driver.events == [ResetGiven(), TlsRequested()]


def test_tls_that_nobody_asked_for_is_our_fault() -> None:
    with pytest.raises(LocalProtocolError):
        ServerMachine(OPTIONS).tls_started()


def test_implicit_tls_offers_no_starttls() -> None:
    driver = Driver(msgspec.structs.replace(OPTIONS, tls_available=True, tls_active=True))
    assert b"STARTTLS" not in driver.feed(b"EHLO x\r\n")
    assert driver.feed(b"STARTTLS\r\n").startswith(b"503 ")


# --- commands that the shell is asked about ---------------------------------------------------------------------------


def test_nobody_is_asked_unless_somebody_wants_to_be() -> None:
    driver = opened()
    driver.feed(b"NOOP\r\nXEXAMPLE\r\n")
    assert not [event for event in driver.events if isinstance(event, CommandHeard)]


def test_who_is_asked_about_may_change_at_any_time() -> None:
    driver = opened()
    driver.machine.asked = frozenset({b"NOOP"})
    driver.feed(b"NOOP\r\n")
    driver.machine.asked = frozenset({ANY_VERB})
    driver.feed(b"RSET\r\nEHLO x\r\n")
    driver.machine.asked = frozenset()
    driver.feed(b"NOOP\r\n")
    heard = [event for event in driver.events if isinstance(event, CommandHeard)]
    assert heard == [CommandHeard(b"NOOP", b""), CommandHeard(b"RSET", b"")]


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"NOOP\r\n", reply(354, "", "Go ahead")),
        (b"STARTTLS\r\n", reply(220, "", "Ready")),
        (b"EHLO y\r\n", reply(251, "", "Hello")),
        (b"EHLO y\r\n", reply(250, "", "Hello", "SIZE 1")),
        (b"EHLO y\r\n", reply(250, "", "Hello", "XA", "xa 1")),
        (b"EHLO y\r\n", reply(250, "", "Hello", "X\tA")),
        (b"EHLO y\r\n", reply(250, "", "Hello\r\n250 injected")),
    ],
)
def test_an_answer_that_no_client_could_be_given_is_our_fault(command: bytes, answer: Reply) -> None:
    machine = ServerMachine(msgspec.structs.replace(OPTIONS, tls_available=True))
    machine.feed(b"EHLO x\r\n")
    assert isinstance(machine.next_event(), Greeted)
    machine.take_output()
    machine.asked = frozenset({ANY_VERB, b"EHLO"})
    machine.feed(command)
    assert isinstance(machine.next_event(), CommandHeard)
    with pytest.raises(LocalProtocolError):
        machine.respond(answer)
    assert machine.take_output() == b""


def test_leave_to_obey_without_a_question_is_our_fault() -> None:
    machine = ServerMachine(OPTIONS)
    with pytest.raises(LocalProtocolError):
        machine.obey()
    machine.feed(b"QUIT\r\n")
    assert isinstance(machine.next_event(), QuitGiven)
    machine.obey()


def test_a_session_that_fails_while_the_shell_thinks_takes_no_answer() -> None:
    machine = ServerMachine(OPTIONS)
    machine.asked = frozenset({ANY_VERB})
    machine.feed(b"NOOP\r\n")
    assert isinstance(machine.next_event(), CommandHeard)
    machine.fail(reply(421, "4.3.2", "Stopping"))
    machine.obey()
    assert machine.take_output() == b"421 4.3.2 Stopping\r\n"


@pytest.mark.parametrize("words", [b"", b"x" * 480])
def test_a_banner_of_ones_own(words: bytes) -> None:
    assert ServerMachine(OPTIONS).greeting(words) == b"220 mx.example.org " + words + b"\r\n"
    with pytest.raises(LocalProtocolError):
        ServerMachine(OPTIONS).greeting(b"x\r\n250 y")


# --- secrets ----------------------------------------------------------------------------------------------------------

PLAIN = b"AGFubgBzZWNyZXQ="  # ann, secret
SECRETS = (PLAIN, b"YW5u", b"c2VjcmV0", b"secret")


@pytest.mark.parametrize(
    "octets",
    [
        b"AUTH PLAIN " + PLAIN + b"\r\n",
        b"auth plain  " + PLAIN + b"\r\n",
        b"AUTH PLAIN\r\n" + PLAIN + b"\r\n",
        b"AUTH LOGIN\r\nYW5u\r\nc2VjcmV0\r\n",
        b"AUTH LOGIN YW5u\r\nc2VjcmV0\r\n",
        # refused in every way there is, and the client goes on all the same
        b"AUTH CRAM-MD5 " + PLAIN + b"\r\n",
        b"AUTH " + PLAIN + b"\r\n",
        b"AUTH XLOGIN\r\nYW5u\r\nc2VjcmV0\r\n",
        b"AUTH PLAIN " + PLAIN + b"!\r\n",
        b"AUTH PLAIN " + PLAIN + b"\n",
        b"AUTH PLAIN " + PLAIN + b"\0\r\n",
        b"AUTH LOGIN\r\nsecret!\r\nc2VjcmV0\r\n",
        b"AUTH LOGIN\r\nc2VjcmV0" + b"A" * 12300 + b"\r\nc2VjcmV0\r\n",
        b"AUTH LOGIN\r\nc2VjcmV0\rx\r\n",
        b"AUTH PLAIN " + PLAIN + b"A" * 12300 + b"\r\n",
        b"MAIL FROM:<a@b>\r\nAUTH LOGIN\r\nYW5u\r\nc2VjcmV0\r\n",
        b"XAUTH PLAIN " + PLAIN + b"\r\n",
        b" AUTH PLAIN " + PLAIN + b"\r\n",
        b"PASS secret\r\n",
    ],
)
@pytest.mark.parametrize("offered", [True, False])
def test_no_secret_is_heard_or_shown(octets: bytes, offered: bool) -> None:
    driver = Driver(LOGINS if offered else OPTIONS)
    driver.feed(b"EHLO x\r\n" + octets)
    seen = b"\n".join(driver.heard)
    seen += b"\n".join(e.command for e in driver.events if isinstance(e, Refused))
    assert seen
    for secret in SECRETS:
        assert secret not in seen


def test_the_event_has_the_credentials_and_the_machine_forgets_them() -> None:
    machine = ServerMachine(LOGINS)
    machine.feed(b"EHLO x\r\nAUTH PLAIN " + PLAIN + b"\r\n")
    machine.next_event()
    assert machine.next_event() == AuthRequested(b"PLAIN", b"ann", b"secret")
    machine.respond(reply(235, "2.7.0", "OK"))
    assert machine.is_authenticated
    kept = [getattr(machine, name) for cls in type(machine).__mro__ for name in getattr(cls, "__slots__", ())]
    assert not any(isinstance(value, bytes) and PLAIN in value for value in kept)


def test_every_command_is_heard_once() -> None:
    driver = Driver(LOGINS)
    driver.feed(b"EHLO x\r\nFROB\r\n")
    driver.feed(b"NOOP " + b"x" * 13000 + b"\r\n")
    driver.feed(b"AUTH PLAIN\r\n" + PLAIN + b"\r\n")
    driver.feed(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
    driver.feed(b"text\r\n.\r\nQUIT\r\n")
    assert driver.heard == [
        b"EHLO x",
        b"FROB",
        b"NOOP " + b"x" * 123,
        b"AUTH PLAIN",
        b"***",
        b"MAIL FROM:<a@b>",
        b"RCPT TO:<c@d>",
        b"DATA",
        b"QUIT",
    ]


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hostname", [b"", b"a\r\nb", b"caf\xc3\xa9", b"a\0"])
def test_a_host_name_that_cannot_be_said(hostname: bytes) -> None:
    with pytest.raises(ValueError, match="host name"):
        ServerMachine(ServerOptions(hostname))


def test_an_unknown_keyword() -> None:
    with pytest.raises(ValueError, match="BINARYMIME"):
        ServerMachine(ServerOptions(b"x", DEFAULT_KEYWORDS | {b"BINARYMIME"}))


@pytest.mark.parametrize("keyword", sorted(DEFAULT_KEYWORDS))
def test_each_keyword_can_be_switched_off(keyword: bytes) -> None:
    everything = msgspec.structs.replace(LOGINS, tls_available=True, xclient=True)
    without = msgspec.structs.replace(everything, keywords=DEFAULT_KEYWORDS - {keyword})
    assert re.search(rb"^250[ -]%s\b" % keyword, Driver(everything).feed(b"EHLO x\r\n"), re.MULTILINE)
    assert not re.search(rb"^250[ -]%s\b" % keyword, Driver(without).feed(b"EHLO x\r\n"), re.MULTILINE)


# --- any chunking gives the same --------------------------------------------------------------------------------------


CUT_SCRIPTS = [path for path in SCRIPTS if path.stem != "endless_line" and not read_script(path).at_once]


@functools.cache
def groups_of(path: Path) -> list[bytes]:
    """What the client of a script writes, each group in one piece."""
    from tests.dialogs.script import unescaped

    groups: list[bytes] = []
    is_open = False
    for _, mark, text in read_script(path).lines:
        if mark in {"C:", "C|"}:
            octets = unescaped(text) + (b"\r\n" if mark == "C:" else b"")
            if is_open:
                groups[-1] += octets
            else:
                groups.append(octets)
        elif mark == "= " and text.startswith("tls"):
            groups.append(b"")
        is_open = mark in {"C:", "C|"}
    return groups


@given(
    st.sampled_from(CUT_SCRIPTS),
    st.lists(st.integers(1, 5) | st.integers(1, 700), min_size=1, max_size=8),
)
def test_any_chunking_of_a_conversation_gives_the_same(path: Path, sizes: list[int]) -> None:
    """Within a group only: what comes before or behind a 354 makes a difference, and must."""
    options = read_script(path).options
    whole, cut = Driver(options), Driver(options)
    for group in groups_of(path):
        if not group:
            whole.start_tls()
            cut.start_tls()
            continue
        whole.feed(group)
        place = 0
        for size in itertools.cycle(sizes):
            if place >= len(group):
                break
            cut.feed(group[place : place + size])
            place += size
    assert cut.output == whole.output
    assert cut.events == whole.events
    assert cut.messages == whole.messages
    assert cut.heard == whole.heard
    assert cut.machine.is_closed == whole.machine.is_closed
    if not whole.machine.is_closed:
        assert cut.machine.consumed == whole.machine.consumed
