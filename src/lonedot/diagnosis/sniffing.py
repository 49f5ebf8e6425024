"""Captures of SMTP and LMTP, explained: frames in, one report for each session out.

Rules that must not break: a report is given as soon as its session is over; what is kept of sessions that go on is
bounded by `SESSIONS_LIMIT`, the longest silent goes first; a conversation that is not SMTP is forgotten at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from lonedot.diagnosis.capture.files import CaptureFault, Frame
from lonedot.diagnosis.capture.packets import RST, SYN, PacketReader, Segment, TooBig
from lonedot.diagnosis.capture.streams import Chunk, Connection, Ended, Gap
from lonedot.diagnosis.sniffing_dialogue import Dialogue, Finish
from lonedot.diagnosis.sniffing_values import SessionReport

__all__ = ["PORTS", "SESSIONS_LIMIT", "Sniffer"]

PORTS = frozenset({24, 25, 465, 587, 2525})
"""Ports on which SMTP or LMTP is expected; elsewhere it is found by what is said."""

SESSIONS_LIMIT = 2048
_EARLY_LIMIT = 16
_STUCK_OCTETS = 500
"""A black hole swallows segments larger than this."""

_HELLO = re.compile(rb"(?:EHLO|HELO|LHLO)[ \r]", re.IGNORECASE)
_BANNER = re.compile(rb"220[ -]")


class _Session:
    """A connection and its dialogue, once it is known for one."""

    __slots__ = ("client", "connection", "dialogue", "early", "is_over", "reset_by", "too_big")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.dialogue: Dialogue | None = None
        self.client = 0
        self.early: list[Chunk | Gap] = []
        """What was said before it was clear whether this is SMTP."""
        self.is_over = False
        """Reported, or not SMTP."""
        self.reset_by: int | None = None
        self.too_big = 0


class Sniffer:
    """Takes frames, gives reports."""

    def __init__(self, ports: Iterable[int] = ()) -> None:
        """`ports`: look at these alone; none given: at `PORTS`, and everywhere else for what sounds like SMTP."""
        self._only = frozenset(ports)
        self._packets = PacketReader()
        self._sessions: dict[tuple[object, object], _Session] = {}
        self._numbers = 0
        self._last_at = 0.0
        self.frames = 0
        self.segments = 0

    @property
    def unread(self) -> int:
        """Frames that hold no TCP."""
        return self._packets.unread

    def read(self, frames: Iterable[Frame]) -> Iterator[SessionReport]:
        """All of a capture, with what is still open at its end.

        Raises:
            CaptureFault: the capture is damaged; what was read before it has been reported.
        """
        fault: CaptureFault | None = None
        source = iter(frames)
        while True:
            try:
                frame = next(source, None)
            except CaptureFault as error:
                fault = error
                break
            if frame is None:
                break
            yield from self.take(frame)
        yield from self.finish()
        if fault is not None:
            raise fault

    def take(self, frame: Frame) -> Iterator[SessionReport]:
        """One frame more."""
        self.frames += 1
        found = self._packets.read(frame)
        if found is None:
            return
        self._last_at = max(self._last_at, found.at)
        if isinstance(found, TooBig):
            session = self._sessions.get(_key(found))
            if session is not None:
                session.too_big = found.mtu
            return
        self.segments += 1
        if self._only and found.source.port not in self._only and found.target.port not in self._only:
            return
        key = _key(found)
        session = self._sessions.pop(key, None)
        opens = bool(found.flags & SYN)
        if session is None or (opens and session.is_over):
            if not opens and not found.payload and not found.cut:
                return
            if len(self._sessions) >= SESSIONS_LIMIT:
                oldest = self._sessions.pop(next(iter(self._sessions)))
                yield from self._conclude(oldest)
            session = _Session(Connection(found.source, found.target))
        self._sessions[key] = session  # the last one now
        if not session.is_over:
            yield from self._follow(session, found)

    def _follow(self, session: _Session, found: Segment) -> Iterator[SessionReport]:
        connection = session.connection
        for event in connection.take(found):
            self._tell(session, event)
        if session.is_over:  # not SMTP
            return
        if session.dialogue is None and found.flags & SYN and connection.opened_by is not None:
            self._judge_port(session, found.at)
        if found.flags & RST or connection.is_over:
            yield from self._conclude(session)

    def finish(self) -> Iterator[SessionReport]:
        """What is still open."""
        for session in self._sessions.values():
            yield from self._conclude(session)
        self._sessions.clear()

    def _judge_port(self, session: _Session, at: float) -> None:
        """A connection that begins on a port of ours is SMTP before anything is said."""
        connection = session.connection
        opened_by = connection.opened_by
        server = connection.second if opened_by == 0 else connection.first
        if server.port in (self._only or PORTS):
            session.client = opened_by or 0
            self._begin(session, at, from_start=True)

    def _begin(self, session: _Session, at: float, *, from_start: bool) -> None:
        self._numbers += 1
        ends = (session.connection.first, session.connection.second)
        session.dialogue = Dialogue(
            self._numbers,
            str(ends[session.client]),
            str(ends[1 - session.client]),
            at,
            from_start=from_start,
        )
        early, session.early = session.early, []
        for event in early:
            self._tell(session, event)

    def _tell(self, session: _Session, event: Chunk | Gap | Ended) -> None:
        if isinstance(event, Ended):
            if event.is_reset and session.reset_by is None:
                session.reset_by = event.side
            return
        dialogue = session.dialogue
        if session.is_over:
            return
        if dialogue is None:
            self._recognise(session, event)
        elif isinstance(event, Chunk):
            dialogue.hear(event.side == session.client, event.octets, event.at, event.number)
        else:
            dialogue.lose(event.side == session.client, event.length, event.at, event.number)

    def _recognise(self, session: _Session, event: Chunk | Gap) -> None:
        """Is it SMTP, and who is the client?"""
        connection = session.connection
        ports = self._only or PORTS
        session.early.append(event)
        at = session.early[0].at
        opened_by = connection.opened_by
        if opened_by is not None:
            session.client = opened_by
        elif connection.second.port in ports:
            session.client = 0
        elif connection.first.port in ports:
            session.client = 1
        elif isinstance(event, Chunk) and _HELLO.match(event.octets):
            session.client = event.side
        elif isinstance(event, Chunk) and _BANNER.match(event.octets):
            session.client = 1 - event.side
        server = connection.second if session.client == 0 else connection.first
        is_hello = (
            isinstance(event, Chunk)
            and event.side == session.client
            and _HELLO.match(event.octets) is not None
        )
        if server.port in ports or is_hello:
            self._begin(session, at, from_start=opened_by is not None)
        elif (
            len(session.early) >= _EARLY_LIMIT
            or isinstance(event, Gap)
            or event.side == session.client
            or not (len(session.early) > 1 or _BANNER.match(event.octets))
        ):
            session.is_over = True
            session.early = []

    def _conclude(self, session: _Session) -> Iterator[SessionReport]:
        if session.is_over:
            return
        connection = session.connection
        for event in connection.flush():
            self._tell(session, event)
        session.is_over = True
        dialogue, session.dialogue = session.dialogue, None
        if dialogue is None:
            return
        at, closed_by = self._end_of(session)
        stuck = [d.stuck_largest if d.seen > d.acked else 0 for d in connection.directions]
        side = 0 if stuck[0] >= stuck[1] else 1
        yield dialogue.conclude(
            Finish(
                at=at,
                closed_by=closed_by,
                is_reset=session.reset_by is not None,
                has_connection=connection.has_start or connection.opened_by is None,
                stuck=stuck[side] if stuck[side] >= _STUCK_OCTETS else 0,
                stuck_side="client" if side == session.client else "server",
                too_big=session.too_big,
                retransmissions=sum(d.retransmissions for d in connection.directions),
            )
        )

    def _end_of(self, session: _Session) -> tuple[float, str]:
        """When it ended, and who ended it first."""
        fins = [d.fin_at for d in session.connection.directions]
        times = [(fin[1].number, fin[1].at, side) for side, fin in enumerate(fins) if fin is not None]
        if times:
            _, at, side = min(times)
        elif session.reset_by is not None:
            at, side = session.connection.last_at, session.reset_by
        else:
            return self._last_at, ""
        return at, "client" if side == session.client else "server"


def _key(segment: Segment | TooBig) -> tuple[object, object]:
    """The same for both directions."""
    one, two = segment.source, segment.target
    return (one, two) if one < two else (two, one)
