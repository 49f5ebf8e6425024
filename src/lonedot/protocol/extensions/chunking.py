"""CHUNKING (RFC 3030): BDAT. The count frames the content: no dots, no end mark, and nothing in it is a command.

Rules that must not break:

1. A refused chunk still owns its octets: they are read and dropped, then answered.
2. A size that cannot be read leaves no frame: the session ends.
3. That holds while it is switched off, too: a client that sends BDAT unasked is answered 502 behind its octets.
4. After a failed chunk the transaction is dead; further chunks are dropped and answered 503 until RSET or EHLO.
"""

from __future__ import annotations

from lonedot.protocol import answers
from lonedot.protocol.errors import LocalProtocolError
from lonedot.protocol.events import ChunkRefused, ContentBegun, ContentEnded, ContentMode, Event
from lonedot.protocol.extension import Extension, plain_line
from lonedot.protocol.grammar import parse_size
from lonedot.protocol.session import ServerSession, content_decided
from lonedot.terms.reply import Reply

__all__ = ["CHUNKING"]


def _bdat(session: ServerSession, argument: bytes) -> Event | None:
    words = argument.split(b" ")
    size = parse_size(words[0])
    is_last = len(words) == 2 and words[1].upper() == b"LAST"
    if size < 0 or (len(words) > 1 and not is_last):
        return session.refuse_and_close(answers.CHUNK_SYNTAX, "a BDAT without a readable size")
    limit = session.options.limits.size
    transaction = session.transaction
    received = transaction.size if transaction is not None else 0
    if received + size > 2 * limit:
        return session.refuse_and_close(answers.FAR_TOO_LARGE, "a chunk of more than twice the SIZE limit")
    if transaction is None:
        return _drop(session, size, answers.MAIL_FIRST if session.is_greeted else answers.EHLO_FIRST)
    if transaction.has_failed:
        return _drop(session, size, answers.TRANSACTION_FAILED)
    if transaction.recipients == 0:
        return _drop(session, size, answers.NO_RECIPIENTS)
    if received + size > limit:
        transaction.has_failed = True
        if transaction.mode is None:
            # Nothing was handed out, so there is nothing to drop.
            transaction.mode = ContentMode.BDAT
            return _drop(session, size, answers.TOO_LARGE)
        return _drop(session, size, answers.TOO_LARGE, has_content=True)
    if size == 0 and not is_last and (refused := session.count_idle()):
        return refused
    if transaction.mode is not None:
        return _take(session, size, is_last)
    transaction.mode = ContentMode.BDAT

    def decided(session: ServerSession, reply: Reply) -> None:
        _begin_decided(session, reply, size, is_last)

    session.decide(decided)
    return ContentBegun(ContentMode.BDAT)


def _bdat_off(session: ServerSession, argument: bytes) -> Event | None:
    size = parse_size(argument.partition(b" ")[0])
    if size < 0:
        return session.refuse_and_close(answers.NOT_IMPLEMENTED, "a BDAT without a readable size")
    if size > session.options.limits.size:
        return session.refuse_and_close(answers.NOT_IMPLEMENTED, "a chunk of more than the SIZE limit")
    return _drop(session, size, answers.NOT_IMPLEMENTED)


def _begin_decided(session: ServerSession, reply: Reply, size: int, is_last: bool) -> None:
    if 300 <= reply.code < 400:
        raise LocalProtocolError(f"BDAT is answered with 250 or refused, not with {reply.text}")
    if reply.code < 300:
        event = _take(session, size, is_last)
    else:
        transaction = session.transaction
        assert transaction is not None
        transaction.has_failed = True

        def done(session: ServerSession) -> Event | None:
            session.write(reply)
            return None

        event = session.read_octets(size, done, is_wanted=False)
    if event is not None:
        session.later(event)


def _take(session: ServerSession, size: int, is_last: bool) -> Event | None:
    def done(session: ServerSession) -> Event | None:
        transaction = session.transaction
        assert transaction is not None
        transaction.size += size
        if is_last:
            session.decide(content_decided)
            return ContentEnded(ContentMode.BDAT, transaction.size, over_limit=False)
        session.write(answers.chunk_received(size))
        return None

    return session.read_octets(size, done, is_wanted=True)


def _drop(session: ServerSession, size: int, refusal: Reply, *, has_content: bool = False) -> Event | None:
    def done(session: ServerSession) -> Event | None:
        refused = session.refuse(refusal)
        if not has_content:
            return refused
        session.later_first(ChunkRefused(refusal))
        return refused

    return session.read_octets(size, done, is_wanted=False)


CHUNKING = Extension(
    b"CHUNKING", plain_line(b"CHUNKING"), commands={b"BDAT": _bdat}, commands_off={b"BDAT": _bdat_off}
)
