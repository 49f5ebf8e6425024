"""Sinks of delivery events that run in a process of their own."""

from __future__ import annotations

import os
import time

from lonedot import Hold, Message, Next, Reject, Verdict, sink
from lonedot.sinks.hop import Hop


@sink("describe", on="session-start")
def describe(hop: Hop) -> Verdict:
    offered = " ".join(hop.offered)
    return Reject(
        f"{hop.route} {hop.host} {hop.address} {hop.port} {hop.tls} {offered} limit={hop.settings['limit']}"
    )


@sink("repeat", on="outcome")
def repeat(message: Message) -> Verdict:
    codes = [reply and reply.code for _, reply in message.replies]
    ((_, outcome),) = message.outcomes
    return Hold(
        f"{message.hop.next_hop} {message.recipient.address.text} {codes} {outcome.result.value} "
        f"{message.report.value}"
    )


@sink("dies", on="session-start")
def dies(hop: Hop) -> Verdict:
    os._exit(3)


@sink("sleeps", on="session-start")
def sleeps(hop: Hop) -> Verdict:
    time.sleep(60)
    return Next()
