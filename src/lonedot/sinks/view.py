"""`Message`: what a sink is shown. Read-only; every change goes through the edits it returns."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from hashlib import sha256

from lonedot.message.content import Content
from lonedot.message.header import HeaderView
from lonedot.message.parts import Part, parts_of
from lonedot.message.reading import open_range
from lonedot.message.report import ReportKind
from lonedot.sinks.hop import Departure, Hop
from lonedot.spool.interface import Facts
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.outcome import Outcome
from lonedot.terms.reply import Reply

__all__ = ["BodyNotShown", "Message"]


class BodyNotShown(LookupError):
    """A sink reads the body of a message without having said that it does."""

    def __init__(self) -> None:
        super().__init__(
            'this sink does not say that it reads the body: write reads={"body"} in its @sink, '
            'or reads = ["body"] for its binding'
        )


class Message:
    """A message at one event: envelope, header, and the body on demand."""

    __slots__ = (
        "_content",
        "_headers",
        "_root",
        "binding_id",
        "departure",
        "envelope",
        "facts",
        "id",
        "reads_body",
        "scope",
        "settings",
    )

    def __init__(
        self,
        id: str,
        envelope: Envelope,
        facts: Facts,
        content: Content,
        settings: Mapping[str, str | int | float | bool],
        binding_id: str = "",
        scope: tuple[int, ...] = (),
        departure: Departure | None = None,
        reads_body: bool = True,
    ) -> None:
        self.id = id
        self.envelope = envelope
        self.facts = facts
        self.settings = settings
        """The binding's settings."""
        self.binding_id = binding_id
        """GUID of the binding that is called."""
        self.scope = scope
        """Numbers of the recipients whose copy it is, where recipients get copies that differ; empty: all."""
        self.departure = departure
        """What a delivery event shows besides, as one value; for the relay's own use."""
        self.reads_body = reads_body
        """The sink has said that it reads the body. Without, whatever needs it raises `BodyNotShown`."""
        self._content = content
        self._headers: HeaderView | None = None
        self._root: Part | None = None

    @property
    def key(self) -> str:
        """The same whenever this message, or this copy of it, is shown to this binding again under the same revision
        of the configuration.

        For a sink with effects outside the message: what was done under this key need not be done twice. A client
        that sends a message again sends a new one, with another key.
        """
        key = f"{self.id} {self.binding_id} {self.facts.revision}"
        if not self.scope:
            return key
        numbers = ",".join(map(str, self.scope))
        return f"{key} {numbers if len(numbers) <= 32 else sha256(numbers.encode()).hexdigest()[:32]}"

    @property
    def headers(self) -> HeaderView:
        """The header section as it stands, every octet kept."""
        if self._headers is None:
            self._headers = HeaderView(self._content.head)
        return self._headers

    @property
    def size(self) -> int:
        """Octets, header section included."""
        return self._content.size

    @property
    def root(self) -> Part:
        """The message as the outermost part. The structure is read when this is asked for the first time.

        Raises:
            BodyNotShown: see `reads_body`.
        """
        if self._root is None:
            self._root = parts_of(self._shown())
        return self._root

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every part in the order of the octets, the message itself first.

        Raises:
            BodyNotShown: see `reads_body`.
        """
        return tuple(self.root.walk())

    def open_body(self) -> io.BufferedReader:
        """The body as a file: `read(n)`, `seek`, lines. A large one is not taken into memory.

        Raises:
            BodyNotShown: see `reads_body`.
        """
        body = self._shown().body
        return open_range(body, 0, body.size)

    def body_chunks(self) -> Iterator[bytes]:
        """The body in pieces: a large one lies in a file and is read as you go.

        Raises:
            BodyNotShown: see `reads_body`.
        """
        return self._shown().body.chunks()

    def octets(self) -> bytes:
        """The whole message in memory, CRLF line ends.

        Raises:
            BodyNotShown: see `reads_body`.
        """
        return self._shown().octets()

    def _shown(self) -> Content:
        if not self.reads_body:
            raise BodyNotShown
        return self._content

    @property
    def content(self) -> Content:
        """Head and body as they stand; for the relay's own use."""
        return self._content

    # -- at delivery events ------------------------------------------------------------------------

    @property
    def hop(self) -> Hop:
        """The next hop. At delivery events, but not at `dsn`."""
        departure = self.departure
        if departure is None or departure.hop is None:
            raise self._unknown("next hop")
        return departure.hop

    @property
    def recipient(self) -> Recipient:
        """The recipient that is being decided. Only at `per-recipient`."""
        departure = self.departure
        if departure is None or departure.recipient is None:
            raise self._unknown("recipient of its own")
        return departure.recipient

    @property
    def replies(self) -> tuple[tuple[Recipient, Reply | None], ...]:
        """The next hop's reply to each RCPT. Only at `before-data`."""
        departure = self.departure
        if departure is None or departure.replies is None:
            raise self._unknown("replies")
        return departure.replies

    @property
    def outcomes(self) -> tuple[tuple[Recipient, Outcome], ...]:
        """What came of it, by recipient. At `outcome`, and at `dsn` for those that the report speaks of."""
        departure = self.departure
        if departure is None or departure.outcomes is None:
            raise self._unknown("outcomes")
        return departure.outcomes

    @property
    def report(self) -> ReportKind:
        """Which kind of report it is. Only at `dsn`."""
        departure = self.departure
        if departure is None or departure.report is None:
            raise self._unknown("report")
        return departure.report

    def _unknown(self, what: str) -> LookupError:
        if self.departure is not None:
            return self.departure.unknown(what)
        return LookupError(f"only some delivery events show a {what}")
