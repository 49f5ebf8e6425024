"""What the server machine alone costs for one message: `python -m bench.micro_server [MESSAGES]`.

A lock-step session in memory, one message of 10 KiB after the other: MAIL, RCPT, DATA, text in one segment. No socket,
no spool. Prints the best of five runs in microseconds a message.
"""

from __future__ import annotations

import base64
import sys
import time

from lonedot.protocol.events import ContentBegun, ContentChunk, ContentEnded, MailGiven, RcptGiven
from lonedot.protocol.server import ServerMachine, ServerOptions
from lonedot.terms.reply import reply

SIZE = 10 * 1024
RUNS = 5
OK = reply(250, "2.1.0", "OK")
GO_AHEAD = reply(354, "", "Go ahead")
HEAD = b"From: <a@b.example>\r\nTo: <c@d.example>\r\nMessage-ID: <1.2.3@b.example>\r\n\r\n"


def scan() -> bytes:
    """Base64, as a copier sends it: no dots behind the head."""
    lines = base64.encodebytes(bytes(SIZE)).replace(b"\n", b"\r\n")
    return (HEAD + lines)[: SIZE - 2] + b"\r\n"


def prose() -> bytes:
    """Text with a dot every few words."""
    return (HEAD + b"Some words. A few words more. This line ends. Here too.\r\n" * 400)[: SIZE - 2] + b"\r\n"


def microseconds(content: bytes, messages: int) -> float:
    """The cost of one message, averaged over a session of `messages`."""
    machine = ServerMachine(ServerOptions(b"mx.example.org"))
    machine.feed(b"EHLO bench.example\r\n")
    machine.next_event()
    segments = (b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<c@d.example>\r\n", b"DATA\r\n", content + b".\r\n")
    received = 0
    started = time.perf_counter()
    for number in range(messages):
        for segment in segments:
            machine.feed(segment)
            while (event := machine.next_event()) is not None:
                kind = type(event)
                if kind is MailGiven or kind is RcptGiven:
                    machine.respond(OK)
                elif kind is ContentBegun:
                    machine.respond(GO_AHEAD)
                elif isinstance(event, ContentChunk):
                    received += len(event.octets)
                elif kind is ContentEnded:
                    machine.respond(reply(250, "2.0.0", f"queued as {number:013}"))
            machine.take_output()
    spent = time.perf_counter() - started
    assert received == messages * len(content)
    return spent / messages * 1e6


def main() -> int:
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    for name, content in (("base64", scan()), ("prose", prose())):
        best = min(microseconds(content, messages) for _ in range(RUNS))
        print(f"{name}: {best:.1f} us a message, {1e6 / best:,.0f} messages a second")
    return 0


if __name__ == "__main__":
    sys.exit(main())
