"""No address but a recipient's own is in what is sent to that recipient: random recipients, by SMTP and by Pickup.

To and Cc are the sender's words and stay; what the relay and its sinks add, and every Bcc, is what is looked at.
"""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from lonedot.app import Relay
from lonedot.spool.interface import Filter, MessageState
from lonedot.testing.relay import running_relay
from tests.peers.strict_sink import Arrival, StrictSink
from tests.system.talk import connected, eventually, first_config, id_of

MESSAGES = 24
TABLE = """
[[sink]]
name = "X-Recipient"
import = "lonedot.sinks.builtin.x_recipient:x_recipient"
isolation = "{isolation}"
deadline = 60
on_error = "{on_error}"
settings = {{ {settings} }}

[pickup]
poll_seconds = 0.05
"""
SETTINGS = {
    "all": 'header = "X-Recipient"',
    "another-name": 'header = "X-Envelope-To"',
    "original": 'header = "X-Recipient", original = true',
    "local": 'header = "X-Recipient", scope = "local", domains = "dest.example"',
    "lists": 'header = "X-Recipient", scope = "lists", lists = "{lists}"',
}


class Sent(msgspec.Struct):
    """One message: who is named in it, and who is not."""

    number: int
    to: list[str]
    cc: list[str]
    hidden: list[str]

    @property
    def recipients(self) -> list[str]:
        return [*self.to, *self.cc, *self.hidden]

    def head(self, *, with_bcc: bool) -> bytes:
        lines = [
            "From: c@office.example",
            f"Subject: {self.number}",
            f"Message-ID: <{self.number}@office.example>",
        ]
        lines.append("Date: Sun, 22 Nov 2026 12:29:25 +0000")
        for name, addresses in (("To", self.to), ("Cc", self.cc), ("Bcc", self.hidden if with_bcc else [])):
            if addresses:
                lines.append(f"{name}: " + ", ".join(addresses))
        return "\r\n".join(lines).encode() + b"\r\n\r\ntext\r\n"


def some(chosen: random.Random, number: int) -> Sent:
    """Recipients that no other message has."""
    people = [
        f"m{number}r{one}z@{chosen.choice(['dest.example', 'far.example'])}"
        for one in range(chosen.randint(1, 7))
    ]
    parts: list[list[str]] = [[], [], []]
    for one in people:
        chosen.choice(parts).append(one)
    return Sent(number, *parts)


async def send(relay: Relay, sent: Sent, chosen: random.Random, original: bool) -> None:
    """By SMTP, or as a file with a Bcc field, or with its recipients in lines at the top."""
    way = chosen.randrange(3)
    if way == 0:
        async with connected(relay) as client:
            assert (await client.say("MAIL FROM:<c@office.example>")).startswith("250")
            for one in sent.recipients:
                more = f" ORCPT=rfc822;was.{one}" if original and chosen.random() < 0.5 else ""
                assert (await client.say(f"RCPT TO:<{one}>{more}")).startswith("250")
            id_of(await client.content(sent.head(with_bcc=False)))
        return
    octets = sent.head(with_bcc=True)
    if way == 2:
        top = "x-sender: c@office.example\r\n" + "".join(f"x-receiver: {one}\r\n" for one in sent.recipients)
        octets = top.encode() + octets
    (relay.config.pickup.folder / f"{sent.number}.eml").write_bytes(octets)


def check(arrival: Arrival, sent: Sent, header: str, covered: set[str]) -> None:
    own = {one.decode() for one in arrival.recipients}
    assert own <= set(sent.recipients)
    lines = arrival.content.split(b"\r\n")
    assert not any(line.lower().startswith(b"bcc:") for line in lines)
    added = b"\r\n".join(line for line in lines if not line.startswith((b"To:", b"Cc:")))
    for other in set(sent.recipients) - own:
        assert other.encode() not in added, (own, other)
    for hidden in set(sent.hidden) - own:
        assert hidden.encode() not in arrival.content, (own, hidden)
    named = [line.partition(b": ")[2].decode() for line in lines if line.startswith(header.encode() + b": ")]
    if own & covered:
        (only,) = own
        assert named in ([only], [f"was.{only}"])
    else:
        assert named == []


@pytest.mark.parametrize("isolation", ["inline", "process"])
@pytest.mark.parametrize("variant", SETTINGS)
async def test_no_copy_names_another_recipient(tmp_path: Path, variant: str, isolation: str) -> None:
    chosen = random.Random(f"{variant} {isolation}")  # which cases are tried, nothing secret
    all_sent = {number: some(chosen, number) for number in range(MESSAGES)}
    everybody = {one for sent in all_sent.values() for one in sent.recipients}
    covered = everybody
    settings = SETTINGS[variant]
    if variant == "local":
        covered = {one for one in everybody if one.endswith("@dest.example")}
    elif variant == "lists":
        covered = set(chosen.sample(sorted(everybody), len(everybody) // 2))
        settings = settings.format(lists=", ".join(sorted(covered)).upper())
    header = "X-Envelope-To" if variant == "another-name" else "X-Recipient"
    with StrictSink() as receiver:
        table = TABLE.format(isolation=isolation, settings=settings, on_error="defer")
        async with running_relay(tmp_path, first_config(receiver.port, more=table)) as relay:
            for sent in all_sent.values():
                await send(relay, sent, chosen, variant == "original")

            def reached() -> bool:
                return sum(len(arrival.recipients) for arrival in receiver.arrivals) >= len(everybody)

            await eventually(reached)
            await eventually(lambda: not relay.spool.listing(Filter(states=(MessageState.QUEUED,), limit=1)))
            assert relay.spool.listing(Filter(states=(MessageState.HELD,), limit=1)) == []
    assert receiver.faults == []
    found: list[str] = []
    for arrival in receiver.arrivals:
        number = int(arrival.content.partition(b"\r\nSubject: ")[2].partition(b"\r\n")[0])
        check(arrival, all_sent[number], header, covered)
        found += [one.decode() for one in arrival.recipients]
    assert sorted(found) == sorted(everybody), "each got one"
