"""`lonedot queue import`: messages that were exported, from a folder or an archive.

Rule: an archive may come from anywhere. Its names lead nowhere: each message is put into a folder of the spool under
its id, some at a time, and the relay judges what is in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO

import click

from lonedot.admin import tar
from lonedot.admin.client import Caller
from lonedot.admin.import_operations import HERE_ALREADY, IMPORT
from lonedot.admin.operations import LIST, OCTETS
from lonedot.admin.values import (
    AdminError,
    Changed,
    Form,
    ImportArguments,
    Left,
    ListArguments,
    Octets,
    OctetsArguments,
)
from lonedot.cli.output import Problem, json_option, print_json
from lonedot.cli.queue_filter import Progress
from lonedot.cli.spool_access import place, place_options, work
from lonedot.spool.interface import MessageState

__all__ = ["import_"]

_MANY = 20
_STAGED_MESSAGES = 200
_STAGED_OCTETS = 64 << 20
"""What is put before the relay in one step."""
_KEPT_FREE = 256 << 20
"""Octets of the disk of the spool that an import leaves free."""


@click.command("import")
@click.argument("source", metavar="FOLDER|FILE.tar|-", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--hold", is_flag=True, help="Nothing of it is sent before lonedot queue release.")
@place_options
@json_option
def import_(source: Path, hold: bool, config_file: Path, spool_folder: Path | None, as_json: bool) -> int:
    """Take over messages that lonedot queue export has saved, with envelope and ledger.

    A message that is here already is not taken again; another one with the same id is named. What was held stays held,
    and recipients that have got it do not get it again. Exits 1 when something was not taken.
    """
    where = place(config_file, spool_folder)
    try:
        with _Source(source) as given:
            changed, here = work(where, lambda caller: _import(caller, given, where.paths.root, hold=hold))
    except tar.TarFault as error:
        raise Problem(
            f"the archive is not one of lonedot queue export: {error}",
            where=str(source),
            do="what came before that entry may have been taken; importing again takes nothing twice"
            if str(source) == "-"
            else "nothing of it was taken",
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise Problem(f"cannot be read: {reason.lower()}", where=str(error.filename or source)) from error
    if as_json:
        print_json({"done": changed.done, "here_already": here, "left": changed.left})
        return int(bool(changed.left))
    number = len(changed.done)
    click.echo(
        f"{number} message{'' if number == 1 else 's'} imported{', and held' if hold and number else ''}"
    )
    if here:
        click.echo(f"{len(here)} were here already")
    for left in changed.left[:_MANY]:
        click.echo(f"{left.id}: not taken: {left.why}", err=True)
    if len(changed.left) > _MANY:
        click.echo(f"{len(changed.left) - _MANY} more were not taken; --json names all", err=True)
    return int(bool(changed.left))


class _Source:
    """A folder or an archive of exported messages. An archive that can be read twice is looked through first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._archive: BinaryIO | None = None
        self.total = 0
        """Messages; 0: nobody knows."""
        self.left: list[Left] = []

    def __enter__(self) -> _Source:
        if str(self._path) == "-":
            self._archive = sys.stdin.buffer
        elif self._path.is_dir():
            self.total = sum(1 for _ in self._in_folder())
            if not self.total:
                raise Problem(
                    "no ID.message is in it",
                    where=str(self._path),
                    do="name a folder of lonedot queue export",
                )
        else:
            self._archive = archive = self._path.open("rb")
            try:
                self.total = _look_through(archive)
            except BaseException:
                archive.close()
                raise
            archive.seek(0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._archive is not None and str(self._path) != "-":
            self._archive.close()

    def messages(self) -> Iterator[tuple[str, int, Iterator[bytes]]]:
        """Id, size and octets of each. Raises TarFault or OSError."""
        if self._archive is not None:
            for entry, octets in tar.entries(self._archive):
                id, _, kind = entry.name.rpartition(".")
                if kind == "message":
                    yield id, entry.size, octets
            return
        for name in self._in_folder():
            id = name.removesuffix(".message")
            try:
                descriptor = os.open(self._path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError as error:
                self.left.append(Left(id, f"it cannot be read: {error.strerror or error}"))
                continue
            with os.fdopen(descriptor, "rb") as file:
                yield id, os.fstat(descriptor).st_size, iter(lambda file=file: file.read(1 << 20), b"")  # type: ignore[misc]  # bound at once

    def _in_folder(self) -> Iterator[str]:
        for name in sorted(entry.name for entry in os.scandir(self._path)):
            if name.endswith(".message") and tar.EXPORTED_NAME.match(name):
                yield name


def _look_through(archive: BinaryIO) -> int:
    """How many messages are in it. Raises TarFault or OSError."""
    seen: set[str] = set()
    for entry, _ in tar.entries(archive):
        if entry.name in seen:
            raise tar.TarFault(f"{entry.name} is in it twice")
        seen.add(entry.name)
    return sum(name.endswith(".message") for name in seen)


async def _import(
    caller: Caller, source: _Source, spool: Path, *, hold: bool
) -> tuple[Changed, tuple[str, ...]]:
    done: list[str] = []
    here: list[str] = []
    progress = Progress(source.total, "looked at")
    try:
        with _stage(spool) as folder:
            async for batch in _staged(source, folder):
                known = await _known(caller, batch)
                for id in known & set(batch):
                    same = await _is_same(caller, id, folder / f"{id}.message")
                    if same:
                        here.append(id)
                    else:
                        source.left.append(Left(id, "another message has this id here"))
                new = tuple(id for id in batch if id not in known)
                if new:
                    changed = await caller.call(IMPORT, ImportArguments(str(folder), new, hold))
                    done += changed.done
                    here += [left.id for left in changed.left if left.why == HERE_ALREADY]
                    source.left += [left for left in changed.left if left.why != HERE_ALREADY]
                for id in batch:
                    (folder / f"{id}.message").unlink()
                progress.step(len(batch))
    finally:
        progress.end()
    return Changed(tuple(done), tuple(source.left)), tuple(here)


@contextlib.contextmanager
def _stage(spool: Path) -> Iterator[Path]:
    """A folder in the spool that the relay can read; gone at the end, as what a killed command has left before."""
    above = spool / "importing"
    owner = spool.stat()
    if above.is_symlink():
        raise Problem("it is a link", where=str(above), do="remove it")
    above.mkdir(mode=0o700, exist_ok=True)
    for old in above.iterdir():
        if time.time() - old.lstat().st_mtime > 3600:
            shutil.rmtree(old, ignore_errors=True)
    folder = above / secrets.token_hex(8)
    folder.mkdir(mode=0o700)
    try:
        if os.geteuid() == 0:
            for one in (above, folder):
                os.chown(one, owner.st_uid, owner.st_gid)
        yield folder.absolute()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _staged(source: _Source, folder: Path) -> AsyncIterator[tuple[str, ...]]:
    """Ids of messages that lie in the folder, some at a time; they are removed by whoever took them."""
    batch: list[str] = []
    total = 0
    owner = folder.stat()  # noqa: ASYNC240 — nothing else runs here
    for id, size, octets in source.messages():
        free = shutil.disk_usage(folder).free
        if size > free - _KEPT_FREE:
            raise Problem(
                f"there is too little room for {id}",
                where=str(folder),
                do="make room on the disk of the spool",
            )
        if id in batch:
            source.left.append(Left(id, "it is in the archive twice"))
            continue
        descriptor = os.open(
            folder / f"{id}.message", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600
        )
        with os.fdopen(descriptor, "wb") as file:
            if os.geteuid() == 0:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            for chunk in octets:
                file.write(chunk)
        batch.append(id)
        total += size
        if len(batch) >= _STAGED_MESSAGES or total >= _STAGED_OCTETS:
            yield tuple(batch)
            batch, total = [], 0
    if batch:
        yield tuple(batch)


async def _known(caller: Caller, ids: tuple[str, ...]) -> set[str]:
    """Those that are here, in whatever state and shard."""
    wanted = ListArguments(tuple(MessageState), ids, limit=len(ids))
    return {row.id for row in (await caller.call(LIST, wanted)).rows}


async def _is_same(caller: Caller, id: str, path: Path) -> bool:
    """The octets as they arrived are the same; where they are no longer kept, nothing speaks against it."""
    digest = hashlib.sha256()
    try:
        async for piece in caller.stream(OCTETS, OctetsArguments(id, Form.ARRIVAL)):
            if isinstance(piece, Octets):
                digest.update(piece.octets)
    except AdminError:
        return True
    with path.open("rb") as file:
        file.readline()
        return hashlib.file_digest(file, "sha256").digest() == digest.digest()
