"""What a field of the model says of its key in the file."""

from __future__ import annotations

from lonedot.config.values import Reader

__all__ = ["Key"]


class Key:
    """What a field's annotation says of its key: how it is read, what it means, how it is written."""

    __slots__ = ("default", "example", "means", "read")

    def __init__(self, read: Reader[object], means: str, example: str, default: str = "") -> None:
        self.read = read
        self.means = means
        self.example = example
        """A value as TOML."""
        self.default = default
        """In words, where the default is not a plain value."""
