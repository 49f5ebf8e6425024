"""DKIM: signs what leaves with the key of the domain in From (RFC 6376, RFC 8463).

It is asked last, of the copy for one next hop, which is 7-bit by then (`signs`, see `Binding.signs`): nothing behind it
may change what it signed. It adds fields on top and nothing else.

Rules a change here must keep:
1. The body is read in pieces, once for each message, however large it is and however many keys sign.
2. A key that cannot be used is a fault when the binding is made, never mail that leaves unsigned.
3. `l=` is never written, and From is always signed.
"""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import msgspec

from lonedot.message.dkim import FIELD_NAME, BodyDigest, Canonical, Signing, data_of, finished, unsigned
from lonedot.message.dkimkeys import KeyFault, SigningKey, signing_key
from lonedot.message.edits import AddField, Edit
from lonedot.message.header import HeaderView
from lonedot.sinks.bindings import MAX_PRIORITY, Role
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Next
from lonedot.sinks.view import Message

__all__ = ["HEADERS", "OVERSIGNED", "Dkim", "DkimSettings"]

OVERSIGNED = "from to cc subject date reply-to message-id mime-version content-type content-transfer-encoding"
"""One more of these than there are is signed, so that nobody can add another (RFC 6376 §8.15)."""
HEADERS = (
    f"{OVERSIGNED} sender in-reply-to references content-id content-description "
    "resent-from resent-to resent-cc resent-date resent-message-id resent-sender "
    "list-id list-help list-unsubscribe list-unsubscribe-post list-subscribe list-post list-owner list-archive"
)
"""Signed where they are there (RFC 6376 §5.4.1)."""

_UNSIGNABLE = frozenset({"return-path", "received", "delivered-to", "bcc", "resent-bcc", "dkim-signature"})
"""They change on the way, or name whom nobody may see (RFC 6376 §5.4.1)."""
_NAMES_LIMIT = 60
_INSTANCES = 20
"""Fields of one name that are signed, from the bottom."""
_KEY_OCTETS = 64 * 1024
_KEYS_LIMIT = 1000
_LABEL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")
_DAY = 24 * 3600


class DkimSettings(msgspec.Struct, frozen=True):
    """The settings of a binding."""

    domain: str = ""
    """Whose mail is signed: that with this domain, or one below it, in From."""
    selector: str = ""
    key: str = ""
    """Path of its private key."""
    keys: str = ""
    """Several: `example.com s1 /path/a.pem; example.org s2 /path/b.pem`; of a domain too, an RSA and an Ed25519 key."""
    canonicalization: str = "relaxed/relaxed"
    """Of header section and body, each `relaxed` or `simple`."""
    headers: str = HEADERS
    """Names of fields that are signed where they are there; From always is."""
    oversign: str = OVERSIGNED
    """Of these, one more than there are is signed."""
    sign_others: bool = False
    """Mail of any other domain in From is signed too, with the first key."""
    valid_days: int = 0
    """The signature says that it holds so long; 0: it does not say."""

    def __post_init__(self) -> None:
        single = [bool(self.domain), bool(self.selector), bool(self.key)]
        if any(single) and not all(single):
            raise ValueError("a key is three settings: write domain, selector and key")
        if not any(single) and not self.keys.strip():
            raise ValueError("there is no key: write domain, selector and key, or keys")
        for domain, selector, path in self.places:
            for what, name in (("domain", domain), ("selector", selector)):
                if not all(label and _LABEL.issuperset(label) for label in name.lower().split(".")):
                    raise ValueError(
                        f"{name!r} is no {what}: write letters, digits and hyphens with dots between"
                    )
            if not Path(path).is_absolute():
                raise ValueError(f"key {path!r}: write the whole path, from / on")
        for name in self.names | self.oversigned:
            if name in _UNSIGNABLE:
                raise ValueError(
                    f"{name} is not to be signed: it changes on the way; take it out of the list"
                )
            if not name.isascii() or ":" in name or ";" in name or len(name) > _NAMES_LIMIT:
                raise ValueError(f"{name!r} is not the name of a field")
        if len(self.names | self.oversigned) > _NAMES_LIMIT:
            raise ValueError(f"more than {_NAMES_LIMIT} names of fields")
        _canonicals(self.canonicalization)
        if not 0 <= self.valid_days <= 3650:
            raise ValueError(f"valid_days = {self.valid_days}: write days, 0 to 3650")

    @property
    def places(self) -> list[tuple[str, str, str]]:
        """Domain, selector and path of each key."""
        given = [[self.domain, self.selector, self.key]] if self.key else []
        given += [words.split(None, 2) for words in self.keys.split(";") if words.strip()]
        if any(len(words) != 3 for words in given):
            raise ValueError("keys: write `DOMAIN SELECTOR PATH`, several separated by semicolons")
        if len(given) > _KEYS_LIMIT:
            raise ValueError(f"more than {_KEYS_LIMIT} keys")
        return [(domain.lower(), selector, path.strip()) for domain, selector, path in given]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.headers.lower().replace(",", " ").split())

    @property
    def oversigned(self) -> frozenset[str]:
        return frozenset(self.oversign.lower().replace(",", " ").split())


class _Key(msgspec.Struct, frozen=True):
    """A key, and under which name it is found."""

    domain: str
    selector: bytes
    key: SigningKey


@sink(
    "DKIM",
    settings=DkimSettings,
    on="message-start",
    priority=MAX_PRIORITY,
    effects={"header"},
    reads={"body"},
    role=Role.PROTECTIVE,  # cosmetic ones are switched off at last, and mail would leave unsigned
    signs=True,
)
class Dkim:
    """Adds a signature for each key of the domain in From."""

    def __init__(self, settings: DkimSettings) -> None:
        self._settings = settings
        self._head, self._body = _canonicals(settings.canonicalization)
        self._names = ["from", *sorted((settings.names | settings.oversigned) - {"from"})]
        self._keys: dict[str, tuple[_Key, ...]] = {}
        self._first: tuple[_Key, ...] = ()
        for domain, selector, path in settings.places:
            one = _Key(domain, selector.encode(), _read_key(path))
            self._keys[domain] = (*self._keys.get(domain, ()), one)
            self._first = self._first or (one,)

    def __call__(self, message: Message) -> Next:
        keys = self._keys_for(message.headers)
        if not keys:
            return Next()
        digest = BodyDigest(self._body)
        for piece in message.body_chunks():
            digest.update(piece)
        body_sha256 = digest.digest()
        names = self._signed(message.headers)
        return Next([self._signature(one, names, body_sha256, message.headers) for one in keys])

    def _keys_for(self, headers: HeaderView) -> tuple[_Key, ...]:
        """Those of the domain in From, or of the nearest one above it; none for a message without From."""
        boxes = headers.mailboxes("from")
        domain = _ascii(boxes[0].address.rpartition("@")[2]) if boxes else ""
        place = domain
        while place:
            found = self._keys.get(place)
            if found is not None:
                return found
            place = place.partition(".")[2]
        return self._first if domain and self._settings.sign_others else ()

    def _signed(self, headers: HeaderView) -> tuple[bytes, ...]:
        """Names of the fields, each as often as it is signed."""
        counts: dict[str, int] = dict.fromkeys(self._names, 0)
        for field in headers.fields:
            name = field.name.lower().decode("latin-1")
            if name in counts:
                counts[name] = min(counts[name] + 1, _INSTANCES)
        oversigned = self._settings.oversigned
        listed: list[bytes] = []
        for name, count in counts.items():
            listed += [name.encode()] * (count + (name in oversigned))
        return tuple(listed)

    def _signature(
        self, one: _Key, names: tuple[bytes, ...], body_sha256: bytes, headers: HeaderView
    ) -> AddField:
        now = int(time.time())
        days = self._settings.valid_days
        signing = Signing(
            one.domain.encode(),
            one.selector,
            one.key.algorithm,
            names,
            self._head,
            self._body,
            now,
            now + days * _DAY if days else 0,
        )
        empty = unsigned(signing, body_sha256)
        data = data_of(headers, names, self._head, b" " + empty)
        value = finished(empty, one.key.sign(data))
        return Edit.add_field(FIELD_NAME.decode(), value.decode("ascii"))


def _canonicals(text: str) -> tuple[Canonical, Canonical]:
    head, _, body = text.strip().lower().partition("/")
    try:
        return Canonical(head), Canonical(body or head)
    except ValueError:
        raise ValueError(
            f"canonicalization = {text!r}: write relaxed/relaxed, relaxed/simple, simple/relaxed or simple/simple"
        ) from None


def _ascii(domain: str) -> str:
    """A domain as it stands in DNS; empty when it is none."""
    if domain.isascii():
        return domain.lower().rstrip(".")
    try:
        return domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return ""


def _read_key(path: str) -> SigningKey:
    """Raises ValueError, in words that name the file and say what to do."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ValueError(f"key {path}: {error.strerror}; the relay's user must be able to read it") from None
    try:
        state = os.fstat(file)
        if not stat.S_ISREG(state.st_mode):
            raise ValueError(f"key {path}: is not a file")
        mode = stat.S_IMODE(state.st_mode)
        if mode & 0o027:
            raise ValueError(
                f"key {path}: others may read or write it (mode {mode:04o}); run chmod 600 {path}"
            )
        octets = os.read(file, _KEY_OCTETS)
    finally:
        os.close(file)
    try:
        return signing_key(octets)
    except KeyFault as fault:
        raise ValueError(f"key {path}: {fault}") from None
