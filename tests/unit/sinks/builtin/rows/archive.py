"""The archive in the contract suite: it asks nobody, and its disk does not fail here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from lonedot.sinks.bindings import Setting
from lonedot.sinks.builtin.archive import archive, archive_address
from tests.unit.sinks.builtin.contract import Row

__all__ = ["ROWS"]

MAILBOX = "archive@example.org"


def folder_of(folder: Path, address: str) -> Mapping[str, Setting]:
    return {"folder": str(folder / "kept")}


def maildir_of(folder: Path, address: str) -> Mapping[str, Setting]:
    return {"maildir": str(folder / "kept"), "line_ends": "LF"}


def mailbox(folder: Path, address: str) -> Mapping[str, Setting]:
    return {"address": MAILBOX}


FOLDER = Row("archive", archive, folder_of)
ROWS = (
    FOLDER,
    msgspec.structs.replace(FOLDER, name="archive-maildir", settings=maildir_of),
    Row("archive-address", archive_address, mailbox, adds=frozenset({MAILBOX})),
)
