"""The milter bridge in a running relay: refusals at their own stage, and a milter that comes and goes."""

from __future__ import annotations

import asyncio
import re
import smtplib
from pathlib import Path

import pytest

from lonedot.app import Relay
from lonedot.spool.interface import MessageState
from lonedot.testing.process import SUPERVISED, RelayProcess
from tests.peers.milter import CONTINUE, Answer, ScriptedMilter, change, pack, reply_text
from tests.peers.strict_sink import StrictSink
from tests.system.milters import bindings, relay_with, sent
from tests.system.talk import MESSAGE, connected, eventually, finished, first_config, id_of


async def test_recipients_are_refused_one_by_one_in_the_session(tmp_path: Path) -> None:
    def answers(letter: bytes, octets: bytes) -> bytes:
        if letter == b"R" and b"bert@" in octets:
            return reply_text("550 5.1.1 No bert here")
        return b"" if letter in b"DA" else CONTINUE

    with StrictSink() as receiver, ScriptedMilter(answers) as milter:
        async with relay_with(tmp_path, receiver, bindings(milter.address, "rcpt")) as relay:
            async with connected(relay) as client:
                replies = await client.envelope("anna@dest.example", "bert@dest.example", "carl@dest.example")
                assert [reply[:9] for reply in replies] == [
                    "250 2.1.0",
                    "250 2.1.5",
                    "550 5.1.1",
                    "250 2.1.5",
                ]
                id_of(await client.content())
                assert (await client.envelope("carl@dest.example"))[1].startswith("250")
                id_of(await client.content())
            await eventually(lambda: len(receiver.arrivals) == 2)
    assert receiver.arrivals[0].recipients == (b"anna@dest.example", b"carl@dest.example")
    # One session with the milter for one with the client; the recipient that it refused is told once.
    assert len(milter.sessions) == 1
    assert milter.letters().rstrip(b"Q") == b"OCHMRRRTLLLLLNBEMRTLLLLLNBE"


@pytest.mark.parametrize(
    ("letter", "event", "reply"),
    [
        (b"C", "connect", "554 5.7.1 Go away"),
        (b"H", "helo", "550 5.7.1 Go away"),
        (b"M", "mail", "550 5.7.1 Go away"),
        (b"R", "rcpt", "550 5.7.1 Go away"),
        (b"T", "data", "550 5.7.1 Go away"),
    ],
)
async def test_a_refusal_is_heard_at_its_stage(letter: bytes, event: str, reply: str, tmp_path: Path) -> None:
    with StrictSink() as receiver, ScriptedMilter({letter: reply_text("550 5.7.1 Go away")}) as milter:
        async with (
            relay_with(tmp_path, receiver, bindings(milter.address, event)) as relay,
            connected(relay, ehlo=False) as client,
        ):
            heard = [await client.reply()]
            for command in (
                "EHLO c.example",
                "MAIL FROM:<c@office.example>",
                "RCPT TO:<anna@dest.example>",
                "DATA",
            ):
                if heard[-1][:1] in "45":
                    break
                heard.append(await client.say(command))
    place = ("connect", "helo", "mail", "rcpt", "data").index(event)
    said = heard[place].replace("550 Go", "550 5.7.1 Go").replace("554 Go", "554 5.7.1 Go")
    assert (len(heard), said) == (place + 1, reply)


async def test_mail_comes_in_again_when_the_milter_is_back(tmp_path: Path) -> None:
    place = tmp_path / "milter"
    answers = {b"E": change(b"h", b"X-Milter", b"yes") + CONTINUE}
    with StrictSink() as receiver:
        async with relay_with(tmp_path, receiver, bindings(f"unix:{place}", "rcpt")) as relay:
            for turn in range(3):
                async with connected(relay) as client:
                    replies = await client.envelope()
                    assert replies[1].startswith("451 4.3.0"), "away"
                    with ScriptedMilter(answers, path=place):
                        assert (await client.say("RCPT TO:<anna@dest.example>")).startswith("250")
                    place.unlink()
                    assert (await client.content()).startswith("451 4.3.0"), (
                        "gone between RCPT and the end of data"
                    )
                    assert (await client.envelope())[1].startswith("451")
                    with ScriptedMilter(answers, path=place):
                        await client.envelope()
                        id = id_of(await client.content())
                    place.unlink()
                await finished(relay, id)
                assert len(receiver.arrivals) == turn + 1, "what was not taken is not sent"
    assert all(b"\r\nX-Milter: yes\r\n" in arrival.content for arrival in receiver.arrivals)


async def test_a_milter_that_starts_anew_within_a_session_is_told_all_of_it(tmp_path: Path) -> None:
    place = tmp_path / "milter"
    tables = bindings(f"unix:{place}", "mail", "rcpt")
    with StrictSink() as receiver:
        async with relay_with(tmp_path, receiver, tables) as relay, connected(relay) as client:
            with ScriptedMilter(path=place) as first:
                assert (await client.say("MAIL FROM:<c@office.example>")).startswith("250")
            place.unlink()
            with ScriptedMilter(path=place) as second:
                assert (await client.say("RCPT TO:<anna@dest.example>")).startswith("250")
                id_of(await client.content())
                await eventually(lambda: receiver.arrivals)
    assert first.letters() == b"OCHM"
    assert second.letters().rstrip(b"Q") == b"OCHMRTLLLLLNBE"


async def test_what_a_milter_does_is_in_the_ledger(tmp_path: Path) -> None:
    changes = (
        change(b"m", b"Subject", b"other", index=1)
        + change(b"-", b"<bert@dest.example>")
        + pack(b"b", b"new\r\n")
    )
    with StrictSink() as receiver, ScriptedMilter({b"E": changes + CONTINUE}) as milter:
        async with relay_with(tmp_path, receiver, bindings(milter.address)) as relay:
            id = id_of(await sent(relay, MESSAGE, "anna@dest.example", "bert@dest.example"))
            stored = await finished(relay, id)
    (entry,) = [one for one in stored.ledger if one.binding == "Milter"]
    assert len(entry.changes) == 3
    (arrival,) = receiver.arrivals
    assert arrival.recipients == (b"anna@dest.example",)
    assert arrival.content.endswith(b"Subject: other\r\n\r\nnew\r\n")


async def test_pickup_meets_a_milter_at_arrival(tmp_path: Path) -> None:
    with StrictSink() as receiver, ScriptedMilter({b"E": change(b"q", b"odd") + CONTINUE}) as milter:
        tables = bindings(milter.address).replace('import = "milter"', 'import = "milter"\nevent = "arrival"')
        async with relay_with(tmp_path, receiver, tables) as relay:
            (tmp_path / "letter").write_bytes(
                b"x-sender: c@office.example\r\nx-receiver: anna@dest.example\r\n" + MESSAGE
            )
            (tmp_path / "letter").rename(tmp_path / "spool" / "pickup" / "letter.eml")
            await eventually(lambda: relay.spool.counts().get(MessageState.HELD))
    assert milter.told(b"C") == [b"localhost\x004\0\x00127.0.0.1\0"]
    assert receiver.arrivals == []


async def test_nothing_is_lost_and_nothing_passes_while_the_milter_is_killed_again_and_again(
    tmp_path: Path,
) -> None:
    """Clients send until they hear 250; the milter ends in the middle of whatever it hears."""
    place = tmp_path / "milter"
    clients, each, lives = 6, 5, 5
    refusals = 0

    def mortal(left: int) -> Answer:
        """Closes every connection once it has heard so many ends of messages, after the changes and before the word."""
        heard = 0

        def answers(letter: bytes, _: bytes) -> bytes | None:
            nonlocal heard
            if letter == b"E":
                heard += 1
                return None if heard > left else change(b"h", b"X-Milter", b"yes") + CONTINUE
            return b"" if letter in b"DA" else CONTINUE

        return answers

    async def send(relay: Relay, number: int, events: asyncio.Semaphore) -> None:
        nonlocal refusals
        for turn in range(each):
            octets = MESSAGE.replace(b"hello", b"hello %d-%d" % (number, turn))
            while not (answer := await sent(relay, octets)).startswith("250"):
                assert answer.startswith("451 4.3.0")
                refusals += 1
                events.release()
                await asyncio.sleep(0)

    with StrictSink() as receiver:
        async with relay_with(tmp_path, receiver, bindings(f"unix:{place}")) as relay:
            refused = asyncio.Semaphore(0)
            sending = asyncio.gather(*(send(relay, number, refused) for number in range(clients)))
            for _ in range(lives):
                with ScriptedMilter(mortal(clients * each // lives - 2), path=place):
                    await refused.acquire()
                place.unlink()
            with ScriptedMilter({b"E": change(b"h", b"X-Milter", b"yes") + CONTINUE}, path=place):
                await sending
            await eventually(lambda: len(receiver.arrivals) >= clients * each)
    subjects = sorted(
        re.findall(rb"Subject: hello (\d+-\d+)\r\n", b"".join(one.content for one in receiver.arrivals))
    )
    assert subjects == sorted(b"%d-%d" % (n, t) for n in range(clients) for t in range(each)), "each once"
    assert all(b"\r\nX-Milter: yes\r\n" in one.content for one in receiver.arrivals)
    assert refusals >= lives


@pytest.mark.parametrize("workers", [1, 2])
async def test_as_it_is_served(workers: int, tmp_path: Path) -> None:
    """With its parent, on its own loop, with the code of its sinks tried apart first."""

    def answers(letter: bytes, octets: bytes) -> bytes:
        if letter == b"R" and b"bert@" in octets:
            return reply_text("550 5.1.1 No bert here")
        if letter == b"E":
            return change(b"h", b"X-Milter", b"yes") + CONTINUE
        return b"" if letter in b"DA" else CONTINUE

    def send(port: int) -> None:
        with smtplib.SMTP("127.0.0.1", port) as client:
            refused = client.sendmail(
                "c@office.example", ["anna@dest.example", "bert@dest.example"], MESSAGE, ["BODY=8BITMIME"]
            )
            assert refused == {"bert@dest.example": (550, b"5.1.1 No bert here")}

    with StrictSink() as receiver, ScriptedMilter(answers) as milter:
        toml = first_config(
            receiver.port, server=f"workers = {workers}", more=bindings(milter.address, "mail", "rcpt")
        )
        with RelayProcess(tmp_path, toml, program=SUPERVISED) as relay:
            for _ in range(8):
                await asyncio.to_thread(send, relay.ports["in"])
            await eventually(lambda: len(receiver.arrivals) == 8)
    assert all(b"\r\nX-Milter: yes\r\n" in one.content for one in receiver.arrivals)
    assert {milter.letters(number).rstrip(b"Q") for number in range(8)} == {b"OCHMRRTLLLLLNBE"}
