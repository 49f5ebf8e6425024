"""A copy of a shard that is consistent while the relay runs, and the way back.

What a backup is:

```
DIR/backup.json            written last: without it the copy is not whole
DIR/shards/0/queue.db      one file, as SQLite's backup interface makes it, of one moment
DIR/shards/0/bodies/…      the body files that it names: linked where the file system can, else copied
DIR/holds.json             the standing rules that hold new messages
```

Rules: body files never change, so a link is a copy; while a backup is made the shard removes none. A restored spool
appears under its name when it is whole and synced. Nothing here goes through `Disk`: it promises nothing to a client,
and what is left of an attempt that was cut short is never taken for a backup or a spool.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import msgspec

from lonedot.spool import schema
from lonedot.spool.bodies import body_in
from lonedot.spool.hold_rules import read_rules, write_rules
from lonedot.spool.interface import SpoolFault, SpoolPaths
from lonedot.spool.lock import SpoolLock
from lonedot.terms.ids import id_from_number

__all__ = ["Manifest", "Saved", "finish_backup", "restore", "save_shard"]

_PAGES = 2048
"""Copied in one step."""
_MANIFEST = "backup.json"


class Manifest(msgspec.Struct, frozen=True):
    """What stands in `backup.json`."""

    made_at: float
    shards: tuple[int, ...]
    schema: int
    kind: str = "lonedot backup"


class Saved(msgspec.Struct, frozen=True):
    """What was copied."""

    messages: int = 0
    bodies: int = 0


def save_shard(
    database: Path,
    into: Path,
    copied: Callable[[int, int], None],
    vfs: str | None = None,
) -> Saved:
    """Copy a shard into the folder `into`, which is made. Runs in a thread; no body file may be removed meanwhile.

    Args:
        copied: told how many pages of how many are there.

    Raises:
        SpoolFault: it cannot be read or written, or there is something in `into`.
    """
    try:
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(into.iterdir()):
            raise SpoolFault(f"{into} is not empty")
        target = into / "queue.db"
        with (
            _closing(schema.open_reader(database, vfs)) as source,
            _closing(apsw.Connection(str(target))) as copy,
        ):
            # One moment: what is committed after this read is not seen, and does not make the copy start anew.
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM progress").fetchall()
            with copy.backup("main", source, "main") as running:
                while not running.done:
                    running.step(_PAGES)
                    copied(running.page_count - running.remaining, running.page_count)
            source.execute("COMMIT")
            copy.pragma("journal_mode", "delete")  # one file, nothing beside it
            named = _named_bodies(copy)
            ((messages,),) = schema.query(copy, "SELECT count(*) FROM message")
        target.chmod(0o600)
        _sync(target)
        for id, _ in named:
            _link_or_copy(body_in(database.parent / "bodies", id), body_in(into / "bodies", id))
        _sync_folders(into)
    except (OSError, apsw.Error) as error:
        raise SpoolFault(f"the backup failed: {error}") from error
    return Saved(messages, len(named))


def finish_backup(folder: Path, paths: SpoolPaths) -> Manifest:
    """Say that the backup is whole, after every shard of the spool is there.

    Raises:
        SpoolFault: one is not, or the file cannot be written.
    """
    try:
        shards = SpoolPaths(folder).shards()
        missing = [number for number in paths.shards() if number not in shards]
        if missing or not shards:
            which = ", ".join(map(str, missing)) or "any"
            raise SpoolFault(f"{folder} is no whole backup: of the spool it has not shard {which}")
        write_rules(folder, read_rules(paths.root))
        manifest = Manifest(time.time(), shards, schema.VERSION)
        part = folder / f".{_MANIFEST}.part"
        part.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
        _sync(part)
        part.replace(folder / _MANIFEST)
        _sync(folder)
    except (OSError, ValueError) as error:
        raise SpoolFault(f"the backup could not be finished: {error}") from error
    return manifest


def restore(folder: Path, paths: SpoolPaths, *, hold: bool) -> Saved:
    """Make a spool from a backup. Everything is checked before anything is written.

    Args:
        hold: nothing of it is sent before a person releases it.

    Raises:
        SpoolFault: it is no whole backup, it is of a newer version, or there are messages in the spool.
        SpoolLocked: a relay, or another command, has the spool.
    """
    try:
        manifest = _manifest(folder)
        for shard in manifest.shards:
            _check(folder / "shards" / str(shard))
        paths.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = SpoolLock(paths.lock)
        try:
            _refuse_messages(paths)
            saved = Saved()
            # All shards appear in one step, so that no relay is ever started with some of them.
            whole = SpoolPaths(paths.root / "restoring")
            shutil.rmtree(whole.root, ignore_errors=True)
            for shard in manifest.shards:
                one = _restore_shard(folder / "shards" / str(shard), whole.shard(shard), manifest, hold=hold)
                saved = Saved(saved.messages + one.messages, saved.bodies + one.bodies)
            _sync_folders(whole.root)
            write_rules(paths.root, read_rules(folder))
            shutil.rmtree(paths.root / "shards", ignore_errors=True)  # of a spool without messages
            (whole.root / "shards").replace(paths.root / "shards")
            whole.root.rmdir()
            _sync(paths.root)
        finally:
            lock.release()
    except (OSError, ValueError, apsw.Error) as error:
        raise SpoolFault(f"the backup could not be restored: {error}") from error
    return saved


def _manifest(folder: Path) -> Manifest:
    try:
        octets = (folder / _MANIFEST).read_bytes()
    except FileNotFoundError:
        raise SpoolFault(f"{folder} is no whole backup: {_MANIFEST} is missing") from None
    try:
        manifest = msgspec.json.decode(octets, type=Manifest)
    except msgspec.MsgspecError as error:
        raise SpoolFault(f"{folder / _MANIFEST} cannot be read: {error}") from error
    if manifest.schema > schema.VERSION:
        raise SpoolFault(f"{folder} was written by a newer version of Lonedot")
    if manifest.shards != SpoolPaths(folder).shards():
        raise SpoolFault(f"{folder} is no whole backup: its shards are not those that {_MANIFEST} names")
    return manifest


def _check(shard: Path) -> None:
    database = shard / "queue.db"
    with _closing(schema.open_reader(database, None)) as connection:
        if connection.pragma("user_version") > schema.VERSION:
            raise SpoolFault(f"{database} was written by a newer version of Lonedot")
        if (found := schema.query(connection, "PRAGMA quick_check(1)")) != [("ok",)]:
            raise SpoolFault(f"{database} is damaged: {found[0][0]}")
        named = _named_bodies(connection)
    for id, size in named:
        path = body_in(shard / "bodies", id)
        if not path.is_file() or path.stat().st_size != size:
            raise SpoolFault(f"the body file {path} is missing, or not the {size} octets that were stored")


def _refuse_messages(paths: SpoolPaths) -> None:
    """A spool that has messages is never written over; an empty one is."""
    for shard in paths.shards():
        database = paths.shard(shard) / "queue.db"
        with _closing(apsw.Connection(str(database))) as connection:
            ((messages,),) = schema.query(connection, "SELECT count(*) FROM message")
        if messages:
            raise SpoolFault(
                f"{paths.root} has {messages} messages; restore into another folder, or move it away"
            )


def _restore_shard(source: Path, part: Path, manifest: Manifest, *, hold: bool) -> Saved:
    part.mkdir(mode=0o700, parents=True)
    target = part / "queue.db"
    shutil.copyfile(source / "queue.db", target)
    target.chmod(0o600)
    with _closing(apsw.Connection(str(target))) as connection:
        if hold:
            day = time.strftime("%Y-%m-%d %H:%M", time.localtime(manifest.made_at))
            connection.execute(
                "UPDATE message SET state = 'held', reason = ? WHERE state = 'queued'",
                (f"restored from the backup of {day}",),
            )
        named = _named_bodies(connection)
        ((messages,),) = schema.query(connection, "SELECT count(*) FROM message")
    _sync(target)
    (part / "bodies").mkdir(mode=0o700)
    for id, _ in named:
        _link_or_copy(body_in(source / "bodies", id), body_in(part / "bodies", id))
    return Saved(messages, len(named))


class _closing:
    """A connection, closed at the end."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> apsw.Connection:
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close(True)


def _named_bodies(connection: apsw.Connection) -> list[tuple[str, int]]:
    """Ids and sizes of the bodies that are files, but for damaged messages, whose file may be gone."""
    found = schema.query(
        connection,
        "SELECT c.message, c.size FROM content c JOIN message m ON m.id = c.message"
        " WHERE c.file = 1 AND m.state <> 'damaged'",
    )
    return [(id_from_number(number), size) for number, size in found]


def _link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
        target.chmod(0o600)
        _sync(target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folders(root: Path) -> None:
    for folder, _, _ in os.walk(root):
        _sync(Path(folder))
