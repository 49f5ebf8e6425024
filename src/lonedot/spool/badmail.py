"""Badmail: the folder for what can be neither delivered nor returned. Three files a message, synced, never overwritten.

`NAME.eml` is the message, `NAME.txt` the reason in words, `NAME.json` the envelope. A file that is there already
with the same name is the same message (filing is repeated after a crash), so it is replaced by an equal one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

__all__ = ["file_badmail"]


def file_badmail(
    folder: Path, name: str, octets: Iterable[bytes], reason: str, envelope: Mapping[str, object]
) -> Path:
    """Write the three files of a message; the path of its `.eml`. Blocking: call it in a thread.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    eml = folder / f"{name}.eml"
    _write(folder / f"{name}.txt", [reason.encode() + b"\n"])
    _write(folder / f"{name}.json", [msgspec.json.format(msgspec.json.encode(envelope), indent=2) + b"\n"])
    _write(eml, octets)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return eml


def _write(path: Path, octets: Iterable[bytes]) -> None:
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for chunk in octets:
            file.write(chunk)
        file.flush()
        os.fdatasync(file.fileno())
    part.replace(path)
