"""`lonedot try` under the name that the table of commands uses; the command itself is in `trial`."""

from lonedot.cli.trial import command

__all__ = ["command"]
