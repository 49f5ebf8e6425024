"""Addresses as the directory compares them: the domain without case, the local part as the domain wants it."""

from __future__ import annotations

import re

from lonedot.terms.address import Address

__all__ = ["base_of", "key_of", "read_address"]

_LOCAL = re.compile(r"[^\s<>()\[\],;:\\\"@\x00-\x1f\x7f]{1,64}")
_DOMAIN = re.compile(r"[^\s<>()\[\],;:\\\"@\x00-\x20\x7f]{1,255}|\[[0-9A-Fa-f.:IPvx]{2,60}\]")


def key_of(name: bytes, is_case_sensitive: bool = False) -> str:
    """`Address.name` as it is looked up. What is not UTF-8 is like nobody's name."""
    text = name.decode("utf-8", "backslashreplace")
    return text if is_case_sensitive else text.lower()


def base_of(key: str, separator: str) -> str:
    """The part before an address extension (`joe+news`: `joe`); empty when there is none."""
    if not separator:
        return ""
    base, found, _ = key.partition(separator)
    return base if found else ""


def read_address(words: str, domain: str = "") -> Address:
    """An address as a person writes it into a file; without a domain it lies in `domain`.

    Raises:
        ValueError: it is none.
    """
    words = words.strip()
    local, at, rest = words.rpartition("@")
    if not at:
        local, rest = words, domain
    sound = _LOCAL.fullmatch(local) is not None and _DOMAIN.fullmatch(rest) is not None
    if not sound or local.startswith(".") or local.endswith(".") or ".." in local:
        raise ValueError(f"{words[:80]!r} is not a mail address")
    return Address(f"{local}@{rest.lower()}".encode())
