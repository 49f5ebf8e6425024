"""What the tables of a configuration say together, and what the disk says about them.

Everything here is a pure question to the drafts and to files; the answers are `Found` values. A key that could not
be read is not judged a second time.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from lonedot.config import check_listeners, check_routes, check_sinks, disk
from lonedot.config.given import Drafts, Found, Given

__all__ = ["judge"]

S = TypeVar("S", bound=msgspec.Struct)


def judge(drafts: Drafts) -> Iterator[Found]:
    """Everything that can be said against the tables together."""
    yield from _judge_server(drafts)
    yield from check_listeners.judge(drafts)
    yield from check_routes.judge(drafts)
    yield from check_sinks.judge(drafts)
    yield from _judge_folders(drafts)


def _judge_server(drafts: Drafts) -> Iterator[Found]:
    given = drafts.server
    server = given.value
    if server is None:
        return
    if given.knows("spool"):
        state = disk.state_of(server.spool)
        if state is None:
            if disk.state_of(server.spool.parent) is None:
                yield given.fault(
                    "spool",
                    f"the folder {server.spool.parent} does not exist",
                    f"run mkdir -p {server.spool.parent}",
                )
        elif not stat.S_ISDIR(state.st_mode):
            yield given.fault(
                "spool", f"{server.spool} is not a folder", "name a folder, or move the file away"
            )
        elif state.st_mode & 0o077:
            yield given.warning(
                "spool",
                f"{server.spool} can be entered by others (mode {stat.S_IMODE(state.st_mode):04o}); mail lies there",
                f"run chmod 700 {server.spool}",
            )
    if given.has("registry") and server.registry is not None and disk.state_of(server.registry) is None:
        yield given.note("registry", f"{server.registry} does not exist yet", "nothing; it counts as empty")


def _judge_folders(drafts: Drafts) -> Iterator[Found]:
    server, pickup, badmail = drafts.server.value, drafts.pickup.value, drafts.badmail.value
    if server is None or pickup is None or badmail is None:
        return
    if drafts.pickup.has("folder"):
        yield from _judge_folder(drafts.pickup, pickup.folder, server.spool)
    if drafts.badmail.has("folder"):
        yield from _judge_folder(drafts.badmail, badmail.folder, server.spool)
    if not drafts.pickup.has("folder"):
        return
    if drafts.badmail.has("folder") and pickup.folder == badmail.folder:
        yield drafts.pickup.fault(
            "folder",
            "is also the folder of [badmail]: what cannot be sent would be sent again",
            "name another",
        )
    if pickup.enabled and disk.device_of(pickup.folder) != disk.device_of(server.spool):
        yield drafts.pickup.fault(
            "folder",
            "is on another file system than the spool, so a file cannot be taken in one step",
            "put it on the spool's file system",
        )


def _judge_folder(given: Given[S], folder: Path, spool: Path) -> Iterator[Found]:
    state = disk.state_of(folder)
    if state is not None and not stat.S_ISDIR(state.st_mode):
        yield given.fault("folder", f"{folder} is not a folder", "name a folder")
    elif state is None and disk.state_of(folder.parent) is None and folder.parent != spool:
        yield given.fault(
            "folder", f"the folder {folder.parent} does not exist", f"run mkdir -p {folder.parent}"
        )
    if folder == spool:
        yield given.fault(
            "folder", "is the spool itself", f'use a folder in it, such as "spool/{given.where}"'
        )
