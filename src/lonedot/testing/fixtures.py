"""A whole relay for the author of a sink: real sockets on free ports, a folder of its own, a next hop that records.

`relay_with` is for coroutines; `RelayThread` runs the same in a thread, for tests that are plain functions, and is what
the pytest fixture `lonedot_relay` starts. The next hop is strict: what it shows was ended by CR LF . CR LF.
"""

from __future__ import annotations

import asyncio
import contextlib
import smtplib
import tempfile
import threading
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar

import msgspec

from lonedot.app import Relay
from lonedot.message.header import HeaderView
from lonedot.message.ledger import Entry
from lonedot.reception.recorder import Recorded, Recorder
from lonedot.sinks.bindings import Binding, firing_order
from lonedot.sinks.sink import AnySink
from lonedot.spool.interface import Filter, MessageState
from lonedot.terms.ids import MessageId
from lonedot.testing.relay import CONFIG, running_relay
from lonedot.testing.sinks import LETTER, bound, octets_of

__all__ = ["Arrival", "Refused", "RelayThread", "RunningRelay", "StartRelay", "relay_with"]

PATIENCE_SECONDS = 30.0
"""How long a message may take to arrive."""
REPLY_SECONDS = 60.0
"""How long the relay may take to answer a command."""

T = TypeVar("T")


class Refused(Exception):
    """The relay did not take the message."""

    def __init__(self, code: int, words: str) -> None:
        self.code = code
        """Reply code."""
        self.words = words
        """The rest of the reply."""
        super().__init__(f"{code} {words}")


class Arrival(msgspec.Struct, frozen=True):
    """A message as the next hop got it."""

    sender: str
    recipients: tuple[str, ...]
    octets: bytes
    """The whole message, dots removed."""

    @property
    def headers(self) -> HeaderView:
        """Its header section."""
        return HeaderView(self.octets)

    @property
    def body(self) -> bytes:
        """What stands behind the first empty line."""
        return self.octets.partition(b"\r\n\r\n")[2]


class RunningRelay:
    """A relay and its next hop, while they run."""

    def __init__(self, relay: Relay, next_hop: Recorder, folder: Path) -> None:
        self.folder = folder
        """Where it keeps everything; gone when it has stopped, unless it was given."""
        self._relay = relay
        self._next_hop = next_hop

    @property
    def address(self) -> tuple[str, int]:
        """Host and port where it listens."""
        return self._relay.addresses["in"]

    async def send(
        self,
        content: str | bytes = LETTER,
        *,
        to: str | Sequence[str] = "recipient@example.org",
        sender: str = "sender@example.com",
    ) -> str:
        """Hand it one message by SMTP; its id. A line end is added when the last line has none.

        Raises:
            Refused: by the relay or by a sink.
        """
        recipients = (to,) if isinstance(to, str) else tuple(to)
        host, port = self.address
        return await asyncio.to_thread(_submit, host, port, octets_of(content), recipients, sender)

    async def arrivals(self, count: int = 1) -> tuple[Arrival, ...]:
        """What the next hop got, as soon as it got so many messages in all.

        Raises:
            AssertionError: they do not come; the words say what became of the messages.
        """
        try:
            await self._next_hop.wait_for(count, PATIENCE_SECONDS)
        except TimeoutError:
            rows = self._relay.spool.listing(Filter(states=tuple(MessageState)))
            became = "; ".join(f"{row.id} is {row.state.value} {row.reason}".rstrip() for row in rows)
            raise AssertionError(
                f"{self._next_hop.count} of {count} messages arrived; {became or 'none was accepted'}"
            ) from None
        return tuple(_arrival(message) for message in self._next_hop.messages)

    async def state(self, id: str) -> str:
        """`queued`, `held`, `finished`, …

        Raises:
            NoSuchMessage: it has none of that id.
        """
        return self._relay.spool.show(MessageId(id)).state.value

    async def ledger(self, id: str) -> tuple[Entry, ...]:
        """Every line of the message's ledger: the first is the relay's own work, then one for each sink.

        Raises:
            NoSuchMessage: it has none of that id.
        """
        return self._relay.spool.show(MessageId(id)).ledger


@contextlib.asynccontextmanager
async def relay_with(*sinks: AnySink | Binding, folder: Path | None = None) -> AsyncIterator[RunningRelay]:
    """A relay with these sinks, in a temporary folder unless one is given; stopped at the end.

    Raises:
        AppFault: it cannot start.
    """
    bindings = firing_order(bound(sink) for sink in sinks)
    async with contextlib.AsyncExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lonedot-")))
        next_hop = await stack.enter_async_context(Recorder())
        toml = CONFIG.format(
            server='log_level = "error"\ndrain_seconds = 1', listener="", route="", port=next_hop.port
        )
        relay = await stack.enter_async_context(running_relay(folder, toml, bindings=bindings))
        yield RunningRelay(relay, next_hop, folder)


class RelayThread:
    """A `RunningRelay` in a thread of its own, with the same methods as plain functions."""

    def __init__(self, *sinks: AnySink | Binding, folder: Path | None = None) -> None:
        self._sinks = sinks
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._stack = contextlib.AsyncExitStack()
        self._running: RunningRelay | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._running = self._do(self._stack.enter_async_context(self._relay()))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._do(self._stack.aclose())
        finally:
            self._end()

    @property
    def folder(self) -> Path:
        """See `RunningRelay`."""
        return self._relay_now.folder

    @property
    def address(self) -> tuple[str, int]:
        """See `RunningRelay`."""
        return self._relay_now.address

    def send(
        self,
        content: str | bytes = LETTER,
        *,
        to: str | Sequence[str] = "recipient@example.org",
        sender: str = "sender@example.com",
    ) -> str:
        """See `RunningRelay.send`."""
        return self._do(self._relay_now.send(content, to=to, sender=sender))

    def arrivals(self, count: int = 1) -> tuple[Arrival, ...]:
        """See `RunningRelay.arrivals`."""
        return self._do(self._relay_now.arrivals(count))

    def state(self, id: str) -> str:
        """See `RunningRelay.state`."""
        return self._do(self._relay_now.state(id))

    def ledger(self, id: str) -> tuple[Entry, ...]:
        """See `RunningRelay.ledger`."""
        return self._do(self._relay_now.ledger(id))

    def _relay(self) -> contextlib.AbstractAsyncContextManager[RunningRelay]:
        return relay_with(*self._sinks, folder=self._folder)

    @property
    def _relay_now(self) -> RunningRelay:
        if self._running is None:
            raise RuntimeError("the relay runs inside the `with` block only")
        return self._running

    def _do(self, work: Coroutine[object, object, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._running = None
        loop = self._loop
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


class StartRelay(Protocol):
    """The type of the pytest fixture `lonedot_relay`: starts a relay that runs until the test has ended."""

    def __call__(self, *sinks: AnySink | Binding) -> RelayThread: ...


def _arrival(recorded: Recorded) -> Arrival:
    envelope = recorded.envelope
    return Arrival(
        envelope.reverse_path.octets.decode("utf-8", "backslashreplace"),
        tuple(recipient.address.text for recipient in envelope.recipients),
        recorded.content,
    )


def _submit(host: str, port: int, octets: bytes, recipients: Sequence[str], sender: str) -> str:
    with smtplib.SMTP(host, port, "client.example.com", REPLY_SECONDS) as client:
        client.ehlo()
        _expect(*client.mail(sender, () if octets.isascii() else ("BODY=8BITMIME",)))
        for recipient in recipients:
            _expect(*client.rcpt(recipient))
        try:
            code, words = client.data(octets)
        except smtplib.SMTPDataError as error:
            said = error.smtp_error
            code, words = error.smtp_code, said if isinstance(said, bytes) else said.encode()
        return _expect(code, words).rsplit(maxsplit=1)[-1]


def _expect(code: int, words: bytes) -> str:
    text = words.decode("utf-8", "backslashreplace")
    if code >= 400:
        raise Refused(code, text)
    return text
