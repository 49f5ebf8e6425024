"""The program bridge: what a program is given, what its end says, and what is never left behind."""

from __future__ import annotations

import asyncio
import os
import re
import select
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lonedot.message.ledger import Action
from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin.program import ProgramFilter, ProgramSettings
from lonedot.sinks.calls import Decision
from lonedot.testing import Ran, make_message, run_sink
from tests.need import need

USER = "nobody" if os.geteuid() == 0 else ""
LETTER = make_message(
    "Received: from a\n\tby b\nSubject: one\nX-N: 1\n\ntext\n.dot\n",
    recipients=("b@example.org", "c@example.org"),
    sender="a@example.com",
)
EXAMPLES = Path(__file__).parents[4] / "docs" / "sinks" / "program.md"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where a program may write, whoever it is: pytest's own folders are open to one user alone."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o777)
        yield path


def ran(text: str, octets: bytes = b"", **settings: Setting) -> Ran:
    """A shell script on the letter."""
    quoted = text.replace("'", "'\"'\"'")
    return command(f"/bin/sh -c '{quoted}'", octets, **settings)


def command(words: str, octets: bytes = b"", **settings: Setting) -> Ran:
    message = make_message(octets, recipients="b@example.org") if octets else LETTER
    given: dict[str, Setting] = {"command": words, "user": USER, **settings}
    return run_sink(ProgramFilter, message, settings=given)


@pytest.mark.parametrize("ends", ["LF", "CRLF"])
def test_it_reads_the_message_to_its_end(folder: Path, ends: str) -> None:
    done = ran(f"cat >{folder}/got", line_ends=ends)
    done.assert_untouched()
    octets = LETTER.octets()
    assert (folder / "got").read_bytes() == (octets.replace(b"\r\n", b"\n") if ends == "LF" else octets)


def test_variables_name_the_message_and_nothing_of_the_relay_goes_along(folder: Path) -> None:
    os.environ["LONEDOT_SECRET"] = "x"
    try:
        ran(f"env >{folder}/got; cat >/dev/null", environment="'GREETING=good day' MODE=strict")
    finally:
        del os.environ["LONEDOT_SECRET"]
    told = dict(line.split("=", 1) for line in (folder / "got").read_text().splitlines())
    assert told["LONEDOT_SENDER"] == "a@example.com"
    assert told["LONEDOT_RECIPIENTS"] == "b@example.org c@example.org"
    assert told["LONEDOT_RECIPIENT_COUNT"] == "2"
    assert re.fullmatch("[0-9a-f]{32}", told["LONEDOT_KEY"])
    assert (told["GREETING"], told["MODE"]) == ("good day", "strict")
    assert "LONEDOT_SECRET" not in told


def test_ten_thousand_recipients_are_counted_and_not_named(folder: Path) -> None:
    many = make_message("\n\n", recipients=[f"user{n}@example.org" for n in range(10_000)])
    done = run_sink(
        ProgramFilter, many, settings={"command": f"/bin/sh -c 'env >{folder}/got'", "user": USER}
    )
    assert done.decision is Decision.ACCEPT
    told = (folder / "got").read_text()
    assert "LONEDOT_RECIPIENT_COUNT=10000\n" in told
    assert "LONEDOT_RECIPIENTS" not in told


@pytest.mark.parametrize(
    ("status", "decision"),
    [
        (0, Decision.ACCEPT),
        (1, Decision.DEFER),
        (2, Decision.HOLD),
        (64, Decision.DEFER),
        (69, Decision.REJECT),
        (75, Decision.DEFER),
        (77, Decision.REJECT),
        (99, Decision.DISCARD),
        (100, Decision.REJECT),
        (111, Decision.DEFER),
        (126, Decision.DEFER),
    ],
)
def test_what_a_status_says(status: int, decision: Decision) -> None:
    done = ran(f"cat >/dev/null; echo it is so >&2; exit {status}", statuses="2=hold")
    assert done.decision is decision
    if status:
        assert "it is so" in done.words
    assert done.entry is not None
    assert bool(done.entry.fault) is (status in (1, 64, 126))


def test_a_message_that_is_handed_back_is_reduced_to_what_differs() -> None:
    done = ran("sed 's/^X-N: 1/X-N: 2/'", returns="message")
    assert done.octets == LETTER.octets().replace(b"X-N: 1", b"X-N: 2")
    assert done.entry is not None
    assert done.entry.action is Action.REDUCED


def test_nothing_handed_back_empties_no_message() -> None:
    done = ran("cat >/dev/null", returns="message")
    assert done.decision is Decision.DEFER
    assert "no message" in done.words


def test_damage_holds() -> None:
    done = ran("printf 'Subject: one\\nX-N: 1\\n\\ntext\\0\\n'; cat >/dev/null", returns="message")
    assert done.decision is Decision.HOLD


def test_a_verdict_in_json() -> None:
    said = (
        '{"verdict": "hold", "words": "odd", "edits": [{"edit": "add-field", "name": "X-A", "value": "b"}]}'
    )
    done = ran(f"cat >/dev/null; echo '{said}'", returns="json")
    assert (done.decision, done.words) == (Decision.HOLD, "odd")
    assert done.octets == b"X-A: b\r\n" + LETTER.octets()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", "no verdict in JSON"),
        ('{"verdict": "rejekt"}', "verdict"),
        ('{"verdict": "next", "edit": []}', "edit"),
        ('{"verdict": "reject", "edits": [{"edit": "remove-field", "name": "X-N"}]}', "has edits"),
        ('{"verdict": "next", "edits": [{"edit": "replace-body"}]}', "`text` or `base64`"),
        ('{"verdict": "next", "edits": [{"edit": "replace-body", "base64": "!"}]}', "base64"),
        ('{"verdict": "next", "edits": [{"edit": "add-field", "name": "a b", "value": ""}]}', "cannot be"),
        ('{"verdict": "reject", "code": 250}', "250"),
        ("[" * 100_000, "no verdict in JSON"),
    ],
)
def test_what_is_no_verdict_lets_nothing_pass(folder: Path, said: str, words: str) -> None:
    (folder / "said").write_text(said)
    (folder / "said").chmod(0o644)
    done = ran(f"cat >/dev/null; cat {folder}/said", returns="json")
    assert done.decision is Decision.DEFER
    assert words in done.words
    assert done.entry is not None and done.entry.fault


def test_an_answer_is_bounded() -> None:
    done = ran("yes", returns="message", largest_answer=100_000)
    assert done.decision is Decision.DEFER
    assert "more than 100000 octets" in done.words


def test_its_words_are_bounded_and_clean() -> None:
    done = ran("yes 'a\tb' | head -c 100000 >&2; printf '\\033[2J end' >&2; exit 77")
    assert len(done.words) <= 301
    assert done.words.endswith("[2J end")
    assert done.words.isprintable()


async def test_at_the_deadline_its_whole_group_is_killed(folder: Path) -> None:
    os.mkfifo(folder / "held")
    (folder / "held").chmod(0o666)
    (folder / "script").write_text(f"#!/bin/sh\nexec 3>{folder}/held\necho >&3\n(sleep 600) & sleep 600\n")
    (folder / "script").chmod(0o755)
    reader = os.open(folder / "held", os.O_RDONLY | os.O_NONBLOCK)
    one = ProgramFilter(ProgramSettings(f"{folder}/script", user=USER))
    try:
        call = asyncio.ensure_future(one(LETTER))
        while not await asyncio.to_thread(_is_readable, reader):
            assert not call.done(), call
        assert os.read(reader, 1) == b"\n"
        call.cancel()
        os.set_blocking(reader, True)
        assert await asyncio.to_thread(os.read, reader, 1) == b"", "somebody holds the pipe open"
        with pytest.raises(asyncio.CancelledError):
            await call
    finally:
        await one.close()
        os.close(reader)


def _is_readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0.2)[0])


def test_what_it_leaves_behind_is_killed(folder: Path) -> None:
    os.mkfifo(folder / "held")
    (folder / "held").chmod(0o666)
    reader = os.open(folder / "held", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert ran(f"exec 3>{folder}/held; sleep 600 & exit 0").decision is Decision.ACCEPT
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_a_recipient_as_argument_needs_a_copy_of_its_own(folder: Path) -> None:
    words = f"/bin/sh -c 'cat >/dev/null; echo \"$1\" >>{folder}/got' sh {{recipient}}"
    assert "split = true" in command(words).words
    one = make_message("\n\n", recipients="$(id);`id`@example.org")
    settings: dict[str, Setting] = {"command": words, "user": USER}
    run_sink(ProgramFilter, one, settings=settings)
    assert (folder / "got").read_text() == "$(id);`id`@example.org\n"
    option = make_message("\n\n", recipients="-f@example.org")
    assert "taken for an option" in run_sink(ProgramFilter, option, settings=settings).words


@pytest.mark.skipif(os.geteuid() != 0, reason="about a relay that runs as root")
def test_root_lends_its_rights_to_nobody() -> None:
    assert "names no `user`" in ran("true", user="").words
    assert "there is no user" in ran("true", user="no-such-user").words


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"command": "filter"}, "whole path"),
        ({"command": "/bin/x 'a"}, "quotes"),
        ({"command": "/bin/x --to={recipient}"}, "an argument of its own"),
        ({"command": "/bin/x", "statuses": "1=bounce"}, "none of pass"),
        ({"command": "/bin/x", "statuses": "256=hold"}, "0 to 255"),
        ({"command": "/bin/x", "statuses": "126=pass"}, "could not be started"),
        ({"command": "/bin/x", "environment": "MODE"}, "has no ="),
        ({"command": "/bin/x", "at_once": 0}, "1 to 50"),
        ({"command": "/bin/x", "memory": 5}, "write octets"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ProgramSettings(**settings)  # type: ignore[arg-type]  # some are numbers


async def test_many_at_once_wait_for_their_places(folder: Path) -> None:
    command_words = f"/bin/sh -c 'cat >/dev/null; mkdir {folder}/one && rmdir {folder}/one'"
    one = ProgramFilter(ProgramSettings(command_words, user=USER, at_once=1))
    said = await asyncio.gather(*(one(LETTER) for _ in range(5)))
    await one.close()
    assert {type(verdict).__name__ for verdict in said} == {"Next"}, "two ran at the same time"


# --- the examples of the page -------------------------------------------------------------------------


def example(folder: Path, name: str) -> str:
    """The path of an example, written out of the page."""
    text = EXAMPLES.read_text().split(f"`{name}`:\n\n```", 1)[1]
    path = folder / name
    path.write_text(text.split("\n", 1)[1].split("```", 1)[0])
    path.chmod(0o755)
    return str(path)


def test_the_example_in_shell(folder: Path) -> None:
    words = example(folder, "house-rules.sh")
    assert command(words, statuses="1=pass").decision is Decision.ACCEPT
    done = command(words, octets=b"Subject: A Chain Letter\r\n\r\nx\r\n")
    assert (done.decision, done.words) == (Decision.REJECT, "we take no chain letters")


@pytest.mark.peer
def test_the_example_in_node(folder: Path) -> None:
    need("node", "nodejs")
    words = example(folder, "mark-large.js")
    large = b"Subject: x\r\n\r\n" + b"text\r\n" * 5000
    done = command(words, octets=large, returns="json", memory=1 << 34)
    done.assert_added("X-Large", str(len(large.replace(b"\r\n", b"\n"))))
    command(words, returns="json", memory=1 << 34).assert_untouched()


@pytest.mark.peer
def test_the_example_in_php(folder: Path) -> None:
    need("php", "php-cli")
    done = command(example(folder, "tag-subject.php"), returns="message")
    assert done.octets == LETTER.octets().replace(b"Subject: one", b"Subject: [list] one")
