"""What a transform raises when it cannot do its work."""

from __future__ import annotations

__all__ = ["CannotTransform"]


class CannotTransform(Exception):
    """This content cannot be transformed without changing what it means; the words say why, for a person."""
