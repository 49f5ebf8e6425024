"""The help of every command, and what is said to wrong use: in one form, with what to do, and never cut short."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from lonedot.cli import lonedot, run
from lonedot.cli.commands import Commands, first_sentence

_OF_OTHER_PROGRAMS = {("sendmail",), ("smtpreg",)}
"""They take the arguments of the program whose place they have."""


def every_command(group: click.Group = lonedot, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*words, name)
        if isinstance(command, click.Group):
            yield from every_command(command, (*words, name))


COMMANDS = tuple(every_command())


def test_there_are_commands() -> None:
    assert {("serve",), ("queue", "list"), ("sinks", "add")} <= set(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run((*words, "--help")) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: lonedot {' '.join(words)} ")
    assert "..." not in said.replace("]...", "").replace("ID...", "")
    assert max(map(len, said.splitlines())) <= 100


@pytest.mark.parametrize(
    "words", [words for words in COMMANDS if words not in _OF_OTHER_PROGRAMS], ids=" ".join
)
def test_an_option_that_is_none(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run((*words, "--no-such-option")) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    where = "lonedot " + " ".join(words)
    assert line.startswith("lonedot: no such option '--no-such-option'")
    assert line.endswith(f"; {where}; run {where} --help")


@pytest.mark.parametrize("words", [("chekc",), ("queue", "lst"), ("sinks", "lsit"), ("config", "shwo")])
def test_a_command_that_is_none(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    wanted = {"chekc": "check", "lst": "list", "lsit": "list", "shwo": "show"}[words[-1]]
    assert wanted in line and "did you mean" in line.lower()


def test_groups_show_whole_sentences() -> None:
    groups = [words for words in COMMANDS if len(words) == 1]
    for (name,) in groups:
        command = lonedot.get_command(click.Context(lonedot), name)
        if isinstance(command, click.Group):
            assert isinstance(command, Commands), name
    assert first_sentence("Send it\n  on. And more.\n\nSecond.") == "Send it on."
