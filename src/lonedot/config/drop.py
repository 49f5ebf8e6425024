"""The keys of Drop folders, where routes with `drop = true` lead."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from lonedot.config import values as v
from lonedot.config.key import Key

__all__ = ["Drop", "folder_in"]


class Drop(msgspec.Struct, frozen=True, kw_only=True):
    """The folder for mail that programs of this machine take as files, by a route with `drop = true`."""

    folder: Annotated[
        Path,
        Key(
            v.path,
            "Made with mode 0700 when it is not there. Its group may read the files as far as it may the folder: 0750, "
            "or 02770 to let it remove them. It must not be a Pickup folder of this relay: mail would go in a circle.",
            '"spool/drop"',
            "`drop` in the spool",
        ),
    ] = Path()
    envelope: Annotated[
        bool,
        Key(
            v.boolean,
            "Files begin with `x-sender` and `x-receiver` lines, as a Pickup folder reads them. With `false` each "
            "recipient has a file of its own that begins with `Return-Path` and `Delivered-To`.",
            "true",
        ),
    ] = True


def folder_in(spool: Path, number: int) -> Path:
    """The Drop folder of a virtual server that names none."""
    return spool / ("drop" if number == 1 else f"drop-{number}")
