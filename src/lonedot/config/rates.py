"""How a rate is written in the configuration: `30/min`."""

from __future__ import annotations

import re
from pathlib import Path

from lonedot.config.values import Unfit, show
from lonedot.queue.pace import UNITS, Rate

__all__ = ["rate"]

MOST = 1_000_000
_RATE = re.compile(r"(\d{1,9})\s*/\s*(s|min|h|d)", re.IGNORECASE | re.ASCII)


def rate(value: object, _: Path) -> Rate:
    """So many in a second, minute, hour or day."""
    advice = f'write a text such as "30/min"; the number is 1 to {MOST}, the unit s, min, h or d'
    found = _RATE.fullmatch(value.strip()) if isinstance(value, str) and len(value) <= 100 else None
    if found is None:
        raise Unfit(f"{show(value)} is not a rate", advice)
    count = int(found[1])
    if not 1 <= count <= MOST:
        raise Unfit(f"{show(value)} is out of range", advice)
    return Rate(count, UNITS[found[2].lower()])
