"""A file of distribution lists: TOML, one table `[lists.NAME]` each, with `owner`, `members` and `post`.

`post` says who may write to the list: `anyone`, `members`, `local` (senders of the local domains), or a list of
addresses and `@domain`s. It is judged by the reverse-path, which a stranger can choose; the null one is refused.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping

import msgspec

from lonedot.directory.aliases import MEMBERS_LIMIT
from lonedot.directory.names import key_of, read_address
from lonedot.terms.address import Address

__all__ = ["DistributionList", "read_lists"]

_WORDS = ("anyone", "members", "local")


class DistributionList(msgspec.Struct, frozen=True):
    """One list."""

    address: Address
    owner: Address
    """The reverse-path of its copies: reports of what fails go there."""
    members: tuple[Address, ...]
    post: tuple[str, ...]
    """One of the words, or addresses and `@domain`s in lower case."""

    def takes_from(self, sender: Address, domains: Collection[str]) -> bool:
        """That sender may write to it. `domains` are the local ones."""
        if sender.is_null:
            return False
        match self.post:
            case ("anyone",):
                return True
            case ("members",):
                own = sender.text.casefold()
                return any(member.text.casefold() == own for member in (*self.members, self.owner))
            case ("local",):
                return sender.domain.decode("utf-8", "replace") in domains
            case _:
                domain = "@" + sender.domain.decode("utf-8", "replace")
                return domain in self.post or sender.text.casefold() in self.post


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    owner: str
    members: list[str]
    post: str | list[str] = "members"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    lists: dict[str, _Table] = {}


def read_lists(text: str, domain: str, is_case_sensitive: bool = False) -> Mapping[str, DistributionList]:
    """The lists by the keys of their names. A list without members is one: who writes to it is put off.

    Raises:
        ValueError: it is not such a file; the words name the list.
    """
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("nests tables too deep") from None
    found: dict[str, DistributionList] = {}
    for name, table in file.lists.items():
        try:
            address = read_address(name, domain)
            if address.domain != domain.encode():
                raise ValueError(f"it is not an address of {domain}")
            key = key_of(address.local, is_case_sensitive)
            if key in found:
                raise ValueError("it stands there twice")
            if len(table.members) > MEMBERS_LIMIT:
                raise ValueError(f"it has more than {MEMBERS_LIMIT} members")
            members = dict.fromkeys(read_address(member, domain) for member in table.members)
            owner = read_address(table.owner, domain)
            found[key] = DistributionList(address, owner, tuple(members), _who(table.post, domain))
        except ValueError as error:
            raise ValueError(f"list {name[:80]!r}: {error}") from None
    return found


def _who(post: str | list[str], domain: str) -> tuple[str, ...]:
    if isinstance(post, str):
        if post not in _WORDS:
            raise ValueError(f"post is {post[:80]!r}: one of {', '.join(_WORDS)}, or a list of addresses")
        return (post,)
    made = []
    for one in post:
        if one.startswith("@"):
            read_address("x" + one)
            made.append(one.lower())
        else:
            made.append(read_address(one, domain).text.casefold())
    return ("nobody",) if not made else tuple(made)
