"""The HTTP bridge: a web service in any language is a sink.

A POST tells it of a message; its answer is a verdict in JSON, with edits. The body goes along in base64, as a part of a
form, or not at all.

Rules a change here must keep:
1. An answer that is no verdict is an error of the sink, and `on_error` decides: nothing passes that it has not passed.
2. Every try for one message carries the same key, so that the service can do once what it is asked twice.
3. A message that is larger than what may go inline is never shown in part.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterator

import msgspec

from lonedot.sinks.bindings import Role
from lonedot.sinks.calls import Failure
from lonedot.sinks.foreign import description, idempotency_key, octets_of, verdict_from
from lonedot.sinks.posting import IN_MEMORY, Posted, Poster, endpoint_of, form, signed
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Defer, Next, Verdict
from lonedot.sinks.view import Message

__all__ = ["Carries", "HttpFilter", "HttpSettings"]

INLINE_OCTETS = 1024 * 1024
ANSWER_OCTETS = 1024 * 1024
_BUSY = (429, 503)


class Carries(enum.Enum):
    """How the body goes along."""

    NONE = "none"
    INLINE = "inline"
    """In base64, in the JSON."""
    FORM = "form"
    """The whole message, as a file of a form beside the JSON."""


class HttpSettings(msgspec.Struct, frozen=True):
    """The settings of a binding."""

    url: str
    """`https://host/path`, or `http://` where the way to it is your own."""
    body: Carries = Carries.NONE
    """How the body goes along: `none`, `inline` or `form`."""
    key_file: str = ""
    """File with the key by which requests are signed; empty: they are not."""
    ca_file: str = ""
    """File with the certificates that are trusted; empty: those of the system."""
    largest_inline: int = INLINE_OCTETS
    """Octets of a body that goes along in base64. A larger one is an error of the sink."""
    largest_answer: int = ANSWER_OCTETS
    """Octets that it may answer with. They are in memory meanwhile."""

    def __post_init__(self) -> None:
        endpoint_of(self.url)
        for name in ("largest_inline", "largest_answer"):
            if not 0 < getattr(self, name) <= 1 << 28:
                raise ValueError(f"{name} = {getattr(self, name)}: write octets, 1 to {1 << 28}")


@sink(
    "HTTP",
    settings=HttpSettings,
    on="arrival",
    effects={"header", "body", "envelope"},
    reads={"body"},
    role=Role.PROTECTIVE,
)
class HttpFilter:
    """Asks a web service about the message, and takes what it says."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._poster = Poster(endpoint_of(settings.url), settings.ca_file, settings.largest_answer)

    async def __call__(self, message: Message) -> Verdict:
        if self._settings.body is Carries.INLINE and message.size > IN_MEMORY:
            kind, posted = await asyncio.to_thread(self._posted, message)
        else:
            kind, posted = self._posted(message)
        fields = [
            ("Content-Type", kind),
            ("Accept", "application/json"),
            ("Idempotency-Key", idempotency_key(message)),
        ]
        if self._settings.key_file:
            fields.append(("X-Lonedot-Signature", await signed(posted, self._settings.key_file)))
        reply = await self._poster.post(posted, fields)
        if reply.status == 200:
            return verdict_from(reply.body)
        if reply.status == 204:
            return Next()
        if reply.status in _BUSY:
            return Defer("A filter is busy: try again later")
        raise Failure(f"{self._settings.url.partition('?')[0]} answers {reply.words}")

    async def close(self) -> None:
        self._poster.close()

    def _posted(self, message: Message) -> tuple[str, Posted]:
        """What is posted, and its content type.

        Raises:
            Failure: the body is larger than what may go inline.
        """
        body: bytes | None = None
        if self._settings.body is Carries.INLINE:
            size = message.content.body.size
            if size > self._settings.largest_inline:
                raise Failure(
                    f"the body has {size} octets, and largest_inline is {self._settings.largest_inline}: "
                    'write body = "form" for messages of any size'
                )
            body = b"".join(message.body_chunks())
        told = msgspec.json.encode(description(message, body))
        if self._settings.body is not Carries.FORM:
            return "application/json", _whole(told)

        def pieces() -> Iterator[bytes]:
            return octets_of(message)

        content = Posted(message.size, pieces)
        return form(
            [
                ("message", "", "application/json", _whole(told)),
                ("content", "message.eml", "message/rfc822", content),
            ]
        )


def _whole(octets: bytes) -> Posted:
    return Posted(len(octets), lambda: iter((octets,)))
