"""The client side of SMTP without I/O: what to write, what a reply means, when content may go.

The shell feeds what the socket gave, takes events until there is none, and writes `take_output()`. Rules:

1. Every command passes one door (`guard_line`), so that nothing in an address can become a second command.
2. A reply that nobody asked for ends the session: it is the earliest sign that two ends disagree about where a
   message stopped. So does plaintext behind the 220 of STARTTLS (RFC 3207 §4.2; response injection).
3. Between the 354 and `content_sent` nothing is written here: the encoder owns the wire.
4. Octets that carry a secret are never in the second value of `take_output`, which is what may be recorded.

Theory of operation. `phase` names the reply that is waited for. With PIPELINING (RFC 2920) all commands of a
transaction go out at once and the replies are counted off in order; without it each reply causes the next command.
Both ways run through the same handlers, so that they judge alike.

LMTP (RFC 2033) is the same but for three things: LHLO, to which there is no alternative; the end of data is answered
once for each recipient that was taken, in their order; and content goes by DATA alone, so that there is one such
order to count. Behind the first of those replies the others are still open: what is lost then is in doubt for the
recipients that have none.
"""

from __future__ import annotations

import binascii
from typing import assert_never

from lonedot.protocol.client_events import (
    CONTENT_WANTED,
    GREETED,
    HANDSHAKE_WANTED,
    READY,
    RECIPIENTS_ANSWERED,
    ClientEvent,
    ClientOptions,
    ContentWanted,
    Greeted,
    HandshakeWanted,
    Login,
    Phase,
    Ready,
    RecipientsAnswered,
    SessionEnded,
    SessionFailed,
    StartTls,
    TransactionEnded,
)
from lonedot.protocol.client_plan import NO_OFFER, Offer, Plan, guard_line, read_offer
from lonedot.protocol.errors import LocalProtocolError, RemoteProtocolError
from lonedot.protocol.events import ContentMode
from lonedot.protocol.replies import ReplyReader
from lonedot.terms.outcome import Stage
from lonedot.terms.reply import Reply

__all__ = [
    "CONTENT_WANTED",
    "GREETED",
    "HANDSHAKE_WANTED",
    "READY",
    "RECIPIENTS_ANSWERED",
    "ClientEvent",
    "ClientMachine",
    "ClientOptions",
    "ContentWanted",
    "Greeted",
    "HandshakeWanted",
    "Login",
    "Phase",
    "Ready",
    "RecipientsAnswered",
    "SessionEnded",
    "SessionFailed",
    "StartTls",
    "TransactionEnded",
]

_AUTH_LIMIT = 12288
"""Octets in a line of AUTH (RFC 4954 §4)."""

_REDACTED = b"[redacted]"


_STAGES = {
    Phase.GREETING: Stage.GREETING,
    Phase.GREETED: Stage.EHLO,
    Phase.EHLO: Stage.EHLO,
    Phase.HELO: Stage.EHLO,
    Phase.STARTTLS: Stage.STARTTLS,
    Phase.HANDSHAKE: Stage.STARTTLS,
    Phase.AUTH: Stage.AUTH,
    Phase.READY: Stage.MAIL,
    Phase.RESET: Stage.MAIL,
    Phase.MAIL: Stage.MAIL,
    Phase.RCPT: Stage.RCPT,
    Phase.ANSWERED: Stage.DATA,
    Phase.DATA: Stage.DATA,
    Phase.CONTENT: Stage.CONTENT,
    Phase.END: Stage.CONTENT,
    Phase.QUIT: Stage.MAIL,
}


class ClientMachine:
    """One session with one next hop."""

    __slots__ = (
        "_accepted",
        "_asks",
        "_at_once",
        "_auth_left",
        "_auth_lines",
        "_content_sent",
        "_finals",
        "_mail_reply",
        "_needs_reset",
        "_options",
        "_out",
        "_plan",
        "_reader",
        "_replies",
        "_secret",
        "_shown",
        "_stage",
        "_tls_active",
        "end_written",
        "keywords",
        "offer",
        "phase",
        "replies_seen",
    )

    def __init__(self, options: ClientOptions) -> None:
        self._options = options
        self._tls_active = options.tls_active
        self._reader = ReplyReader()
        self._out = b""
        self._shown: bytes | None = None  # differs from _out only when that holds a secret
        self._secret: tuple[bytes, ...] = ()
        self._auth_left: list[bytes] = []
        self._auth_lines: list[bytes] = []
        self._needs_reset = False
        self._plan: Plan | None = None
        self._replies: list[Reply | None] = []
        self._mail_reply: Reply | None = None
        self._finals: list[Reply] = []
        self._accepted = 0
        self._at_once = False
        self._asks = False
        self._content_sent = False
        self._stage = Stage.GREETING  # where it was when it closed
        self.phase = Phase.GREETING
        self.offer: Offer = NO_OFFER
        self.keywords: tuple[bytes, ...] = ()
        """What the reply to EHLO offers, a line each, less what counts as not offered."""
        self.replies_seen = 0
        """Replies to the commands of this transaction."""
        self.end_written = False
        """The end of data of this transaction is on its way: from here on only its reply tells what came of it."""

    @property
    def stage(self) -> Stage:
        """Where a failure now would have happened, or did."""
        return self._stage if self.phase is Phase.CLOSED else _STAGES[self.phase]

    @property
    def tls_active(self) -> bool:
        return self._tls_active

    @property
    def recipient_replies(self) -> tuple[Reply | None, ...]:
        """What is known so far of each recipient of the running transaction."""
        plan = self._plan
        if plan is None:
            return ()
        return tuple(self._replies) + (None,) * (len(plan.rcpt) - len(self._replies))

    @property
    def final_replies(self) -> tuple[Reply | None, ...]:
        """LMTP: what is known so far of each recipient of the running transaction behind the end of data."""
        if not self._finals:
            return ()
        heard = iter(self._finals)
        return tuple(
            [
                next(heard, None) if reply is not None and reply.is_positive else None
                for reply in self.recipient_replies
            ]
        )

    @property
    def mail_refused(self) -> Reply | None:
        """The reply that refused MAIL in the running transaction: it decides for every recipient."""
        mail = self._mail_reply
        return None if self._plan is None or mail is None or mail.is_positive else mail

    # --- octets ---------------------------------------------------------------------------------

    def feed(self, octets: bytes) -> None:
        """What the socket gave."""
        self._reader.feed(octets)

    def take_output(self) -> tuple[bytes, bytes]:
        """Octets to write, and the same with secrets replaced, for the record."""
        out, shown = self._out, self._shown
        self._out = b""
        self._shown = None
        return out, out if shown is None else shown

    def redact(self, octets: bytes) -> bytes:
        """What the peer sent, for the record: a server may repeat what it was given."""
        if self._secret:
            for secret in self._secret:
                octets = octets.replace(secret, _REDACTED)
        return octets

    def next_event(self) -> ClientEvent | None:
        """The next event; None when more octets are needed, or the shell must act first.

        Raises:
            RemoteProtocolError: the peer broke the protocol. The machine is closed.
        """
        try:
            while True:
                reply = self._reader.next()
                if reply is None:
                    return None
                event = self._replied(reply)
                if event is not None:
                    return event
        except RemoteProtocolError:
            self._close()
            raise

    # --- what the shell does ----------------------------------------------------------------------

    def begin(self, plan: Plan, *, at_once: bool = True, asks: bool = False) -> None:
        """Start a transaction; only in phase READY.

        With `asks` no DATA and no BDAT is written before the shell has seen the replies (`RecipientsAnswered`).

        `at_once` allows the content of a BDAT to follow its envelope without waiting (with PIPELINING): one round
        trip less. Then `wants_content` is true afterwards, and the end of data is written before any reply.

        Raises:
            LocalProtocolError: not ready, no recipients, or a command that must not be sent.
            RemoteProtocolError: the peer had already spoken unasked.
        """
        if self.phase is not Phase.READY or not plan.rcpt:
            raise LocalProtocolError(f"no transaction can begin in phase {self.phase.value}")
        if not self._reader.is_empty:
            self._close()
            raise RemoteProtocolError("an unasked reply between two messages")
        if self._options.lmtp and plan.mode is not ContentMode.DATA:
            raise LocalProtocolError("in LMTP content goes by DATA")
        lines = guard_line(plan.mail)
        pipelining = self.offer.pipelining
        self._at_once = False
        self._asks = asks
        if pipelining:
            lines += b"".join([guard_line(line) for line in plan.rcpt])
            if asks:
                pass
            elif plan.mode is ContentMode.DATA:
                lines += b"DATA\r\n"
            elif at_once:
                lines += b"BDAT %d LAST\r\n" % plan.size
                self._at_once = True
        if self._needs_reset:
            self._write(b"RSET\r\n" + lines if pipelining else b"RSET\r\n")
            self.phase = Phase.RESET
        else:
            self._write(lines)
            self.phase = Phase.MAIL
        self._plan = plan
        self._replies = []
        self._finals = []
        self._mail_reply = None
        self._accepted = 0
        self._content_sent = False
        self.end_written = False
        self.replies_seen = 0

    @property
    def wants_content(self) -> bool:
        """The content must follow the output of `begin`, or of `go_on`, in the same write."""
        return (self._at_once or self.phase is Phase.CONTENT) and not self._content_sent

    def go_on(self) -> None:
        """The shell has seen what it asked for (`Greeted`, `RecipientsAnswered`): say EHLO, or DATA or BDAT.

        Raises:
            LocalProtocolError: nothing waits for that.
            RemoteProtocolError: the peer has spoken unasked meanwhile.
        """
        if not self._reader.is_empty:
            self._close()
            raise RemoteProtocolError("an unasked reply")
        if self.phase is Phase.GREETED:
            self._say_ehlo()
        elif self.phase is Phase.ANSWERED:
            self._say_data()
        else:
            raise LocalProtocolError(f"nothing waits to go on in phase {self.phase.value}")

    def withhold(self) -> None:
        """The content does not go (`RecipientsAnswered`). RSET comes before the next transaction, or QUIT."""
        if self.phase is not Phase.ANSWERED:
            raise LocalProtocolError(f"no content can be withheld in phase {self.phase.value}")
        self._needs_reset = True
        self._plan = None
        self.phase = Phase.READY

    def content_sent(self) -> None:
        """All octets of the content, the end of data included, were given to the socket."""
        if self.phase is Phase.CONTENT:
            self.phase = Phase.END
        elif not self._at_once:
            raise LocalProtocolError(f"content was written in phase {self.phase.value}")
        self._content_sent = True
        self.end_written = True

    def tls_started(self) -> None:
        """The handshake is done: everything known is forgotten (RFC 3207 §4.2), EHLO is said again."""
        if self.phase is not Phase.HANDSHAKE:
            raise LocalProtocolError(f"no handshake was asked for in phase {self.phase.value}")
        self._reader.clear()
        self._tls_active = True
        self.offer = NO_OFFER
        self.keywords = ()
        self._say_ehlo()

    def quit(self) -> None:
        """Take leave; only between transactions, and a session that is over is left alone."""
        if self.phase not in (Phase.CLOSED, Phase.QUIT):
            self._write(b"QUIT\r\n")
            self.phase = Phase.QUIT

    # --- replies ------------------------------------------------------------------------------------

    def _replied(self, reply: Reply) -> ClientEvent | None:
        phase = self.phase
        match phase:
            case Phase.MAIL | Phase.RCPT | Phase.DATA | Phase.END | Phase.RESET | Phase.CONTENT:
                if reply.code == 421:
                    return self._hung_up(reply)
                self.replies_seen += 1
                if phase is Phase.MAIL:
                    return self._on_mail(reply)
                if phase is Phase.RCPT:
                    return self._on_rcpt(reply)
                if phase is Phase.DATA:
                    return self._on_data(reply)
                if phase is Phase.END:
                    return self._on_end(reply)
                if phase is Phase.RESET:
                    return self._on_reset(reply)
                return self._on_early_end(reply)
            case Phase.ANSWERED if reply.code == 421:
                return self._hung_up(reply)
            case Phase.GREETED if reply.code == 421:
                return self._fail(reply, "the next hop ends the session")
            case Phase.ANSWERED | Phase.GREETED:
                raise RemoteProtocolError(f"an unasked reply: {reply.text}")
            case Phase.READY:
                if reply.code == 421:
                    # RFC 5321 §3.8: may come at any time.
                    self._close()
                    return SessionEnded(reply)
                raise RemoteProtocolError(f"an unasked reply: {reply.text}")
            case Phase.GREETING:
                return self._on_greeting(reply)
            case Phase.EHLO:
                return self._on_ehlo(reply)
            case Phase.HELO:
                if reply.code // 100 != 2:
                    return self._fail(reply, "the next hop refuses our name")
                return self._ready()
            case Phase.STARTTLS:
                return self._on_starttls(reply)
            case Phase.AUTH:
                return self._on_auth(reply)
            case Phase.HANDSHAKE:
                raise RemoteProtocolError(f"plaintext behind the reply to STARTTLS: {reply.text}")
            case Phase.QUIT:
                self._close()
                return SessionEnded(reply)
            case Phase.CLOSED:
                return None
            case _:
                assert_never(phase)

    def _on_greeting(self, reply: Reply) -> ClientEvent | None:
        if reply.code // 100 != 2:
            return self._fail(reply, "the next hop does not take connections from us")
        if not self._reader.is_empty:
            # RFC 5321 §4.3.1: the server speaks first, and once.
            raise RemoteProtocolError("more than a greeting before we said anything")
        if self._options.asks_at_greeting:
            self.phase = Phase.GREETED
            return GREETED
        self._say_ehlo()
        return None

    def _say_ehlo(self) -> None:
        verb = b"LHLO " if self._options.lmtp else b"EHLO "
        self._write(guard_line(verb + self._options.ehlo_name))
        self.phase = Phase.EHLO

    def _on_ehlo(self, reply: Reply) -> ClientEvent | None:
        options = self._options
        if reply.is_permanent and not options.lmtp:
            if options.login is None and (self._tls_active or options.starttls is not StartTls.REQUIRED):
                # RFC 5321 §3.2: a server without extensions.
                self._write(guard_line(b"HELO " + options.ehlo_name))
                self.phase = Phase.HELO
                return None
            return self._fail(reply, "the next hop refuses EHLO, and the route needs TLS or a login")
        if reply.code // 100 != 2:
            return self._fail(reply, "the next hop refuses our name")
        self.offer = read_offer(reply, options.ignored)
        self.keywords = tuple(
            [line for line in reply.lines[1:] if line.split(b" ", 1)[0].upper() not in options.ignored]
        )
        if self._tls_active or options.starttls is StartTls.NEVER:
            return self._log_in()
        if self.offer.starttls:
            self._write(b"STARTTLS\r\n")
            self.phase = Phase.STARTTLS
            return None
        if options.starttls is StartTls.REQUIRED:
            return self._fail(
                None, "the route requires TLS; the next hop does not offer STARTTLS", Stage.STARTTLS
            )
        return self._log_in()

    def _on_starttls(self, reply: Reply) -> ClientEvent | None:
        if reply.code // 100 == 2:
            if not self._reader.is_empty:
                # CVE-2021-38371: replies put before the handshake would be taken for those inside TLS.
                raise RemoteProtocolError("plaintext behind the reply to STARTTLS")
            self.phase = Phase.HANDSHAKE
            return HANDSHAKE_WANTED
        if self._options.starttls is StartTls.REQUIRED or reply.code == 421:
            return self._fail(
                reply, "the route requires TLS; the next hop offered STARTTLS and then refused it"
            )
        return self._log_in()

    # --- AUTH (RFC 4954) ----------------------------------------------------------------------------

    def _log_in(self) -> ClientEvent | None:
        login = self._options.login
        if login is None:
            return self._ready()
        if not (self._tls_active or self._options.plaintext_login):
            return self._fail(
                None,
                "the route has a login, and the connection has no TLS: the password is not sent",
                Stage.AUTH,
            )
        self._auth_left = [name for name in (b"PLAIN", b"LOGIN") if name in self.offer.auth]
        if not self._auth_left:
            offered = b" ".join(self.offer.auth).decode("ascii", "backslashreplace") or "none at all"
            return self._fail(
                None,
                f"the route has a login; the next hop offers no AUTH PLAIN or LOGIN ({offered})",
                Stage.AUTH,
            )
        plain = _base64(b"\0" + login.name + b"\0" + login.password)
        # What may come back in a reply. Short texts are left alone: they would match anywhere.
        self._secret = tuple(
            text for text in (plain, _base64(login.password), login.password) if len(text) >= 4
        )
        self._next_mechanism()
        return None

    def _next_mechanism(self) -> None:
        login = self._options.login
        assert login is not None
        mechanism = self._auth_left.pop(0)
        if mechanism == b"PLAIN":
            self._auth_lines = []
            initial = _base64(b"\0" + login.name + b"\0" + login.password)
            self._write(
                guard_line(b"AUTH PLAIN " + initial, _AUTH_LIMIT), b"AUTH PLAIN " + _REDACTED + b"\r\n"
            )
        else:
            self._auth_lines = [_base64(login.name), _base64(login.password)]
            self._write(b"AUTH LOGIN\r\n")
        self.phase = Phase.AUTH

    def _on_auth(self, reply: Reply) -> ClientEvent | None:
        code = reply.code
        if code // 100 == 3:
            if not self._auth_lines:
                raise RemoteProtocolError("a question more than AUTH has answers")
            self._write(guard_line(self._auth_lines.pop(0), _AUTH_LIMIT), _REDACTED + b"\r\n")
            return None
        if code // 100 == 2:
            self._auth_lines = []
            return self._ready()
        if code == 504 and self._auth_left:
            self._next_mechanism()
            return None
        shown = Reply(code, reply.enhanced, tuple(self.redact(line) for line in reply.lines))
        return self._fail(shown, "the next hop does not accept our login")

    def _ready(self) -> ClientEvent:
        self.phase = Phase.READY
        return READY

    # --- the transaction -----------------------------------------------------------------------------

    def _on_reset(self, reply: Reply) -> ClientEvent | None:
        if reply.code // 100 != 2:
            raise RemoteProtocolError(f"RSET was refused: {reply.text}")
        self._needs_reset = False
        self.replies_seen -= 1  # not a reply to this transaction
        plan = self._running
        if not self.offer.pipelining:
            self._write(guard_line(plan.mail))
        self.phase = Phase.MAIL
        return None

    def _on_mail(self, reply: Reply) -> ClientEvent | None:
        if reply.code // 100 == 3:
            raise RemoteProtocolError(f"to MAIL came {reply.text}")
        self._mail_reply = reply
        self.phase = Phase.RCPT
        if self.offer.pipelining:
            return None
        if not reply.is_positive:
            return self._ended(Stage.MAIL, reply)
        self._needs_reset = True
        self._write(guard_line(self._running.rcpt[0]))
        return None

    def _on_rcpt(self, reply: Reply) -> ClientEvent | None:
        digit = reply.code // 100
        if digit == 3:
            raise RemoteProtocolError(f"to RCPT came {reply.text}")
        if digit == 2:
            self._accepted += 1
        replies = self._replies
        replies.append(reply)
        plan = self._running
        if len(replies) < len(plan.rcpt):
            if not self.offer.pipelining:
                self._write(guard_line(plan.rcpt[len(replies)]))
            return None
        if self._at_once:
            self.phase = Phase.END
            return None
        if self.offer.pipelining and plan.mode is ContentMode.DATA and not self._asks:
            self.phase = Phase.DATA  # it is written already
            return None
        if not self._is_wanted:
            self._needs_reset = True
            return self._ended_early()
        if self._asks:
            self.phase = Phase.ANSWERED
            return RECIPIENTS_ANSWERED
        self._say_data()
        return None if self.phase is Phase.DATA else CONTENT_WANTED

    def _say_data(self) -> None:
        plan = self._running
        if plan.mode is ContentMode.DATA:
            self._write(b"DATA\r\n")
            self.phase = Phase.DATA
        else:
            # There is no 354: the command and its octets go together (RFC 3030 §2).
            self._write(b"BDAT %d LAST\r\n" % plan.size)
            self.phase = Phase.CONTENT

    def _on_data(self, reply: Reply) -> ClientEvent | None:
        digit = reply.code // 100
        if digit == 2:
            raise RemoteProtocolError(f"to DATA came {reply.text}")
        if digit == 3:
            if not self._reader.is_empty:
                raise RemoteProtocolError("a reply behind the 354, before the end of data")
            if not self._is_wanted:
                if self._options.lmtp:
                    # RFC 2033 §4.2: it must refuse. How many replies would follow is anybody's guess.
                    raise RemoteProtocolError(f"to DATA without a recipient came {reply.text}")
                # RFC 2920 §3.1: DATA was pipelined, no recipient stands: a message without content ends it.
                self._write(b".\r\n")
                self.phase = Phase.END
                return None
            self.phase = Phase.CONTENT
            return CONTENT_WANTED
        self._needs_reset = True
        if not self._is_wanted:
            return self._ended_early()
        return self._ended(Stage.DATA, reply)

    def _on_early_end(self, reply: Reply) -> ClientEvent | None:
        """A reply while the content is being written, its end not yet: a refusal is believed, the session ends."""
        if reply.is_positive:
            raise RemoteProtocolError(f"before the end of data came {reply.text}")
        event = self._ended(Stage.CONTENT, reply)
        self._close()
        return event

    def _on_end(self, reply: Reply) -> ClientEvent | None:
        digit = reply.code // 100
        if digit == 3:
            raise RemoteProtocolError(f"to the end of data came {reply.text}")
        if self._options.lmtp:
            return self._on_final(reply)
        wanted = self._is_wanted
        unknown = self._running.mode is ContentMode.BDAT and reply.code in (500, 501, 502)
        # RFC 3030 §2: after a failed BDAT the transaction is still open.
        self._needs_reset = self._running.mode is ContentMode.BDAT and digit != 2
        event = self._ended(Stage.CONTENT, reply) if wanted else self._ended_early()
        if unknown:
            # BDAT was not understood: its octets are being taken for commands. Nothing more may be said here.
            self._close()
        return event

    def _on_final(self, reply: Reply) -> ClientEvent | None:
        """One recipient's reply behind the end of data (RFC 2033 §4.2)."""
        self._finals.append(reply)
        return None if len(self._finals) < self._accepted else self._ended(Stage.CONTENT, reply)

    @property
    def _is_wanted(self) -> bool:
        """MAIL and at least one RCPT were accepted."""
        return self._accepted > 0 and self._mail_reply is not None and self._mail_reply.is_positive

    @property
    def _running(self) -> Plan:
        assert self._plan is not None
        return self._plan

    def _ended_early(self) -> TransactionEnded:
        """No content was wanted: MAIL decided it, or each recipient's own reply."""
        mail = self._mail_reply
        if mail is not None and not mail.is_positive:
            return self._ended(Stage.MAIL, mail)
        return self._ended(Stage.RCPT, None)

    def _ended(self, stage: Stage, reply: Reply | None) -> TransactionEnded:
        event = TransactionEnded(stage, reply, self.recipient_replies, self.final_replies)
        self._plan = None
        self._finals = []
        self.phase = Phase.READY
        return event

    def _hung_up(self, reply: Reply) -> ClientEvent:
        """421: the server closes; what it had refused before stands, the rest is open (RFC 5321 §3.8)."""
        stage = self.stage
        mail = self._mail_reply
        if mail is not None and not mail.is_positive:
            event = self._ended(Stage.MAIL, mail)
        else:
            event = self._ended(stage, reply)
        self._close()
        return event

    def _fail(self, reply: Reply | None, words: str, stage: Stage | None = None) -> SessionFailed:
        event = SessionFailed(stage or self.stage, reply, words)
        if reply is not None and reply.code == 421:
            self._close()
        else:
            self.quit()
        return event

    def _close(self) -> None:
        if self.phase is not Phase.CLOSED:
            self._stage = _STAGES[self.phase]
            self.phase = Phase.CLOSED

    # --- writing -------------------------------------------------------------------------------------

    def _write(self, octets: bytes, shown: bytes | None = None) -> None:
        if shown is not None or self._shown is not None:
            self._shown = (self._out if self._shown is None else self._shown) + (
                octets if shown is None else shown
            )
        self._out = self._out + octets if self._out else octets


def _base64(octets: bytes) -> bytes:
    return binascii.b2a_base64(octets, newline=False)
