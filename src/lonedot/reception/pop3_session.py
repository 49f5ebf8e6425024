"""One connection to a POP3 server: connects, protects, logs in, asks. What is understood is `protocol.pop3`'s.

Rules: every wait has an end; a fault ends the connection, and what it was is said in words that hold no secret; a
password is sent under TLS, or to loopback, or where the configuration allows it (`config.check_pop3` sees to that).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import enum
import ssl
from collections.abc import AsyncIterator, Callable

from lonedot.protocol.errors import RemoteProtocolError
from lonedot.protocol.pop3 import MAX_LISTING, Answers, Ended, Piece, Status, capabilities, command
from lonedot.reception.pop3_account import AccountSettings, Pop3Tls

__all__ = ["Pop3Fault", "Pop3Session", "Trouble", "client_context", "open_session"]

READ_OCTETS = 256 * 1024
MESSAGE_SECONDS = 1800.0
"""A message, or a listing, is here by then: a server may not drip for ever."""


class Trouble(enum.Enum):
    """What kind of fault ended a look."""

    CONNECT = "connect"
    TLS = "tls"
    LOGIN = "login"
    PROTOCOL = "protocol"
    LOST = "lost"
    """The line broke, or nothing came in time."""
    OURS = "ours"
    """Our disk, or the relay stops."""


class Pop3Fault(Exception):
    """The look cannot go on; the words say why."""

    def __init__(self, trouble: Trouble, words: str) -> None:
        super().__init__(words)
        self.trouble = trouble


def client_context(settings: AccountSettings) -> ssl.SSLContext | None:
    """The TLS settings of an account; None when it has none.

    Raises:
        OSError: `tls_ca` cannot be used.
    """
    if settings.tls is Pop3Tls.NONE:
        return None
    context = ssl.create_default_context(cafile=None if settings.tls_ca is None else str(settings.tls_ca))
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Pop3Session:
    """Made by `open_session`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, settings: AccountSettings
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._settings = settings
        self._answers = Answers()
        self.is_broken = False
        """It was aborted."""
        peer = writer.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""

    @property
    def tls(self) -> str:
        """Version and cipher; empty without TLS."""
        protected = self._writer.get_extra_info("ssl_object")
        if protected is None:
            return ""
        cipher = protected.cipher()
        known = "verified" if self._settings.tls_verify else "not verified"
        return f"{protected.version()} {cipher[0] if cipher else ''} {known}"

    # -- asking --------------------------------------------------------------------------------------

    async def ask(self, verb: bytes, *arguments: bytes) -> Status:
        """A command with an answer of one line. Raises Pop3Fault."""
        return await self._ask(command(verb, *arguments), None)

    async def listing(self, verb: bytes) -> tuple[Status, bytes]:
        """A command whose answer is a list. Raises Pop3Fault."""
        octets = bytearray()

        def take(piece: bytes) -> None:
            octets.extend(piece)
            if len(octets) > MAX_LISTING:
                raise RemoteProtocolError(f"an answer to {verb.decode()} of more than {MAX_LISTING} octets")

        status = await self._ask(command(verb), take)
        return status, bytes(octets)

    async def retrieve(self, number: int, take: Callable[[bytes], None]) -> Status:
        """The octets of a message, piece by piece. Whatever `take` raises comes through; then end the connection.

        Raises:
            Pop3Fault.
        """
        return await self._ask(command(b"RETR", b"%d" % number), take)

    async def _ask(self, line: bytes, take: Callable[[bytes], None] | None) -> Status:
        self._answers.expect(multiline=take is not None)
        verb = line.split(b" ", 1)[0].strip().decode()
        try:
            async with asyncio.timeout(MESSAGE_SECONDS):
                self._writer.write(line)
                async with asyncio.timeout(self._settings.timeout_seconds):
                    await self._writer.drain()
                return await self._answer(verb, take)
        except TimeoutError:
            raise Pop3Fault(
                Trouble.LOST, f"no whole answer to {verb} within {MESSAGE_SECONDS:g} seconds"
            ) from None
        except (OSError, ssl.SSLError) as error:
            raise Pop3Fault(Trouble.LOST, f"the line broke at {verb}: {_reason(error)}") from error
        except RemoteProtocolError as error:
            raise Pop3Fault(Trouble.PROTOCOL, f"{verb}: {error.words}") from error

    async def _answer(self, verb: str, take: Callable[[bytes], None] | None) -> Status:
        status: Status | None = None
        while True:
            for answer in self._answers.feed(await self._read(verb)):
                match answer:
                    case Status():
                        status = answer
                    case Piece(octets):
                        assert take is not None
                        take(octets)
                    case Ended():
                        pass
            if self._answers.is_idle:
                assert status is not None
                return status

    async def _read(self, verb: str) -> bytes:
        seconds = self._settings.timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                octets = await self._reader.read(READ_OCTETS)
        except TimeoutError:
            words = f"nothing came for {seconds:g} seconds, at {verb}"
            if self._answers.tail.endswith(b"\n.\r\n"):
                words += "; the last octets were LF . CR LF, which is no end of a message: CR LF . CR LF is"
            raise Pop3Fault(Trouble.LOST, words) from None
        if not octets:
            raise Pop3Fault(Trouble.LOST, f"the server closed the line at {verb}")
        return octets

    # -- beginning and end ---------------------------------------------------------------------------

    async def begin(self, context: ssl.SSLContext | None) -> None:
        """Greeting, STLS and login. Raises Pop3Fault."""
        try:
            greeting = await self._answer("the greeting", None)
        except RemoteProtocolError as error:
            raise Pop3Fault(Trouble.PROTOCOL, f"the greeting: {error.words}") from error
        except (OSError, ssl.SSLError) as error:
            raise Pop3Fault(Trouble.LOST, f"the line broke at the greeting: {_reason(error)}") from error
        if not greeting.ok:
            raise Pop3Fault(Trouble.CONNECT, f"the server refuses to serve: {greeting.text}")
        if self._settings.tls is Pop3Tls.STARTTLS:
            assert context is not None
            await self._protect(context)
        await self._login()

    async def _protect(self, context: ssl.SSLContext) -> None:
        """STLS. # RFC 2595 §4: what was said before it counts for nothing afterwards."""
        status = await self.ask(b"STLS")
        if not status.ok:
            raise Pop3Fault(Trouble.TLS, f"the server refuses STLS: {status.text}")
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                await self._writer.start_tls(context, server_hostname=self._settings.host)
        except TimeoutError:
            raise Pop3Fault(Trouble.TLS, "the TLS handshake took too long") from None
        except OSError as error:
            raise Pop3Fault(Trouble.TLS, f"TLS: {_reason(error)}") from error

    async def _login(self) -> None:
        status, octets = await self.listing(b"CAPA")
        offered = capabilities(octets) if status.ok else {}
        user, password = self._settings.user.encode(), self._settings.password
        try:
            if "PLAIN" in offered.get("SASL", ()):
                secret = base64.b64encode(b"\0" + user + b"\0" + password)
                answer = await self.ask(b"AUTH", b"PLAIN", secret)  # RFC 5034 §4
            else:
                answer = await self.ask(b"USER", user)
                if answer.ok:
                    answer = await self.ask(b"PASS", password)
        except ValueError:
            raise Pop3Fault(Trouble.LOGIN, "the user or the password holds CR, LF or NUL") from None
        if answer.ok:
            return
        words = f" [{answer.code}]" if answer.code else ""
        is_for_now = answer.code in ("IN-USE", "SYS/TEMP", "LOGIN-DELAY")
        trouble = Trouble.CONNECT if is_for_now else Trouble.LOGIN
        raise Pop3Fault(
            trouble, f"the server refuses the login of {self._settings.user}:{words} {answer.text}"
        )

    def abort(self) -> None:
        """End at once. Whoever waits for an answer gets a fault."""
        self.is_broken = True
        self._writer.transport.abort()


@contextlib.asynccontextmanager
async def open_session(
    settings: AccountSettings, context: ssl.SSLContext | None, opened: Callable[[Pop3Session], None]
) -> AsyncIterator[Pop3Session]:
    """A session that is logged in. `opened` gets it as soon as it can be aborted.

    Raises:
        Pop3Fault.
    """
    implicit = settings.tls is Pop3Tls.IMPLICIT
    try:
        async with asyncio.timeout(settings.timeout_seconds):
            reader, writer = await asyncio.open_connection(
                settings.host,
                settings.port,
                ssl=context if implicit else None,
                server_hostname=settings.host if implicit else None,
            )
    except TimeoutError:
        words = f"{settings.host} does not answer for {settings.timeout_seconds:g} seconds"
        raise Pop3Fault(Trouble.CONNECT, words) from None
    except ssl.SSLError as error:
        raise Pop3Fault(Trouble.TLS, f"TLS with {settings.host}: {_reason(error)}") from error
    except OSError as error:
        raise Pop3Fault(Trouble.CONNECT, f"{settings.host} is not reached: {_reason(error)}") from error
    session = Pop3Session(reader, writer, settings)
    opened(session)
    try:
        await session.begin(context)
        yield session
    finally:
        session.abort()


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not believed: {error.verify_message}"
    return (error.strerror or str(error) or type(error).__name__)[:300]
