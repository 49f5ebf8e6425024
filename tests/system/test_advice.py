"""Every command line that the product prints as advice is one that there is, and does what it says beside the relay."""

from __future__ import annotations

import ast
import asyncio
import re
import shlex
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import click
import pytest

import lonedot
from lonedot import cli
from lonedot.admin.seeing import advice_of, command_of
from lonedot.app import Relay
from lonedot.evidence.events import Event, EventKind
from lonedot.terms.ids import MessageId
from lonedot.testing.relay import running_relay
from tests.system.talk import first_config, submit, until
from tests.system.test_seeing import run

WIDTH = 80

_ADVICE = re.compile(r"(?:→|:|^ {4,}|; )\s*(lonedot [a-z].*?)\s*$", re.MULTILINE)
"""A line that ends in a command."""
_STAND_INS = {"FOLDER": "copies", "NAME": "x", "ADDRESS": "anna@dest.example"}
LOOKING = (
    ("status",),
    ("queue", "list"),
    ("queue", "hops"),
    ("queue", "rules"),
    ("queue", "show", "WAITS"),
    ("queue", "show", "HELD"),
    ("why", "WAITS"),
    ("why", "HELD"),
    ("history",),
    ("logs", "WAITS"),
    ("sinks", "list"),
    ("route", "anna@dest.example"),
    ("check",),
)
"""Commands that only look, and say what else to do."""


@pytest.fixture
async def waiting(tmp_path: Path) -> AsyncIterator[tuple[Relay, dict[str, str]]]:
    """A relay with a message that waits and one that is held, and their ids."""
    async with running_relay(tmp_path, first_config(1)) as relay:
        ids: dict[str, str] = {"WAITS": await submit(relay), "HELD": await submit(relay)}
        await until(relay, MessageId(ids["WAITS"]), lambda stored: bool(stored.attempts))
        assert (await run(tmp_path, "queue", "hold", ids["HELD"]))[0] == 0
        relay.events.flush()
        yield relay, ids


def advised(said: str) -> list[str]:
    """The commands in what was printed, each once."""
    found = [match[1] for line in said.split("\n") if (match := _ADVICE.search(line)) is not None]
    return list(dict.fromkeys(found))


async def apart(folder: Path, *words: str) -> tuple[int, str]:
    """As a person runs it: octets go to standard output too."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lonedot",
        *words,
        "-c",
        str(folder / "lonedot.toml"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await child.communicate()
    assert child.returncode is not None
    return child.returncode, said.decode("utf-8", "replace")


def rank(line: str, order: tuple[str, ...]) -> int:
    return max((order.index(word) for word in line.split() if word in order), default=-1)


async def test_each_command_that_is_printed_can_be_run(
    waiting: tuple[Relay, dict[str, str]], tmp_path: Path
) -> None:
    _, ids = waiting
    printed: dict[str, str] = {}
    for looking in LOOKING:
        code, said = await run(tmp_path, *[ids.get(word, word) for word in looking])
        assert code == 0, (looking, said)
        for command in advised(said):
            printed.setdefault(command, " ".join(looking))
    assert len(printed) >= 12, printed
    # What changes something comes behind what looks, and what takes a message away at the end.
    order = ("show", "list", "why", "hops", "rules", "export", "retry", "release", "hold", "delete")
    for command in sorted(printed, key=lambda line: rank(line, order)):
        words = [_STAND_INS.get(word, word) for word in shlex.split(command)[1:]]
        words = [str(tmp_path / word) if word == "copies" else word for word in words]
        if words == ["top"]:
            words += ["--once", "--interval", "0.1"]
        if words[:2] == ["queue", "delete"]:
            words += ["--yes"]  # nobody can be asked here
        runner = apart if "--octets" in words else run
        code, said = await runner(tmp_path, *words)
        assert code == 0, (command, "printed by", printed[command], said)


async def test_the_screen_fits_and_parts_no_command(
    waiting: tuple[Relay, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    _, ids = waiting
    _, said = await run(tmp_path, "status")
    lines = [line for line in said.split("\n") if "submit.sock" not in line]
    assert max(map(len, lines)) <= WIDTH, said
    for line in lines:
        assert not ("lonedot" in line and line.startswith("  ") and "→" not in line), line
    assert f"→ lonedot queue retry {ids['WAITS']}" in said
    assert any(f"→ lonedot why {id}" in said for id in ids.values())


def parses(words: list[str]) -> bool:
    """The command is there, and takes these words; it is not run."""
    command: click.Command = cli.lonedot
    context = click.Context(command, info_name="lonedot")
    rest = list(words)
    while isinstance(command, click.Group) and rest:
        found = command.get_command(context, rest[0])
        if found is None:
            return False
        command, rest = found, rest[1:]
        context = click.Context(command, info_name=words[0], parent=context)
    if isinstance(command, click.Group):
        return False
    try:
        command.make_parser(context).parse_args(args=rest)
    except click.UsageError:
        return False
    return True


@pytest.mark.parametrize("kind", EventKind, ids=[kind.value for kind in EventKind])
def test_what_events_advise(kind: EventKind) -> None:
    whole = Event(1.0, kind, "38g4kghi60000", "", {"binding": "a name"})
    assert parses(shlex.split(command_of(whole))[1:]), command_of(whole)
    for command in re.findall(r"lonedot [^;,]+", advice_of(whole)):
        assert parses(shlex.split(command)[1:]), command
    bare = Event(1.0, kind, "", "")
    command = command_of(bare)
    assert "ID" not in command.split() and (not command or parses(shlex.split(command)[1:]))


_WRITTEN = re.compile(r"\blonedot ((?:[a-z0-9]+)(?: (?:[a-z0-9]+|--?[a-z-]+|\{[^}]*\}|[A-Z]+|'[^']*'))*)")


def written() -> Iterator[tuple[str, str]]:
    """Command lines in the texts of the source, docstrings and samples left out, and where they stand."""
    root = Path(lonedot.__file__).parent
    for file in sorted(root.rglob("*.py")):
        if file.name == "sink_samples.py" or "testing" in file.parts:
            continue
        tree = ast.parse(file.read_text())
        parts: set[ast.expr] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr):
                parts.add(node.value)  # a docstring
            if isinstance(node, ast.JoinedStr):
                parts.update(node.values)
                text = "".join(
                    str(one.value) if isinstance(one, ast.Constant) else "{}" for one in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in parts:
                text = node.value
            else:
                continue
            for found in _WRITTEN.finditer(text):
                yield f"{file.relative_to(root)}:{node.lineno}", found[1]


_PROSE = {
    "when",
    "queue",
    "message",
    "is",
    "names",
    "shows",
    "for",
    "sends",
    "lists",
    "uses",
    "writes",
    "looks",
    "with",
}


def test_each_command_in_a_text_is_there() -> None:
    """The command and its options: what stands behind them may be a sentence that goes on."""
    missing = []
    count = 0
    for where, words in written():
        command: click.Command = cli.lonedot
        context = click.Context(command, info_name="lonedot")
        rest = shlex.split(words)
        if rest[0] in _PROSE and cli.lonedot.get_command(context, rest[0]) is None:
            continue
        count += 1
        while isinstance(command, click.Group) and rest:
            found = command.get_command(context, rest[0])
            if found is None:
                break
            command, rest = found, rest[1:]
        known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        if command is cli.lonedot or {word for word in rest if word.startswith("-")} - known - {"--help"}:
            missing.append((where, words))
    assert not missing
    assert count > 60
