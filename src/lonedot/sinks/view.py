"""`Message`: what a sink is shown. Read-only; every change goes through the edits it returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256

from lonedot.message.content import Content
from lonedot.message.header import HeaderView
from lonedot.message.report import ReportKind
from lonedot.sinks.hop import Departure, Hop
from lonedot.spool.interface import Facts
from lonedot.terms.envelope import Envelope, Recipient
from lonedot.terms.outcome import Outcome
from lonedot.terms.reply import Reply

__all__ = ["Message"]


class Message:
    """A message at one event: envelope, header, and the body on demand."""

    __slots__ = (
        "_content",
        "_headers",
        "binding_id",
        "departure",
        "envelope",
        "facts",
        "id",
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
        self._content = content
        self._headers: HeaderView | None = None

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

    def body_chunks(self) -> Iterator[bytes]:
        """The body in pieces: a large one lies in a file and is read as you go."""
        return self._content.body.chunks()

    def octets(self) -> bytes:
        """The whole message in memory, CRLF line ends."""
        return self._content.octets()

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
