"""The client machine: dialogs in memory. `S:` lines are fed, `C:` lines must have been written."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lonedot.protocol.client import (
    CONTENT_WANTED,
    HANDSHAKE_WANTED,
    READY,
    ClientEvent,
    ClientMachine,
    ClientOptions,
    Login,
    Phase,
    SessionEnded,
    SessionFailed,
    StartTls,
    TransactionEnded,
)
from lonedot.protocol.client_plan import Plan
from lonedot.protocol.errors import LocalProtocolError, RemoteProtocolError
from lonedot.protocol.events import ContentMode
from lonedot.terms.outcome import Stage

OPTIONS = ClientOptions(b"relay.example.com")
PIPELINED = b"250-peer\r\n250 PIPELINING\r\n"
PLAIN = b"250 peer\r\n"
CHUNKED = b"250-peer\r\n250-PIPELINING\r\n250 CHUNKING\r\n"

ONE = Plan(ContentMode.DATA, b"MAIL FROM:<a@x>", (b"RCPT TO:<b@y>",), 10, False)
THREE = Plan(
    ContentMode.DATA, b"MAIL FROM:<a@x>", (b"RCPT TO:<b@y>", b"RCPT TO:<c@y>", b"RCPT TO:<d@y>"), 10, False
)
CHUNK = Plan(ContentMode.BDAT, b"MAIL FROM:<a@x>", (b"RCPT TO:<b@y>", b"RCPT TO:<c@y>"), 10, False)


class Dialog:
    """A machine and what it said."""

    def __init__(self, options: ClientOptions = OPTIONS) -> None:
        self.machine = ClientMachine(options)
        self.shown = b""

    def told(self, octets: bytes) -> list[ClientEvent]:
        self.machine.feed(octets)
        events = []
        while (event := self.machine.next_event()) is not None:
            events.append(event)
        return events

    def wrote(self) -> bytes:
        out, shown = self.machine.take_output()
        self.shown += shown
        return out

    @classmethod
    def ready(cls, ehlo: bytes = PIPELINED, options: ClientOptions = OPTIONS) -> Dialog:
        dialog = cls(options)
        assert dialog.told(b"220 peer\r\n") == []
        assert dialog.wrote() == b"EHLO relay.example.com\r\n"
        assert dialog.told(ehlo) == [READY]
        assert dialog.wrote() == b""
        return dialog

    def codes(self, event: ClientEvent) -> tuple[Stage, int, list[int]]:
        assert isinstance(event, TransactionEnded)
        return (
            event.stage,
            event.reply.code if event.reply else 0,
            [reply.code if reply else 0 for reply in event.recipients],
        )


# --- opening ------------------------------------------------------------------------------------------


def test_a_server_without_ehlo_is_told_helo() -> None:
    dialog = Dialog()
    dialog.told(b"220 old\r\n")
    dialog.wrote()
    assert dialog.told(b"502 what?\r\n") == []
    assert dialog.wrote() == b"HELO relay.example.com\r\n"
    assert dialog.told(b"250 hello\r\n") == [READY]
    assert not dialog.machine.offer.esmtp


@pytest.mark.parametrize(
    "options",
    [
        ClientOptions(b"relay", starttls=StartTls.REQUIRED),
        ClientOptions(b"relay", login=Login(b"u", b"p"), plaintext_login=True),
    ],
)
def test_helo_is_no_way_out_when_tls_or_a_login_is_needed(options: ClientOptions) -> None:
    dialog = Dialog(options)
    dialog.told(b"220 old\r\n")
    (event,) = dialog.told(b"502 what?\r\n")
    assert isinstance(event, SessionFailed) and event.stage is Stage.EHLO
    assert dialog.wrote().endswith(b"QUIT\r\n")


@pytest.mark.parametrize("greeting", [b"554 go away\r\n", b"421 busy\r\n", b"354 odd\r\n"])
def test_a_bad_greeting_fails_the_session(greeting: bytes) -> None:
    dialog = Dialog()
    (event,) = dialog.told(greeting)
    assert isinstance(event, SessionFailed) and event.stage is Stage.GREETING
    assert event.reply is not None and event.reply.code == int(greeting[:3])
    assert dialog.wrote() == (b"" if greeting.startswith(b"421") else b"QUIT\r\n")


def test_a_refused_name_fails_the_session() -> None:
    dialog = Dialog()
    dialog.told(b"220 x\r\n")
    (event,) = dialog.told(b"450 who?\r\n")
    assert isinstance(event, SessionFailed) and event.stage is Stage.EHLO
    dialog = Dialog()
    dialog.told(b"220 x\r\n")
    dialog.told(b"550 who?\r\n")
    (event,) = dialog.told(b"550 who?\r\n")
    assert isinstance(event, SessionFailed) and event.stage is Stage.EHLO


def test_more_than_a_greeting_is_a_breach() -> None:
    with pytest.raises(RemoteProtocolError, match="more than a greeting"):
        Dialog().told(b"220 x\r\n250 y\r\n")


# --- STARTTLS -----------------------------------------------------------------------------------------


def test_starttls_begins_again_and_forgets_the_offer() -> None:
    dialog = Dialog()
    dialog.told(b"220 x\r\n")
    dialog.wrote()
    dialog.told(b"250-x\r\n250-STARTTLS\r\n250 CHUNKING\r\n")
    assert dialog.wrote() == b"STARTTLS\r\n"
    assert dialog.told(b"220 go\r\n") == [HANDSHAKE_WANTED]
    dialog.machine.tls_started()
    assert dialog.machine.tls_active
    assert dialog.wrote() == b"EHLO relay.example.com\r\n"
    assert dialog.told(PIPELINED) == [READY]
    assert not dialog.machine.offer.chunking


@pytest.mark.parametrize("behind", [b"2", b"250 injected\r\n", b"\r\n"])
def test_plaintext_behind_the_220_of_starttls_ends_the_session(behind: bytes) -> None:
    dialog = Dialog()
    dialog.told(b"220 x\r\n")
    dialog.told(b"250-x\r\n250 STARTTLS\r\n")
    with pytest.raises(RemoteProtocolError, match="plaintext behind"):
        dialog.told(b"220 go\r\n" + behind)
    assert dialog.machine.phase is Phase.CLOSED
    assert dialog.machine.stage is Stage.STARTTLS


def test_plaintext_that_comes_before_the_handshake_is_a_breach_too() -> None:
    dialog = Dialog()
    dialog.told(b"220 x\r\n")
    dialog.told(b"250-x\r\n250 STARTTLS\r\n")
    dialog.told(b"220 go\r\n")
    with pytest.raises(RemoteProtocolError, match="plaintext behind"):
        dialog.told(b"250 injected\r\n")


def test_tls_that_is_required_and_not_offered_fails() -> None:
    dialog = Dialog(ClientOptions(b"relay", starttls=StartTls.REQUIRED))
    dialog.told(b"220 x\r\n")
    (event,) = dialog.told(PIPELINED)
    assert isinstance(event, SessionFailed)
    assert (event.stage, event.reply) == (Stage.STARTTLS, None)
    assert "requires TLS" in event.words


def test_tls_that_is_required_and_switched_off_for_the_route_fails() -> None:
    dialog = Dialog(ClientOptions(b"relay", starttls=StartTls.REQUIRED, ignored=frozenset((b"STARTTLS",))))
    dialog.told(b"220 x\r\n")
    (event,) = dialog.told(b"250-x\r\n250 STARTTLS\r\n")
    assert isinstance(event, SessionFailed)


def test_a_refused_starttls_goes_on_in_plaintext_unless_tls_is_required() -> None:
    for starttls, failed in ((StartTls.WHEN_OFFERED, False), (StartTls.REQUIRED, True)):
        dialog = Dialog(ClientOptions(b"relay", starttls=starttls))
        dialog.told(b"220 x\r\n")
        dialog.told(b"250-x\r\n250 STARTTLS\r\n")
        (event,) = dialog.told(b"454 not now\r\n")
        assert isinstance(event, SessionFailed) is failed


def test_starttls_is_left_alone_when_off_or_already_encrypted() -> None:
    for options in (
        ClientOptions(b"relay", starttls=StartTls.NEVER),
        ClientOptions(b"relay", tls_active=True),
    ):
        dialog = Dialog(options)
        dialog.told(b"220 x\r\n")
        assert dialog.told(b"250-x\r\n250 STARTTLS\r\n") == [READY]


# --- AUTH ---------------------------------------------------------------------------------------------

LOGIN = Login(b"relay", b"s3cret-p4ss")
WITH_LOGIN = ClientOptions(b"relay", tls_active=True, login=LOGIN)


def auth_dialog(mechanisms: bytes, options: ClientOptions = WITH_LOGIN) -> tuple[Dialog, list[ClientEvent]]:
    dialog = Dialog(options)
    dialog.told(b"220 x\r\n")
    dialog.wrote()
    return dialog, dialog.told(b"250-x\r\n250 AUTH %s\r\n" % mechanisms)


def secrets(login: Login) -> list[bytes]:
    plain = b"\0" + login.name + b"\0" + login.password
    return [login.password, base64.b64encode(login.password), base64.b64encode(plain)]


def test_auth_plain_is_preferred_and_never_shown() -> None:
    dialog, events = auth_dialog(b"LOGIN PLAIN")
    assert events == []
    assert dialog.wrote() == b"AUTH PLAIN " + base64.b64encode(b"\0relay\0s3cret-p4ss") + b"\r\n"
    assert dialog.told(b"235 in\r\n") == [READY]
    assert b"AUTH PLAIN [redacted]\r\n" in dialog.shown
    assert not any(secret in dialog.shown for secret in secrets(LOGIN))


def test_auth_login_answers_two_questions_and_never_shows_them() -> None:
    dialog, _ = auth_dialog(b"LOGIN")
    assert dialog.wrote() == b"AUTH LOGIN\r\n"
    dialog.told(b"334 VXNlcm5hbWU6\r\n")
    assert dialog.wrote() == base64.b64encode(b"relay") + b"\r\n"
    dialog.told(b"334 UGFzc3dvcmQ6\r\n")
    assert dialog.wrote() == base64.b64encode(b"s3cret-p4ss") + b"\r\n"
    assert dialog.told(b"235 in\r\n") == [READY]
    assert dialog.shown.endswith(b"AUTH LOGIN\r\n[redacted]\r\n[redacted]\r\n")
    assert not any(secret in dialog.shown for secret in secrets(LOGIN))


def test_one_question_too_many_is_a_breach() -> None:
    dialog, _ = auth_dialog(b"PLAIN")
    with pytest.raises(RemoteProtocolError):
        dialog.told(b"334 and?\r\n")


def test_a_refused_login_fails_with_the_servers_words_less_the_secret() -> None:
    dialog, _ = auth_dialog(b"PLAIN")
    dialog.wrote()
    octets = b"535 5.7.8 no: s3cret-p4ss " + base64.b64encode(b"\0relay\0s3cret-p4ss") + b"\r\n"
    assert dialog.machine.redact(octets) == b"535 5.7.8 no: [redacted] [redacted]\r\n"
    (event,) = dialog.told(octets)
    assert isinstance(event, SessionFailed) and event.reply is not None
    assert (event.stage, event.reply.code, event.reply.enhanced) == (Stage.AUTH, 535, "5.7.8")
    assert event.reply.lines == (b"5.7.8 no: [redacted] [redacted]",)


def test_another_mechanism_is_tried_when_one_is_not_known_after_all() -> None:
    dialog, _ = auth_dialog(b"PLAIN LOGIN")
    dialog.wrote()
    assert dialog.told(b"504 not that one\r\n") == []
    assert dialog.wrote() == b"AUTH LOGIN\r\n"


def test_a_password_does_not_travel_in_the_clear() -> None:
    dialog, (event,) = auth_dialog(b"PLAIN", ClientOptions(b"relay", login=LOGIN))
    assert isinstance(event, SessionFailed) and event.stage is Stage.AUTH
    assert dialog.wrote() == b"QUIT\r\n"
    allowed = ClientOptions(b"relay", login=LOGIN, plaintext_login=True)
    dialog, events = auth_dialog(b"PLAIN", allowed)
    assert events == [] and dialog.wrote().startswith(b"AUTH PLAIN")


@pytest.mark.parametrize("mechanisms", [b"", b"CRAM-MD5 XOAUTH2"])
def test_no_usable_mechanism_fails(mechanisms: bytes) -> None:
    _, (event,) = auth_dialog(mechanisms)
    assert isinstance(event, SessionFailed) and event.stage is Stage.AUTH and event.reply is None


def test_neither_repr_nor_options_show_a_password() -> None:
    assert "s3cret" not in repr(LOGIN)
    assert "s3cret" not in repr(WITH_LOGIN)


# --- transactions -------------------------------------------------------------------------------------


def test_with_pipelining_the_whole_envelope_goes_out_at_once() -> None:
    dialog = Dialog.ready()
    dialog.machine.begin(THREE)
    assert dialog.wrote() == (
        b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\nRCPT TO:<d@y>\r\nDATA\r\n"
    )
    assert dialog.told(b"250 a\r\n250 b\r\n550 c\r\n250 d\r\n354 e\r\n") == [CONTENT_WANTED]
    dialog.machine.content_sent()
    assert dialog.machine.end_written
    (event,) = dialog.told(b"250 taken\r\n")
    assert dialog.codes(event) == (Stage.CONTENT, 250, [250, 550, 250])
    assert dialog.machine.phase is Phase.READY


def test_without_pipelining_each_reply_causes_the_next_command() -> None:
    dialog = Dialog.ready(PLAIN)
    dialog.machine.begin(THREE)
    steps = [
        (b"250 a\r\n", b"RCPT TO:<b@y>\r\n"),
        (b"250 b\r\n", b"RCPT TO:<c@y>\r\n"),
        (b"550 c\r\n", b"RCPT TO:<d@y>\r\n"),
        (b"251 d\r\n", b"DATA\r\n"),
    ]
    assert dialog.wrote() == b"MAIL FROM:<a@x>\r\n"
    for said, expected in steps:
        assert dialog.told(said) == []
        assert dialog.wrote() == expected
    assert dialog.told(b"354 e\r\n") == [CONTENT_WANTED]
    dialog.machine.content_sent()
    (event,) = dialog.told(b"250 taken\r\n")
    assert dialog.codes(event) == (Stage.CONTENT, 250, [250, 550, 251])


@pytest.mark.parametrize(
    ("ehlo", "said"),
    [(PIPELINED, b"550 a\r\n503 b\r\n503 c\r\n503 d\r\n503 e\r\n"), (PLAIN, b"550 a\r\n")],
)
def test_a_refused_sender_decides_for_all(ehlo: bytes, said: bytes) -> None:
    dialog = Dialog.ready(ehlo)
    dialog.machine.begin(THREE)
    (event,) = dialog.told(said)
    assert isinstance(event, TransactionEnded)
    assert (event.stage, event.reply and event.reply.code) == (Stage.MAIL, 550)


@pytest.mark.parametrize(
    ("ehlo", "said"),
    [
        (PIPELINED, b"250 a\r\n550 b\r\n450 c\r\n550 d\r\n554 nobody\r\n"),
        (PLAIN, b"250 a\r\n550 b\r\n450 c\r\n550 d\r\n"),
    ],
)
def test_when_every_recipient_is_refused_each_has_its_own_reply(ehlo: bytes, said: bytes) -> None:
    dialog = Dialog.ready(ehlo)
    dialog.machine.begin(THREE)
    (event,) = dialog.told(said)
    assert dialog.codes(event) == (Stage.RCPT, 0, [550, 450, 550])
    # What the server still holds of it is dropped before the next message.
    dialog.wrote()
    dialog.machine.begin(ONE)
    assert dialog.wrote().startswith(b"RSET\r\n")


def test_a_354_without_recipients_is_answered_with_a_lone_dot_and_its_reply_ignored() -> None:
    dialog = Dialog.ready()
    dialog.machine.begin(THREE)
    dialog.wrote()
    assert dialog.told(b"250 a\r\n550 b\r\n550 c\r\n550 d\r\n354 go on\r\n") == []
    assert dialog.wrote() == b".\r\n"
    (event,) = dialog.told(b"554 nobody to send that to\r\n")
    assert dialog.codes(event) == (Stage.RCPT, 0, [550, 550, 550])
    assert not dialog.machine.end_written


@pytest.mark.parametrize("ehlo", [PIPELINED, PLAIN])
def test_a_refused_data_leaves_a_transaction_to_be_reset(ehlo: bytes) -> None:
    dialog = Dialog.ready(ehlo)
    dialog.machine.begin(ONE)
    events = [event for said in (b"250 a\r\n", b"250 b\r\n", b"451 c\r\n") for event in dialog.told(said)]
    assert [dialog.codes(event) for event in events] == [(Stage.DATA, 451, [250])]
    dialog.wrote()
    dialog.machine.begin(ONE)
    if ehlo is PIPELINED:
        assert dialog.wrote() == b"RSET\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n"
        assert dialog.told(b"250 r\r\n250 a\r\n250 b\r\n354 c\r\n") == [CONTENT_WANTED]
    else:
        assert dialog.wrote() == b"RSET\r\n"
        assert dialog.told(b"250 r\r\n") == []
        assert dialog.wrote() == b"MAIL FROM:<a@x>\r\n"


def test_a_refused_rset_ends_the_session() -> None:
    dialog = Dialog.ready()
    dialog.machine.begin(ONE)
    dialog.told(b"250 a\r\n250 b\r\n451 c\r\n")
    dialog.machine.begin(ONE)
    with pytest.raises(RemoteProtocolError, match="RSET"):
        dialog.told(b"500 never heard of it\r\n")


def test_messages_follow_each_other_without_reset() -> None:
    dialog = Dialog.ready()
    for _ in range(3):
        dialog.machine.begin(ONE)
        assert dialog.wrote() == b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n"
        assert dialog.told(b"250 a\r\n250 b\r\n354 c\r\n") == [CONTENT_WANTED]
        dialog.machine.content_sent()
        (event,) = dialog.told(b"550 spam\r\n")
        assert dialog.codes(event) == (Stage.CONTENT, 550, [250])


# --- BDAT ---------------------------------------------------------------------------------------------


def test_bdat_goes_with_its_envelope_in_one_write() -> None:
    dialog = Dialog.ready(CHUNKED)
    dialog.machine.begin(CHUNK)
    assert dialog.wrote() == b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\nBDAT 10 LAST\r\n"
    assert dialog.machine.wants_content
    dialog.machine.content_sent()
    assert dialog.machine.end_written
    (event,) = dialog.told(b"250 a\r\n250 b\r\n550 c\r\n250 d\r\n")
    assert dialog.codes(event) == (Stage.CONTENT, 250, [250, 550])


@pytest.mark.parametrize("ehlo", [CHUNKED, b"250-peer\r\n250 CHUNKING\r\n"])
def test_bdat_waits_for_the_recipients_when_told_to_or_without_pipelining(ehlo: bytes) -> None:
    dialog = Dialog.ready(ehlo)
    dialog.machine.begin(CHUNK, at_once=False)
    assert not dialog.machine.wants_content
    events = [event for said in (b"250 a\r\n", b"250 b\r\n", b"250 c\r\n") for event in dialog.told(said)]
    assert events == [CONTENT_WANTED]
    assert dialog.wrote().endswith(b"BDAT 10 LAST\r\n")
    dialog.machine.content_sent()
    (event,) = dialog.told(b"250 d\r\n")
    assert dialog.codes(event) == (Stage.CONTENT, 250, [250, 250])


def test_bdat_is_not_sent_when_nobody_wants_it() -> None:
    dialog = Dialog.ready(CHUNKED)
    dialog.machine.begin(CHUNK, at_once=False)
    dialog.wrote()
    (event,) = dialog.told(b"250 a\r\n550 b\r\n550 c\r\n")
    assert dialog.codes(event) == (Stage.RCPT, 0, [550, 550])
    assert dialog.wrote() == b""
    dialog.machine.begin(CHUNK)
    assert dialog.wrote().startswith(b"RSET\r\n")


def test_a_bdat_refused_with_its_recipients_is_their_affair() -> None:
    dialog = Dialog.ready(CHUNKED)
    dialog.machine.begin(CHUNK)
    dialog.wrote()
    dialog.machine.content_sent()
    (event,) = dialog.told(b"250 a\r\n550 b\r\n450 c\r\n503 nobody\r\n")
    assert dialog.codes(event) == (Stage.RCPT, 0, [550, 450])
    dialog.machine.begin(CHUNK)
    assert dialog.wrote().startswith(b"RSET\r\n")


@pytest.mark.parametrize("code", [500, 501, 502])
def test_a_bdat_that_was_not_understood_ends_the_session(code: int) -> None:
    """Its octets are being taken for commands; nothing more may be said to that server."""
    dialog = Dialog.ready(CHUNKED)
    dialog.machine.begin(CHUNK)
    dialog.machine.content_sent()
    (event,) = dialog.told(b"250 a\r\n250 b\r\n250 c\r\n%d what?\r\n" % code)
    assert dialog.codes(event) == (Stage.CONTENT, code, [250, 250])
    assert dialog.machine.phase is Phase.CLOSED


# --- what servers must not do, and 421 ------------------------------------------------------------------


def test_421_between_messages_ends_the_session_without_a_fault() -> None:
    dialog = Dialog.ready()
    (event,) = dialog.told(b"421 idle too long\r\n")
    assert isinstance(event, SessionEnded)
    assert dialog.machine.phase is Phase.CLOSED


@pytest.mark.parametrize(
    ("said", "stage", "recipients"),
    [
        (b"421 x\r\n", Stage.MAIL, [0, 0, 0]),
        (b"250 a\r\n421 x\r\n", Stage.RCPT, [0, 0, 0]),
        (b"250 a\r\n550 b\r\n421 x\r\n", Stage.RCPT, [550, 0, 0]),
        (b"250 a\r\n550 b\r\n250 c\r\n250 d\r\n421 x\r\n", Stage.DATA, [550, 250, 250]),
    ],
)
def test_421_within_a_message_defers_what_was_not_refused(
    said: bytes, stage: Stage, recipients: list[int]
) -> None:
    dialog = Dialog.ready()
    dialog.machine.begin(THREE)
    (event,) = dialog.told(said)
    assert dialog.codes(event) == (stage, 421, recipients)
    assert dialog.machine.phase is Phase.CLOSED


def test_421_behind_a_refused_sender_leaves_the_refusal() -> None:
    dialog = Dialog.ready()
    dialog.machine.begin(THREE)
    (event,) = dialog.told(b"550 a\r\n503 b\r\n421 x\r\n")
    assert isinstance(event, TransactionEnded)
    assert (event.stage, event.reply and event.reply.code) == (Stage.MAIL, 550)


@pytest.mark.parametrize("said", [b"250 hello\r\n", b"550 hello\r\n", b"25", b"250-a\r\n"])
def test_an_unasked_reply_between_messages_is_a_breach(said: bytes) -> None:
    dialog = Dialog.ready()
    with pytest.raises(RemoteProtocolError, match="unasked"):
        dialog.told(said)
        dialog.machine.begin(ONE)
    assert dialog.machine.phase is Phase.CLOSED


def test_a_reply_too_many_behind_a_message_is_a_breach() -> None:
    dialog = Dialog.ready()
    dialog.machine.begin(ONE)
    dialog.told(b"250 a\r\n250 b\r\n354 c\r\n")
    dialog.machine.content_sent()
    with pytest.raises(RemoteProtocolError, match="unasked"):
        dialog.told(b"250 taken\r\n250 and another\r\n")


@pytest.mark.parametrize(
    "said",
    [
        b"354 a\r\n",
        b"250 a\r\n354 b\r\n",
        b"250 a\r\n250 b\r\n250 c\r\n",
        b"250 a\r\n250 b\r\n354 c\r\n250 d\r\n",
        b"250 a\r\n250 b\r\n354 c\r\n2",
    ],
)
def test_replies_that_do_not_fit_are_breaches(said: bytes) -> None:
    dialog = Dialog.ready()
    dialog.machine.begin(ONE)
    with pytest.raises(RemoteProtocolError):
        dialog.told(said)


def test_a_refusal_while_content_is_written_is_believed_and_ends_the_session() -> None:
    dialog = Dialog.ready()
    dialog.machine.begin(ONE)
    dialog.told(b"250 a\r\n250 b\r\n354 c\r\n")
    (event,) = dialog.told(b"552 too much\r\n")
    assert dialog.codes(event) == (Stage.CONTENT, 552, [250])
    assert dialog.machine.phase is Phase.CLOSED


def test_success_while_content_is_written_is_a_breach() -> None:
    dialog = Dialog.ready()
    dialog.machine.begin(ONE)
    dialog.told(b"250 a\r\n250 b\r\n354 c\r\n")
    with pytest.raises(RemoteProtocolError, match="before the end of data"):
        dialog.told(b"250 thanks already\r\n")


def test_quit_waits_for_its_reply() -> None:
    dialog = Dialog.ready()
    dialog.machine.quit()
    assert dialog.wrote() == b"QUIT\r\n"
    (event,) = dialog.told(b"221 bye\r\n")
    assert isinstance(event, SessionEnded)
    dialog.machine.quit()
    assert dialog.wrote() == b""


# --- our own faults -----------------------------------------------------------------------------------


def test_a_transaction_begins_only_when_ready_and_with_a_recipient() -> None:
    with pytest.raises(LocalProtocolError):
        Dialog().machine.begin(ONE)
    with pytest.raises(LocalProtocolError):
        Dialog.ready().machine.begin(Plan(ContentMode.DATA, b"MAIL FROM:<>", (), 1, False))


def test_a_command_that_would_be_two_is_never_written() -> None:
    dialog = Dialog.ready()
    with pytest.raises(LocalProtocolError):
        dialog.machine.begin(Plan(ContentMode.DATA, b"MAIL FROM:<a@x>", (b"RCPT TO:<b>\r\nDATA",), 1, False))
    assert dialog.wrote() == b""
    dialog.machine.begin(ONE)
    assert dialog.wrote().startswith(b"MAIL")


def test_content_and_handshake_only_when_asked_for() -> None:
    with pytest.raises(LocalProtocolError):
        Dialog.ready().machine.content_sent()
    with pytest.raises(LocalProtocolError):
        Dialog.ready().machine.tls_started()


# --- any pieces, any garbage ----------------------------------------------------------------------------

REPLY = st.sampled_from(
    [
        b"250 2.1.0 Ok\r\n",
        b"250-two\r\n250 lines\r\n",
        b"354 go on\r\n",
        b"550 5.1.1 no\r\n",
        b"450 4.2.0 later\r\n",
        b"421 4.3.2 bye\r\n",
        b"503 5.5.1 what\r\n",
        b"220 x\r\n",
        b"250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n",
    ]
)
Record = list[tuple[str, object]]


def play(octets: bytes, sizes: list[int], plan: Plan) -> Record:
    """Feed the octets in pieces of these sizes (then the rest); all events and all output, in order."""
    machine = ClientMachine(OPTIONS)
    record: Record = []
    written = b""
    place = 0
    sizes = [*sizes, max(len(octets), 1)]
    transactions = 0
    try:
        for size in sizes:
            machine.feed(octets[place : place + size])
            place += size
            while (event := machine.next_event()) is not None:
                record.append(("event", event))
                if event is READY or (isinstance(event, TransactionEnded) and machine.phase is Phase.READY):
                    transactions += 1
                    if transactions <= 3:
                        machine.begin(plan, at_once=False)
                elif event is CONTENT_WANTED:
                    written += machine.take_output()[0] + b"(content)"
                    machine.content_sent()
            written += machine.take_output()[0]
    except RemoteProtocolError:
        record.append(("breach", None))
    record.append(("output", written + machine.take_output()[0]))
    record.append(("phase", machine.phase))
    return record


@given(st.lists(REPLY, max_size=14), st.sampled_from([ONE, THREE, CHUNK]), st.data())
def test_any_pieces_of_whole_replies_give_the_same(
    replies: list[bytes], plan: Plan, data: st.DataObject
) -> None:
    """Pieces do not span replies here: one that comes ahead of its time is a breach, and rightly so."""
    octets = b"".join([b"220 x\r\n", b"250-x\r\n250 PIPELINING\r\n", *replies])
    whole: list[int] = []
    cut: list[int] = []
    for reply in (b"220 x\r\n", b"250-x\r\n250 PIPELINING\r\n", *replies):
        whole.append(len(reply))
        left = len(reply)
        while left:
            step = data.draw(st.integers(1, left))
            cut.append(step)
            left -= step
    assert play(octets, cut, plan) == play(octets, whole, plan)


@given(st.binary(max_size=200), st.booleans())
def test_garbage_gives_events_or_a_protocol_error(octets: bytes, greeted: bool) -> None:
    lead = b"220 x\r\n" if greeted else b""
    play(lead + octets, [len(lead), 3, 50], ONE)


@given(
    st.lists(REPLY, max_size=20),
    st.lists(st.integers(1, 60), max_size=20),
    st.sampled_from([ONE, THREE, CHUNK]),
)
def test_any_sequence_of_replies_in_any_pieces_is_borne(
    replies: list[bytes], sizes: list[int], plan: Plan
) -> None:
    record = play(
        b"220 x\r\n250-x\r\n250-PIPELINING\r\n250 CHUNKING\r\n" + b"".join(replies), [7, 43, *sizes], plan
    )
    assert record[-1][0] == "phase"
