"""X-Recipient: writes the recipient, as first addressed, into a header field of that recipient's own copy.

Of use where the recipient is not in To or Cc: lists, catch-all addresses, one mailbox behind many names, a Bcc. It
splits: each copy names its own recipient and no other, so nobody who was addressed by Bcc is disclosed. Where its
binding says `split = false`, a message with several recipients stays as it is, for the same reason.

As first addressed is what the RCPT command or the Pickup file said: the sink runs on arrival, before lists and aliases
are resolved.

Settings: `header`, the name of the field (`X-Recipient`). `scope`, whose copies get it: `all`; `lists`, the addresses
in `lists`; `local`, the domains in `domains`. `original`: write what the sender's system gave as original recipient
(ORCPT, RFC 3461 §4.2) where it gave an address. A field of that name that came with the message stays; the one of this
relay stands above it.
"""

from __future__ import annotations

import enum
import re

import msgspec

from lonedot.message.edits import Edit
from lonedot.sinks.bindings import OnError
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Next
from lonedot.sinks.view import Message
from lonedot.terms.address import Address
from lonedot.terms.envelope import Recipient

__all__ = ["DEFAULT_HEADER", "Scope", "XRecipientSettings", "x_recipient"]

DEFAULT_HEADER = "X-Recipient"

_SEPARATORS = re.compile(r"[\s,;]+")
_XTEXT = re.compile(rb"\+([0-9A-F]{2})")


class Scope(enum.Enum):
    """Whose copies get the field."""

    ALL = "all"
    LISTS = "lists"
    LOCAL = "local"


class XRecipientSettings(msgspec.Struct, frozen=True):
    """The settings of a binding."""

    header: str = DEFAULT_HEADER
    scope: Scope = Scope.ALL
    lists: str = ""
    """Addresses, separated by commas or spaces; case does not count."""
    domains: str = ""
    """Domains, likewise."""
    original: bool = False

    def __post_init__(self) -> None:
        if self.scope is Scope.LISTS and not _words(self.lists):
            raise ValueError("scope = 'lists' needs the addresses of the lists in `lists`")
        if self.scope is Scope.LOCAL and not _words(self.domains):
            raise ValueError("scope = 'local' needs the domains in `domains`")

    def covers(self, address: Address) -> bool:
        """The copy of this recipient gets the field."""
        match self.scope:
            case Scope.ALL:
                return True
            case Scope.LISTS:
                return address.text.casefold() in _words(self.lists)
            case Scope.LOCAL:
                return address.domain.decode("utf-8", "replace").casefold() in _words(self.domains)


@sink(
    "X-Recipient",
    settings=XRecipientSettings,
    on="arrival",
    priority=28010,
    effects={"header"},
    on_error=OnError.SKIP,
    split=True,
)
def x_recipient(message: Message, settings: XRecipientSettings) -> Next:
    """Add the field when exactly one recipient is shown.

    Raises:
        EditFault: the setting `header` is not the name of a field.
    """
    recipients = message.envelope.recipients
    if len(recipients) != 1 or not settings.covers(recipients[0].address):
        return Next()
    written = _original(recipients[0]) if settings.original else ""
    return Next(edits=[Edit.add_field(settings.header, written or recipients[0].address.text)])


def _words(text: str) -> frozenset[str]:
    return frozenset(word.casefold() for word in _SEPARATORS.split(text) if word)


def _original(recipient: Recipient) -> str:
    """The address in ORCPT; empty when there is none that can be written into a field."""
    kind, _, xtext = recipient.orcpt.partition(b";")
    if kind.strip().lower() != b"rfc822":
        return ""
    octets = _XTEXT.sub(lambda found: bytes([int(found[1], 16)]), xtext)
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() and len(text) <= 320 else ""
