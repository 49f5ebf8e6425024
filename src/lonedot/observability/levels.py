"""How much is logged, and in which form."""

from __future__ import annotations

import enum

__all__ = ["LogKind", "LogLevel"]


class LogKind(enum.Enum):
    """AUTO is HUMAN on a terminal and JSON elsewhere."""

    AUTO = "auto"
    HUMAN = "human"
    JSON = "json"


class LogLevel(enum.Enum):
    DEBUG = "debug"
    """A line for every command of every session."""
    INFO = "info"
    WARNING = "warning"
    """Something that a person should look at some day."""
    ERROR = "error"
    """Something that a person should look at now."""

    @property
    def number(self) -> int:
        """As in `logging`."""
        return _NUMBERS[self.value]


_NUMBERS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
