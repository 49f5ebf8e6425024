"""One session as it stands in a capture: the client's and the server's octets in, a report out.

What the client says is read as the relay's own listener reads it (`protocol.data` for the text, `protocol.grammar` for
paths), what the server says as its own client does (`protocol.replies`).

Rules that must not break:

1. What was not caught is not judged: behind a gap nothing is called missing, early or unanswered.
2. Nothing grows with the session: steps, findings, lines and what is owed are bounded.
3. What follows AUTH is never shown.
"""

from __future__ import annotations

import enum
import re
from collections import deque
from typing import NamedTuple

from lonedot.diagnosis.octets import visible, visible_start
from lonedot.diagnosis.sniffing_notes import Notes, named
from lonedot.diagnosis.sniffing_text import Oddity, SentText, wrong_end_of
from lonedot.diagnosis.sniffing_values import (
    VERDICTS,
    WEIGHT_ORDER,
    Code,
    SessionReport,
    Wait,
    Weight,
)
from lonedot.protocol.errors import RemoteProtocolError
from lonedot.protocol.grammar import parse_forward_path, parse_reverse_path
from lonedot.protocol.replies import ReplyReader
from lonedot.terms.reply import Reply

__all__ = ["SLOW_SECONDS", "Dialogue", "Finish"]

SLOW_SECONDS = 30.0
"""An answer that took longer is worth a notice, and one that never came is judged as missing."""

_LINE_LIMIT = 64 * 1024
_OWED_LIMIT = 1000
_SHOWN = 160

_VERB = re.compile(rb"[A-Za-z][A-Za-z0-9-]{2,}(?=[ \t]|\Z)")
_STARS = re.compile(rb"\*{4}")
_BLOTTED_KEYWORD = re.compile(rb"X{4,}[A-Z]?\Z")
_BLOTTED_VERB = re.compile(rb"(?:X{4}|\*{4})[X*]*\Z")
_MUST_WAIT = frozenset({b"EHLO", b"HELO", b"LHLO", b"VRFY", b"EXPN", b"TURN", b"ETRN", b"STARTTLS", b"AUTH"})
_GO_AHEAD = frozenset({b"DATA", b"STARTTLS", b"AUTH", b"XEXCH50"})
_EXCHANGE = frozenset({b"XEXCH50", b"X-LINK2STATE"})
_END = b"end of data"
_BANNER = b"banner"


class Mode(enum.Enum):
    """What the client is doing."""

    COMMANDS = "commands"
    WAITING = "waiting"
    """For leave: behind DATA, STARTTLS, AUTH, XEXCH50."""
    TEXT = "text"
    CHUNK = "chunk"
    LOGIN = "login"
    TLS = "tls"
    UNSURE = "unsure"
    """Behind a gap, or before anything is known."""


class Owed(NamedTuple):
    """What the server has to answer."""

    what: bytes
    at: float
    frame: int
    line: bytes = b""


class Finish(NamedTuple):
    """How the session ended, as TCP shows it."""

    at: float
    closed_by: str
    """`client`, `server`; empty when the capture ends first."""
    is_reset: bool
    has_connection: bool
    stuck: int
    """Octets of the largest segment that was sent again and never acknowledged; 0: none."""
    stuck_side: str
    too_big: int
    """The MTU that a router named; 0: none did."""
    retransmissions: int


class Dialogue:
    """Reads one session."""

    def __init__(self, number: int, client: str, server: str, at: float, *, from_start: bool) -> None:
        self._number = number
        self._client, self._server = client, server
        self._began_at = self._last_at = at
        self._from_start = from_start
        self._mode = Mode.COMMANDS if from_start else Mode.UNSURE
        self._protocol = "SMTP"
        self._line = b""
        self._owed: deque[Owed] = deque([Owed(_BANNER, at, 0)] if from_start else [])
        self._replies = ReplyReader()
        self._text: SentText | None = None
        self._text_base = 0
        self._text_has_gap = False
        self._may_be_text = False
        self._last_tail = b""
        self._end_pieces = 1
        self._end_frame = 0
        self._behind_end = False
        self._chunk_left = 0
        self._login_secret = False
        self._pipelining: bool | None = None if not from_start else False
        self._size_limit = 0
        self._accepted = 0
        self._has_quit = False
        self._is_lossy = not from_start
        self._server_is_cut = not from_start
        self._server_is_strange = False
        self._missing = 0
        self._messages = 0
        self._heard = [0, 0]
        self._tls_said = [b"", b""]
        self._last_side = ""
        self._notes = Notes()
        if not from_start:
            self._notes.find(Code.MID_STREAM, "the session began before the capture", at, 0)

    # --- in -------------------------------------------------------------------------------------------

    def hear(self, is_client: bool, octets: bytes, at: float, frame: int) -> None:
        """Octets that one side said."""
        if is_client and self._last_side == "server" and not self._owed and self._mode is not Mode.TLS:
            self._notes.waited(at - self._last_at, "server", "the next command")
        self._last_side = "client" if is_client else "server"
        self._last_at = at
        if is_client and not self._heard[0] and octets[:2] == b"\x16\x03":
            self._mode = Mode.TLS
            self._owed.clear()
        if self._mode is Mode.TLS:
            self._hear_tls(is_client, octets, at, frame)
        elif is_client:
            self._hear_client(octets, at, frame)
        else:
            self._hear_server(octets, at, frame)
        self._heard[not is_client] += len(octets)

    def lose(self, is_client: bool, length: int, at: float, frame: int) -> None:
        """Octets of one side that were not caught."""
        self._missing += length
        self._heard[not is_client] += length
        self._notes.find(Code.LOSS, f"{length} octets of the {_side(is_client)} were not caught", at, frame)
        self._notes.step(at, _side(is_client), f"… {length} octets not caught")
        if self._mode is Mode.TLS:
            return
        self._is_lossy = True
        if not is_client:
            self._replies.clear()
            self._server_is_cut = True
            # Which answers were lost is unknown: with the next command the two are in step again.
            self._may_be_text = any(owed.what == b"DATA" for owed in self._owed)
            self._owed.clear()
            if self._mode is Mode.WAITING or (self._mode is Mode.TEXT and self._text_has_gap):
                self._mode = Mode.UNSURE
                self._text = None
        elif self._mode is Mode.TEXT and self._text is not None:
            self._close_text(is_cut=True)
            self._text_base += self._text.size + length
            self._text = SentText(from_start=False)
            self._text_has_gap = True
        elif self._mode is Mode.CHUNK and length <= self._chunk_left:
            self._chunk_left -= length
        else:
            self._line = b""
            self._mode = Mode.UNSURE

    # --- the client -----------------------------------------------------------------------------------

    def _hear_client(self, octets: bytes, at: float, frame: int) -> None:
        while octets:
            match self._mode:
                case Mode.TEXT:
                    octets = self._take_text(octets, at, frame)
                case Mode.CHUNK:
                    taken = min(len(octets), self._chunk_left)
                    self._chunk_left -= taken
                    octets = octets[taken:]
                    if not self._chunk_left:
                        self._mode = Mode.COMMANDS
                case Mode.UNSURE:
                    octets = self._find_footing(octets)
                case Mode.WAITING:
                    waits_for = self._owed[-1].what if self._owed else b""
                    if not self._is_lossy and not self._line:
                        words = f"the client sent more behind {waits_for.decode()} before the answer"
                        shown = b"" if waits_for == b"AUTH" else octets[:48]
                        self._notes.find(Code.PIPELINING, words, at, frame, octets=shown)
                    self._line = (self._line + octets)[:_LINE_LIMIT]
                    return
                case Mode.COMMANDS | Mode.LOGIN:
                    octets = self._take_line(octets, at, frame)
                case Mode.TLS:
                    self._hear_tls(True, octets, at, frame)
                    return

    def _find_footing(self, octets: bytes) -> bytes:
        """Behind a gap: is this a command, or the text?"""
        first = octets.partition(b"\n")[0].rstrip(b"\r")
        verb = _VERB.match(first)
        if verb is not None and (verb[0].upper() in _KNOWN or b"\n" not in octets[:_LINE_LIMIT]):
            self._mode = Mode.COMMANDS
            return octets
        if self._may_be_text:
            self._may_be_text = False
            self._begin_text(from_start=False)
            return octets
        end = octets.find(b"\r\n.\r\n")
        if end >= 0:
            self._mode = Mode.COMMANDS
            self._notes.step(self._last_at, "client", "… end of data")
            return octets[end + 5 :]
        return b""

    def _take_line(self, octets: bytes, at: float, frame: int) -> bytes:
        end = octets.find(b"\n")
        if end < 0:
            self._line += octets
            if len(self._line) > _LINE_LIMIT:
                self._notes.find(
                    Code.COMMAND_MALFORMED, "a line that does not end", at, frame, octets=self._line[:48]
                )
                self._line = b""
                self._mode = Mode.UNSURE
            return b""
        line = self._line + octets[: end + 1]
        self._line = b""
        if self._mode is Mode.LOGIN:
            self._notes.step(at, "client", "(login, not shown)")
            self._mode = Mode.WAITING
            self._owe(b"AUTH", at, frame)
        else:
            self._command(line, at, frame)
        return octets[end + 1 :]

    def _command(self, line: bytes, at: float, frame: int) -> None:
        bare = line[:-1].rstrip(b"\r") if line.endswith(b"\r\n") else line[:-1]
        found = _VERB.match(bare)
        verb = found[0].upper() if found else b""
        is_secret = verb == b"AUTH"
        shown = b" ".join(bare.split()[:2]) + b" ..." if is_secret and len(bare.split()) > 2 else bare
        offset = self._heard[0]
        if self._is_lossy:
            pass
        elif self._behind_end and verb not in _KNOWN:
            words = f"behind the end of data comes text, not a command: {visible_start(bare, 48)}"
            self._notes.find(Code.END_EARLY, words, at, frame, offset=offset, octets=bare[:48])
        elif not line.endswith(b"\r\n"):
            words = f"a command ends in a bare LF: {visible_start(shown, 48)}"
            self._notes.find(Code.BARE_LINE_END, words, at, frame, offset=offset, octets=shown[-40:] + b"\n")
        elif b"\r" in bare:
            self._notes.find(
                Code.BARE_LINE_END, "a bare CR in a command", at, frame, offset=offset, octets=shown[:48]
            )
        if _BLOTTED_VERB.fullmatch(verb or bare[:4]):
            words = f"the client's verb arrives as {visible_start(bare, 24)}"
            self._notes.find(Code.BANNER_MANGLED, words, at, frame, octets=bare[:48])
        elif not verb and not self._behind_end and not self._is_lossy:
            words = f"not a command: {visible_start(bare, 48)}"
            self._notes.find(Code.COMMAND_MALFORMED, words, at, frame, offset=offset, octets=bare[:48])
        if self._owed and not self._is_lossy:
            self._judge_early(verb, at, frame, shown)
        if verb in (b"EHLO", b"LHLO"):
            self._protocol = "LMTP" if verb == b"LHLO" else "ESMTP"
        if verb in (b"EHLO", b"HELO", b"LHLO", b"MAIL", b"RSET"):
            self._accepted = 0
        if verb == b"QUIT":
            self._has_quit = True
        if self._behind_end and verb in _KNOWN:
            self._behind_end = False
        announced = re.search(rb" SIZE=([0-9]{1,15})", bare, re.I) if verb == b"MAIL" else None
        if announced and self._size_limit and int(announced[1]) > self._size_limit:
            words = f"the client announces {int(announced[1])} octets, the server takes {self._size_limit}"
            self._notes.find(Code.SIZE, words, at, frame)
        self._notes.step(at, "client", visible_start(shown, _SHOWN))
        self._owe(verb or b"?", at, frame, b"" if is_secret else bare[:_SHOWN])
        if verb in _GO_AHEAD:
            self._mode = Mode.WAITING
            if verb == b"XEXCH50":
                size = re.match(rb"XEXCH50 +([0-9]{1,9})", bare, re.IGNORECASE)
                self._chunk_left = int(size[1]) if size else 0
        elif verb == b"BDAT" and (size := re.match(rb"BDAT +([0-9]{1,15})", bare, re.IGNORECASE)):
            self._chunk_left = int(size[1])
            if self._chunk_left:
                self._mode = Mode.CHUNK

    def _judge_early(self, verb: bytes, at: float, frame: int, line: bytes) -> None:
        before = [owed.what for owed in self._owed]
        if before == [_BANNER]:
            words = f"the client spoke before the banner: {visible_start(line, 40)}"
        elif before[-1] in _MUST_WAIT:
            words = f"{verb.decode() or 'more'} was sent before the answer to {before[-1].decode()}"
        elif self._pipelining is False and verb != b"QUIT":
            words = f"{verb.decode() or 'more'} was sent before the answer, and PIPELINING was not offered"
        else:
            return
        self._notes.find(Code.PIPELINING, words, at, frame, offset=self._heard[0], octets=line[:48])

    def _begin_text(self, *, from_start: bool) -> None:
        self._mode = Mode.TEXT
        self._text = SentText(from_start=from_start)
        self._text_base = 0
        self._text_has_gap = not from_start

    def _take_text(self, octets: bytes, at: float, frame: int) -> bytes:
        text = self._text
        assert text is not None
        used = text.feed(octets, at, frame)
        if text.has_ended:
            self._close_text()
            size = self._text_base + text.size
            self._notes.step(at, "client", f"(text, {size} octets) {visible(text.tail[-24:])}")
            self._end_pieces, self._end_frame = text.end_pieces, frame
            if self._size_limit and size - 5 > self._size_limit:
                words = f"the text has {size - 5} octets, the server takes {self._size_limit}"
                self._notes.find(Code.SIZE, words, at, frame)
            for _ in range(self._accepted if self._protocol == "LMTP" else 1):
                self._owe(_END, at, frame)
            self._mode = Mode.COMMANDS
            self._behind_end = True
            self._text = None
        return octets[used:]

    def _close_text(self, *, is_cut: bool = False) -> None:
        """Judge what the text held so far. `is_cut`: more of it was said, but not caught."""
        text = self._text
        if text is None:
            return
        if not is_cut:
            text.conclude()
        self._last_tail = text.tail
        for code, odd, words in (
            (
                Code.SMUGGLING,
                text.hidden,
                "behind what a lax server takes for the end of data stand commands",
            ),
            (Code.NOT_STUFFED, text.not_stuffed, "a line of the text begins with a single dot"),
            (Code.BARE_LINE_END, text.bare, "a bare CR or LF in the text"),
        ):
            if odd is not None:
                self._odd(code, odd, words)

    def _odd(self, code: Code, odd: Oddity, words: str) -> None:
        offset = self._text_base + odd.offset
        times = f", {odd.times} times" if odd.times > 1 else ""
        self._notes.find(
            code, f"{words}, first at octet {offset} of the message{times}", odd.at, odd.frame,
            offset=offset, octets=odd.around,
        )  # fmt: skip

    # --- the server -----------------------------------------------------------------------------------

    def _hear_server(self, octets: bytes, at: float, frame: int) -> None:
        if self._server_is_cut:
            found = re.search(rb"(?:\A|\n)(?=[2-5][0-9]{2}[ -])", octets)
            if found is None:
                return
            self._server_is_cut = False
            octets = octets[found.end() :]
        self._replies.feed(octets)
        while True:
            try:
                reply = self._replies.next()
            except RemoteProtocolError as error:
                self._replies.clear()
                self._strange(octets, str(error), at, frame)
                return
            if reply is None:
                return
            self._reply(reply, at, frame)

    def _strange(self, octets: bytes, words: str, at: float, frame: int) -> None:
        self._notes.step(at, "server", visible_start(octets, _SHOWN), is_fault=True)
        if _STARS.search(octets) or octets[:4] == b"XXXX":
            self._notes.find(
                Code.BANNER_MANGLED, f"the server's words arrive as {visible_start(octets, 40)}", at, frame
            )
        elif not self._is_lossy:
            self._notes.find(
                Code.REPLY_MALFORMED, words, at, frame, offset=self._heard[1], octets=octets[:48]
            )
        self._server_is_strange = True
        if self._owed:
            self._owed.popleft()
        if self._mode is Mode.WAITING:
            self._mode = Mode.UNSURE

    def _reply(self, reply: Reply, at: float, frame: int) -> None:
        owed = self._owed.popleft() if self._owed else None
        if reply.code == 421 and owed is not None and owed.what not in (_BANNER, _END):
            self._owed.clear()
        what = owed.what if owed is not None else b""
        self._notes.step(at, "server", reply.text[:_SHOWN], is_fault=reply.code >= 400)
        if owed is not None:
            self._notes.waited(at - owed.at, "client", f"the answer to {_told(owed)}")
            if at - owed.at > SLOW_SECONDS:
                words = f"the answer to {_told(owed)} took {at - owed.at:.1f} s"
                self._notes.find(Code.SLOW, words, at, frame)
        if any(_STARS.search(line) for line in reply.lines) and what in (_BANNER, b"EHLO", b"HELO"):
            self._notes.find(
                Code.BANNER_MANGLED, f"the server's words arrive as {reply.text[:60]}", at, frame
            )
        if reply.code >= 400:
            self._refusal(reply, what, owed, at, frame)
        if self._mode is Mode.TEXT:
            self._reply_in_text(reply, at, frame)
            return
        match what:
            case b"EHLO" | b"LHLO" if reply.code == 250:
                self._learn(reply, at, frame)
            case b"RCPT" if reply.code < 300:
                self._accepted += 1
            case b"end of data" | b"BDAT":
                self._behind_end = self._behind_end and what != _END
                if reply.code < 300 and not (
                    what == b"BDAT" and owed is not None and b"LAST" not in owed.line.upper()
                ):
                    self._messages += 1
            case _:
                pass
        if self._mode is Mode.WAITING and not self._owed:
            self._go_ahead(what, reply, at, frame)
        elif self._mode is Mode.UNSURE and reply.code == 354:
            self._begin_text(from_start=True)
        elif self._mode is Mode.UNSURE and not self._from_start:
            self._mode = Mode.COMMANDS
            self._is_lossy = False

    def _go_ahead(self, what: bytes, reply: Reply, at: float, frame: int) -> None:
        held, self._line = self._line, b""
        if held and what == b"AUTH" and reply.code != 334:
            # Sent without waiting: what of it is a secret and what a command cannot be told.
            held = b""
            self._is_lossy = True
            self._notes.step(at, "client", "(more behind AUTH, not shown)")
        self._mode = Mode.COMMANDS
        if what == b"DATA" and reply.code == 354:
            self._begin_text(from_start=True)
        elif what == b"AUTH" and reply.code == 334:
            self._mode = Mode.LOGIN
        elif what == b"XEXCH50" and reply.code == 354 and self._chunk_left:
            self._mode = Mode.CHUNK
        elif what == b"STARTTLS" and reply.code == 220:
            self._mode = Mode.TLS
        if held:
            self._hear_client(held, at, frame)

    def _reply_in_text(self, reply: Reply, at: float, frame: int) -> None:
        """The server answers before the end of data came."""
        text = self._text
        assert text is not None
        if not self._text_has_gap:
            self._unfinished(at, f"the server answered {reply.text[:80]}", accepted=reply.code < 300)
        if reply.code < 300:
            self._messages += 1
        self._text = None
        self._mode = Mode.COMMANDS

    def _refusal(self, reply: Reply, what: bytes, owed: Owed | None, at: float, frame: int) -> None:
        words = f"{_told(owed)} was answered with {reply.text[:120]}"
        if owed is None:
            words = f"the server said {reply.text[:120]}"
        if what in _EXCHANGE:
            self._notes.find(Code.EXCHANGE_VERB, words, at, frame)
            return
        if reply.enhanced in ("5.3.4", "5.2.3") or (reply.code == 552 and reply.enhanced in ("", "5.0.0")):
            self._notes.find(Code.SIZE, words, at, frame)
            return
        if owed is not None and what in (b"MAIL", b"RCPT") and reply.code in (500, 501, 555):
            parse = parse_reverse_path if what == b"MAIL" else parse_forward_path
            try:
                parse(owed.line[5:].lstrip())
            except RemoteProtocolError as error:
                self._notes.find(Code.COMMAND_MALFORMED, f"{words}: {error}", at, frame, octets=owed.line)
                return
        if what != b"EHLO":
            self._notes.find(Code.REFUSED, words, at, frame)

    def _learn(self, reply: Reply, at: float, frame: int) -> None:
        """The keywords of EHLO."""
        self._pipelining = False
        self._size_limit = 0
        for line in reply.lines[1:]:
            keyword, _, argument = line.partition(b" ")
            if keyword.upper() == b"PIPELINING":
                self._pipelining = True
            elif keyword.upper() == b"SIZE" and argument.isdigit() and len(argument) < 16:
                self._size_limit = int(argument)
            elif _BLOTTED_KEYWORD.fullmatch(keyword):
                words = f"a keyword of EHLO arrives as {visible_start(line, 40)}"
                self._notes.find(Code.BANNER_MANGLED, words, at, frame, octets=line[:48])

    # --- TLS ------------------------------------------------------------------------------------------

    def _hear_tls(self, is_client: bool, octets: bytes, at: float, frame: int) -> None:
        side = 0 if is_client else 1
        said = self._tls_said[side]
        if not said:
            kind = "TLS" if octets[:1] == b"\x16" else "what is no TLS"
            self._notes.step(at, _side(is_client), f"({kind} begins)")
            if octets[:1] == b"\x16":
                if is_client:
                    self._notes.find(Code.TLS, "TLS begins: what follows cannot be read", at, frame)
            elif octets[:1] != b"\x15":
                words = f"the {_side(is_client)} sent what is no TLS handshake"
                self._notes.find(Code.TLS_FAILED, words, at, frame, octets=octets[:32])
        if octets[:2] == b"\x15\x03" and octets[3:6] == b"\x00\x02\x02":
            words = f"the {_side(is_client)} broke the handshake off with alert {octets[6] if len(octets) > 6 else '?'}"
            self._notes.find(Code.TLS_FAILED, words, at, frame)
        self._tls_said[side] = said or octets[:8]

    # --- the end --------------------------------------------------------------------------------------

    def _unfinished(self, at: float, how: str, *, accepted: bool = False) -> bool:
        """The text has not ended; is what it ends with what its sender takes for the end? Then it is told."""
        text = self._text
        assert text is not None
        self._close_text()
        wrong = wrong_end_of(text.tail)
        if wrong is None or text.size < len(wrong):
            return False
        offset = self._text_base + text.size - len(wrong)
        before = text.tail[: -len(wrong)].rpartition(b"\n")[2][-16:]
        shown = named(before + wrong)
        if accepted:
            words = f"the text ends with {shown} at octet {offset}, and the server took it for the end"
            self._notes.find(Code.END_ACCEPTED, words, text.at, text.frame, offset=offset, octets=text.tail)
            return True
        words = (
            f"the text ends with {shown} at octet {offset} of the message, not with CR LF . CR LF: the server waited "
            f"for the end of data, the client for the answer; {how}"
        )
        self._notes.find(Code.END_WRONG, words, text.at, text.frame, offset=offset, octets=text.tail)
        return True

    def conclude(self, finish: Finish) -> SessionReport:
        """The report. The dialogue is over."""
        waited = max(0.0, finish.at - self._last_at)
        if finish.closed_by:
            did = "reset" if finish.is_reset else "closed"
            how = f"after {waited:.1f} s the {finish.closed_by} {did} the connection"
        else:
            how = f"the capture ends {waited:.1f} s later"
        last_wait = self._judge_end(finish, waited, how)
        if finish.closed_by:
            self._notes.step(finish.at, "", how)
        order = sorted(self._notes.findings, key=lambda finding: (WEIGHT_ORDER[finding.code], finding.at))
        worst = order[0] if order else None
        if worst is None:
            taken = f"{self._messages} message{'s' if self._messages != 1 else ''} taken"
            verdict = f"clean, {taken}"
        else:
            times = f" ({self._notes.times[worst.code]} times)" if self._notes.times[worst.code] > 1 else ""
            verdict = f"{VERDICTS[worst.code].title}{times}: {worst.words}"
        return SessionReport(
            number=self._number,
            client=self._client,
            server=self._server,
            protocol=self._protocol,
            began_at=self._began_at,
            ended_at=finish.at,
            verdict=verdict,
            code=worst.code if worst is not None else None,
            is_fault=any(finding.weight is Weight.FAULT for finding in order),
            findings=tuple(order),
            steps=self._notes.steps,
            steps_left_out=self._notes.left_out,
            messages=self._messages,
            longest_wait=self._notes.longest,
            last_wait=last_wait,
            end_octets=named(self._last_tail),
            retransmissions=finish.retransmissions,
            octets_missing=self._missing,
        )

    def _judge_end(self, finish: Finish, waited: float, how: str) -> Wait | None:
        at = finish.at
        if not finish.has_connection and not any(self._heard):
            said = "the server refused" if finish.is_reset else "the server did not answer"
            self._notes.find(Code.NO_CONNECTION, f"{said} the connection", at, 0)
            return Wait(waited, "client", "the connection")
        if finish.stuck:
            router = f"; a router named an MTU of {finish.too_big}" if finish.too_big else ""
            words = (
                f"segments of {finish.stuck} octets of the {finish.stuck_side} were sent again and never "
                f"acknowledged{router}"
            )
            self._notes.find(Code.BLACK_HOLE, words, at, 0)
        is_late = bool(finish.closed_by) or waited > SLOW_SECONDS
        if self._mode is Mode.TLS:
            if self._tls_said[0][:1] == b"\x16" and not self._tls_said[1] and finish.closed_by:
                self._notes.find(Code.TLS_FAILED, f"the server did not answer the handshake; {how}", at, 0)
            return None
        if self._mode is Mode.TEXT and self._text is not None:
            text = self._text
            self._notes.step(
                text.at or at,
                "client",
                f"(text, {self._text_base + text.size} octets) {visible(text.tail[-24:])}",
            )
            if self._unfinished(at, how):
                return Wait(
                    waited, "both", "the other: the server for CR LF . CR LF, the client for the answer"
                )
            if not is_late:
                self._notes.find(Code.OPEN, f"the capture ends in the middle of a message; {how}", at, 0)
            elif finish.is_reset:
                self._notes.find(Code.RESET, f"in the middle of a message; {how}", at, 0)
            elif not self._text_has_gap:
                words = f"the text stops at octet {text.size} with {named(text.tail[-16:])}; {how}"
                self._notes.find(
                    Code.END_MISSING, words, text.at, text.frame, offset=text.size, octets=text.tail
                )
            return Wait(waited, "server", "the rest of the message")
        owed = self._owed[0] if self._owed else None
        if owed is None or owed.what == b"QUIT" or self._is_lossy:
            if owed is None and not finish.closed_by and not self._has_quit:
                self._notes.find(Code.OPEN, how, at, 0)
            return None
        wait = Wait(waited, "client", f"the answer to {_told(owed)}")
        if not is_late:
            self._notes.find(Code.OPEN, f"{_told(owed)} is not answered yet; {how}", at, owed.frame)
        elif owed.what == _BANNER and finish.closed_by == "client" and waited < SLOW_SECONDS:
            return wait  # somebody looked whether the port is open
        elif owed.what == _END and self._end_pieces > 1:
            words = (
                f"CR LF . CR LF came in {self._end_pieces} segments, the last in frame {self._end_frame}, and was "
                f"never answered; {how}"
            )
            self._notes.find(Code.END_SPLIT, words, owed.at, owed.frame)
        elif finish.is_reset:
            self._notes.find(Code.RESET, f"while {_told(owed)} waited for its answer; {how}", at, owed.frame)
        else:
            self._notes.find(Code.UNANSWERED, f"{_told(owed)} had no answer; {how}", owed.at, owed.frame)
        return wait

    def _owe(self, what: bytes, at: float, frame: int, line: bytes = b"") -> None:
        if len(self._owed) >= _OWED_LIMIT:
            self._owed.popleft()
            self._is_lossy = True
        self._owed.append(Owed(what, at, frame, line))


_KNOWN = frozenset(
    b"EHLO HELO LHLO MAIL RCPT DATA BDAT RSET NOOP QUIT HELP VRFY EXPN ETRN TURN AUTH STARTTLS XCLIENT XFORWARD BURL "
    b"SEND SOML SAML XEXCH50 X-LINK2STATE X-EXPS X-ANONYMOUSTLS".split()
)


def _side(is_client: bool) -> str:
    return "client" if is_client else "server"


def _told(owed: Owed | None) -> str:
    """What was to be answered, for people."""
    if owed is None:
        return "nothing"
    if owed.what == _BANNER:
        return "the connection"
    return owed.what.decode("latin-1")
