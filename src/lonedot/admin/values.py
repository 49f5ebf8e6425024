"""What operations are asked and what they answer: values, so that `--json`, the control socket and tests see the same.

An answer in JSON is the same value for every skin; a field that is added has a default.
"""

from __future__ import annotations

import enum

import msgspec

from lonedot.spool.interface import Listed, MessageState, Sort

__all__ = [
    "MAX_LISTED",
    "AdminError",
    "BackupArguments",
    "BounceArguments",
    "Changed",
    "ExportArguments",
    "FileBegins",
    "FileEnds",
    "Form",
    "HoldArguments",
    "IdArguments",
    "IdsArguments",
    "ImportArguments",
    "Left",
    "ListArguments",
    "Listing",
    "NoArguments",
    "Octets",
    "OctetsArguments",
    "Piece",
    "Problem",
    "Remark",
    "RerouteArguments",
    "Selected",
    "Status",
]

MAX_LISTED = 10_000
"""Rows in one listing: it is made on the relay's own loop."""


class Form(enum.Enum):
    """Which octets of a message."""

    ARRIVAL = "arrival"
    """As they came from the client, dots unstuffed."""
    QUEUED = "queued"
    """After everything in the ledger."""
    SENT = "sent"
    """As written to a next hop, dots stuffed, end of data included."""


# --- questions ---


class NoArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class ListArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Empty fields do not select."""

    states: tuple[MessageState, ...] = (MessageState.QUEUED, MessageState.HELD, MessageState.DAMAGED)
    ids: tuple[str, ...] = ()
    """Whole ids or parts of them."""
    sender: str = ""
    recipient: str = ""
    limit: int = 1000
    domain: str = ""
    address: str = ""
    next_hop: str = ""
    route: str = ""
    reason: str = ""
    sink: str = ""
    client: str = ""
    subject: str = ""
    after: float = 0.0
    before: float = 0.0
    larger: int = 0
    smaller: int = 0
    sort: Sort = Sort.AGE
    page: int = 1
    """From 1; of `limit` messages each."""
    below: str = ""
    """Only ids below this one: where a long walk goes on."""
    held_for: str = ""
    """Held, and for this reason alone."""

    @property
    def selects(self) -> bool:
        """Something is asked of the messages besides their state."""
        apart = ListArguments(self.states, limit=self.limit, sort=self.sort, page=self.page, below=self.below)
        return self != apart


class BounceArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ids: tuple[str, ...]
    reason: str = "returned by the administrator"
    """Told to the sender."""


class RerouteArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ids: tuple[str, ...]
    route: str
    """Name of a route; empty: the one that each address falls under."""


class BackupArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    folder: str
    """Whole path of the backup, on the machine of the relay; its `shards` must not be there yet."""


class IdArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    """A whole id, or a part of at least four signs that only one message has."""


class IdsArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ids: tuple[str, ...]


class HoldArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ids: tuple[str, ...]
    reason: str = "held by hand"


class OctetsArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    form: Form
    attempt: int = 0
    """With SENT: number of the attempt, counted from 1; 0 means the last one that sent something."""
    recipient: str = ""
    """Address of one whose copy is meant; needed where the copies differ."""


class ExportArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The messages named, else those that the filter selects."""

    ids: tuple[str, ...] = ()
    filter: ListArguments = ListArguments()


class ImportArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Messages that lie in a folder as `ID.message`."""

    folder: str
    """Whole path, on the machine of the relay."""
    ids: tuple[str, ...]
    hold: bool = False


# --- answers ---


class Listing(msgspec.Struct, frozen=True):
    rows: tuple[Listed, ...]
    counts: dict[str, int]
    """All messages of the spool, by state."""
    cut: bool
    """There may be more than the limit let through."""
    asked_at: float


class Selected(msgspec.Struct, frozen=True):
    """Ids that a filter selects, newest first."""

    ids: tuple[str, ...]
    cut: bool
    """There may be more than the limit let through."""


class Left(msgspec.Struct, frozen=True):
    """A message that stayed as it was."""

    id: str
    why: str


class Changed(msgspec.Struct, frozen=True):
    done: tuple[str, ...]
    left: tuple[Left, ...] = ()
    later: bool = False
    """It is done when the relay starts."""


class Status(msgspec.Struct, frozen=True):
    running: bool
    """False when asked of a spool whose relay is down."""
    pid: int
    since: float
    """When the relay started; 0 when it is down."""
    counts: dict[str, int]
    next_due: float
    """0 when nothing waits."""


# --- streams ---


class FileBegins(msgspec.Struct, frozen=True, tag="file"):
    name: str


class Octets(msgspec.Struct, frozen=True, tag="octets"):
    octets: bytes


class FileEnds(msgspec.Struct, frozen=True, tag="end"):
    pass


class Remark(msgspec.Struct, frozen=True, tag="remark"):
    """Something to tell the person beside the octets."""

    words: str
    is_fault: bool = False


Piece = FileBegins | Octets | FileEnds | Remark


class Problem(msgspec.Struct, frozen=True):
    """Why it was not done: what is wrong, where, and what to do."""

    what: str
    where: str = ""
    do: str = ""


class AdminError(Exception):
    """An operation could not be done; carries what to tell the person."""

    def __init__(self, what: str, where: str = "", do: str = "") -> None:
        self.problem = Problem(what, where, do)
        super().__init__("; ".join(part for part in (what, where, do) if part))
