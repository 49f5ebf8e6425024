"""`[[domain]]`: the local domains, and how the places are written that know who has a mailbox there."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, assert_never
from urllib.parse import urlsplit

import msgspec

from lonedot.config import addresses as a
from lonedot.config import values as v
from lonedot.config.key import Key
from lonedot.config.secrets import secret_command
from lonedot.config.values import Unfit, show
from lonedot.terms.address import Address

__all__ = ["PASSWORD_KEYS", "Domain", "RecipientSource", "SourceKind", "Vrfy"]


class Vrfy(enum.Enum):
    """Who is told by VRFY and EXPN."""

    NONE = "none"
    TRUSTED = "trusted"
    LOCAL = "local"


class SourceKind(enum.Enum):
    """Where recipients are looked up."""

    FILE = "file"
    MAILDIR = "maildir"
    LMTP = "lmtp"
    SQL = "sql"


class RecipientSource(msgspec.Struct, frozen=True):
    """Where recipients are looked up."""

    kind: SourceKind
    where: str
    """A path, a path with `{local}`, where LMTP is spoken (`unix:/path` or `host:port`), or a database as SQLAlchemy
    names it; never with a password."""
    query: str = ""
    """Asked of a database, and of nothing else, as are the next three."""
    password_file: Path | None = None
    password_env: str = ""
    password_command: tuple[str, ...] = ()

    @property
    def has_password(self) -> bool:
        return self.password_file is not None or bool(self.password_env or self.password_command)

    @property
    def table(self) -> Mapping[str, object]:
        """As a file has it."""
        more = {name: getattr(self, name) for name in ("query", *PASSWORD_KEYS)}
        return {self.kind.value: self.where, **{name: value for name, value in more.items() if value}}


PASSWORD_KEYS = ("password_file", "password_env", "password_command")
_EXAMPLE = '{ file = "recipients.txt" }'
_SQLITE = "sqlite:///"
_POSTGRESQL = ("postgresql+psycopg://", "postgresql://")


def recipient_source(value: object, folder: Path) -> RecipientSource:
    """A table with one key that says where, and more keys behind `sql`."""
    if isinstance(value, dict) and "sql" in value:
        return _database(value, folder)
    if not isinstance(value, dict) or len(value) != 1:
        raise Unfit("is not a table with one key", f"write it as {_EXAMPLE}, or with maildir, lmtp or sql")
    ((name, where),) = value.items()
    try:
        kind = SourceKind(name)
    except ValueError:
        known = ", ".join(one.value for one in SourceKind)
        raise Unfit(
            f"{show(name)} is not a place where recipients are looked up", f"use one of {known}"
        ) from None
    match kind:
        case SourceKind.FILE:
            return RecipientSource(kind, str(v.path(where, folder)))
        case SourceKind.MAILDIR:
            path = str(v.path(where, folder))
            if path.count("{local}") != 1 or re.search(r"\{(?!local\}|domain\})", path):
                raise Unfit(f"{show(where)} names no folder for each", 'write it as "/srv/mail/{local}"')
            return RecipientSource(kind, path)
        case SourceKind.LMTP:
            words = v.text(where, folder).strip()
            if words.startswith("unix:"):
                return RecipientSource(kind, f"unix:{v.path(words[5:], folder)}")
            return RecipientSource(kind, str(a.next_hop(words, folder)))
        case SourceKind.SQL:
            return _database(value, folder)
        case _:
            assert_never(kind)


def _database(value: Mapping[str, object], folder: Path) -> RecipientSource:
    for name in value:
        if name not in ("sql", "query", *PASSWORD_KEYS):
            raise Unfit(f"{show(name)} is not a key of a database", "use sql, query and password_file")
    query = value.get("query", "")
    if not isinstance(query, str) or not query.strip() or len(query) > _QUERY_LIMIT:
        raise Unfit(
            "has no query, or one that is too long",
            'write query = "select 1 from users where address = :address"',
        )
    named = [name for name in PASSWORD_KEYS if name in value]
    if len(named) > 1:
        raise Unfit(f"{named[1]} stands beside {named[0]}", "keep one of the two")
    file, variable, command = (value.get(name) for name in PASSWORD_KEYS)
    return RecipientSource(
        SourceKind.SQL,
        _address_of_database(v.text(value["sql"], folder), folder),
        query,
        None if file is None else v.path(file, folder),
        "" if variable is None else v.text(variable, folder),
        () if command is None else secret_command(command, folder),
    )


_QUERY_LIMIT = 10_000


def _address_of_database(words: str, folder: Path) -> str:
    """A path of SQLite is counted from the folder; what is no such address is not shown: it may have a password."""
    if words.startswith(_SQLITE):
        path = words[len(_SQLITE) :]
        if not path or "?" in path or path.startswith(":"):
            raise Unfit("names no file of SQLite", 'write it as "sqlite:////srv/mail/users.db"')
        return f"{_SQLITE}{v.path(path, folder)}"
    start = next((one for one in _POSTGRESQL if words.startswith(one)), "")
    if not start:
        raise Unfit(
            "is not the address of a database that can be asked",
            'write "sqlite:///users.db" or "postgresql+psycopg://relay@db.example.com/mail"',
        )
    try:
        parts = urlsplit(words)
        has_password = parts.password is not None or "password" in parts.query.lower()
        _ = parts.port
    except ValueError:
        raise Unfit(
            "is not an address of PostgreSQL", "write postgresql+psycopg://user@host/database"
        ) from None
    if has_password:
        raise Unfit("has a password in its address", "take it out, and write password_file beside it")
    return _POSTGRESQL[0] + words[len(start) :]


def extension(value: object, folder: Path) -> str:
    """One sign that parts a name from its extension, or none."""
    if value == "":
        return ""
    sign = v.text(value, folder)
    if len(sign) != 1 or sign.isalnum() or sign in '@.\\"<>()[],;: ':
        raise Unfit(f"{show(value)} cannot part a name from its extension", 'write "+", "-", or "" for none')
    return sign


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """A domain whose recipients are known here. Mail for it is taken from anybody, as with `relay_to`."""

    name: Annotated[str, Key(a.domain, "The domain.", '"example.com"')]
    recipients: Annotated[
        RecipientSource | None,
        Key(
            recipient_source,
            "Where to look up who has a mailbox; nobody else gets in (550). `file`: a name or address a line. "
            "`maildir`: a folder for each. `lmtp`: asked by RCPT, at `unix:/path` or `host:port`. `sql`: a database, "
            "with its `query`. Without it every name exists, and what nobody has comes back as a bounce.",
            _EXAMPLE,
            "everybody",
        ),
    ] = None
    aliases: Annotated[
        Path | None,
        Key(
            v.path,
            "A file with a line `name: address, address` for each alias. Read again when it changes.",
            '"aliases"',
        ),
    ] = None
    lists: Annotated[
        Path | None,
        Key(
            v.path,
            "A file with distribution lists, each a table `[lists.NAME]` with `owner`, `members` and `post`. Read "
            "again when it changes.",
            '"lists.toml"',
        ),
    ] = None
    catch_all: Annotated[
        Address | None,
        Key(
            a.address,
            "Who gets what is for nobody. It gets all spam for invented names too.",
            '"office@example.com"',
            "nobody",
        ),
    ] = None
    extension: Annotated[
        str,
        Key(
            extension,
            'What parts a name from an extension: `joe+news` is mail for `joe`. `""`: nothing does.',
            '"+"',
        ),
    ] = "+"
    case_sensitive: Annotated[
        bool,
        Key(v.boolean, "Whether `Joe` and `joe` are two. Most senders take them for one.", "false"),
    ] = False
