"""From `[[domain]]` to the directory that sessions and the step that resolves ask."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

import msgspec

from lonedot.app.rewriting import rewriting_from
from lonedot.config.disk import find_password
from lonedot.config.domains import Domain, RecipientSource, SourceKind
from lonedot.config.model import Config
from lonedot.config.secrets import ask
from lonedot.config.values import Unfit
from lonedot.directory.aliases import read_aliases
from lonedot.directory.directory import Directory, LocalDomain
from lonedot.directory.faults import DirectoryFault
from lonedot.directory.file import DirectoryFile
from lonedot.directory.lists import DistributionList, read_lists
from lonedot.directory.probe import LmtpRecipients
from lonedot.directory.sources import FileRecipients, MaildirRecipients, Recipients, Remembered
from lonedot.observability.clock import SystemClock
from lonedot.terms.address import NULL_REVERSE_PATH, Address

if TYPE_CHECKING:
    from lonedot.directory.sql import Database

__all__ = ["directory_from", "may_lead_on"]

Databases = dict[RecipientSource, "Database"]
"""Those of one directory, by what reaches them."""


def directory_from(config: Config) -> Directory | None:
    """The directory; None where no domain is local. Configurations that say the same have the same one, and so have
    all parts of a relay: what was asked once is remembered for all.
    """
    if not config.domains:
        return None
    return _made(config.domains, config.server.postmaster, config.server.hostname)


def may_lead_on(config: Config, address: Address) -> bool:
    """Mail to that address is to be resolved: it is written anew, or is one of a local domain."""
    directory, rewriting = directory_from(config), rewriting_from(config)
    if rewriting is not None and rewriting.touches(NULL_REVERSE_PATH, (address,)):
        return True
    return directory is not None and directory.covers(address)


@functools.lru_cache(maxsize=4)
def _made(domains: tuple[Domain, ...], postmaster: Address, hostname: str) -> Directory:
    databases: Databases = {}
    return Directory([_domain(domain, hostname, databases) for domain in domains], postmaster)


def _domain(domain: Domain, hostname: str, databases: Databases) -> LocalDomain:
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
        None
        if domain.recipients is None
        else _source(domain.recipients, name, sensitive, hostname, databases),
        aliases,
        lists,
        domain.catch_all,
        domain.extension,
        sensitive,
    )


def _source(
    source: RecipientSource, name: str, sensitive: bool, hostname: str, databases: Databases
) -> Recipients:
    match source.kind:
        case SourceKind.FILE:
            return FileRecipients(Path(source.where), name, sensitive)
        case SourceKind.MAILDIR:
            return Remembered(MaildirRecipients(source.where, name), SystemClock().monotonic)
        case SourceKind.LMTP:
            return Remembered(LmtpRecipients(source.where, name, hostname), SystemClock().monotonic)
        case SourceKind.SQL:
            return Remembered(_in_database(source, name, databases), SystemClock().monotonic)
        case _:
            assert_never(source.kind)


def _in_database(source: RecipientSource, name: str, databases: Databases) -> Recipients:
    # Its library is loaded only where a database is asked.
    from lonedot.directory.sql import Database, SqlRecipients  # noqa: PLC0415

    key = msgspec.structs.replace(source, query="")
    if key not in databases:
        password = functools.partial(_password, source) if key.has_password else None
        databases[key] = Database(source.where, password)
    return SqlRecipients(databases[key], source.query, name)


def _password(source: RecipientSource) -> str:
    """Asked for each new connection, so that a password that changes is taken.

    Raises:
        DirectoryFault: nobody tells it.
    """
    told = ask(source.password_command) if source.password_command else find_password(source)
    if isinstance(told, Unfit):
        raise DirectoryFault(f"the password of {source.where}: {told.what}")
    return "" if told is None else told.reveal()
