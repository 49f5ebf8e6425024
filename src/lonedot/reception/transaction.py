"""What one transaction of a session collects, from MAIL to the end of data, and where its octets are.

Rules: every octet counted against the memory budget is given back, once; a body that was begun on disk is handed on
with `finish` or discarded; after a fault the rest of the content is read and dropped, and the end of data is refused.
"""

from __future__ import annotations

from collections.abc import Callable

from lonedot.message.intake import Arrived, HeadTooLarge, Intake
from lonedot.protocol.events import MailGiven
from lonedot.reception.acceptance import DISK_FULL
from lonedot.spool.interface import BodyWriter, SpoolFault, SpoolFull
from lonedot.terms.address import Address
from lonedot.terms.envelope import BodyType, Envelope, Recipient, Ret
from lonedot.terms.ids import MessageId
from lonedot.terms.reply import Reply, reply

__all__ = ["HEAD_TOO_LARGE", "STORE_FAULT", "TOO_LARGE", "Transaction"]

TOO_LARGE = reply(552, "5.3.4", "Message size exceeds the limit")
HEAD_TOO_LARGE = reply(552, "5.3.4", "The header section is larger than any message needs")
STORE_FAULT = reply(451, "4.3.0", "The message could not be stored; try again later")


class Transaction:
    """What is collected from MAIL to the end of data."""

    __slots__ = (
        "_give_memory",
        "_open_body",
        "_take_memory",
        "_writer",
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
    )

    def __init__(
        self,
        mail: MailGiven,
        reverse_path: Address,
        take_memory: Callable[[int], bool],
        give_memory: Callable[[int], None],
    ) -> None:
        """`take_memory` counts octets and says whether there is room for them; `give_memory` takes them back."""
        self.reverse_path = reverse_path
        self.body: BodyType = mail.body
        self.smtputf8 = mail.smtputf8
        self.ret: Ret = mail.ret
        self.envid = mail.envid
        self.recipients: dict[Address, Recipient] = {}
        self.id = MessageId("")
        self.intake: Intake | None = None
        self.failure: Reply | None = None
        """The answer to the end of data, once it is known that the content cannot be taken."""
        self.held = 0
        """Octets counted against the memory budget."""
        self._writer: BodyWriter | None = None
        self._take_memory = take_memory
        self._give_memory = give_memory

    def envelope(self) -> Envelope:
        return Envelope(
            self.reverse_path,
            tuple(self.recipients.values()),
            self.body,
            self.smtputf8,
            self.ret,
            self.envid,
        )

    def begin_content(self, id: MessageId, body_writer: Callable[[MessageId], BodyWriter]) -> None:
        """Content follows; it goes to `body_writer` when it is too much for memory."""
        self.id = id

        def open_body() -> BodyWriter:
            self._writer = body_writer(id)
            return self._writer

        self.intake = Intake(open_body)

    def take(self, octets: bytes) -> None:
        """A piece of the content. A fault of the store is the answer to the end of data."""
        intake = self.intake
        if intake is None or self.failure is not None:
            return
        try:
            if self._writer is None:
                self.held += len(octets)
                if not self._take_memory(len(octets)):
                    intake.spill()
            intake.feed(octets)
        except HeadTooLarge:
            self._fail(HEAD_TOO_LARGE)
        except SpoolFull:
            self._fail(DISK_FULL)
        except SpoolFault:
            self._fail(STORE_FAULT)
        if self._writer is not None:
            self.release()

    def _fail(self, answer: Reply) -> None:
        self.failure = answer
        if self.intake is not None:
            self.intake.discard()
        if self._writer is not None:
            self._writer.discard()
        self.release()

    def finish(self, over_limit: bool) -> Arrived | Reply:
        """What has come in, or why it is refused."""
        if over_limit:
            return TOO_LARGE
        if self.failure is not None:
            return self.failure
        assert self.intake is not None
        try:
            return self.intake.finish()
        except HeadTooLarge:
            return HEAD_TOO_LARGE
        except SpoolFull:
            return DISK_FULL
        except SpoolFault:
            return STORE_FAULT

    def release(self) -> None:
        """Give the memory back."""
        if self.held:
            self._give_memory(self.held)
            self.held = 0

    def drop(self) -> None:
        """Forget what was stored."""
        if self._writer is not None:
            self._writer.discard()
        self.release()
