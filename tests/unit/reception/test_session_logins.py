"""Logging in: sinks first, then the file; what follows for the session and for its messages."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from lonedot.reception.logins import WAITING_LIMIT, Logins, hash_of
from lonedot.reception.settings import ListenerSettings, with_logins
from lonedot.sinks.bindings import Binding
from lonedot.sinks.events import Event
from lonedot.sinks.load import bind
from lonedot.sinks.protocol import Command, Session
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Accept, Defer, Next, Reject, Stop, Verdict
from tests.unit.reception.room import SETTINGS, Line, Room, settle
from tests.unit.reception.test_session_sinks import ENVELOPE, MESSAGE, bdat, bound

ANNA = hash_of(b"secret")
PLAINTEXT = msgspec.structs.replace(SETTINGS.options, auth_requires_tls=False)


def login(name: str = "anna", password: str = "secret") -> bytes:
    return b"AUTH PLAIN " + base64.b64encode(f"\0{name}\0{password}".encode()) + b"\r\n"


def settings(folder: Path | None = None, **more: object) -> ListenerSettings:
    """With the logins of a file when there is a folder for it."""
    made = msgspec.structs.replace(SETTINGS, options=PLAINTEXT)
    if folder is not None:
        (folder / "logins").write_text(f"anna:{ANNA}\n")
        made = msgspec.structs.replace(made, logins=Logins(folder / "logins"))
    return msgspec.structs.replace(made, **more)


async def answered(line: Line) -> bytes:
    """All that is heard until nothing is waited for."""
    heard = b""
    while (more := line.heard()) or line.session.is_busy:
        heard += more
        await settle()
    return heard


def stranger(folder: Path | None = None, bindings: Sequence[Binding] = ()) -> tuple[Room, Line]:
    """A session of a client that may not relay."""
    room = Room(settings(folder), trusted=False, bindings=bindings)
    return room, room.connect()


async def test_who_logs_in_may_relay(tmp_path: Path) -> None:
    room, line = stranger(tmp_path)
    line.say(ENVELOPE + b"RSET\r\n")
    assert line.codes() == [250, 550, 250]
    line.say(login())
    assert await answered(line) == b"235 2.7.0 Logged in\r\n"
    line.say(bdat(MESSAGE))
    assert (await answered(line)).count(b"250 ") == 3
    facts = room.spool.accepted[0].facts
    assert (facts.login, facts.trusted, facts.protocol) == ("anna", True, "ESMTPA")
    assert ("login.taken", "'anna'") in room.noted_


async def test_the_protocol_of_a_utf8_message(tmp_path: Path) -> None:
    room, line = stranger(tmp_path)
    line.say(login())
    await answered(line)
    line.say(b"MAIL FROM:<c@a.example> SMTPUTF8\r\n" + bdat(MESSAGE).partition(b"\r\n")[2])
    await answered(line)
    assert room.spool.accepted[0].facts.protocol == "UTF8SMTPA"


@pytest.mark.parametrize(("name", "password"), [("anna", "wrong"), ("bob", "secret")])
async def test_who_may_not(tmp_path: Path, name: str, password: str) -> None:
    room, line = stranger(tmp_path)
    line.say(login(name, password))
    assert await answered(line) == b"535 5.7.8 Name or password refused\r\n"
    line.say(ENVELOPE)
    assert line.codes() == [250, 550]
    assert not any(password in words for _, words in room.noted_)


async def test_failed_logins_are_bounded(tmp_path: Path) -> None:
    room, line = stranger(tmp_path)
    codes = b""
    for _ in range(30):
        line.say(login("anna", ""))
        codes += await answered(line)
    assert codes.endswith(b"421 4.7.0 Too many errors. Closing\r\n")
    assert line.wire.lost() and room.open == 0


@pytest.mark.parametrize("fault", ["gone", "busy"])
async def test_a_file_that_cannot_be_asked_refuses_nobody_for_good(tmp_path: Path, fault: str) -> None:
    room = Room(settings(tmp_path), trusted=False)
    assert room.settings.logins is not None
    if fault == "gone":
        room.settings.logins.path.unlink()
    else:
        room.settings.logins._waiting = WAITING_LIMIT
    line = room.connect()
    line.say(login())
    assert (await answered(line)).startswith(b"454 4.7.0 ")


async def test_auth_is_offered_only_where_somebody_can_be_asked(tmp_path: Path) -> None:
    for room, offers in (
        (Room(settings()), False),
        (Room(settings(), bindings=[bound(Event.MAIL, Next())]), False),
        (Room(settings(), bindings=[bound(Event.AUTH, Next())]), True),
        (Room(settings(tmp_path)), True),
        (Room(msgspec.structs.replace(settings(tmp_path), options=SETTINGS.options)), False),
    ):
        line = room.connect(greeted=False)
        line.say(b"EHLO copier\r\n")
        assert (b"AUTH PLAIN LOGIN" in line.heard()) is offers
    assert with_logins(PLAINTEXT) is with_logins(PLAINTEXT)


async def test_outside_tls_nobody_is_asked(tmp_path: Path) -> None:
    shown: list[Session] = []

    def watch(session: Session) -> Verdict:
        shown.append(session)
        return Accept()

    bindings = [bind(sink("w", on="auth")(watch), sink_class="tests:w")]
    room = Room(msgspec.structs.replace(settings(tmp_path), options=SETTINGS.options), bindings=bindings)
    line = room.connect()
    line.say(login())
    assert line.codes() == [538]
    assert shown == []


async def test_what_a_sink_is_shown() -> None:
    shown: list[Session] = []

    def check(session: Session) -> Verdict:
        shown.append(session)
        return Accept("hello") if session.credentials.password == b"secret" else Next()

    room, line = stranger(bindings=[bind(sink("w", on="auth")(check), sink_class="tests:w")])
    line.say(login("bob", "other"), b"AUTH LOGIN\r\n", b"Ym9i\r\n", b"c2VjcmV0\r\n", ENVELOPE)
    assert line.heard() == (
        b"535 5.7.8 Name or password refused\r\n334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n"
        b"235 2.7.0 hello\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n"
    )
    first, second = shown
    assert first.command == Command(b"AUTH", b"PLAIN") and second.command == Command(b"AUTH", b"LOGIN")
    assert (second.credentials.mechanism, second.credentials.identity) == ("LOGIN", b"bob")
    assert (second.login, second.trusted, line.session.login) == ("", False, "bob")
    said = repr((room.noted_, room.scripts[0].lines, [repr(s.moment) for s in shown]))
    assert "secret" not in said and "c2VjcmV0" not in said and "other" not in said


@pytest.mark.parametrize(
    ("verdict", "answer"),
    [
        (Accept(), b"235 2.7.0 Logged in\r\n"),
        (Accept("in", code=235, enhanced="2.7.1"), b"235 2.7.1 in\r\n"),
        (Reject("no"), b"535 5.7.8 no\r\n"),
        (Reject(""), b"535 5.7.8 Refused\r\n"),
        (Reject("blocked", code=550, enhanced="5.7.9"), b"550 5.7.9 blocked\r\n"),
        (Defer("later"), b"454 4.7.0 later\r\n"),
        (Next(), b"535 5.7.8 Name or password refused\r\n"),
        (Stop(), b"535 5.7.8 Name or password refused\r\n"),
        (None, b"454 4.7.0 The login could not be checked; try again later\r\n"),
        (Accept(code=250), b"454 4.7.0 The login could not be checked; try again later\r\n"),
    ],
)
async def test_verdicts(verdict: Verdict | None, answer: bytes) -> None:
    room, line = stranger(bindings=[bound(Event.AUTH, verdict)])
    line.say(login())
    assert line.heard() == answer
    assert line.session.trusted is answer.startswith(b"235")
    assert "session.fault" not in room.what_was_noted()


async def test_a_sink_comes_before_the_file(tmp_path: Path) -> None:
    for verdict, code in ((Next(), 235), (Stop(), 235), (Reject("blocked"), 535), (Defer("wait"), 454)):
        _, line = stranger(tmp_path, [bound(Event.AUTH, verdict)])
        line.say(login())
        assert int((await answered(line))[:3]) == code
    _, line = stranger(tmp_path, [bound(Event.AUTH, Accept())])
    line.say(login("nobody", "x"))
    assert (await answered(line)).startswith(b"235")


async def test_a_login_refused_with_421_ends_the_session() -> None:
    _, line = stranger(bindings=[bound(Event.AUTH, Defer("go", code=421))])
    line.say(login())
    assert line.codes() == [421]
    await settle()
    assert line.wire.lost() and not line.session.trusted


async def test_a_client_that_leaves_meanwhile(tmp_path: Path) -> None:
    room, line = stranger(tmp_path)
    line.say(login())
    line.wire.lose()
    await settle()
    assert room.open == 0 and "session.fault" not in room.what_was_noted()
    assert room.timers == 0
