"""Virtual servers: numbers, what belongs to which, and the folders of each."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lonedot.config import disk
from lonedot.config.drop import Drop, folder_in
from lonedot.config.given import Drafts, Found, Given
from lonedot.config.model import Badmail, Pickup, Server, Source

__all__ = ["judge"]


class _Folder(NamedTuple):
    """A folder that the file names."""

    given: Given[Pickup] | Given[Badmail] | Given[Drop] | Given[Source]
    key: str
    path: Path
    is_looked_at: bool
    """Mail is taken from it; else mail is put there."""
    where: str
    """The table as a person writes it."""
    comes_back: str = ""
    """What would happen to what is put there, were mail taken from it."""


def judge(drafts: Drafts) -> Iterator[Found]:
    """Everything to say about `[[source]]`, `[pickup]`, `[badmail]` and `[drop]`."""
    yield from _judge_numbers(drafts)
    for given in drafts.listeners:
        if given.value is not None and given.knows("source") and given.value.source not in drafts.numbers:
            number = given.value.source
            yield given.fault(
                "source", f"there is no source {number}", f"write [[source]] with number = {number}"
            )
    yield from _judge_folders(drafts)
    yield from _judge_drop(drafts)


def _judge_numbers(drafts: Drafts) -> Iterator[Found]:
    seen: dict[int, str] = {}
    for given in drafts.sources:
        source = given.value
        if source is None or not given.knows("number"):
            continue
        if source.number in seen:
            what = f"source {source.number} is also {seen[source.number]}"
            yield given.fault("number", what, "use different numbers")
        seen.setdefault(source.number, given.where)
        if source.number == 1:
            for key in ("pickup", "badmail", "drop"):
                if given.has(key):
                    yield given.fault(key, f"source 1 has the folder of [{key}]", f"write folder in [{key}]")
        elif source.number not in drafts.served and given.knows("pickup"):
            yield given.warning(
                "",
                f"takes no mail: no listener and no Pickup belong to source {source.number}",
                f"write source = {source.number} at a [[listener]], or pickup here",
            )


def _judge_folders(drafts: Drafts) -> Iterator[Found]:
    server, pickup = drafts.server.value, drafts.pickup.value
    if server is None or pickup is None:
        return
    folders = list(_folders(drafts, server))
    device = disk.device_of(server.spool)
    for folder in folders:
        yield from _judge_folder(folder, server.spool)
        if not folder.is_looked_at:
            continue
        other = next((one for one in folders if one.path == folder.path and one is not folder), None)
        if other is not None and not (other.is_looked_at and folders.index(other) > folders.index(folder)):
            what = f"is also the folder of {other.where}"
            if not other.is_looked_at:
                what += f": {other.comes_back}"
            yield folder.given.fault(folder.key, what, "name another")
        if (folder.given is not drafts.pickup or pickup.enabled) and disk.device_of(folder.path) != device:
            yield folder.given.fault(
                folder.key,
                "is on another file system than the spool, so a file cannot be taken in one step",
                "put it on the spool's file system",
            )


def _folders(drafts: Drafts, server: Server) -> Iterator[_Folder]:
    """Every folder of every virtual server, as far as it could be read."""
    pickup, badmail = drafts.pickup.value, drafts.badmail.value
    if (
        pickup is not None
        and drafts.pickup.knows("folder")
        and (pickup.enabled or drafts.pickup.has("folder"))
    ):
        path = pickup.folder if drafts.pickup.has("folder") else server.paths.pickup
        yield _Folder(drafts.pickup, "folder", path, True, "[pickup]")
    if badmail is not None and drafts.badmail.knows("folder"):
        path = badmail.folder if drafts.badmail.has("folder") else server.paths.badmail
        yield _Folder(drafts.badmail, "folder", path, False, "[badmail]", _BAD_AGAIN)
    yield from _drop_folders(drafts, server)
    for given in drafts.sources:
        source = given.value
        if source is None:
            continue
        if source.pickup is not None and given.has("pickup"):
            yield _Folder(given, "pickup", source.pickup, True, given.where)
        if given.has("badmail"):
            yield _Folder(given, "badmail", source.badmail, False, given.where, _BAD_AGAIN)


_BAD_AGAIN = "what cannot be sent would be sent again"
_DROPPED_AGAIN = "what is dropped would be sent again, in a circle"


def _judge_drop(drafts: Drafts) -> Iterator[Found]:
    given = drafts.drop
    if given is None or not given.names or any(one.value is None or one.value.drop for one in drafts.routes):
        return
    yield given.warning("", "is not used: no route leads there", "write drop = true in a [[route]]")


def _drop_folders(drafts: Drafts, server: Server) -> Iterator[_Folder]:
    given = drafts.drop
    is_used = any(one.value is not None and one.value.drop for one in drafts.routes)
    if given is not None and given.value is not None and given.knows("folder"):
        if given.has("folder"):
            yield _Folder(given, "folder", given.value.folder, False, "[drop]", _DROPPED_AGAIN)
        elif is_used:
            yield _Folder(given, "", folder_in(server.spool, 1), False, "[drop]", _DROPPED_AGAIN)
    for one in drafts.sources:
        source = one.value
        if source is not None and one.has("drop"):
            yield _Folder(one, "drop", source.drop, False, one.where, _DROPPED_AGAIN)
        elif source is not None and is_used and one.knows("drop", "number"):
            yield _Folder(one, "", folder_in(server.spool, source.number), False, one.where, _DROPPED_AGAIN)


def _judge_folder(folder: _Folder, spool: Path) -> Iterator[Found]:
    given, path = folder.given, folder.path
    state = disk.state_of(path)
    if state is not None and not stat.S_ISDIR(state.st_mode):
        yield given.fault(folder.key, f"{path} is not a folder", "name a folder")
    elif state is None and disk.state_of(path.parent) is None and path.parent != spool:
        yield given.fault(
            folder.key, f"the folder {path.parent} does not exist", f"run mkdir -p {path.parent}"
        )
    if path == spool:
        example = "spool/pickup" if folder.is_looked_at else "spool/badmail"
        yield given.fault(folder.key, "is the spool itself", f'use a folder in it, such as "{example}"')
