"""From `[[domain]]` to the directory that sessions and the step that resolves ask."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import assert_never

from lonedot.config.domains import Domain, RecipientSource, SourceKind
from lonedot.config.model import Config
from lonedot.directory.aliases import read_aliases
from lonedot.directory.directory import Directory, LocalDomain
from lonedot.directory.file import DirectoryFile
from lonedot.directory.lists import DistributionList, read_lists
from lonedot.directory.probe import LmtpRecipients
from lonedot.directory.sources import FileRecipients, MaildirRecipients, Recipients, Remembered
from lonedot.observability.clock import SystemClock
from lonedot.terms.address import Address

__all__ = ["directory_from"]


def directory_from(config: Config) -> Directory | None:
    """The directory; None where no domain is local. Configurations that say the same have the same one, and so have
    all parts of a relay: what was asked once is remembered for all.
    """
    if not config.domains:
        return None
    return _made(config.domains, config.server.postmaster, config.server.hostname)


@functools.lru_cache(maxsize=4)
def _made(domains: tuple[Domain, ...], postmaster: Address, hostname: str) -> Directory:
    return Directory([_domain(domain, hostname) for domain in domains], postmaster)


def _domain(domain: Domain, hostname: str) -> LocalDomain:
    name, sensitive = domain.name, domain.case_sensitive
    aliases: DirectoryFile[Mapping[str, tuple[Address, ...]]] | None = None
    lists: DirectoryFile[Mapping[str, DistributionList]] | None = None
    if domain.aliases is not None:
        aliases = DirectoryFile(
            domain.aliases, functools.partial(read_aliases, domain=name, is_case_sensitive=sensitive)
        )
    if domain.lists is not None:
        lists = DirectoryFile(
            domain.lists, functools.partial(read_lists, domain=name, is_case_sensitive=sensitive)
        )
    return LocalDomain(
        name,
        None if domain.recipients is None else _source(domain.recipients, name, sensitive, hostname),
        aliases,
        lists,
        domain.catch_all,
        domain.extension,
        sensitive,
    )


def _source(source: RecipientSource, name: str, sensitive: bool, hostname: str) -> Recipients:
    match source.kind:
        case SourceKind.FILE:
            return FileRecipients(Path(source.where), name, sensitive)
        case SourceKind.MAILDIR:
            return Remembered(MaildirRecipients(source.where, name), SystemClock().monotonic)
        case SourceKind.LMTP:
            return Remembered(LmtpRecipients(source.where, name, hostname), SystemClock().monotonic)
        case _:
            assert_never(source.kind)
