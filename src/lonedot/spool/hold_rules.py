"""Standing rules: which new messages are held as they come in. Kept in `holds.json` in the folder of the spool.

Rules:
1. A number is given once. The file is replaced whole, and synced with its folder, before a change of it is true.
2. Each shard notes up to which number its queued messages were judged (`progress.rule`). A rule with a higher one is
   applied to them when the shard is opened: a crash between the file and the queue leaves nothing half done, and what a
   person has released by hand is not held again by the same rule.
3. `HoldRule.holds` decides as `search` does with the filter of the rule: upper and lower case of ASCII are one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

__all__ = ["MAX_RULES", "HoldRule", "HoldRules", "read_rules", "write_rules"]

MAX_RULES = 100
_FILE = "holds.json"
_SIZE_LIMIT = 1024 * 1024


class HoldRule(msgspec.Struct, frozen=True):
    """All that is said must hold; empty fields say nothing. What is said of a recipient holds for one and the same."""

    number: int
    text: str
    """As a person wrote it."""
    reason: str
    made_at: float = 0.0
    made_by: int = -1
    """User who made it; -1 when nobody knows."""
    sender: str = ""
    """Address or `@domain`; the same for `recipient`."""
    recipient: str = ""
    domain: str = ""
    client: str = ""
    """Address of the device, or a beginning of it that ends in a dot or a colon."""
    larger: int = 0
    """Octets, at least."""
    smaller: int = 0
    """Octets, less than."""

    @property
    def words(self) -> str:
        """Why a message is held that this rule holds."""
        return f"held by rule {self.number}: {self.reason}"

    def holds(self, sender: str, recipients: Iterable[str], client: str, size: int) -> bool:
        """Whether it is about such a message."""
        if size < self.larger or (self.smaller and size >= self.smaller):
            return False
        if self.sender and not _is_meant(self.sender, sender):
            return False
        if self.client and not _is_client(self.client, client):
            return False
        said = [text for text in (self.recipient, self.domain and f"@{self.domain}") if text]
        return not said or any(all(_is_meant(text, one) for text in said) for one in recipients)


class HoldRules(msgspec.Struct, frozen=True):
    """The rules in force."""

    newest: int = 0
    """The highest number that was given."""
    rules: tuple[HoldRule, ...] = ()

    def words_for(self, sender: str, recipients: Iterable[str], client: str, size: int) -> str:
        """Why such a message is held, by the first rule that is about it; empty: none is."""
        some = tuple(recipients)
        for rule in self.rules:
            if rule.holds(sender, some, client, size):
                return rule.words
        return ""


def _folded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass").lower()


def _is_meant(wanted: str, address: str) -> bool:
    """`wanted`: an address, or `@domain`."""
    folded, given = _folded(wanted), _folded(address)
    return given.endswith(folded) if wanted.startswith("@") else given == folded


def _is_client(wanted: str, client: str) -> bool:
    folded, given = _folded(wanted), _folded(client)
    return given.startswith(folded) if wanted[-1] in ".:" else given == folded


def read_rules(root: Path) -> HoldRules:
    """Those of the spool in this folder.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not what `write_rules` writes; the words say what to do.
    """
    path = root / _FILE
    try:
        with path.open("rb") as file:
            octets = file.read(_SIZE_LIMIT + 1)
    except FileNotFoundError:
        return HoldRules()
    try:
        if len(octets) > _SIZE_LIMIT:
            raise msgspec.DecodeError("it is too long")
        return msgspec.json.decode(octets, type=HoldRules)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); mend it, or move it away and no standing rule holds anything"
        ) from error


def write_rules(root: Path, rules: HoldRules) -> None:
    """Durable when it returns; a crash leaves the rules as they were before, or as they are given.

    Raises:
        OSError: it cannot be written; the rules are as they were before.
    """
    path = root / _FILE
    part = path.with_name(f".{_FILE}.part")
    owner = root.stat()
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(rules), indent=2) + b"\n")
        file.flush()
        if os.geteuid() == 0:  # a command of root: the relay must be able to read it
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
