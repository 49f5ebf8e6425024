"""STARTTLS, from our 220 to the first command inside TLS.

Rules: nothing in clear is read behind the 220 (it belongs to TLS), and what comes inside TLS before the handshake has
told us is kept for the session. A connection that breaks meanwhile is told to nobody by asyncio, so it ends here.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Protocol

__all__ = ["Handshake", "Securable", "tls_words"]

HANDSHAKE_SECONDS = 30.0


class Securable(Protocol):
    """The session whose connection becomes secret."""

    @property
    def is_closing(self) -> bool: ...

    def tls_began(self, transport: asyncio.Transport, early: bytes) -> None:
        """The session goes on over `transport`; `early` was said inside TLS already."""
        ...

    def tls_failed(self, words: str) -> None:
        """For the log: what went wrong."""
        ...

    def connection_lost(self, exc: Exception | None) -> None: ...


class Handshake:
    """One handshake: begins when it is made, which needs a transport that reads nothing."""

    __slots__ = ("_early", "_session", "_task", "_transport")

    def __init__(
        self,
        session: Securable,
        protocol: asyncio.Protocol,
        transport: asyncio.Transport,
        context: ssl.SSLContext,
    ) -> None:
        """`protocol` is the session, as the transport knows it."""
        self._session = session
        self._transport = transport
        self._early: list[bytes] = []
        loop = asyncio.get_running_loop()
        # RFC 3207 §4.2, CVE-2011-0411: the machine has refused anything read behind STARTTLS.
        self._task = loop.create_task(self._shake_hands(loop, protocol, context))

    def keep(self, octets: bytes) -> None:
        """Inside TLS already, but the task that shakes hands has not come back to say so."""
        self._early.append(octets)

    async def _shake_hands(
        self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol, context: ssl.SSLContext
    ) -> None:
        session, transport = self._session, self._transport
        try:
            secured = await loop.start_tls(
                transport, protocol, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except (OSError, ssl.SSLError, TimeoutError) as error:
            session.tls_failed(f"{type(error).__name__}: {error}")
            self._cut()
            return
        if secured is None or session.is_closing:
            self._cut()
            return
        session.tls_began(secured, b"".join(self._early))

    def _cut(self) -> None:
        self._transport.abort()
        self._session.connection_lost(None)


def tls_words(transport: asyncio.BaseTransport) -> str:
    """`TLSv1.3 TLS_AES_256_GCM_SHA384`, or empty without TLS."""
    cipher = transport.get_extra_info("cipher")
    return f"{cipher[1]} {cipher[0]}" if cipher else ""
