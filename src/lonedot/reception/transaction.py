"""What one transaction of a session collects, from MAIL to the end of data."""

from __future__ import annotations

from lonedot.message.intake import Intake
from lonedot.protocol.events import MailGiven
from lonedot.spool.interface import BodyWriter
from lonedot.terms.address import Address
from lonedot.terms.envelope import BodyType, Envelope, Recipient, Ret
from lonedot.terms.ids import MessageId
from lonedot.terms.reply import Reply

__all__ = ["Transaction"]


class Transaction:
    """What is collected from MAIL to the end of data."""

    __slots__ = (
        "body",
        "envid",
        "failure",
        "held",
        "id",
        "intake",
        "recipients",
        "ret",
        "reverse_path",
        "smtputf8",
        "writer",
    )

    def __init__(self, mail: MailGiven, reverse_path: Address) -> None:
        self.reverse_path = reverse_path
        self.body: BodyType = mail.body
        self.smtputf8 = mail.smtputf8
        self.ret: Ret = mail.ret
        self.envid = mail.envid
        self.recipients: dict[Address, Recipient] = {}
        self.id = MessageId("")
        self.intake: Intake | None = None
        self.writer: BodyWriter | None = None
        self.failure: Reply | None = None
        self.held = 0
        """Octets counted against the memory budget."""

    def envelope(self) -> Envelope:
        return Envelope(
            self.reverse_path,
            tuple(self.recipients.values()),
            self.body,
            self.smtputf8,
            self.ret,
            self.envid,
        )
