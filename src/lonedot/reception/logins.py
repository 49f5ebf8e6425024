"""A file of logins: who may log in at a listener, and how a password is checked.

One line is `name:scrypt$N$r$p$salt$hash`, salt and hash in base64; empty lines and those with `#` in front are for
people.

Rules: a password is never kept, shown or compared as text; a name that is unknown costs as much time as one that is
known; checks have threads of their own, so that guesses keep neither the loop nor the disk waiting; the file is read
again when it has changed, and one that cannot be read lets nobody in and refuses nobody for good.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

__all__ = [
    "FILE_LIMIT",
    "NAME_LIMIT",
    "PASSWORD_LIMIT",
    "Hash",
    "Logins",
    "LoginsFault",
    "check_name",
    "hash_of",
    "read_logins",
]

FILE_LIMIT = 4 * 1024 * 1024
"""Octets of the file."""
NAME_LIMIT = 255
PASSWORD_LIMIT = 1024
"""Octets of a password that is looked at."""
THREADS = 2
"""In which passwords are checked; who guesses waits for those before it."""
WAITING_LIMIT = 200
"""Checks that wait for a thread; further ones are put off."""

_N, _R, _P = 16384, 8, 1
"""Of new hashes: 16 MiB and some 50 ms each."""
_SALT_OCTETS = 16
_HASH_OCTETS = 32
_LIMITS = {"N": 1 << 17, "r": 16, "p": 4}
_NAME = re.compile(r"[^\s:#\x00-\x1f\x7f][^:\x00-\x1f\x7f]*")
_HASH = re.compile(
    r"scrypt\$(\d{1,7})\$(\d{1,2})\$(\d{1,2})\$([A-Za-z0-9+/=]{8,200})\$([A-Za-z0-9+/=]{8,200})"
)


class LoginsFault(Exception):
    """A line of the file says nothing that can be used. `line` counts from 1."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(f"line {line}: {what}")
        self.line = line
        self.what = what


class Hash(msgspec.Struct, frozen=True):
    """What is kept of a password."""

    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def __str__(self) -> str:
        salt, digest = (base64.b64encode(octets).decode() for octets in (self.salt, self.digest))
        return f"scrypt${self.n}${self.r}${self.p}${salt}${digest}"

    def fits(self, password: bytes) -> bool:
        """It is that of this password. Takes time and memory: not for the loop."""
        made = _scrypt(password, self.salt, self.n, self.r, self.p, len(self.digest))
        return hmac.compare_digest(made, self.digest)


def hash_of(password: bytes) -> Hash:
    """A new one with a salt of its own. Takes time and memory.

    Raises:
        ValueError: the password is empty or too long.
    """
    if not 0 < len(password) <= PASSWORD_LIMIT:
        raise ValueError(f"a password has 1 to {PASSWORD_LIMIT} octets")
    salt = os.urandom(_SALT_OCTETS)
    return Hash(_N, _R, _P, salt, _scrypt(password, salt, _N, _R, _P, _HASH_OCTETS))


def _scrypt(password: bytes, salt: bytes, n: int, r: int, p: int, length: int) -> bytes:
    memory = 128 * r * (n + p + 2) + 1024 * 1024
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=length)


def check_name(name: str) -> None:
    """Raises ValueError when a line of the file could not hold it, or nobody could log in with it."""
    if not _NAME.fullmatch(name) or name != name.strip():
        raise ValueError(
            f"{name!r} cannot be a login: no colon, no control character, no white space around it"
        )
    if len(name.encode()) > NAME_LIMIT:
        raise ValueError(f"a login has at most {NAME_LIMIT} octets")


def read_logins(text: str) -> dict[str, Hash]:
    """Names with what is kept of their passwords, in the order of the file.

    Raises:
        LoginsFault: a line is not a login, or names one a second time.
    """
    found: dict[str, Hash] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, kept = line.partition(":")
        try:
            check_name(name)
        except ValueError as error:
            raise LoginsFault(number, str(error)) from None
        if name in found:
            raise LoginsFault(number, f"{name!r} is there twice")
        found[name] = _parse(kept.strip(), number)
    return found


def _parse(kept: str, line: int) -> Hash:
    parts = _HASH.fullmatch(kept)
    if parts is None:
        raise LoginsFault(line, "not name:scrypt$N$r$p$salt$hash; `lonedot logins add` writes such lines")
    n, r, p = (int(part) for part in parts.groups()[:3])
    if not (1 < n <= _LIMITS["N"] and not n & (n - 1) and 0 < r <= _LIMITS["r"] and 0 < p <= _LIMITS["p"]):
        raise LoginsFault(line, f"scrypt with N={n}, r={r}, p={p}: N is a power of 2; at most {_LIMITS}")
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in parts.groups()[3:])
    except binascii.Error:
        raise LoginsFault(line, "salt or hash is not base64") from None
    if not 16 <= len(digest) <= 64:
        raise LoginsFault(line, "its hash has not 16 to 64 octets")
    return Hash(n, r, p, salt, digest)


_THREADS = ThreadPoolExecutor(THREADS, thread_name_prefix="logins")


class Logins:
    """The logins of one file, as it is now."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: Mapping[str, Hash] = {}
        self._state: tuple[int, int, int, int] | None = None
        self._nobody: Hash | None = None
        self._waiting = 0

    async def check(self, identity: bytes, password: bytes) -> bool | None:
        """True: the password is that of the login. None: it cannot be said now (the file, or too many who ask)."""
        if self._waiting >= WAITING_LIMIT:
            return None
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(_THREADS, self._check, identity, password)
        except (OSError, ValueError, LoginsFault):
            return None
        finally:
            self._waiting -= 1

    def _check(self, identity: bytes, password: bytes) -> bool:
        known = self._read()
        if self._nobody is None:
            self._nobody = hash_of(os.urandom(_SALT_OCTETS))
        if not 0 < len(password) <= PASSWORD_LIMIT or len(identity) > NAME_LIMIT:
            return False
        kept = known.get(identity.decode("utf-8", "replace"))
        fits = (kept or self._nobody).fits(password)
        return fits and kept is not None

    def _read(self) -> Mapping[str, Hash]:
        state = os.stat(self.path)
        mark = (state.st_mtime_ns, state.st_size, state.st_ino, state.st_dev)
        if mark != self._state:
            with self.path.open("rb") as file:
                octets = file.read(FILE_LIMIT + 1)
            if len(octets) > FILE_LIMIT:
                raise ValueError(f"{self.path} has more than {FILE_LIMIT} octets")
            self._known = read_logins(octets.decode())
            self._state = mark
        return self._known
