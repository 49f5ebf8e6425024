"""What a type checker says of sinks: nothing of good ones, and where a bad one is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

GOOD = """\
import dataclasses

from lonedot import (
    Accept, Defer, Edit, Event, Hold, Hop, Message, Next, Redirect, Reject, Session, Stop, Verdict, sink,
)
from lonedot.testing import ask_sink, make_hop, make_message, make_session, run_sink


@dataclasses.dataclass(frozen=True)
class Settings:
    largest: int = 5


@sink("function", effects={"header"}, reads={"body"}, split=True)
def function(message: Message) -> Next:
    names = [part.filename for part in message.parts if part.is_attachment]
    return Next([Edit.add_field("X-Attached", ", ".join(names))])


@sink("typed", on="_EOD", settings=Settings, rule="RCPT TO=*", on_error="skip")
def typed(message: Message, settings: Settings) -> Verdict:
    return Hold(message.headers.subject) if message.size > settings.largest else Redirect("fast")


@sink("session", on="OnRcptCommand", settings=Settings)
def session(session: Session, settings: Settings) -> Verdict:
    return Accept("well") if session.trusted else Reject("no")


@sink("hop", on=Event.SESSION_START)
def hop(hop: Hop) -> Verdict:
    return Defer("no TLS") if not hop.tls else Stop()


@sink("class", settings=Settings)
class Class:
    def __init__(self, settings: Settings) -> None:
        self.left = settings.largest

    def __call__(self, message: Message) -> Verdict:
        self.left -= 1
        return Next()


@sink("class of a session", on="mail")
class OfSession:
    def __call__(self, session: Session) -> Verdict:
        return Next()


run_sink(function).assert_added("X-Attached")
run_sink(Class, make_message("Subject: x\\n\\n"), settings={"largest": 3}).assert_untouched()
ask_sink(OfSession, make_session("mail")).assert_passed()
ask_sink(hop, make_hop()).assert_refused("no TLS")
assert Class(Settings())(make_message()) == Next()
"""

BAD = {
    "takes a session at an event of messages": """\
@sink("x")
def x(session: Session) -> Verdict:
    return Next()
""",
    "takes a message at an event of sessions": """\
@sink("x", on="rcpt")
def x(message: Message) -> Verdict:
    return Next()
""",
    "takes a message at an event of next hops": """\
@sink("x", on="session-end")
def x(message: Message) -> Verdict:
    return Next()
""",
    "returns no verdict": """\
@sink("x")
def x(message: Message) -> int:
    return 5
""",
    "takes other settings than it says": """\
@sink("x", settings=Settings)
def x(message: Message, settings: int) -> Verdict:
    return Next()
""",
    "splits where there is no message": """\
@sink("x", on="rcpt", split=True)
def x(session: Session) -> Verdict:
    return Next()
""",
    "is a class that cannot be called": """\
@sink("x")
class X:
    pass
""",
    "is a class that takes something else": """\
@sink("x", on="rcpt")
class X:
    def __call__(self, message: Message) -> Verdict:
        return Next()
""",
}
LEAD = """\
from lonedot import Message, Next, Session, Verdict, sink


class Settings:
    pass


"""


def test_good_sinks_pass_and_each_bad_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    for number, text in enumerate(BAD.values()):
        (tmp_path / f"bad{number}.py").write_text(LEAD + text)
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    faulty = {line.partition(":")[0] for line in ran.stdout.splitlines() if ": error:" in line}
    passed = [what for number, what in enumerate(BAD) if f"bad{number}.py" not in faulty]
    assert not passed, ran.stdout
    assert "good.py" not in faulty, ran.stdout


def test_good_sinks_do_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    ran = subprocess.run(
        [sys.executable, "-W", "error", "good.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
