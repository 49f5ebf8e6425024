"""Local domains: names that stand twice, files that cannot be used, and addresses that lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lonedot.config.domains import Domain, SourceKind
from lonedot.config.given import Drafts, Found, Given
from lonedot.directory.aliases import read_aliases
from lonedot.directory.faults import DirectoryFault
from lonedot.directory.file import DirectoryFile
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


def _judge_files(given: Given[Domain], domain: Domain) -> Iterator[Found]:
    source = domain.recipients
    if source is not None and given.knows("recipients"):
        if source.kind is SourceKind.FILE:
            try:
                FileRecipients(Path(source.where), domain.name).known("")
            except DirectoryFault as error:
                yield given.fault("recipients", str(error), "write the file, or mend the line")
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
            yield given.fault("aliases", str(error), "write the file, or mend the line")
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
