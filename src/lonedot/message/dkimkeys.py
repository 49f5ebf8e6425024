"""Keys of DKIM: private ones that sign, and the records in DNS that hold the public ones (RFC 6376 §3.6.1, RFC 8463).

Rules: a key is checked when it is made, so that a signature is never made with one that nobody would accept; no octet
of a private key is in any message of a fault.
"""

from __future__ import annotations

import binascii
import hashlib

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding, utils
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_private_key

from lonedot.message.dkim import Algorithm, TagFault, read_tags

__all__ = ["LEAST_BITS", "KeyFault", "PublicKey", "SigningKey", "read_key_record", "signing_key"]

LEAST_BITS = 1024
"""Of an RSA key (RFC 8301 §3.2)."""
MOST_BITS = 8192
"""Checking a signature of a larger key costs too much."""

_PADDING = padding.PKCS1v15()
_DIGESTED = utils.Prehashed(SHA256())


class KeyFault(ValueError):
    """A key that cannot be used; the words say why."""


class SigningKey:
    """A private key."""

    def __init__(self, key: RSAPrivateKey | Ed25519PrivateKey) -> None:
        self._key = key
        is_rsa = isinstance(key, RSAPrivateKey)
        self.algorithm = Algorithm.RSA_SHA256 if is_rsa else Algorithm.ED25519_SHA256

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`."""
        digest = hashlib.sha256(data).digest()
        match self._key:
            case RSAPrivateKey() as rsa:
                return rsa.sign(digest, _PADDING, _DIGESTED)
            case key:
                return key.sign(digest)  # RFC 8463 §3: of the digest, not of the data


def signing_key(pem: bytes) -> SigningKey:
    """The private key in a PEM file, without a passphrase.

    Raises:
        KeyFault: there is none, or none that DKIM knows.
    """
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise KeyFault(
            "the key has a passphrase; write it without one, readable by the relay alone"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFault("no private key in PEM that can be read (`-----BEGIN PRIVATE KEY-----`)") from None
    match key:
        case RSAPrivateKey():
            _check_bits(key.key_size)
        case Ed25519PrivateKey():
            pass
        case _:
            raise KeyFault("neither an RSA nor an Ed25519 key, and DKIM knows no other")
    return SigningKey(key)


class PublicKey(msgspec.Struct, frozen=True):
    """What a record in DNS says."""

    key: RSAPublicKey | Ed25519PublicKey
    algorithm: Algorithm
    hashes: tuple[bytes, ...] = ()
    """That it is for; empty: any."""
    is_strict: bool = False
    """`i=` must be of the domain itself (`t=s`)."""
    is_testing: bool = False
    """The domain says that it tests (`t=y`)."""

    def verifies(self, data: bytes, signature: bytes) -> bool:
        """The signature is one of `data` by this key."""
        digest = hashlib.sha256(data).digest()
        try:
            match self.key:
                case RSAPublicKey() as rsa:
                    rsa.verify(signature, digest, _PADDING, _DIGESTED)
                case key:
                    key.verify(signature, digest)
        except InvalidSignature:
            return False
        return True


def read_key_record(record: bytes) -> PublicKey:
    """The key in the text of a record `SELECTOR._domainkey.DOMAIN`.

    Raises:
        KeyFault: it holds none, it was revoked, or it is not for mail.
    """
    try:
        tags = read_tags(record)
    except TagFault as fault:
        raise KeyFault(f"the key record is no tag list: {fault}") from None
    if tags.get(b"v", b"DKIM1") != b"DKIM1" or (b"v" in tags and next(iter(tags)) != b"v"):
        raise KeyFault("the key record does not begin with v=DKIM1")
    services = tags.get(b"s", b"*").replace(b" ", b"").split(b":")
    if b"*" not in services and b"email" not in services:
        raise KeyFault("the key record is not for mail (`s=`)")
    if b"p" not in tags:
        raise KeyFault("the key record has no key (`p=`)")
    text = b"".join(tags[b"p"].split())
    if not text:
        raise KeyFault("the key was revoked: the record has an empty `p=`")
    flags = tags.get(b"t", b"").replace(b" ", b"").split(b":")
    hashes = tuple(name for name in tags.get(b"h", b"").replace(b" ", b"").split(b":") if name)
    try:
        octets = binascii.a2b_base64(text, strict_mode=True)
        match tags.get(b"k", b"rsa"):
            case b"rsa":
                key = load_der_public_key(octets)
                if not isinstance(key, RSAPublicKey):
                    raise KeyFault("the key record says k=rsa and holds another key")
                _check_bits(key.key_size)
                return PublicKey(key, Algorithm.RSA_SHA256, hashes, b"s" in flags, b"y" in flags)
            case b"ed25519":
                made = Ed25519PublicKey.from_public_bytes(octets)
                return PublicKey(made, Algorithm.ED25519_SHA256, hashes, b"s" in flags, b"y" in flags)
            case kind:
                raise KeyFault(f"the key record is of the kind {kind[:40].decode('ascii', 'replace')!r}")
    except KeyFault:
        raise
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFault("the key in the record (`p=`) cannot be read") from None


def _check_bits(bits: int) -> None:
    if not LEAST_BITS <= bits <= MOST_BITS:
        raise KeyFault(f"an RSA key of {bits} bits; {LEAST_BITS} to {MOST_BITS} are accepted, 2048 is usual")
