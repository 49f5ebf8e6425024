"""What can be wrong when the directory is asked. Nobody is unknown because of it: they are told to ask again."""

from __future__ import annotations

__all__ = ["DirectoryFault", "ExpansionFault"]


class DirectoryFault(Exception):
    """The directory cannot be asked now, or cannot be read; the words say what and where."""


class ExpansionFault(DirectoryFault):
    """What an alias or a list names cannot be worked out: it is empty, goes in a circle, is too deep or too large."""
