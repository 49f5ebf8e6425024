"""The engine of the server machine: framing, output, decisions, limits. What the commands mean stands elsewhere.

Rules that must not break:

1. Only one thing reads the input at a time (`State`), and the input behind it is looked at only when it is done: octets
   of a message are never commands, and nothing behind an open decision is read before it is answered.
2. A line ends at CRLF. A bare CR, a bare LF or a NUL in a line ends the session: what follows has no trustworthy frame.
3. Every answer is written in the order of its command; `take_output` gives all that waits, so that a pipelined group is
   answered in one write.
4. Everything a client can make grow is bounded by `ServerLimits`.
5. A reply with a CR or LF in its text is never written.

A command is a function `(session, argument) -> Event | None`: it returns the event to hand out, or None when the
machine has answered and nobody need know. It may raise `RemoteProtocolError` with the reply to give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lonedot.protocol import answers
from lonedot.protocol.data import DataDecoder
from lonedot.protocol.errors import LocalProtocolError, RemoteProtocolError
from lonedot.protocol.events import (
    Closed,
    CommandHeard,
    ContentChunk,
    ContentEnded,
    ContentMode,
    Event,
    Refused,
)
from lonedot.protocol.lines import JunkLine, breach_in
from lonedot.protocol.options import ServerLimits, ServerOptions
from lonedot.protocol.shown import HIDDEN, shown_line
from lonedot.protocol.state import State
from lonedot.protocol.transaction import MailParameters, RcptParameters, Transaction
from lonedot.terms.reply import Reply

__all__ = [
    "ANY_VERB",
    "Command",
    "CommandHandler",
    "Decider",
    "MailParameter",
    "RcptParameter",
    "ServerSession",
    "Vocabulary",
    "content_decided",
]


ANY_VERB = b"*"
"""In `ServerSession.asked`: every command that no other event is for."""


CommandHandler = Callable[["ServerSession", bytes], Event | None]
Decider = Callable[["ServerSession", Reply], None]
"""Writes the answer first (which may raise `LocalProtocolError`), then changes the session."""
MailParameter = Callable[["ServerSession", bytes | None, MailParameters], None]
RcptParameter = Callable[["ServerSession", bytes | None, RcptParameters], None]


@dataclass(frozen=True, slots=True)
class Command:
    """What a verb does, and how long its line may be with CRLF."""

    handler: CommandHandler
    line_limit: int
    answered: Decider
    """Takes the answer of a shell that was asked about the command and gives one in place of the machine."""
    has_secret: bool = False
    """Its argument, and what a client out of step sends next, is never shown."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All that a listener's options allow, worked out once: verbs, parameters, what EHLO says."""

    commands: Mapping[bytes, Command]
    unknown: Command
    """What becomes of every other verb."""
    mail_parameters: Mapping[bytes, MailParameter]
    rcpt_parameters: Mapping[bytes, RcptParameter]
    longest_line: int
    ehlo: bytes
    ehlo_in_tls: bytes
    has_enhanced_codes: bool


class ServerSession:
    """One session. The public face with its constructor is `server.ServerMachine`."""

    __slots__ = (
        "_buffer",
        "_decision",
        "_decoder",
        "_fed",
        "_hear",
        "_heard",
        "_incoming",
        "_junk",
        "_later",
        "_limits",
        "_line",
        "_line_handler",
        "_octets_done",
        "_octets_left",
        "_octets_wanted",
        "_output",
        "_position",
        "_state",
        "_waiting",
        "asked",
        "data_was_refused",
        "errors",
        "idle_commands",
        "is_authenticated",
        "is_greeted",
        "octets_were_refused",
        "options",
        "rejections",
        "secrets_may_follow",
        "tls_active",
        "transaction",
        "vocabulary",
    )

    def __init__(
        self, options: ServerOptions, vocabulary: Vocabulary, hear: Callable[[bytes], object] | None
    ) -> None:
        self.options = options
        self.vocabulary = vocabulary
        self._limits: ServerLimits = options.limits
        self._hear = hear
        self._buffer = b""
        self._position = 0
        self._incoming: list[bytes] = []
        self._waiting = 0
        self._fed = 0
        self._output: list[bytes] = []
        self._later: list[Event] = []
        self._decision: Decider | None = None
        self._heard: tuple[CommandHandler, bytes] | None = None
        self._state = State.COMMAND
        self._line = b""
        self._line_handler: CommandHandler | None = None
        self._junk: JunkLine | None = None
        self._decoder: DataDecoder | None = None
        self._octets_left = 0
        self._octets_wanted = False
        self._octets_done: Callable[[ServerSession], Event | None] | None = None
        self.transaction: Transaction | None = None
        self.is_greeted = False
        self.is_authenticated = False
        self.tls_active = options.tls_active
        self.errors = 0
        self.rejections = 0
        self.idle_commands = 0
        self.data_was_refused = False
        """The last command was a refused DATA: a client that sends its text all the same is cut off."""
        self.octets_were_refused = False
        """The last command was one with octets behind it, and refused: likewise."""
        self.secrets_may_follow = False
        """The last command was a refused AUTH: what comes next may be the credentials of a client out of step."""
        self.asked: frozenset[bytes] = frozenset()
        """Verbs in upper case that give a `CommandHeard` before they are obeyed; the shell may replace it at any time.

        MAIL, RCPT, DATA, BDAT and AUTH never do: they have decisions of their own.
        """

    # --- for the shell ------------------------------------------------------------------------------------------------

    def greeting(self, words: bytes | None = None) -> bytes:
        """The 220 that opens the session, with these words behind our name; the shell writes it.

        Raises:
            LocalProtocolError: the words cannot stand in a reply.
        """
        if words is None:
            words = b"LMTP" if self.options.lmtp else b"ESMTP"
        return answers.encode(Reply(220, "", (self.options.hostname + b" " + words,)), False)

    def feed(self, octets: bytes) -> None:
        """Takes what the socket gave. Nothing is read before `next_event`."""
        if self._state is State.CLOSED:
            return
        self._fed += len(octets)
        if self._buffer:
            self._incoming.append(octets)
            self._waiting += len(octets)
        else:
            self._buffer = octets

    def next_event(self) -> Event | None:
        """The next event; None when more octets or the answer to the open decision are needed."""
        if self._later:
            return self._later.pop(0)
        if self._incoming:
            if self._decision is not None:
                return None
            self._buffer = b"".join([self._buffer[self._position :], *self._incoming])
            self._position = 0
            self._waiting = 0
            self._incoming.clear()
        while self._decision is None and self._buffer:
            state = self._state
            if state is State.COMMAND:
                buffer = self._buffer
                start = self._position
                end = buffer.find(b"\r\n", start, start + self.vocabulary.longest_line)
                if end < 0:
                    event = self._read_unfinished_line()
                    if event is None and self._state is State.COMMAND:
                        return None
                else:
                    self._consume(end + 2)
                    event = self._obey(buffer[start:end])
            elif state is State.TEXT:
                event = self._read_text()
            elif state is State.OCTETS:
                event = self._read_octets()
            elif state is State.JUNK:
                event = self._read_junk()
                if event is None:
                    return None
            elif state is State.TLS:
                event = self.close("plaintext behind STARTTLS")
            else:
                return None
            if event is not None:
                return event
        return None

    def respond(self, reply: Reply) -> None:
        """Answers the open decision. 421 and 521 also end the session (`Closed` follows).

        After `fail`, or once the session is closed, the answer has nobody to go to and is dropped.

        Raises:
            LocalProtocolError: no decision is open, or the reply does not fit it.
        """
        decider = self._decision
        if decider is None:
            if self._state is State.CLOSED:
                return
            raise LocalProtocolError(f"an answer without a question: {reply.text}")
        if self._later:
            raise LocalProtocolError("an answer before its question was read")
        if not 200 <= reply.code < 600:
            raise LocalProtocolError(f"not an answer to a command: {reply.text}")
        decider(self, reply)
        if self._decision is decider:
            self._decision = None
            self._heard = None
        if reply.code in {421, 521} and self._state is not State.CLOSED:
            self._later.append(self.close(reply.text))

    def obey(self) -> None:
        """Answers the open `CommandHeard`: the command is obeyed as usual. What comes of it is the next event.

        Raises:
            LocalProtocolError: no command waits for this.
        """
        heard = self._heard
        if heard is None:
            if self._state is State.CLOSED:
                return
            raise LocalProtocolError("leave to obey where no command was heard")
        self._heard = None
        self._decision = None
        handler, argument = heard
        try:
            event = handler(self, argument)
        except RemoteProtocolError as error:
            event = self.refuse(error.reply or answers.UNKNOWN_COMMAND)
        if event is not None:
            self._later.insert(0, event)

    def respond_behind(self, reply: Reply, octets: int) -> None:
        """Answers the open `CommandHeard` with 354, and with `reply` when so many octets have come, which are dropped.

        Nothing in them is a command, and nothing of them is kept.

        Raises:
            LocalProtocolError: no command waits for this, the reply is no success, or there are no octets to read.
        """
        decider = self._decision
        if decider is None or self._heard is None:
            if self._state is State.CLOSED:
                return
            raise LocalProtocolError("octets asked for where no command was heard")
        if not 200 <= reply.code < 300 or octets <= 0:
            raise LocalProtocolError(f"{octets} octets before {reply.text}")

        def done(session: ServerSession) -> Event | None:
            decider(session, reply)
            return session._later.pop(0) if session._later else None

        self._heard = None
        self._decision = None
        self.write(answers.SEND_OCTETS)
        self.read_octets(octets, done, is_wanted=False)

    def take_output(self) -> bytes:
        """Everything to write since the last call; `b""` when nothing."""
        output = self._output
        if not output:
            return b""
        octets = output[0] if len(output) == 1 else b"".join(output)
        output.clear()
        return octets

    def tls_started(self) -> None:
        """The handshake is done: everything is forgotten, a new EHLO is needed (RFC 3207 §4.2).

        Raises:
            LocalProtocolError: no TLS was asked for.
        """
        if self._state is State.CLOSED:
            return
        if self._state is not State.TLS:
            raise LocalProtocolError("TLS has started, but nobody asked for it")
        if self.buffered:
            self._later.append(self.close("plaintext behind STARTTLS"))
            return
        self._state = State.COMMAND
        self._line = b""
        self.transaction = None
        self.is_greeted = False
        self.is_authenticated = False
        self.tls_active = True

    def fail(self, reply: Reply) -> None:
        """Ends the session from outside (shutdown, time-out): writes the reply, voids a decision; `Closed` follows."""
        if self._state is State.CLOSED:
            return
        self.write(reply)
        self._decision = None
        self._heard = None
        self._later.clear()
        self._later.append(self.close(reply.text))

    @property
    def buffered(self) -> int:
        """Octets fed and not yet consumed; the shell stops reading when there are too many."""
        return len(self._buffer) - self._position + self._waiting

    @property
    def consumed(self) -> int:
        """Octets consumed since the session began; from `respond(354)` to `ContentEnded` it spans the DATA phase."""
        return self._fed - self.buffered

    @property
    def state(self) -> State:
        return self._state

    @property
    def is_closed(self) -> bool:
        return self._state is State.CLOSED

    @property
    def in_transaction(self) -> bool:
        return self.transaction is not None

    @property
    def in_content(self) -> bool:
        """Between 354 and the end of data, or inside a chunk: the time-out for content applies."""
        return self._state is State.TEXT or self._state is State.OCTETS

    @property
    def is_deciding(self) -> bool:
        """An event waits for `respond`."""
        return self._decision is not None

    # --- for commands -------------------------------------------------------------------------------------------------

    def write(self, reply: Reply) -> None:
        """Writes a reply."""
        self._output.append(answers.encode(reply, self.vocabulary.has_enhanced_codes))

    def write_octets(self, octets: bytes) -> None:
        """Writes a reply that was encoded before."""
        self._output.append(octets)

    def answer_negative(self, reply: Reply) -> Refused:
        """Refuses a command without holding it against the client."""
        self.write(reply)
        return Refused(self._shown_line(), reply)

    def write_failed_login(self, reply: Reply) -> None:
        """Writes the shell's refusal of a login; too many errors end the session instead."""
        self.errors += 1
        if self.errors > self._limits.errors:
            self.write(answers.TOO_MANY_ERRORS)
            self._later.append(self.close("too many failed logins"))
            return
        self.write(reply)

    def ask(self, verb: bytes, argument: bytes, handler: CommandHandler, answered: Decider) -> CommandHeard:
        """Asks the shell before `handler` obeys a command; `answered` gets an answer that takes the place of that."""
        self._heard = (handler, argument)
        self._decision = answered
        return CommandHeard(verb, argument)

    def decide(self, decider: Decider) -> None:
        """The event that the command returns waits for an answer, which `decider` gets (it also writes the reply)."""
        self._decision = decider

    def later(self, event: Event) -> None:
        """Hands out an event after the one that the command returns."""
        self._later.append(event)

    def later_first(self, event: Event) -> None:
        """As `later`, ahead of what waits already (a `Closed` must stay last)."""
        self._later.insert(0, event)

    def refuse(self, reply: Reply) -> Refused:
        """Answers the command with an error of the client's; too many of them end the session."""
        self.errors += 1
        if self.errors > self._limits.errors:
            return self.refuse_and_close(answers.TOO_MANY_ERRORS, "too many errors")
        self.write(reply)
        return Refused(self._shown_line(), reply)

    def refuse_and_close(self, reply: Reply, words: str) -> Refused:
        """Answers the command and ends the session."""
        self.write(reply)
        refused = Refused(self._shown_line(), reply)
        self._later.append(self.close(words))
        return refused

    def count_idle(self) -> Refused | None:
        """Counts a command that brings no message; the refusal when there were too many."""
        self.idle_commands += 1
        if self.idle_commands > self._limits.idle_commands:
            return self.refuse_and_close(
                answers.TOO_MANY_IDLE_COMMANDS, "too many commands without a message"
            )
        return None

    def write_decision(self, reply: Reply) -> None:
        """Writes the shell's answer to an address; too many refused ones end the session instead."""
        if 300 <= reply.code < 400:
            raise LocalProtocolError(f"an address is accepted with 250 or refused, not with {reply.text}")
        if reply.code >= 400:
            self.rejections += 1
            if self.rejections > self._limits.rejections:
                self.write(answers.TOO_MANY_REJECTIONS)
                self._later.append(self.close("too many refused addresses"))
                return
        self.write(reply)

    def close(self, words: str) -> Closed:
        """Ends the session: what was fed and not consumed is dropped. The caller hands the event out."""
        self._state = State.CLOSED
        self._fed = self.consumed
        self._buffer = b""
        self._position = 0
        self._incoming.clear()
        self._waiting = 0
        self._line = b""
        self._line_handler = None
        self._decision = None
        self._heard = None
        self._decoder = None
        self.transaction = None
        return Closed(words)

    def hang_up(self) -> None:
        """Closes without a `Closed` event (QUIT has one of its own)."""
        self.close("")

    def ask_line(self, challenge: bytes, handler: CommandHandler) -> None:
        """Writes a 334; the next line goes to `handler` and is never shown."""
        self._output.append(b"334 " + challenge + b"\r\n")
        self._line_handler = handler

    def read_text(self, mode: ContentMode) -> None:
        """The input is the text of a message now, up to its end of data."""
        self._state = State.TEXT
        self._decoder = DataDecoder()
        if self.transaction is not None:
            self.transaction.mode = mode

    def read_octets(
        self, count: int, done: Callable[[ServerSession], Event | None], *, is_wanted: bool
    ) -> Event | None:
        """The next `count` octets are no commands: handed out as chunks when wanted, else dropped; then `done`.

        Returns what `done` returned when there is nothing to read.
        """
        if count == 0:
            return done(self)
        self._state = State.OCTETS
        self._octets_left = count
        self._octets_wanted = is_wanted
        self._octets_done = done
        return None

    def drop_octets(self) -> None:
        """What is left of the counted run is not wanted any more."""
        self._octets_wanted = False

    def await_tls(self) -> None:
        """No plaintext may be read any more; `tls_started` goes on."""
        self._state = State.TLS

    def end_transaction(self) -> bool:
        """Forgets the transaction; true when there was one."""
        had_one = self.transaction is not None
        self.transaction = None
        return had_one

    def message_accepted(self) -> None:
        """A message was accepted: the client has earned new patience."""
        self.errors = 0
        self.rejections = 0
        self.idle_commands = 0

    # --- reading ------------------------------------------------------------------------------------------------------

    def _consume(self, position: int) -> None:
        if position == len(self._buffer):
            self._buffer = b""
            self._position = 0
        else:
            self._position = position

    def _obey(self, line: bytes) -> Event | None:
        if b"\r" in line or b"\n" in line or b"\0" in line:
            return self._refuse_octet(line)
        self._line = line
        if (handler := self._line_handler) is not None:
            return self._obey_exchange(handler, line)
        verb, _, argument = line.partition(b" ")
        command = self.vocabulary.commands.get(verb)
        if command is None:
            verb = verb.upper()
            command = self.vocabulary.commands.get(verb)
            if command is None:
                return self._refuse_unknown(verb)
        if len(line) + 2 > command.line_limit:
            self._tell(self._shown_line)
            return self.refuse(answers.LINE_TOO_LONG)
        self.data_was_refused = self.octets_were_refused = False
        self.secrets_may_follow = False
        if command.has_secret:
            return self._obey_in_secret(command, argument)
        if self._hear is not None:
            self._hear(line)
        if argument and (argument[0] == 32 or argument[-1] in b" \t"):
            argument = argument.strip(b" \t")
        if self.asked and self._asks_about(verb.upper()):
            return self.ask(verb.upper(), argument, command.handler, command.answered)
        try:
            return command.handler(self, argument)
        except RemoteProtocolError as error:
            return self.refuse(error.reply or answers.UNKNOWN_COMMAND)

    def _asks_about(self, verb: bytes) -> bool:
        return verb not in _OWN_EVENTS and (verb in self.asked or ANY_VERB in self.asked)

    def _obey_in_secret(self, command: Command, argument: bytes) -> Event | None:
        self._line = self._shown_line()
        self._tell(self._shown_line)
        try:
            return command.handler(self, argument.strip(b" \t"))
        except RemoteProtocolError as error:
            return self.refuse(error.reply or answers.UNKNOWN_COMMAND)
        finally:
            self.secrets_may_follow = True

    def _obey_exchange(self, handler: CommandHandler, line: bytes) -> Event | None:
        if self._hear is not None:
            self._hear(HIDDEN)
        if len(line) + 2 > self._limits.auth_line:
            self._line_handler = None
            return self.refuse(answers.AUTH_LINE_TOO_LONG)
        self._line = HIDDEN
        self._line_handler = None
        # Should this response be refused, the client may send the next one all the same.
        self.secrets_may_follow = True
        try:
            return handler(self, line)
        except RemoteProtocolError as error:
            return self.refuse(error.reply or answers.AUTH_MESSAGE)

    def _refuse_unknown(self, verb: bytes) -> Event | None:
        if len(self._line) + 2 > self._limits.command_line:
            self._tell(self._shown_line)
            return self.refuse(answers.LINE_TOO_LONG)
        self._tell(self._shown_line)
        if self.data_was_refused:
            # The text of a message is about to be run as commands: part before it can do so.
            return self.refuse_and_close(answers.UNKNOWN_COMMAND_AFTER_DATA, "text behind a refused DATA")
        if self.octets_were_refused:
            return self.refuse_and_close(
                answers.UNKNOWN_COMMAND_AFTER_OCTETS, "octets behind a refused command"
            )
        if verb in _WEB_VERBS:
            return self.refuse_and_close(answers.UNKNOWN_COMMAND, "the client speaks HTTP")
        unknown = self.vocabulary.unknown
        argument = self._line.partition(b" ")[2].strip(b" \t")
        # A line that may be a client's credentials, out of step, is shown to nobody.
        if self.asked and not self.secrets_may_follow and self._asks_about(verb):
            return self.ask(verb, argument, unknown.handler, unknown.answered)
        return unknown.handler(self, argument)

    def _refuse_octet(self, octets: bytes) -> Event:
        """`octets` hold a bare CR, a bare LF or a NUL before any line end."""
        breach = breach_in(octets)
        self._line = breach.line
        self._tell(self._shown_line)
        return self.refuse_and_close(breach.reply, breach.words)

    def _read_unfinished_line(self) -> Event | None:
        """No line end yet: waits, unless what is there can never become a command."""
        longest = self.vocabulary.longest_line
        line = self._buffer[self._position : self._position + longest]
        # A CR at the very end may yet get its LF.
        if b"\r" in line[:-1] or b"\n" in line or b"\0" in line:
            return self._refuse_octet(line)
        if len(line) < longest:
            return None
        self._line = line if self._line_handler is None else HIDDEN
        self._state = State.JUNK
        self._junk = JunkLine(self._limits.junk_line)
        return None

    def _read_junk(self) -> Event | None:
        """Swallows the rest of an over-long line; one answer at its end."""
        junk = self._junk
        assert junk is not None
        stop = junk.swallow(self._buffer, self._position)
        if junk.is_endless:
            self._tell(self._shown_line)
            return self.refuse_and_close(answers.LINE_ENDLESS, "an endless line")
        self._consume(stop)
        if not junk.has_ended:
            return None
        self._junk = None
        self._state = State.COMMAND
        self._tell(self._shown_line)
        if self._line_handler is not None:
            self._line_handler = None
            return self.refuse(answers.AUTH_LINE_TOO_LONG)
        return self.refuse(answers.LINE_TOO_LONG)

    def _read_text(self) -> Event | None:
        decoder = self._decoder
        transaction = self.transaction
        assert decoder is not None and transaction is not None
        content = decoder.feed(self._buffer, self._position)
        self._consume(decoder.used)
        received = transaction.size
        limit = self._limits.size
        size = received + len(content)
        transaction.size = size
        if size > limit:
            # Read on to the real end: an early answer would leave the rest of the text to be run as commands.
            content = content[: limit - received] if received < limit else b""
            if size > 2 * limit:
                self.write(answers.FAR_TOO_LARGE)
                closed = self.close("a message of more than twice the SIZE limit")
                return self._after_chunk(content, closed)
        if not decoder.ended:
            return ContentChunk(content) if content else None
        self._state = State.COMMAND
        self._decoder = None
        self._decision = content_decided
        return self._after_chunk(content, ContentEnded(ContentMode.DATA, size, size > limit))

    def _after_chunk(self, content: bytes, event: Event) -> Event:
        if not content:
            return event
        self._later.append(event)
        return ContentChunk(content)

    def _read_octets(self) -> Event | None:
        start = self._position
        octets = self._buffer[start : start + self._octets_left]
        self._octets_left -= len(octets)
        self._consume(start + len(octets))
        event: Event | None = None
        is_wanted = self._octets_wanted
        if self._octets_left == 0:
            self._state = State.COMMAND
            done = self._octets_done
            assert done is not None
            event = done(self)
        if not is_wanted:
            return event
        if event is not None:
            self._later.append(event)
        return ContentChunk(octets)

    # --- showing ------------------------------------------------------------------------------------------------------

    def _tell(self, shown: Callable[[], bytes]) -> None:
        if self._hear is not None:
            self._hear(shown())

    def _shown_line(self) -> bytes:
        """The current line for logs and transcripts."""
        if self.secrets_may_follow or self._line_handler is not None:
            return HIDDEN
        return shown_line(self._line)


def content_decided(session: ServerSession, reply: Reply) -> None:
    """The one reply of the message; the transaction ends with it."""
    if 300 <= reply.code < 400:
        raise LocalProtocolError(f"the end of data is answered with 250 or refused, not with {reply.text}")
    transaction = session.transaction
    session.write(reply)
    if session.options.lmtp and transaction is not None:
        for _ in range(transaction.recipients - 1):
            session.write(reply)  # RFC 2033 §4.2: one for each RCPT that was taken, in their order
    session.transaction = None
    if reply.code < 300:
        session.message_accepted()


_OWN_EVENTS = frozenset({b"LHLO", b"EHLO", b"HELO", b"MAIL", b"RCPT", b"DATA", b"BDAT", b"AUTH"})
"""Commands that are decided where their grammar has been read."""

_WEB_VERBS = frozenset({b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"DELETE", b"PATCH"})
"""A browser made to talk to us: its header lines could be commands of an attacker."""
