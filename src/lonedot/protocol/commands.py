"""The commands of RFC 5321 that need no EHLO keyword. Each checks its sequence, then its argument."""

from __future__ import annotations

import re

from lonedot.protocol import answers
from lonedot.protocol.errors import LocalProtocolError
from lonedot.protocol.events import (
    ChunkRefused,
    ContentBegun,
    ContentMode,
    Event,
    Greeted,
    MailGiven,
    QuitGiven,
    RcptGiven,
    ResetGiven,
    VerifyGiven,
)
from lonedot.protocol.grammar import is_ehlo_line, parse_forward_path, parse_parameters, parse_reverse_path
from lonedot.protocol.options import DEFAULT_KEYWORDS
from lonedot.protocol.session import CommandHandler, Decider, ServerSession
from lonedot.protocol.transaction import MailParameters, RcptParameters, Transaction
from lonedot.terms.envelope import BodyType, Recipient, Ret
from lonedot.terms.reply import Reply

__all__ = [
    "ANSWERED",
    "COMMANDS",
    "LMTP_COMMANDS",
    "NOT_IMPLEMENTED",
    "command_answered",
    "not_implemented",
    "not_recognised",
    "unknown_answered",
]

_CLIENT_NAME = re.compile(rb"[ -~]{1,255}")
_PRINTABLE = re.compile(rb"[ -~\x80-\xff]+")


# --- session ----------------------------------------------------------------------------------------------------------


def _helo(session: ServerSession, argument: bytes) -> Event | None:
    hostname = session.options.hostname
    return _greet(session, b"HELO", argument, b"250 " + hostname + b"\r\n")


def _ehlo(session: ServerSession, argument: bytes) -> Event | None:
    vocabulary = session.vocabulary
    return _greet(
        session, b"EHLO", argument, vocabulary.ehlo_in_tls if session.tls_active else vocabulary.ehlo
    )


def _greet(session: ServerSession, verb: bytes, argument: bytes, answer: bytes) -> Event | None:
    # Devices send names that are no domains; the name decides nothing, so any printable text will do.
    if not _CLIENT_NAME.fullmatch(argument):
        return session.refuse(answers.CLIENT_NAME)
    if refused := session.count_idle():
        return refused
    if verb not in session.asked:
        return _greeted(session, verb, argument, answer)

    def answered(session: ServerSession, reply: Reply) -> None:
        if reply.code >= 400:
            session.write_decision(reply)  # RFC 5321 §4.1.4: the session stays in the state that it was in
            return
        event = _greeted(session, verb, argument, _greeting(answer, reply, session.options.hostname))
        session.later_first(event)

    return session.ask(verb, argument, lambda s, a: _greeted(s, verb, a, answer), answered)


def _greeting(answer: bytes, given: Reply, hostname: bytes) -> bytes:
    """The reply to EHLO or HELO with the shell's words in its first line, and with its keywords at the end.

    Raises:
        LocalProtocolError: the keywords are none, or are ours.
    """
    if given.code != 250:
        raise LocalProtocolError(f"EHLO is answered with 250 or refused, not with {given.text}")
    ours = [line[4:] for line in answer.split(b"\r\n")[1:-1]]
    words, *lines = given.lines
    keywords = [line.partition(b" ")[0].upper() for line in lines]
    if not all(map(is_ehlo_line, lines)) or len({*keywords} - DEFAULT_KEYWORDS) < len(lines):
        raise LocalProtocolError(f"keywords that cannot be offered: {given.text}")
    first = hostname + b" " + words if words else hostname
    return answers.encode(Reply(250, "", (first, *ours, *lines)), False)


def _greeted(session: ServerSession, verb: bytes, argument: bytes, answer: bytes) -> Event:
    session.write_octets(answer)
    session.is_greeted = True
    greeted = Greeted(verb, argument)
    if session.end_transaction():  # RFC 5321 §4.1.4: EHLO acts like RSET
        session.later(greeted)
        return ResetGiven()
    return greeted


def _lhlo(session: ServerSession, argument: bytes) -> Event | None:
    """As EHLO (RFC 2033 §4.1); whoever is asked about a greeting is asked about this one as about EHLO."""
    return _ehlo(session, argument)


def _lmtp_spoken(session: ServerSession, argument: bytes) -> Event | None:
    return session.refuse(answers.LMTP_SPOKEN)


def _rset(session: ServerSession, argument: bytes) -> Event | None:
    if argument:
        return session.refuse(answers.NO_ARGUMENT)
    if refused := session.count_idle():
        return refused
    session.write(answers.RESET)
    session.end_transaction()
    return ResetGiven()


def _noop(session: ServerSession, argument: bytes) -> Event | None:
    if refused := session.count_idle():
        return refused
    session.write(answers.OK)
    return None


def _help(session: ServerSession, argument: bytes) -> Event | None:
    if refused := session.count_idle():
        return refused
    session.write(answers.HELP)
    return None


def _quit(session: ServerSession, argument: bytes) -> Event | None:
    # An argument is wrong, but holding a client that wants to leave helps nobody.
    session.write(answers.BYE)
    session.hang_up()
    return QuitGiven()


def _verify(session: ServerSession, verb: bytes, argument: bytes) -> Event | None:
    if session.options.tls_required and not session.tls_active:
        return session.refuse(answers.TLS_FIRST)
    if not _PRINTABLE.fullmatch(argument):
        return session.refuse(answers.ARGUMENT_MISSING)
    if refused := session.count_idle():
        return refused
    session.decide(ServerSession.write_decision)
    return VerifyGiven(verb, argument)


def _vrfy(session: ServerSession, argument: bytes) -> Event | None:
    return _verify(session, b"VRFY", argument)


def _expn(session: ServerSession, argument: bytes) -> Event | None:
    return _verify(session, b"EXPN", argument)


def not_implemented(session: ServerSession, argument: bytes) -> Event | None:
    """A command that we know of and do not do, or whose extension is switched off (RFC 5321 §4.2.4)."""
    return session.refuse(answers.NOT_IMPLEMENTED)


# --- transaction ------------------------------------------------------------------------------------------------------


def _mail(session: ServerSession, argument: bytes) -> Event | None:
    if not session.is_greeted:
        return session.refuse(answers.LHLO_FIRST if session.options.lmtp else answers.EHLO_FIRST)
    if session.transaction is not None:
        return session.refuse(answers.NESTED_MAIL)
    options = session.options
    if options.tls_required and not session.tls_active:
        return session.refuse(answers.TLS_FIRST)
    if options.auth_required and not session.is_authenticated:
        return session.refuse(answers.AUTH_FIRST)
    path = parse_reverse_path(argument)
    if not path.parameters and path.is_ascii:
        session.decide(_mail_decided)
        return MailGiven(path.address, BodyType.UNSTATED, False, 0, Ret.UNSTATED, b"", path.tolerated)
    given = MailParameters()
    known = session.vocabulary.mail_parameters
    for keyword, value in parse_parameters(path.parameters):
        parse = known.get(keyword)
        if parse is None:
            return session.refuse(answers.PARAMETER_UNKNOWN)
        parse(session, value, given)
    if not path.is_ascii and not given.smtputf8:
        return session.refuse(answers.NEEDS_SMTPUTF8)
    session.decide(_utf8_mail_decided if given.smtputf8 else _mail_decided)
    return MailGiven(
        path.address, given.body, given.smtputf8, given.size, given.ret, given.envid, path.tolerated
    )


def _mail_decided(session: ServerSession, reply: Reply) -> None:
    session.write_decision(reply)
    if reply.code < 300 and not session.is_closed:
        session.transaction = Transaction(smtputf8=False)


def _utf8_mail_decided(session: ServerSession, reply: Reply) -> None:
    session.write_decision(reply)
    if reply.code < 300 and not session.is_closed:
        session.transaction = Transaction(smtputf8=True)


def _rcpt(session: ServerSession, argument: bytes) -> Event | None:
    transaction = session.transaction
    if transaction is None:
        return session.refuse(answers.MAIL_FIRST)
    if transaction.mode is not None:
        return session.refuse(answers.RCPT_AFTER_CONTENT)
    path = parse_forward_path(argument)
    notify = 0
    orcpt = b""
    if path.parameters:
        given = RcptParameters(smtputf8=transaction.smtputf8)
        known = session.vocabulary.rcpt_parameters
        for keyword, value in parse_parameters(path.parameters):
            parse = known.get(keyword)
            if parse is None:
                return session.refuse(answers.PARAMETER_UNKNOWN)
            parse(session, value, given)
        notify = int(given.notify)
        orcpt = given.orcpt
    if not path.is_ascii and not transaction.smtputf8:
        return session.refuse(answers.NEEDS_SMTPUTF8)
    limit = session.options.limits.recipients
    if transaction.recipients >= limit:
        transaction.overshoot += 1
        if transaction.overshoot > limit:
            return session.refuse(answers.TOO_MANY_RECIPIENTS)
        # An honest client sends the rest in another transaction: this is no error of its own.
        return session.answer_negative(answers.TOO_MANY_RECIPIENTS)
    session.decide(_rcpt_decided)
    return RcptGiven(Recipient(path.address, notify, orcpt), path.tolerated)


def _rcpt_decided(session: ServerSession, reply: Reply) -> None:
    session.write_decision(reply)
    transaction = session.transaction
    if reply.code < 300 and transaction is not None:
        transaction.recipients += 1


def _data(session: ServerSession, argument: bytes) -> Event | None:
    transaction = session.transaction
    event: Event | None = None
    if transaction is None:
        refusal = answers.MAIL_FIRST if session.is_greeted else answers.EHLO_FIRST
    elif argument:
        refusal = answers.NO_ARGUMENT
    elif transaction.mode is ContentMode.BDAT:
        refusal = answers.DATA_AFTER_BDAT  # RFC 3030 §2
        if not transaction.has_failed:
            transaction.has_failed = True
            event = ChunkRefused(refusal)
    elif transaction.recipients == 0:
        refusal = answers.NO_RECIPIENTS_LMTP if session.options.lmtp else answers.NO_RECIPIENTS
    else:
        session.decide(_data_decided)
        return ContentBegun(ContentMode.DATA)
    if session.buffered:
        refused = session.refuse_and_close(answers.EARLY_TEXT, "text before the reply to DATA")
    else:
        refused = session.refuse(refusal)
        session.data_was_refused = True
    if event is not None:
        session.later_first(event)
    return refused


def _data_decided(session: ServerSession, reply: Reply) -> None:
    if reply.code < 400 and reply.code != 354:
        raise LocalProtocolError(f"DATA is answered with 354 or refused, not with {reply.text}")
    if session.buffered:
        # DATA ends a pipelined group (RFC 2920 §3.1). What is behind it was sent without leave: were it taken for text,
        # or for commands after a refusal, the client and we could disagree on what it is.
        session.write(answers.EARLY_TEXT)
        session.later(session.close("text before the reply to DATA"))
        return
    session.write(reply)
    if reply.code == 354:
        session.read_text(ContentMode.DATA)
    else:
        session.data_was_refused = True


# --- commands that the shell answers in place of the machine ----------------------------------------------------------


def not_recognised(session: ServerSession, argument: bytes) -> Event | None:
    """A verb that means nothing here."""
    return session.refuse(answers.UNKNOWN_COMMAND)


def command_answered(session: ServerSession, reply: Reply) -> None:
    """A command that we could have obeyed."""
    if reply.code >= 400:
        session.write_decision(reply)
    else:
        _succeed(session, reply)


def unknown_answered(session: ServerSession, reply: Reply) -> None:
    """A command that we do not do: a refusal is an error of the client's, as ours would be."""
    if reply.code >= 400:
        session.later_first(session.refuse(reply))
    else:
        _succeed(session, reply)


def _succeed(session: ServerSession, reply: Reply) -> bool:
    if reply.code >= 300:
        raise LocalProtocolError(f"a command is answered with 2xx or refused, not with {reply.text}")
    if refused := session.count_idle():
        session.later_first(refused)
        return False
    session.write(reply)
    return True


def _rset_answered(session: ServerSession, reply: Reply) -> None:
    if reply.code >= 400:
        session.write_decision(reply)
    elif _succeed(session, reply):
        # The client believes that its transaction is forgotten, in whatever words.
        session.end_transaction()
        session.later_first(ResetGiven())


def _quit_answered(session: ServerSession, reply: Reply) -> None:
    # Holding a client that wants to leave helps nobody.
    session.obey()


def _starttls_answered(session: ServerSession, reply: Reply) -> None:
    if reply.code < 400:
        raise LocalProtocolError(f"STARTTLS is obeyed or refused, not answered with {reply.text}")
    session.write_decision(reply)


ANSWERED: dict[bytes, Decider] = {
    b"RSET": _rset_answered,
    b"QUIT": _quit_answered,
    b"STARTTLS": _starttls_answered,
}
"""Where another's answer is not the whole matter; for all others `command_answered`."""

COMMANDS: dict[bytes, CommandHandler] = {
    b"HELO": _helo,
    b"EHLO": _ehlo,
    b"MAIL": _mail,
    b"RCPT": _rcpt,
    b"DATA": _data,
    b"RSET": _rset,
    b"NOOP": _noop,
    b"QUIT": _quit,
    b"VRFY": _vrfy,
    b"EXPN": _expn,
    b"HELP": _help,
}

LMTP_COMMANDS: dict[bytes, CommandHandler] = {b"LHLO": _lhlo, b"EHLO": _lmtp_spoken, b"HELO": _lmtp_spoken}
"""What a listener for LMTP has in place of those."""

NOT_IMPLEMENTED = (b"TURN", b"ATRN", b"ETRN", b"SEND", b"SOML", b"SAML", b"BURL", b"LHLO")
"""Known verbs that are answered 502, so that an administrator can tell them from noise."""
