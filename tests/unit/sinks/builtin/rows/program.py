"""The program bridge in the contract suite: a shell script that answers in JSON."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin.program import ProgramFilter
from tests.unit.sinks.builtin.contract import GARBAGE, Backend, Fault, Row

__all__ = ["ROWS"]

USER = "nobody" if os.geteuid() == 0 else ""
READ = "cat >/dev/null\n"
ANSWER = """printf '{"verdict": "next"}'\n"""
TEXTS = {
    Fault.NONE: READ + ANSWER,
    Fault.SILENT: READ + "exec sleep 600\n",
    Fault.DEAF: "exec sleep 600\n",
    Fault.CLOSED: "kill -9 $$\n",
    Fault.TORN: READ + """printf '{"verd'\nkill -9 $$\n""",
    Fault.ENDLESS: READ + "exec yes\n",
}


class Script:
    """A program whose text is written anew."""

    def __init__(self) -> None:
        # pytest's own folders are open to one user alone, and a program must not run as root.
        self._folder = Path(tempfile.mkdtemp())
        self._folder.chmod(0o755)
        self._path = self._folder / "filter"

    @property
    def address(self) -> str:
        return str(self._path)

    async def behave(self, fault: Fault, garbage: bytes = GARBAGE[0], torn: int = 1) -> None:
        self._path.unlink(missing_ok=True)
        if fault is Fault.AWAY:
            return
        text = TEXTS.get(fault)
        if text is None:
            (self._folder / "garbage").write_bytes(garbage)
            (self._folder / "garbage").chmod(0o644)
            text = READ + f"cat {self._folder}/garbage\n"
        self._path.write_text("#!/bin/sh\n" + text)
        self._path.chmod(0o755)

    async def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def settings(folder: Path, address: str) -> Mapping[str, Setting]:
    return {"command": address, "returns": "json", "user": USER, "largest_answer": 512 * 1024}


def backend(folder: Path) -> Backend:
    return Script()


# Two programs are started for a call, which takes its time on a busy machine.
ROWS = (Row("program", ProgramFilter, settings, backend, deadline_seconds=3.0),)
