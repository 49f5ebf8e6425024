"""POP3 routing: turns the marker address of an old POP3 connector into the mailbox that it stands for.

The connector of Windows Small Business Server put what it had fetched into the Pickup folder, addressed to
`mspop3connector.USER@DOMAIN`. A sink bound with the rule `RCPT TO=*mspop3connector.*` made that `USER@DOMAIN` again.
So does this one: in the envelope, where a recipient belongs, and in To, Cc and the like, where the connector had left
its marker, so that no reply and no list carries it out into the world. Where the message has other recipients besides,
the marked mailbox is taken out of those fields, since they are not to learn of it.

Mail that the relay fetches itself (`[[pop3]]`) has no marker and needs no such binding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from lonedot.message.edits import AnyEdit, Edit, ReplaceField
from lonedot.message.header import HeaderView
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Next
from lonedot.sinks.view import Message
from lonedot.terms.envelope import Recipient

__all__ = ["MARKER", "Pop3RoutingSettings", "pop3_routing"]

MARKER = "mspop3connector."

_FIELDS = ("To", "Cc", "Bcc", "Resent-To", "Resent-Cc", "Resent-Bcc")
_FIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,62}")
_ATOM = rb"A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\xff-"


class Pop3RoutingSettings(msgspec.Struct, frozen=True):
    """The settings of a binding."""

    marker: str = MARKER
    """What stands before the mailbox; case does not count. The rule of the binding must name the same."""

    def __post_init__(self) -> None:
        if not _FIT.fullmatch(self.marker):
            raise ValueError(f'the setting marker is the beginning of an address, such as "{MARKER}"')


@sink(
    "POP3 Connector Event Sink",
    settings=Pop3RoutingSettings,
    on="arrival",
    priority=0,
    rule="RCPT TO=*mspop3connector.*",
    effects={"envelope", "header"},
)
def pop3_routing(message: Message, settings: Pop3RoutingSettings) -> Next:
    """Write the mailbox in place of the marker address; a recipient that only has the marker in its middle is left."""
    marker = settings.marker.lower().encode()
    edits: list[AnyEdit] = []
    there = {one.address.octets for one in message.envelope.recipients}
    for recipient in message.envelope.recipients:
        if not _is_marked(recipient, marker):
            continue
        octets = recipient.address.octets
        mailbox = octets[len(marker) :]
        if mailbox not in there:
            there.add(mailbox)
            edits.append(Edit.add_recipient(mailbox))
        edits.append(Edit.remove_recipient(octets))
    others = there - {one.address.octets for one in message.envelope.recipients if _is_marked(one, marker)}
    edits += _cleaned(message.headers, marker, is_alone=len(others) < 2)
    return Next(edits=edits)


def _is_marked(recipient: Recipient, marker: bytes) -> bool:
    octets = recipient.address.octets
    return octets.lower().startswith(marker) and octets[len(marker) : len(marker) + 1] != b"@"


def _cleaned(headers: HeaderView, marker: bytes, *, is_alone: bool) -> Iterator[AnyEdit]:
    """Fields without the marker. Where others get the message too, the whole mailbox goes: it is not theirs to see."""
    address = rb"(?<![%b])%b(?=[%b]+@)" % (_ATOM, re.escape(marker), _ATOM)
    if received := headers.every("Received"):
        # The relay's own, written before any sink is asked, names the recipient when there is one alone.
        before = headers.head[received[0].start : received[0].end]
        after = re.sub(address, b"", before, flags=re.IGNORECASE)
        if after != before:
            yield ReplaceField("Received", after, 1)
    if not is_alone:
        name = rb'(?:"[^"\\\r\n]{0,200}"[ \t\r\n]{0,20})?'
        address = name + rb"<?" + address + rb"[%b]{1,250}@[%b]{1,250}>?[ \t]*,?[ \t\r\n]*" % (_ATOM, _ATOM)
    marked = re.compile(address, re.IGNORECASE)
    for field_name in _FIELDS:
        # From the last on: a field that is taken out moves those behind it.
        for number, field in reversed(list(enumerate(headers.every(field_name), 1))):
            before = headers.head[field.start : field.end]
            after = marked.sub(b"", before)
            if after == before:
                continue
            if not is_alone:
                after = after.rstrip(b", \t\r\n") + b"\r\n"
            if after.rstrip().endswith(b":") and len(after.rstrip()) == len(field.name) + 1:
                if field_name != "To":
                    yield Edit.remove_field(field_name, number)
                    continue
                after = b"To: undisclosed-recipients:;\r\n"  # RFC 6854
            yield ReplaceField(field_name, after, number)
