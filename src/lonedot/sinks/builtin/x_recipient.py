"""X-Recipient: writes the recipient, as first addressed, into a header field.

Of use where the recipient is not in To or Cc: lists, catch-all addresses, one mailbox behind many names. All copies of
a message share its header, so a message with several recipients stays as it is: whoever was addressed by Bcc would be
disclosed to the others.

Setting: `header`, the name of the field (`X-Recipient`). A field of that name that came with the message stays; the
one of this relay stands above it.
"""

from __future__ import annotations

from lonedot.message.edits import Edit
from lonedot.sinks.bindings import OnError
from lonedot.sinks.sink import sink
from lonedot.sinks.verdicts import Next
from lonedot.sinks.view import Message

__all__ = ["DEFAULT_HEADER", "x_recipient"]

DEFAULT_HEADER = "X-Recipient"


@sink("X-Recipient", on="arrival", priority=28010, effects={"header"}, on_error=OnError.SKIP)
def x_recipient(message: Message) -> Next:
    """Add the field when the message has exactly one recipient.

    Raises:
        EditFault: the setting `header` is not the name of a field.
    """
    recipients = message.envelope.recipients
    if len(recipients) != 1:
        return Next()
    name = str(message.settings.get("header", DEFAULT_HEADER))
    return Next(edits=[Edit.add_field(name, recipients[0].address.text)])
