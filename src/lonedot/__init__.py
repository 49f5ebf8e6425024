"""Lonedot: a mail transport that people can program."""

__version__ = "0.1.0"
