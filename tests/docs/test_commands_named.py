"""Every command line of ours that a page names is one that there is, with options that it takes; every configuration
that a page shows is one that the relay understands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lonedot.cli import lonedot
from lonedot.config.load import examine_octets
from lonedot.config.reference import TABLES

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`((?:[^`\n]|\n(?!\n))+)`(?!`)")
_OF_OTHER_PROGRAMS = ("sendmail", "smtpreg")


def command_lines(page: str) -> Iterator[str]:
    """What a reader may type, in blocks for a shell and within the text."""
    for kind, text in _FENCE.findall(page):
        if kind in ("sh", "console"):
            for line in text.splitlines():
                yield from re.split(r"[|;&<>]+| · ", line.removeprefix("$ "))
    for words in _INLINE.findall(_FENCE.sub("", page)):
        yield from words.split(" · ")


def fault_of(line: str) -> str:
    """What is wrong with a command line of ours; empty when nothing is, or when it is not ours."""
    words = line.partition(" #")[0].split()
    if len(words) < 2 or words[0] != "lonedot" or not re.fullmatch(r"[a-z]+", words[1]):
        return ""
    command: click.Command = lonedot
    path = words[1:]
    while isinstance(command, click.Group) and path and not path[0].startswith("-"):
        name = path.pop(0)
        if not re.fullmatch(r"[a-z-]+", name):
            return ""
        if name not in command.list_commands(click.Context(command)):
            return f"there is no {name}"
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    if command.name in _OF_OTHER_PROGRAMS:
        return ""
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    known |= {"-h", "--help", "--version"}
    for word in path:
        option = re.match(r"--?[A-Za-z][\w-]*", word)
        if option is not None and option[0] not in known:
            return f"{command.name} has no {option[0]}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands(page: Path) -> None:
    lines = list(command_lines(page.read_text(encoding="utf-8")))
    assert [(line, fault) for line in lines if (fault := fault_of(line))] == []


def test_what_is_a_fault() -> None:
    assert fault_of("lonedot queue list --state held") == ""
    assert fault_of("lonedot queue lst") == "there is no lst"
    assert fault_of("lonedot why ID --transkript") == "why has no --transkript"
    assert list(command_lines("Say `lonedot\nreload` · or:\n\n```sh\na | lonedot why ID\n```\n")) == [
        "a ",
        " lonedot why ID",
        "lonedot\nreload",
    ]


def configurations() -> Iterator[tuple[str, str]]:
    """Blocks that hold tables of a configuration, with the page they stand on."""
    headers = {header for header, _ in TABLES}
    for page in PAGES:
        for kind, text in _FENCE.findall(page.read_text(encoding="utf-8")):
            lines = {line.partition("#")[0].strip() for line in text.splitlines()}
            if kind == "toml" and lines & headers and "[[binding]]" not in lines:
                yield page.stem, text


@pytest.mark.parametrize(
    ("page", "text"), [pytest.param(*one, id=f"{one[0]}-{n}") for n, one in enumerate(configurations())]
)
def test_configurations(tmp_path: Path, page: str, text: str) -> None:
    """No table and no key that there is not. Files and hosts need not be there."""
    examined = examine_octets(text.encode(), tmp_path / "lonedot.toml", lambda: "relay.example.com")
    assert [fault for fault in examined.faults if "that exists here" in fault.what] == [], page


def test_what_is_no_key(tmp_path: Path) -> None:
    examined = examine_octets(
        b'[server]\nhostnam = "x"\n', tmp_path / "lonedot.toml", lambda: "a.example.com"
    )
    assert [fault for fault in examined.faults if "that exists here" in fault.what]
