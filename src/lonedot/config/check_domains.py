"""Local domains: names that stand twice, files that cannot be used, and addresses that lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from lonedot.config import disk
from lonedot.config.domains import Domain, RecipientSource, SourceKind
from lonedot.config.given import Drafts, Found, Given
from lonedot.config.secrets import program_of
from lonedot.config.values import Unfit
from lonedot.directory.aliases import read_aliases
from lonedot.directory.faults import DirectoryFault
from lonedot.directory.file import FAULTS_TOLD, DirectoryFile, LineFaults
from lonedot.directory.lists import read_lists
from lonedot.directory.sources import FileRecipients

__all__ = ["judge"]


def judge(drafts: Drafts) -> Iterator[Found]:
    """Everything to say about `[[domain]]`."""
    seen: dict[str, str] = {}
    for given in drafts.domains:
        domain = given.value
        if domain is None or not given.knows("name"):
            continue
        if domain.name in seen:
            yield given.fault("name", f"{domain.name} is also {seen[domain.name]}", "write it once")
        seen.setdefault(domain.name, given.where)
        yield from _judge_files(given, domain)
        if (
            domain.recipients is not None
            and domain.recipients.kind is SourceKind.SQL
            and given.knows("recipients")
        ):
            yield from _judge_database(drafts, given, domain.recipients)


def _judge_database(drafts: Drafts, given: Given[Domain], source: RecipientSource) -> Iterator[Found]:
    if find_spec("sqlalchemy") is None:
        yield given.fault("recipients", "SQLAlchemy is not installed", "run pip install 'lonedot[sql]'")
        return
    # Its library is loaded only where a database is asked.
    from lonedot.directory.sql import fault_of_query, fault_of_url  # noqa: PLC0415

    if words := fault_of_url(source.where):
        yield given.fault("recipients", words, "mend it, or run pip install 'lonedot[sql]'")
    if words := fault_of_query(source.query):
        yield given.fault("recipients", words, "write select 1 from users where address = :address")
    _, is_sqlite, path = source.where.partition("sqlite:///")
    if is_sqlite and disk.state_of(Path(path)) is None:
        yield given.fault("recipients", f"there is no file {path}", "make it, or mend the path")
    if source.password_file is not None and (mode := disk.mode_of(source.password_file)) & 0o007:
        words = f"{source.password_file} can be read by everybody (mode {mode:04o})"
        yield given.fault("recipients", words, f"run chmod 600 {source.password_file}")
    unfit = disk.find_password(source)
    if isinstance(unfit, Unfit):
        yield given.fault("recipients", unfit.what, unfit.do)
    if source.password_command:
        program = program_of(source.password_command)
        if isinstance(program, Unfit):
            yield given.fault("recipients", program.what, program.do)
        file = drafts.file_of((*given.path, "recipients"))
        if (mode := disk.mode_of(file)) & 0o002:
            words = f"anybody may write {file} (mode {mode:04o}), and what it names is run"
            yield given.fault("recipients", words, f"run chmod o-w {file}")


def _in_file(given: Given[Domain], key: str, path: Path, error: DirectoryFault) -> Iterator[Found]:
    """What is wrong with a file: each line of it."""
    cause = error.__cause__
    if not isinstance(cause, LineFaults):
        yield given.fault(key, str(error), "write the file, or mend it")
        return
    for fault in cause.faults[:FAULTS_TOLD]:
        yield given.fault(key, f"{path}:{fault.number}: {fault.what}", fault.do)
    if len(cause.faults) > FAULTS_TOLD:
        more = len(cause.faults) - FAULTS_TOLD
        yield given.fault(key, f"{path}: {more} more lines cannot be understood", "mend those first")


def _judge_files(given: Given[Domain], domain: Domain) -> Iterator[Found]:
    source = domain.recipients
    if source is not None and given.knows("recipients"):
        if source.kind is SourceKind.FILE:
            try:
                FileRecipients(Path(source.where), domain.name).known("")
            except DirectoryFault as error:
                yield from _in_file(given, "recipients", Path(source.where), error)
        elif source.kind is SourceKind.MAILDIR:
            root = Path(source.where.partition("{")[0])
            if not root.is_dir() and not root.parent.is_dir():
                yield given.fault("recipients", f"the folder {root} does not exist", f"run mkdir -p {root}")
    if domain.aliases is not None and given.knows("aliases"):
        try:
            DirectoryFile(
                domain.aliases, lambda text: read_aliases(text, domain.name, domain.case_sensitive)
            ).read()
        except DirectoryFault as error:
            yield from _in_file(given, "aliases", domain.aliases, error)
    if domain.lists is not None and given.knows("lists"):
        try:
            lists = DirectoryFile(
                domain.lists, lambda text: read_lists(text, domain.name, domain.case_sensitive)
            ).read()
        except DirectoryFault as error:
            yield given.fault("lists", str(error), "write the file, or mend the list")
            return
        for one in lists.values():
            if not one.members:
                yield given.warning(
                    "lists", f"the list {one.address.text} has no members: mail for it waits", "add members"
                )
