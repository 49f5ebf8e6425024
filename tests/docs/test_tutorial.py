"""The tutorial, done step by step in one shell and an empty folder, with a relay and a receiver that really run."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.docs.steps import Command, File, matches, steps_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
PATIENCE_SECONDS = 60.0
"""How long a command may take, and how long what it looks at may take to come."""


class Shell:
    """One bash that is given commands one after the other, as a reader does."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        bash = shutil.which("bash")
        assert bash is not None
        self._process = subprocess.Popen(
            [bash, "--noprofile", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the shell and whatever it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def run(self, line: str) -> tuple[str, int]:
        """What the command prints, and its exit code."""
        assert self._process.stdin is not None and self._process.stdout is not None
        is_background = line.endswith("&")
        command = line if is_background else f"{{ {line}\n}} </dev/null"
        self._process.stdin.write(f"{command}\nprintf '\\n[[%s]]\\n' $?\n".encode())
        self._process.stdin.flush()
        printed: list[str] = []
        for octets in self._process.stdout:
            text = octets.decode()
            if found := re.fullmatch(r"\[\[(\d+)\]\]\n", text):
                return "".join(printed), int(found[1])
            printed.append(text)
        raise AssertionError(f"the shell ended at {line!r}: {''.join(printed)}")


@pytest.fixture
def ports() -> dict[str, str]:
    """Free ports in the place of those that the page names."""
    with contextlib.ExitStack() as stack:
        chosen = {}
        for port in ("2525", "2526"):
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            chosen[port] = str(probe.getsockname()[1])
    return chosen


def environment_of(folder: Path) -> dict[str, str]:
    """A reader's: with pytest and the plugin of this package and no other, and a cache for mypy that lasts."""
    programs = str(Path(sys.executable).parent)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "LONEDOT_", "COVERAGE_", "COLUMNS"))
    }
    return {
        **environment,
        "PATH": f"{programs}{os.pathsep}{environment.get('PATH', os.defpath)}",
        "HOME": str(folder),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_PLUGINS": "lonedot.testing.plugin",
        "MYPY_CACHE_DIR": str(ROOT / ".mypy_cache" / "tutorial"),
        "COLUMNS": "200",
    }


def wait_for(port: str, log: Path) -> None:
    """Until somebody listens there."""
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < ends_at:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(port)), 5):
            return
        time.sleep(0.02)
    raise AssertionError(f"nobody listens at {port}: {log.read_text() if log.exists() else ''}")


def do(shell: Shell, folder: Path, step: Command, listening: Iterator[str]) -> None:
    """Run one command. What only reads is asked again while the relay still works on the answer."""
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        printed, code = shell.run(step.line)
        fits = matches(printed, step.output) and (code == 0) is ("fault: " not in step.output)
        if (
            fits
            or time.monotonic() > ends_at
            or not step.line.startswith(
                ("grep", "lonedot why", "lonedot history", "lonedot status", "echo ", "id=")
            )
        ):
            break
        time.sleep(0.05)
    assert fits, f"$ {step.line}\n{printed}\nexit code {code}; the page says:\n{step.output}"
    if step.line.endswith("&"):
        wait_for(next(listening), folder / "serve.log")


@pytest.mark.timeout(300)
def test_the_tutorial(tmp_path: Path, ports: dict[str, str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for port, free in ports.items():
        page = page.replace(port, free)
    listening = iter((ports["2526"], ports["2525"]))
    done = 0
    with Shell(tmp_path, environment_of(tmp_path)) as shell:
        for step in steps_of(page):
            match step:
                case File(path, text):
                    (tmp_path / path).write_text(text, encoding="utf-8")
                case Command():
                    do(shell, tmp_path, step, listening)
            done += 1
    assert done > 15
    assert list(listening) == []


# --- the reader of pages -------------------------------------------------------------------------


def test_steps_of_a_page() -> None:
    page = "Let `a/b.py` be:\n\n```python\nx = 1\n```\n\n```console\n$ one\n$ two\nprints\nthis\n```\n"
    assert list(steps_of(page)) == [
        File(Path("a/b.py"), "x = 1\n"),
        Command("one", ""),
        Command("two", "prints\nthis\n"),
    ]


def test_a_block_that_nobody_would_run_is_a_fault() -> None:
    with pytest.raises(ValueError, match="no step"):
        list(steps_of("Look:\n\n```python\nx = 1\n```\n"))


@pytest.mark.parametrize(
    ("printed", "wanted", "fits"),
    [
        ("one\ntwo\n", "one\ntwo\n", True),
        ("one\nanything\ntwo\n", "one\n…\ntwo\n", True),
        ("4 passed in 0.5s\n", "4 passed in …\n", True),
        ("one\n", "two\n", False),
        ("one\n", "", False),
        ("a.b", "a.c", False),
        ("axb", "a.b", False),
    ],
)
def test_what_fits(printed: str, wanted: str, fits: bool) -> None:
    assert matches(printed, wanted) is fits
