"""From `[[rewrite]]` to the rules that sessions and the step that resolves ask."""

from __future__ import annotations

from lonedot.config.model import Config
from lonedot.config.rewrites import Rewrite
from lonedot.directory.rewriting import Rewriting, Rule

__all__ = ["rewriting_from"]

_KEPT: dict[int, tuple[tuple[Rewrite, ...], Rewriting]] = {}
"""By identity: it is asked for each message, and there may be thousands of tables to compare."""
_KEPT_LIMIT = 4


def rewriting_from(config: Config) -> Rewriting | None:
    """The rules; None where there are none."""
    rewrites = config.rewrites
    if not rewrites:
        return None
    kept = _KEPT.get(id(rewrites))
    if kept is None or kept[0] is not rewrites:
        while len(_KEPT) >= _KEPT_LIMIT:
            del _KEPT[next(iter(_KEPT))]
        kept = _KEPT[id(rewrites)] = rewrites, _made(rewrites)
    return kept[1]


def _made(rewrites: tuple[Rewrite, ...]) -> Rewriting:
    return Rewriting(
        Rule(f"rewrite {number}", rewrite.into, rewrite.sender, rewrite.to)
        for number, rewrite in enumerate(rewrites, 1)
    )
