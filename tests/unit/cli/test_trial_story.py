"""The story and its checks as pure functions: every check fails when it should, and no control sign gets through."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec
import pytest
from rich.console import Console

from lonedot.cli import trial_story as story
from lonedot.cli.samples import COPIER, RECIPIENT, SENDER, scan_message, scan_pdf
from lonedot.cli.trial_checks import Caught, Check, Submission, damager_of, judge
from lonedot.cli.trial_show import Screen
from lonedot.cli.trial_story import Kind, Line, Setting
from lonedot.message.encode import DataEncoder, canonicalise
from lonedot.message.findings import Code, Finding, Part, Severity
from lonedot.message.fold import digests_of
from lonedot.message.intake import content_from
from lonedot.message.ledger import Action, Entry
from lonedot.sinks.builtin.faulty import x_recipient_list
from lonedot.sinks.builtin.x_recipient import x_recipient
from lonedot.sinks.dispatch import dispatch
from lonedot.sinks.load import bind
from lonedot.spool.interface import (
    Attempt,
    Facts,
    MessageState,
    RecipientState,
    RecipientStatus,
    Stored,
    WireRecord,
)
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.ids import MessageId, SessionId
from lonedot.terms.outcome import Outcome, Result, Stage
from lonedot.terms.reply import reply
from lonedot.testing.clock import ManualClock

ID = "38g3bds680000"
SETTING = Setting(
    relay="127.0.0.1:2525",
    catcher="127.0.0.1:2526",
    sinks=("X-Recipient", "XRecipientList (faulty)"),
    folder="/run/try",
    config="/run/try/lonedot.toml",
    letter="/run/try/letter.eml",
    scan="/run/try/scan.pdf",
    command="lonedot",
    recipient=RECIPIENT.text,
)


class Play(NamedTuple):
    submission: Submission
    stored: Stored
    caught: Caught


@pytest.fixture(scope="module")
def play() -> Play:
    """The story as it goes when all holds, from the real dispatch and the real encoder."""
    octets = scan_message(b"Sun, 22 Nov 2026 12:29:25 +0000")
    arrival = content_from(octets)
    facts = Facts("smtp", SessionId("0000000000001"), client="127.0.0.1")
    envelope = Envelope(SENDER, (Recipient(RECIPIENT),))
    door = Entry("lonedot", "", "door", 0.0, 0.0, digests_of(arrival), digests_of(arrival), Action.KEPT)
    bindings = [bind(x_recipient, sink_class="a:b"), bind(x_recipient_list, sink_class="c:d")]
    done = dispatch(ID, envelope, facts, arrival, bindings, ManualClock())
    encoder = DataEncoder(canonicalise(done.content), "DATA")
    wire = b"".join(encoder.chunks())
    sent = encoder.record()
    outcome = Outcome(Result.DELIVERED, Stage.CONTENT, "", reply(250, "2.0.0", "Recorded as 1"))
    attempt = Attempt(
        0.0,
        0.1,
        "[127.0.0.1]:2526",
        "catcher",
        "",
        ((0, outcome),),
        WireRecord(sent.mode, sent.size, sent.head_sha256, sent.body_sha256, sent.tail),
    )
    stored = Stored(
        id=MessageId(ID),
        state=MessageState.FINISHED,
        reason="",
        accepted_at=0.0,
        finished_at=1.0,
        envelope=envelope,
        facts=facts,
        ledger=(door, *done.entries),
        recipients=(RecipientState(0, Recipient(RECIPIENT), RecipientStatus.DELIVERED, 1, 0.0, outcome),),
        size=done.content.size,
        attempts=(attempt,),
    )
    said = f"250 2.0.0 Ok: queued as {ID}"
    return Play(
        Submission(COPIER, RECIPIENT.text, octets, scan_pdf(), said, ID, 0.05),
        stored,
        Caught(done.content.octets(), wire, b"\r\n.\r\n", "250 2.0.0 Recorded as 1"),
    )


def replace(value: object, **fields: object) -> object:
    """As `msgspec.structs.replace`, of any struct."""
    return msgspec.structs.replace(value, **fields)  # type: ignore[type-var]


def failed(checks: Iterable[Check]) -> set[str]:
    return {check.name for check in checks if not check.held}


def text(lines: Iterable[Line]) -> str:
    """As it looks where there is no terminal."""
    file = io.StringIO()
    Screen(Console(file=file)).show(lines)
    return file.getvalue()


def test_all_holds(play: Play) -> None:
    checks = judge(*play)
    assert len(checks) == 8
    assert not failed(checks)
    assert damager_of(play.stored) == "XRecipientList (faulty)"
    assert "ALL HELD (8 checks)" in text(story.verdict(checks, damager_of(play.stored)))


TAKEN = "the relay took the scan"
HONEST = "the sound sink's header field arrived"
NAMED = "the damage was found and the sink named"
UNDONE = "the damage was undone"
DELIVERED = "every recipient was delivered to"
ENDED = "what left ended in CR LF . CR LF, and nowhere before"
AS_RECORDED = "what was caught is what the relay recorded as sent"
WHOLE = "the scan arrived octet for octet"


def without_faulty(stored: Stored) -> Stored:
    return msgspec.structs.replace(stored, ledger=stored.ledger[:-1])


def faulty_entry(stored: Stored, **fields: object) -> Stored:
    entry = replace(stored.ledger[-1], **fields)
    assert isinstance(entry, Entry)
    return msgspec.structs.replace(stored, ledger=(*stored.ledger[:-1], entry))


def waiting(stored: Stored) -> Stored:
    state = RecipientState(0, stored.recipients[0].recipient)
    return msgspec.structs.replace(stored, recipients=(state,))


STORED: list[tuple[Callable[[Stored], Stored], set[str]]] = [
    (without_faulty, {NAMED}),
    (lambda stored: faulty_entry(stored, action=Action.KEPT), {UNDONE}),
    (lambda stored: faulty_entry(stored, after=stored.ledger[-1].attempted), {UNDONE}),
    (lambda stored: faulty_entry(stored, findings=()), {NAMED}),
    (
        lambda stored: faulty_entry(
            stored, findings=(Finding(Code.NUL, Severity.DAMAGE, Part.BODY, 0, "a NUL"),)
        ),
        {NAMED},
    ),
    (waiting, {DELIVERED}),
    (lambda stored: msgspec.structs.replace(stored, recipients=()), {DELIVERED}),
    (lambda stored: msgspec.structs.replace(stored, attempts=()), {ENDED, AS_RECORDED}),
    (lambda stored: msgspec.structs.replace(stored, ledger=stored.ledger[:1]), {HONEST, NAMED}),
]


@pytest.mark.parametrize(("change", "expected"), STORED)
def test_what_the_relay_did_wrong_is_found(
    play: Play, change: Callable[[Stored], Stored], expected: set[str]
) -> None:
    assert failed(judge(play.submission, change(play.stored), play.caught)) == expected


CAUGHT: list[tuple[Callable[[Caught], Caught | None], set[str]]] = [
    (lambda caught: None, {HONEST, ENDED, AS_RECORDED, WHOLE}),
    (lambda c: msgspec.structs.replace(c, wire=c.wire[:-5] + b"\n.\r\n"), {ENDED, AS_RECORDED}),
    (lambda c: msgspec.structs.replace(c, ended_by=b"\n.\r\n"), {ENDED}),
    (lambda c: msgspec.structs.replace(c, wire=b"\r\n.\r\n" + c.wire), {ENDED, AS_RECORDED}),
    (lambda c: msgspec.structs.replace(c, wire=c.wire.replace(b"JVBERi", b"JVBERj")), {AS_RECORDED}),
    (lambda c: msgspec.structs.replace(c, content=c.content.replace(b"JVBERi", b"JVBERj")), {WHOLE}),
    (lambda c: msgspec.structs.replace(c, content=c.content[:-10]), {WHOLE}),
    (lambda c: msgspec.structs.replace(c, content=c.content.replace(b"X-Recipient:", b"X-Other:")), {HONEST}),
]


@pytest.mark.parametrize(("change", "expected"), CAUGHT)
def test_what_arrived_otherwise_is_found(
    play: Play, change: Callable[[Caught], Caught | None], expected: set[str]
) -> None:
    assert failed(judge(play.submission, play.stored, change(play.caught))) == expected


def test_a_scan_that_was_not_taken(play: Play) -> None:
    submission = msgspec.structs.replace(play.submission, id="", reply="550 5.7.1 no")
    checks = judge(submission, None, None)
    assert failed(checks) == {TAKEN}
    assert "NOT HELD: 1 of 1 checks." in text(story.verdict(checks, ""))
    assert "550 5.7.1 no" in text(story.arrival(submission))
    assert "on disk" not in text(story.arrival(submission))


def test_by_bdat_octets_are_counted(play: Play) -> None:
    content = content_from(play.caught.content)
    encoder = DataEncoder(canonicalise(content), "BDAT")
    wire = b"".join(encoder.chunks())
    sent = encoder.record()
    record = WireRecord(sent.mode, sent.size, sent.head_sha256, sent.body_sha256, sent.tail)
    stored = msgspec.structs.replace(
        play.stored, attempts=(msgspec.structs.replace(play.stored.attempts[0], wire=record),)
    )
    caught = Caught(play.caught.content, wire, b"", "250 2.0.0 OK", is_chunked=True)
    assert not failed(judge(play.submission, stored, caught))
    short = msgspec.structs.replace(caught, wire=wire[:-1])
    assert failed(judge(play.submission, stored, short)) == {ENDED, AS_RECORDED}
    assert "It counted the octets that were announced" in text(story.catch(play.submission, caught))


def whole_story(play: Play) -> list[Line]:
    checks = judge(*play)
    return [
        *story.opening(SETTING),
        *story.arrival(play.submission),
        *story.sinks(play.stored),
        *story.leaving(play.stored),
        *story.catch(play.submission, play.caught),
        *story.verdict(checks, damager_of(play.stored)),
        *story.invitation(SETTING, ID),
        *story.journey(play.stored, play.caught),
    ]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_it_fits_the_terminal_and_commands_are_left_whole(play: Play, width: int) -> None:
    file = io.StringIO()
    Screen(Console(file=file, force_terminal=True, color_system=None, width=width)).show(whole_story(play))
    lines = file.getvalue().splitlines()
    commands = [line for line in lines if line.startswith(("    curl ", "    swaks ", "    lonedot "))]
    assert len(commands) == 4
    assert all(len(line.rstrip()) <= min(width, 120) for line in lines if line not in commands)


def test_digests_stand_on_one_line_at_80_columns(play: Play) -> None:
    file = io.StringIO()
    Screen(Console(file=file, force_terminal=True, color_system=None, width=80)).show(whole_story(play))
    wire = play.stored.attempts[0].wire
    assert wire is not None
    assert wire.head_sha256.hex() in file.getvalue()
    assert wire.body_sha256.hex() in file.getvalue()


def test_the_commands_can_be_copied(play: Play) -> None:
    said = text(story.invitation(SETTING, ID))
    assert (
        "curl smtp://127.0.0.1:2525 --mail-from you@example.com --mail-rcpt goods-in@example.com"
        " --upload-file /run/try/letter.eml\n" in said
    )
    assert "swaks --server 127.0.0.1:2525 --from you@example.com" in said
    assert f"lonedot why {ID} -c /run/try/lonedot.toml\n" in said


def test_nothing_was_sent(play: Play) -> None:
    stored = msgspec.structs.replace(play.stored, attempts=())
    assert "Nothing was sent." in text(story.leaving(stored))
    assert "It caught nothing." in text(story.catch(play.submission, None))
    outcome = Outcome(Result.DEFERRED, Stage.CONNECT, "nobody listens there")
    attempt = Attempt(0.0, 0.1, "[127.0.0.1]:2526", "catcher", "", ((0, outcome), (1, outcome)))
    said = text(story.leaving(msgspec.structs.replace(play.stored, attempts=(attempt,))))
    assert said.count("deferred; [127.0.0.1]:2526 said: nobody listens there") == 1


def test_a_pdf_that_differs(play: Play) -> None:
    other = scan_message(b"today", b"%%EOF\n")
    said = text(story.catch(play.submission, msgspec.structs.replace(play.caught, content=other)))
    assert "Not the same: 6 octets arrived." in said
    assert base64.b64encode(b"%%EOF\n") in other


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (Action.HELD, "HELD: the message waits for a person."),
        (Action.REJECTED, "REFUSED"),
        (Action.REPAIRED, "REPAIRED"),
        (Action.UNDONE, "UNDONE"),
        (Action.KEPT, "TAKEN ALL THE SAME"),
    ],
)
def test_what_was_done_about_damage(play: Play, action: Action, words: str) -> None:
    assert words in text(story.sinks(faulty_entry(play.stored, action=action, changes=())))


def test_a_sink_that_failed(play: Play) -> None:
    stored = faulty_entry(
        play.stored, verdict="error", action=Action.SKIPPED, findings=(), words="ValueError: \x1b[2Jno"
    )
    for said in (text(story.sinks(stored)), text(story.journey(stored, None))):
        assert "FAILED: ValueError: \\x1b[2Jno" in said
        assert "\x1b" not in said


def test_many_findings_are_cut(play: Play) -> None:
    finding = Finding(Code.NUL, Severity.DAMAGE, Part.BODY, 0, "a NUL")
    said = text(story.sinks(faulty_entry(play.stored, findings=(finding,) * 30)))
    assert said.count("- nul: a NUL") == 12
    assert "- and 18 more" in said


def test_no_sink_was_called(play: Play) -> None:
    assert "No sink was called." in text(story.sinks(msgspec.structs.replace(play.stored, ledger=())))


def test_a_journey_in_short(play: Play) -> None:
    said = text(story.journey(play.stored, play.caught))
    assert said.startswith(f"\n{ID}  from copier@example.com to goods-in@example.com, ")
    assert "X-Recipient: added X-Recipient: goods-in@example.com\n" in said
    assert "XRecipientList (faulty): DAMAGE, undone: bare-lf, " in said
    assert "ending … " in said
    assert "CR LF . CR LF\n" in said
    assert "caught: the body is what you sent, octet for octet\n" in said


def test_a_body_that_is_not_the_one_that_was_queued(play: Play) -> None:
    caught = msgspec.structs.replace(play.caught, content=play.caught.content[:-2])
    assert "NOT the one that was queued" in text(story.journey(play.stored, caught))


def test_a_message_that_is_held_by_a_stranger_of_many_names(play: Play) -> None:
    recipients = tuple(RecipientState(n, Recipient(SENDER)) for n in range(5))
    stored = msgspec.structs.replace(
        play.stored,
        state=MessageState.HELD,
        reason="X says \x07 no",
        recipients=recipients,
        attempts=(),
        facts=msgspec.structs.replace(play.stored.facts, source="dsn"),
    )
    said = text(story.journey(stored, None))
    assert (
        "a report of the relay to copier@example.com, copier@example.com, copier@example.com and 2 more"
        in said
    )
    assert "held: X says \\x07 no\n" in said


def test_a_refusal() -> None:
    said = text(story.refusal(ID, "550 5.6.0 NUL at octet 3", "NUL at octet 3"))
    assert said == f"\n{ID}  refused\n  the relay said: 550 5.6.0 NUL at octet 3\n"
    assert "because: it \\x1b loops\n" in text(story.refusal(ID, "554 no", "it \x1b loops"))


def test_markup_of_a_stranger_is_text(play: Play) -> None:
    file = io.StringIO()
    Screen(Console(file=file, force_terminal=True, color_system=None, width=80)).show(
        [Line(Kind.ALARM, "[bold]x[/bold] :smile: [link=http://a]", 0, "[red]y")]
    )
    assert file.getvalue().split() == ["[red]y", "[bold]x[/bold]", ":smile:", "[link=http://a]"]
