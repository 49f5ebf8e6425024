"""`lonedot backup` and `lonedot restore`: a copy of the spool, and a spool from a copy."""

from __future__ import annotations

import os
from pathlib import Path

import click

from lonedot.admin.backup_operations import BACKUP
from lonedot.admin.client import Caller
from lonedot.admin.values import BackupArguments, FileBegins, FileEnds, Octets, Remark
from lonedot.cli.output import Problem, json_option, print_json
from lonedot.cli.spool_access import place, place_options, work
from lonedot.spool.interface import SpoolFault, SpoolLocked

__all__ = ["backup", "restore"]

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command("backup")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@place_options
@json_option
def backup(folder: Path, config_file: Path, spool_folder: Path | None, as_json: bool) -> int:
    """Copy the spool into DIR, also while the relay runs.

    The copy is of one moment. DIR is made, and must be empty; on the disk of the spool large bodies are linked and take
    no room. The configuration, the registry and the transcripts are not part of it.
    """
    from lonedot.spool.backup import finish_backup

    where = place(config_file, spool_folder)
    remarks: list[str] = []
    whole_path = str(folder.absolute())

    async def task(caller: Caller) -> None:
        async for piece in caller.stream(BACKUP, BackupArguments(whole_path)):
            match piece:
                case Remark(words):
                    remarks.append(words)
                    if not as_json:
                        click.echo(words, err=True)
                case Octets() | FileBegins() | FileEnds():
                    pass

    try:
        _make(folder, where.paths.root)
        work(where, task)
        manifest = finish_backup(folder, where.paths)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Problem(f"cannot be saved: {reason.lower()}", where=str(error.filename or folder)) from error
    except SpoolFault as error:
        raise Problem(str(error), where=str(folder)) from error
    if as_json:
        print_json({"folder": str(folder), "shards": manifest.shards, "said": remarks})
    else:
        click.echo(f"{folder} is whole. The way back: lonedot restore {folder}")
    return 0


def _make(folder: Path, spool: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise Problem("the folder is not empty", where=str(folder), do="name one that is not there yet")
    if os.geteuid() == 0:  # the relay writes into it
        owner = spool.stat()
        os.chown(folder, owner.st_uid, owner.st_gid)


@click.command("restore")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option("--hold", is_flag=True, help="Nothing of it is sent before lonedot queue release.")
@place_options
@json_option
def restore(folder: Path, hold: bool, config_file: Path, spool_folder: Path | None, as_json: bool) -> int:
    """Make the spool from a backup; the relay must be down.

    A spool in which there are messages is never written over. What was queued when the backup was made is sent again,
    also what has been delivered since: with --hold a person decides.
    """
    from lonedot.spool.backup import restore as restore_spool

    where = place(config_file, spool_folder)
    try:
        saved = restore_spool(folder, where.paths, hold=hold)
    except SpoolLocked as error:
        raise Problem(str(error), where=str(where.paths.root), do="stop the relay first") from error
    except SpoolFault as error:
        raise Problem(str(error), where=str(where.paths.root)) from error
    if as_json:
        print_json({"spool": str(where.paths.root), "messages": saved.messages, "bodies": saved.bodies})
    else:
        click.echo(f"{saved.messages} messages in {where.paths.root}; look at them: lonedot queue list")
    return 0
