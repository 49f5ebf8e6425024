"""The recording receiver: strict, lenient, scripted, over real sockets."""

import asyncio
import smtplib
import ssl
from collections.abc import Sequence

import pytest
import trustme

from lonedot.protocol.replies import ReplyReader
from lonedot.reception.recorder import HangUp, Recorder, RecorderOptions, RecorderStage
from lonedot.terms.envelope import BodyType
from lonedot.terms.reply import Reply, reply


class Client:
    """Says lines, hears replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._replies = ReplyReader()

    @classmethod
    async def connect(cls, recorder: Recorder, context: ssl.SSLContext | None = None) -> "Client":
        name = "recorder.example" if context else None
        streams = await asyncio.open_connection("127.0.0.1", recorder.port, ssl=context, server_hostname=name)
        return cls(*streams)

    async def hear(self) -> Reply:
        async with asyncio.timeout(10):
            while (answer := self._replies.next()) is None:
                octets = await self.reader.read(65536)
                if not octets:
                    raise ConnectionResetError
                self._replies.feed(octets)
        return answer

    async def say(self, octets: bytes) -> Reply:
        self.writer.write(octets)
        return await self.hear()

    async def greet(self, verb: bytes = b"EHLO") -> Reply:
        assert (await self.hear()).code == 220
        return await self.say(verb + b" client.example\r\n")

    async def begin(self, *recipients: bytes) -> None:
        """Up to the 354."""
        await self.greet()
        await self.say(b"MAIL FROM:<a@example.com>\r\n")
        for recipient in recipients or (b"b@example.com",):
            await self.say(b"RCPT TO:<%s>\r\n" % recipient)
        assert (await self.say(b"DATA\r\n")).code == 354

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            pass


async def test_a_message_is_recorded_octet_for_octet() -> None:
    async with Recorder() as recorder:
        client = await Client.connect(recorder)
        await client.begin(b"b@example.com", b"c@example.com")
        wire = b"Subject: x\r\n\r\n..dot\r\nbare \n and \r and \xff\r\n.\r\n"
        assert (await client.say(wire)).code == 250
        assert (await client.say(b"QUIT\r\n")).code == 221
        await client.close()
        (message,) = recorder.messages
        assert message.wire == wire
        assert message.content == b"Subject: x\r\n\r\n.dot\r\nbare \n and \r and \xff\r\n"
        assert message.ended_by == b"\r\n.\r\n"
        assert message.helo == b"client.example"
        assert message.envelope.reverse_path.octets == b"a@example.com"
        assert [r.address.octets for r in message.envelope.recipients] == [b"b@example.com", b"c@example.com"]
        said = b"".join(octets for _, direction, octets in message.lines if direction == "<")
        assert b"MAIL FROM:<a@example.com>\r\n" in said
        assert b"Subject" not in said
        assert recorder.waiting == []


async def test_two_messages_in_one_session_and_pipelined_ends() -> None:
    async with Recorder() as recorder:
        client = await Client.connect(recorder)
        await client.begin()
        client.writer.write(b"one\r\n.\r\nMAIL FROM:<> BODY=8BITMIME\r\nRCPT TO:<c@example.com>\r\nDATA\r\n")
        assert [(await client.hear()).code for _ in range(4)] == [250, 250, 250, 354]
        await client.say(b".\r\n")
        await client.close()
        first, second = recorder.messages
        assert (first.wire, first.content) == (b"one\r\n.\r\n", b"one\r\n")
        assert (second.wire, second.content, second.ended_by) == (b".\r\n", b"", b".\r\n")
        assert second.envelope.reverse_path.is_null
        assert second.envelope.body is BodyType.EIGHT_BIT_MIME


async def test_chunking() -> None:
    async with Recorder() as recorder:
        client = await Client.connect(recorder)
        await client.greet()
        for line in (b"MAIL FROM:<a@example.com>\r\n", b"RCPT TO:<b@example.com>\r\n", b"BDAT 5\r\na\n.\r\n"):
            assert (await client.say(line)).code == 250
        assert (await client.say(b"BDAT 1 LAST\r\nb")).code == 250
        await client.close()
        (message,) = recorder.messages
        assert (message.mode, message.content, message.wire, message.ended_by) == (
            "BDAT",
            b"a\n.\r\nb",
            b"a\n.\r\nb",
            b"",
        )


async def test_a_strict_recorder_names_the_client_that_waits() -> None:
    told = asyncio.Event()
    async with Recorder(RecorderOptions(silence_seconds=0.01), on_waiting=lambda _: told.set()) as recorder:
        client = await Client.connect(recorder)
        await client.begin()
        client.writer.write(b"Subject: scan\n\n%%EOF\n.\r\n")
        async with asyncio.timeout(10):
            await told.wait()
        (waiting,) = recorder.waiting
        assert (waiting.received, waiting.look_alike, waiting.has_left) == (24, b"\n.\r\n", False)
        assert (await client.say(b"\r\n.\r\n")).code == 250
        assert recorder.messages[0].content == b"Subject: scan\n\n%%EOF\n.\r\n\r\n"
        await client.close()


async def test_a_client_that_leaves_inside_a_message() -> None:
    told = asyncio.Event()
    async with Recorder(on_waiting=lambda _: told.set()) as recorder:
        client = await Client.connect(recorder)
        await client.begin()
        client.writer.write(b"half")
        await client.close()
        async with asyncio.timeout(10):
            await told.wait()
        assert [(w.tail, w.look_alike, w.has_left) for w in recorder.waiting] == [(b"half", b"", True)]
        assert recorder.messages == []


async def test_a_lenient_recorder_takes_the_look_alike_for_the_end() -> None:
    async with Recorder(RecorderOptions(is_lenient=True)) as recorder:
        client = await Client.connect(recorder)
        await client.begin()
        client.writer.write(b"%%EOF\n.\r\nRSET\r\n")
        assert [(await client.hear()).code for _ in range(2)] == [250, 250]
        await client.close()
        (message,) = recorder.messages
        assert (message.content, message.wire, message.ended_by) == (b"%%EOF\n", b"%%EOF\n.\r\n", b"\n.\r\n")


async def test_keywords_that_are_not_offered() -> None:
    async with Recorder(RecorderOptions(not_offered=frozenset({b"8BITMIME", b"CHUNKING"}))) as recorder:
        client = await Client.connect(recorder)
        offered = {line.split(b" ")[0] for line in (await client.greet()).lines}
        assert b"PIPELINING" in offered and b"8BITMIME" not in offered and b"CHUNKING" not in offered
        assert (await client.say(b"MAIL FROM:<a@example.com> BODY=8BITMIME\r\n")).code == 555
        assert recorder.refused[0].reply.code == 555
        await client.close()


async def test_scripted_answers() -> None:
    asked: list[tuple[RecorderStage, bytes]] = []

    def answer(stage: RecorderStage, argument: bytes) -> Reply | None:
        asked.append((stage, argument))
        if argument == b"nobody@example.com":
            return reply(550, "5.1.1", "No such user")
        return reply(451, "4.3.0", "Later") if stage is RecorderStage.CONTENT else None

    async with Recorder(RecorderOptions(answer=answer)) as recorder:
        client = await Client.connect(recorder)
        await client.begin(b"nobody@example.com", b"b@example.com")
        assert (await client.say(b"x\r\n.\r\n")).text == "451 4.3.0 Later"
        assert recorder.messages == []
        await client.close()
    assert [stage.value for stage, _ in asked] == ["connect", "mail", "rcpt", "rcpt", "data", "content"]


async def test_refused_at_the_door() -> None:
    options = RecorderOptions(answer=lambda stage, _: reply(421, "4.3.2", "Busy"))
    async with Recorder(options) as recorder:
        client = await Client.connect(recorder)
        assert (await client.hear()).code == 421
        assert await client.reader.read() == b""
        await client.close()


@pytest.mark.parametrize(
    ("hang_up", "replies", "recorded"),
    [
        (HangUp(RecorderStage.CONNECT), 0, 0),
        (HangUp(RecorderStage.EHLO), 1, 0),
        (HangUp(RecorderStage.MAIL), 2, 0),
        (HangUp(RecorderStage.RCPT), 3, 0),
        (HangUp(RecorderStage.DATA), 4, 0),
        (HangUp(RecorderStage.CONTENT, 3), 5, 0),
        (HangUp(RecorderStage.CONTENT), 5, 1),
    ],
)
async def test_hanging_up(hang_up: HangUp, replies: int, recorded: int) -> None:
    lines: Sequence[bytes] = (
        b"",
        b"EHLO client.example\r\n",
        b"MAIL FROM:<a@example.com>\r\n",
        b"RCPT TO:<b@example.com>\r\n",
        b"DATA\r\n",
        b"text\r\n.\r\n",
    )
    async with Recorder(RecorderOptions(hang_up=hang_up)) as recorder:
        client = await Client.connect(recorder)
        heard = 0
        with pytest.raises(ConnectionError):
            for line in lines:
                await client.say(line)
                heard += 1
        assert (heard, recorder.count) == (replies, recorded)
        await client.close()


async def test_login() -> None:
    options = RecorderOptions(logins=frozenset({(b"relay", b"secret")}), auth_requires_tls=False)
    async with Recorder(options) as recorder:
        client = await Client.connect(recorder)
        await client.greet()
        assert (await client.say(b"AUTH PLAIN AHJlbGF5AHdyb25n\r\n")).code == 535
        assert (await client.say(b"AUTH PLAIN AHJlbGF5AHNlY3JldA==\r\n")).code == 235
        for line in (
            b"MAIL FROM:<a@example.com>\r\n",
            b"RCPT TO:<b@example.com>\r\n",
            b"DATA\r\n",
            b"x\r\n.\r\n",
        ):
            assert (await client.say(line)).is_positive
        await client.close()
        assert recorder.messages[0].login == b"relay"
        assert b"AHJlbGF5" not in b"".join(octets for _, _, octets in recorder.messages[0].lines)


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("recorder.example").configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    return server, client


async def test_starttls() -> None:
    server, trusting = contexts()
    async with Recorder(RecorderOptions(tls=server)) as recorder:

        def send() -> None:
            with smtplib.SMTP("127.0.0.1", recorder.port, timeout=10) as client:
                client._host = "recorder.example"  # type: ignore[attr-defined]  # the name that the certificate has
                client.starttls(context=trusting)
                client.sendmail("a@example.com", ["b@example.com"], b"x\r\n")
                assert not client.has_extn("starttls")

        await asyncio.to_thread(send)
        (message,) = recorder.messages
        assert message.tls.startswith("TLSv1")
        assert message.content == b"x\r\n"


async def test_implicit_tls() -> None:
    server, trusting = contexts()
    async with Recorder(RecorderOptions(tls=server, implicit_tls=True)) as recorder:
        client = await Client.connect(recorder, trusting)
        await client.begin()
        assert (await client.say(b"x\r\n.\r\n")).code == 250
        await client.close()
        assert recorder.messages[0].tls.startswith("TLSv1")


async def test_only_the_last_messages_are_kept() -> None:
    async with Recorder(RecorderOptions(keep=2)) as recorder:
        client = await Client.connect(recorder)
        await client.greet()
        for number in range(4):
            for line in (
                b"MAIL FROM:<a@example.com>\r\n",
                b"RCPT TO:<b@example.com>\r\n",
                b"DATA\r\n",
                b"%d\r\n.\r\n" % number,
            ):
                await client.say(line)
        await recorder.wait_for(4)
        assert [message.content for message in recorder.messages] == [b"2\r\n", b"3\r\n"]
        with pytest.raises(TimeoutError):
            await recorder.wait_for(5, 0.01)
        await client.close()


async def test_stopping_closes_sessions() -> None:
    recorder = Recorder()
    await recorder.start()
    client = await Client.connect(recorder)
    await client.greet()
    assert recorder.connections == 1
    await recorder.stop()
    with pytest.raises(ConnectionError):
        await client.say(b"NOOP\r\n")
    await client.close()
    await recorder.stop()
