"""From `[[rewrite]]` to the rules that sessions and the step that resolves ask."""

from __future__ import annotations

import functools

from lonedot.config.model import Config
from lonedot.config.rewrites import Rewrite
from lonedot.directory.rewriting import Rewriting, Rule

__all__ = ["rewriting_from"]


def rewriting_from(config: Config) -> Rewriting | None:
    """The rules; None where there are none. Configurations that say the same have the same ones."""
    return _made(config.rewrites) if config.rewrites else None


@functools.lru_cache(maxsize=4)
def _made(rewrites: tuple[Rewrite, ...]) -> Rewriting:
    return Rewriting(
        Rule(f"rewrite {number}", rewrite.into, rewrite.sender, rewrite.to)
        for number, rewrite in enumerate(rewrites, 1)
    )
