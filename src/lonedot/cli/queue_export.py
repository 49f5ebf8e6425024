"""`lonedot queue export`: messages as files in a folder, or in an archive."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import BinaryIO, Protocol

import click

from lonedot.admin import tar
from lonedot.admin.client import Caller
from lonedot.admin.operations import EXPORT
from lonedot.admin.values import ExportArguments, FileBegins, FileEnds, ListArguments, Octets, Remark
from lonedot.cli.output import Problem, json_option, print_json
from lonedot.cli.queue_filter import BATCH, Progress, chosen_ids, filter_options
from lonedot.cli.spool_access import place, place_options, work

__all__ = ["export"]


class _Keeper(Protocol):
    """Where exported files go."""

    saved: list[str]
    remarks: list[Remark]

    def begin(self, name: str) -> None: ...

    def write(self, octets: bytes) -> None: ...

    def remark(self, words: str, is_fault: bool) -> None: ...

    def end(self) -> None: ...

    def stop(self) -> None:
        """Nothing more comes; what is not whole is not kept."""
        ...


@click.command("export")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the files; made when it is not there.",
)
@click.option("--tar", "archive", metavar="FILE", help="One archive instead; - for standard output.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@filter_options(*ListArguments().states)
@click.option(
    "--limit", type=click.IntRange(0), default=0, help="At most so many, the newest. [default: all]"
)
@place_options
@json_option
def export(
    ids: tuple[str, ...],
    folder: Path | None,
    archive: str | None,
    force: bool,
    wanted: ListArguments,
    limit: int,
    config_file: Path,
    spool_folder: Path | None,
    as_json: bool,
) -> int:
    """Save messages as files: ID.eml as queued, ID.json with envelope and ledger, ID.message for lonedot queue import.

    Without an ID, those that the options select. The queue stays as it is. Exits 1 when something could not be saved.
    """
    if (folder is None) == (archive is None):
        raise click.UsageError("say where: --to FOLDER, or --tar FILE")
    if as_json and archive == "-":
        raise click.UsageError("--json and the archive cannot both go to standard output")
    where = str(folder or archive)

    def saving() -> _Keeper:
        if archive is not None:
            return _TarKeeper(archive, force)
        assert folder is not None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _FolderKeeper(folder, force)

    async def task(caller: Caller) -> _Keeper:
        chosen = ids or await chosen_ids(caller, wanted, limit)
        keeper = saving()
        progress = Progress(len(chosen), "exported")
        try:
            for start in range(0, len(chosen), BATCH):
                batch = tuple(chosen[start : start + BATCH])
                await _save(caller, batch, keeper)
                progress.step(len(batch))
            if isinstance(keeper, _TarKeeper):
                keeper.finish()
        finally:
            progress.end()
            keeper.stop()
        return keeper

    try:
        keeper = work(place(config_file, spool_folder), task)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Problem(f"cannot be saved: {reason.lower()}", where=str(error.filename or where)) from error
    if as_json:
        print_json({"folder": where, "files": keeper.saved, "remarks": keeper.remarks})
    else:
        for remark in keeper.remarks:
            click.echo(remark.words, err=True)
        number = len(keeper.saved)
        click.echo(f"{number} file{'' if number == 1 else 's'} in {where}", err=archive == "-")
    return int(any(remark.is_fault for remark in keeper.remarks))


async def _save(caller: Caller, ids: tuple[str, ...], keeper: _Keeper) -> None:
    async for piece in caller.stream(EXPORT, ExportArguments(ids)):
        match piece:
            case FileBegins(name):
                if not tar.EXPORTED_NAME.match(name):
                    raise Problem(f"the relay sent a file of the name {name[:60]!r}", where="export")
                keeper.begin(name)
            case Octets(octets):
                keeper.write(octets)
            case FileEnds():
                keeper.end()
            case Remark(words, is_fault):
                keeper.remark(words, is_fault)


class _FolderKeeper:
    """Files as they come: written under another name, and given theirs when whole."""

    def __init__(self, folder: Path, force: bool) -> None:
        self._folder = folder
        self._force = force
        self._name = ""
        self._part: Path | None = None
        self._file: BinaryIO | None = None
        self._is_whole = True
        self.saved: list[str] = []
        self.remarks: list[Remark] = []

    def begin(self, name: str) -> None:
        self._name = name
        self._is_whole = True
        if not self._force and (self._folder / name).exists():
            self.remark(f"{name} is there already; --force replaces it", is_fault=True)
            return
        self._part = self._folder / f".{name}.part"
        self._file = _new_file(self._part)

    def write(self, octets: bytes) -> None:
        if self._file is not None:
            self._file.write(octets)

    def remark(self, words: str, is_fault: bool) -> None:
        self.remarks.append(Remark(words, is_fault))
        if is_fault:
            self._is_whole = False

    def end(self) -> None:
        if self._file is None or self._part is None:
            return
        self._file.close()
        self._file = None
        name = self._name if self._is_whole else f"{self._name}.incomplete"
        self._part.replace(self._folder / name)
        self.saved.append(name)
        self._part = None

    def stop(self) -> None:
        if self._file is not None and self._part is not None:
            self._file.close()
            self._file = None
            self._part.unlink(missing_ok=True)


class _TarKeeper:
    """One archive; a file that is not whole is left out. It has its name when it is whole."""

    def __init__(self, name: str, force: bool) -> None:
        self._path = None if name == "-" else Path(name)
        self._part: Path | None = None
        if self._path is None:
            self._archive: BinaryIO = sys.stdout.buffer
            if sys.stdout.isatty():
                raise Problem("an archive is not for a terminal", where="--tar -", do="name a file")
        else:
            if self._path.exists() and not force:
                raise Problem("it is there already", where=name, do="--force replaces it")
            self._part = self._path.with_name(f".{self._path.name}.part")
            self._archive = _new_file(self._part)
        self._file: tempfile.SpooledTemporaryFile[bytes] | None = None
        self._name = ""
        self._is_whole = True
        self.saved: list[str] = []
        self.remarks: list[Remark] = []

    def begin(self, name: str) -> None:
        self._name = name
        self._is_whole = True
        self._file = tempfile.SpooledTemporaryFile(4 << 20)  # noqa: SIM115 — open until its end is known

    def write(self, octets: bytes) -> None:
        if self._file is not None:
            self._file.write(octets)

    def remark(self, words: str, is_fault: bool) -> None:
        self.remarks.append(Remark(words, is_fault))
        if is_fault:
            self._is_whole = False

    def end(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        with file:
            if not self._is_whole:
                return
            size = file.tell()
            try:
                self._archive.write(tar.header(self._name, size, time.time()))
            except ValueError as error:
                self.remark(str(error), is_fault=True)
                return
            file.seek(0)
            shutil.copyfileobj(file, self._archive, 1 << 20)
            self._archive.write(tar.padding(size))
        self.saved.append(self._name)

    def finish(self) -> None:
        """All are in it."""
        self._archive.write(tar.END)
        self._archive.flush()
        if self._part is not None and self._path is not None:
            os.fsync(self._archive.fileno())
            self._archive.close()
            self._part.replace(self._path)
            self._part = None

    def stop(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._part is not None:
            self._archive.close()
            self._part.unlink(missing_ok=True)


def _new_file(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    return os.fdopen(descriptor, "wb")
