"""Who broke the protocol: we (`LocalProtocolError`, a bug) or the peer (`RemoteProtocolError`, news)."""

from __future__ import annotations

from lonedot.terms.reply import Reply

__all__ = ["LocalProtocolError", "RemoteProtocolError"]


class LocalProtocolError(Exception):
    """Our own code asked a machine for something the protocol forbids. Never caused by a peer's octets."""


class RemoteProtocolError(Exception):
    """The peer broke the grammar or the sequence.

    `reply` is the answer that a server should give; None where there is none to give (a client's view of a server).
    """

    def __init__(self, words: str, reply: Reply | None = None) -> None:
        super().__init__(words)
        self.words = words
        self.reply = reply
