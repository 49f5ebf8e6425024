"""Sinks of delivery events for a running relay. Each writes down what it saw where its setting `log` says."""

from __future__ import annotations

import os
import time
from pathlib import Path

from lonedot import Defer, Discard, Edit, Hold, Message, Next, Reject, Verdict, sink
from lonedot.sinks.hop import Hop


def note(shown: Message | Hop, words: str) -> None:
    path = shown.settings.get("log")
    if isinstance(path, str):
        with Path(path).open("a") as file:
            file.write(words + "\n")


@sink("start", on="session-start")
def start(hop: Hop) -> Verdict:
    note(hop, f"session-start {hop.route} {hop.host} {len(hop.offered)}")
    return Next()


@sink("stamp", on="message-start", effects=["header"])
def stamp(message: Message) -> Verdict:
    note(message, f"message-start {len(message.envelope.recipients)}")
    return Next([Edit.add_field("X-Hop", message.hop.host)])


@sink("recipient", on="per-recipient")
def recipient(message: Message) -> Verdict:
    note(message, f"per-recipient {message.recipient.address.text}")
    if message.recipient.address.local == b"blocked":
        return Reject("Not over this hop", enhanced="5.7.1")
    return Next()


@sink("late", on="before-data")
def late(message: Message) -> Verdict:
    codes = [reply and reply.code for _, reply in message.replies]
    note(message, f"before-data {codes}")
    return Next()


@sink("end", on="session-end")
def end(hop: Hop) -> Verdict:
    note(hop, f"session-end {'PIPELINING' in hop.offered}")
    return Next()


@sink("track", on="outcome")
def track(message: Message) -> Verdict:
    results = [outcome.result.value for _, outcome in message.outcomes]
    note(message, f"outcome {results}")
    return Next()


@sink("desk", on="dsn", effects=["header"])
def desk(message: Message) -> Verdict:
    note(message, f"dsn {message.report.value}")
    return Next([Edit.add_field("X-Desk", "help@example.com")])


@sink("faulty", on="message-start", effects=["header"], reads=["body"])
def faulty(message: Message) -> Verdict:
    octets = message.octets()
    return Next([Edit.replace_message((b"X-Scan: yes\r\n" + octets).replace(b"\r\n", b"\n") + b"%%EOF\n")])


@sink("dies", on="message-start")
def dies(message: Message) -> Verdict:
    os._exit(3)


@sink("sleeps", on="message-start")
def sleeps(message: Message) -> Verdict:
    time.sleep(60)
    return Next()


@sink("raises", on="session-start")
def raises(hop: Hop) -> Verdict:
    raise RuntimeError("out of order")


@sink("holds", on="message-start")
def holds(message: Message) -> Verdict:
    return Hold("not without a look")


@sink("puts off", on="message-start")
def puts_off(message: Message) -> Verdict:
    return Defer("not today")


@sink("quiet", on="dsn")
def quiet(message: Message) -> Verdict:
    return Discard("nobody reads these")
