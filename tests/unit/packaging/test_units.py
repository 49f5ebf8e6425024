"""The systemd units and the container file: their commands exist, and systemd finds nothing to say against them."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from lonedot.cli import COMMANDS, lonedot
from tests.need import need

TOP = Path(__file__).parents[3]
PACKAGING = TOP / "packaging"
EXPOSURE = 2.0
"""As `systemd-analyze security` counts: 0 can do nothing, 10 can do everything."""


def commands() -> list[list[str]]:
    """Every command line of ours in the files, without the program."""
    service = (PACKAGING / "lonedot.service").read_text()
    found = re.findall(r"^Exec\w+=/usr/bin/lonedot (.*)$", service, re.MULTILINE)
    container = (PACKAGING / "Containerfile").read_text()
    lists = re.findall(r"^(?:\s+)?CMD \[(.*)\]$", container, re.MULTILINE)
    listed = [[word.strip().strip('"') for word in one.split(",")] for one in lists]
    return [shlex.split(line) for line in found] + [
        words[1:] if words[0] == "lonedot" else words for words in listed
    ]


def test_there_are_commands_to_judge() -> None:
    assert [words[0] for words in commands()] == ["serve", "reload", "status", "serve"]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_each_command_is_one_of_ours_and_takes_its_options(words: list[str]) -> None:
    assert words[0] in COMMANDS
    command = lonedot.get_command(None, words[0])  # type: ignore[arg-type]  # the context is not looked at
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words[1:] if word.startswith("-")} <= known


def test_what_the_container_copies_is_there() -> None:
    container = (PACKAGING / "Containerfile").read_text()
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.*)$", container, re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert copied
    assert [name for name in copied if not (TOP / name).exists()] == []


def test_the_container_does_not_run_as_root() -> None:
    container = (PACKAGING / "Containerfile").read_text()
    users = re.findall(r"^USER (\S+)$", container, re.MULTILINE)
    assert users == ["lonedot"]
    assert container.index("USER lonedot") < container.index("ENTRYPOINT")


def test_systemd_counts_little_exposure() -> None:
    done = subprocess.run(
        [
            str(need("systemd-analyze", "systemd")),
            "security",
            "--offline=yes",
            str(PACKAGING / "lonedot.service"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    found = re.search(r"Overall exposure level for lonedot\.service: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) < EXPOSURE


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    program = tmp_path / "lonedot"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in ("lonedot.service", "lonedot.socket"):
        text = (PACKAGING / name).read_text().replace("/usr/bin/lonedot", str(program))
        (tmp_path / name).write_text(text.replace("Documentation=man:systemd.exec(5)\n", ""))
    done = subprocess.run(
        [str(need("systemd-analyze", "systemd")), "verify", *map(str, sorted(tmp_path.glob("lonedot.s*")))],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = [line for line in (done.stdout + done.stderr).splitlines() if "lonedot" in line]
    assert said == []
