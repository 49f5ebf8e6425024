"""Keys for tests of DKIM: written as a person would have them, and found as DNS would tell them."""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

__all__ = ["Keys"]


class Keys:
    """An RSA and an Ed25519 key. Selectors that begin with `r` are of the first, all others of the second."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(65537, 2048)
        self.ed25519 = Ed25519PrivateKey.generate()

    def write_rsa(self, folder: Path, name: str = "rsa.pem", mode: int = 0o600) -> Path:
        return _write(self.rsa, folder / name, mode)

    def write_ed25519(self, folder: Path, name: str = "ed25519.pem", mode: int = 0o600) -> Path:
        return _write(self.ed25519, folder / name, mode)

    def rsa_record(self) -> bytes:
        octets = self.rsa.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return b"v=DKIM1; k=rsa; p=" + base64.b64encode(octets)

    def ed25519_record(self) -> bytes:
        octets = self.ed25519.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return b"v=DKIM1; k=ed25519; p=" + base64.b64encode(octets)

    def find(self, name: bytes) -> bytes:
        """The record of that name."""
        return self.rsa_record() if name.startswith(b"r") else self.ed25519_record()


def _write(key: rsa.RSAPrivateKey | Ed25519PrivateKey, path: Path, mode: int) -> Path:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(mode)
    return path
