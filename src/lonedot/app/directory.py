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
from lonedot.terms.address import Address
from lonedot.terms.clock import Clock

__all__ = ["directory_from"]


def directory_from(config: Config, clock: Clock) -> Directory | None:
    """The directory; None where no domain is local."""
    if not config.domains:
        return None
    domains = [_domain(domain, config.server.hostname, clock) for domain in config.domains]
    return Directory(domains, config.server.postmaster)


def _domain(domain: Domain, hostname: str, clock: Clock) -> LocalDomain:
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
        None if domain.recipients is None else _source(domain.recipients, name, sensitive, hostname, clock),
        aliases,
        lists,
        domain.catch_all,
        domain.extension,
        sensitive,
    )


def _source(source: RecipientSource, name: str, sensitive: bool, hostname: str, clock: Clock) -> Recipients:
    match source.kind:
        case SourceKind.FILE:
            return FileRecipients(Path(source.where), name, sensitive)
        case SourceKind.MAILDIR:
            return Remembered(MaildirRecipients(source.where, name), clock.monotonic)
        case SourceKind.LMTP:
            return Remembered(LmtpRecipients(source.where, name, hostname), clock.monotonic)
        case _:
            assert_never(source.kind)
