"""Address fence: who may send to whom. A table is read from above at each RCPT, and the first row that fits decides.

A row, one on a line of the setting `table`::

    row       := ("allow" | "deny") from to { condition } [ " : " words ]
    from, to  := a pattern as in rules (`*@example.com`, `board@*`, `*@.example.com`, `*`); `<>` for no sender
    condition := "login=" names | "network=" networks      with commas between; login=* is any, login=- nobody

Lines that are empty or begin with `#` are passed over. All conditions of a row must hold.

Rules a change here must keep:
1. Addresses are compared as they are meant: case does not count, and `"board"@example.com` is `board@example.com`.
2. The words of a row are for the client; without any it hears those of the setting `words`.

Settings: see `FenceSettings`.
"""

from __future__ import annotations

import enum

import msgspec

from lonedot.sinks.peers import Network, is_client_in, listed, networks
from lonedot.sinks.protocol import Session
from lonedot.sinks.rules import Rule, compile_rule
from lonedot.sinks.sink import sink
from lonedot.sinks.tables import rows_of
from lonedot.sinks.verdicts import Next, Reject, Verdict
from lonedot.terms.address import NULL_REVERSE_PATH, Address
from lonedot.terms.envelope import Envelope, Recipient

__all__ = ["AddressFence", "FenceSettings", "Row", "Says", "read_table"]

ROWS_LIMIT = 1000
WORDS_LIMIT = 200
NULL = "<>"
NOBODY = "-"
_NONE: tuple[Recipient, ...] = ()


class Says(enum.Enum):
    ALLOW = "allow"
    DENY = "deny"


class Row(msgspec.Struct, frozen=True):
    """One row of the table."""

    says: Says
    sender: Rule | None
    """None: the null reverse-path alone."""
    recipient: Rule
    logins: frozenset[str]
    """Empty: whoever; `-` among them: also who has not logged in."""
    networks: tuple[Network, ...]
    """Empty: from anywhere."""
    words: str

    def fits(self, sender: Address, recipient: Address, client: str, login: str) -> bool:
        if self.sender is None:
            if not sender.is_null:
                return False
        elif not self.sender.matches(Envelope(sender, _NONE)):
            return False
        if not self.recipient.matches(Envelope(NULL_REVERSE_PATH, (Recipient(recipient),))):
            return False
        if self.logins and not ({login, "*"} if login else {NOBODY}) & self.logins:
            return False
        return not self.networks or is_client_in(client, self.networks)


class FenceSettings(msgspec.Struct, frozen=True):
    """The settings of a binding."""

    table: str
    """The rows, one on a line: verdict, from, to, conditions, words."""
    otherwise: Says = Says.ALLOW
    """Where no row fits."""
    words: str = "You may not send to this address"
    """For the client, where a row has none of its own."""

    def __post_init__(self) -> None:
        _check_words(self.words, "words")
        read_table(self.table)


@sink("Address fence", on="rcpt", role="protective", settings=FenceSettings)
class AddressFence:
    """Lets a recipient pass or refuses it."""

    def __init__(self, settings: FenceSettings) -> None:
        self._rows = read_table(settings.table)
        self._otherwise = settings.otherwise
        self._words = settings.words

    def __call__(self, session: Session) -> Verdict:
        sender = _as_meant(session.envelope.reverse_path)
        recipient = _as_meant(session.recipient.address)
        says, words = self._otherwise, ""
        for row in self._rows:
            if row.fits(sender, recipient, session.client, session.login):
                says, words = row.says, row.words
                break
        return Next() if says is Says.ALLOW else Reject(words or self._words)


def read_table(text: str) -> tuple[Row, ...]:
    """The rows of a table.

    Raises:
        ValueError: a line is no row; the words say which, why, and what to write.
    """
    return rows_of("table", text, ROWS_LIMIT, _row)


def _row(line: str) -> Row:
    columns, colon, words = line.partition(" : ")
    words = words.strip()
    if colon:
        _check_words(words, "its words")
    said, *rest = columns.split()
    if len(rest) < 2:
        raise ValueError(f"{columns!r} is too short; write `deny *@example.com board@example.com`")
    sender, recipient, *conditions = rest
    try:
        says = Says(said.casefold())
    except ValueError:
        raise ValueError(f"{said!r} is no verdict; write `allow` or `deny`") from None
    logins: frozenset[str] = frozenset()
    clients: tuple[Network, ...] = ()
    for condition in conditions:
        key, equals, value = condition.partition("=")
        if not equals or not value:
            raise ValueError(f"{condition!r} is no condition; write `login=name` or `network=192.0.2.0/24`")
        match key.casefold():
            case "login":
                logins |= listed(value)
            case "network":
                clients += networks(value, "network")
            case _:
                raise ValueError(f"there is no condition {key!r}; there are: login, network")
    return Row(
        says,
        None if sender == NULL else _pattern("MAIL FROM", sender),
        _pattern("RCPT TO", recipient),
        logins,
        clients,
        words,
    )


def _pattern(command: str, pattern: str) -> Rule:
    if ";" in pattern:
        raise ValueError(f"{pattern!r}: one pattern in a column; write a row for each")
    rule = compile_rule(f"{command}={pattern}")
    assert rule is not None
    return rule


def _check_words(words: str, what: str) -> None:
    if not words.isascii() or not words.isprintable() or not 0 < len(words) <= WORDS_LIMIT:
        raise ValueError(f"{what}: a client is told printable ASCII, at most {WORDS_LIMIT} characters")


def _as_meant(address: Address) -> Address:
    """Without the quotes around a local part: they make no other mailbox of it."""
    if not address.octets.startswith(b'"'):
        return address
    return Address(address.name + b"@" + address.domain)
