"""`[[domain]]`: the local domains, and how the places are written that know who has a mailbox there."""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Annotated

import msgspec

from lonedot.config import addresses as a
from lonedot.config import values as v
from lonedot.config.key import Key
from lonedot.config.values import Unfit, show
from lonedot.terms.address import Address

__all__ = ["Domain", "RecipientSource", "SourceKind", "Vrfy"]


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


class RecipientSource(msgspec.Struct, frozen=True):
    """Where recipients are looked up."""

    kind: SourceKind
    where: str
    """A path, a path with `{local}`, or where LMTP is spoken: `unix:/path` or `host:port`."""


_EXAMPLE = '{ file = "recipients.txt" }'


def recipient_source(value: object, folder: Path) -> RecipientSource:
    """A table with one key that says where."""
    if not isinstance(value, dict) or len(value) != 1:
        raise Unfit("is not a table with one key", f"write it as {_EXAMPLE}, or with maildir or lmtp")
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
            "`maildir`: a folder for each. `lmtp`: asked by RCPT, at `unix:/path` or `host:port`. Without it every "
            "name exists, and what nobody has comes back as a bounce.",
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
