"""The tables of a shard, the statements that write them, and how a connection is opened.

`message` holds what changes and what queries look at; `record` what never changes; `content` goes when a message is
finished. A change of the tables raises VERSION and comes with a step in `_STEPS` from the version before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec

from lonedot.spool import rows
from lonedot.spool.interface import SpoolFault
from lonedot.spool.subject import fingerprint_of

__all__ = ["VERSION", "open_reader", "open_writer", "query"]

VERSION = 5

PAGE_SIZE = 8192
"""Measured with 4096, 8192 and 16384 at 1, 10 and 64 KiB: within 5 % at 1 and 10 KiB, the larger the better at 64."""

CACHE_KIBIBYTES = 16 * 1024
LOG_LIMIT = 64 << 20
"""The log is cut back to this size when it starts anew."""

BUSY_MILLISECONDS = 2000

_STEP_ROWS = 1000
"""Rows that a step of the schema has in memory."""

_TABLES = """
CREATE TABLE message (
    id INTEGER PRIMARY KEY,          -- the number of the id
    state TEXT NOT NULL,
    due REAL,                        -- of the recipient that is due first; seconds since 1970
    owner TEXT,
    epoch INTEGER NOT NULL,
    deaths INTEGER NOT NULL,
    accepted_at REAL NOT NULL,
    finished_at REAL NOT NULL,
    size INTEGER NOT NULL,
    sender TEXT NOT NULL,
    reason TEXT NOT NULL,
    transport BLOB,                  -- interface.Progress; NULL: it can be delivered
    client TEXT NOT NULL DEFAULT '', -- address of the device, or the file name in Pickup
    subject BLOB,                    -- subject.fingerprint; NULL: it has none
    lane TEXT                        -- it waits for this lane as well as for its time; NULL: for its time alone
) STRICT;
CREATE INDEX message_due ON message (due) WHERE state = 'queued' AND owner IS NULL;
CREATE INDEX message_live ON message (state) WHERE state <> 'finished';
CREATE INDEX message_lane ON message (lane, id) WHERE state = 'queued' AND owner IS NULL AND lane IS NOT NULL;

CREATE TABLE record (
    message INTEGER PRIMARY KEY,
    value BLOB NOT NULL              -- rows.Record
) STRICT;

CREATE TABLE recipient (
    message INTEGER NOT NULL,
    number INTEGER NOT NULL,
    address TEXT NOT NULL,
    status TEXT NOT NULL,
    next_at REAL NOT NULL,
    value BLOB NOT NULL,             -- interface.RecipientState
    route TEXT NOT NULL DEFAULT '',  -- chosen by a sink or a person, else at the last attempt
    next_hop TEXT NOT NULL DEFAULT '',
    words TEXT NOT NULL DEFAULT '',  -- why it waits or failed
    PRIMARY KEY (message, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE content (
    message INTEGER PRIMARY KEY,
    file INTEGER NOT NULL,           -- 1: the body is a file, and `body` is empty
    size INTEGER NOT NULL,           -- octets of the body
    measures BLOB NOT NULL,          -- rows.Measures
    head BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX content_file ON content (message, size) WHERE file = 1;

CREATE TABLE entry (                 -- ledger entries behind those of the acceptance
    message INTEGER NOT NULL,
    number INTEGER NOT NULL,
    value BLOB NOT NULL,             -- entries
    PRIMARY KEY (message, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempt (
    message INTEGER NOT NULL,
    number INTEGER NOT NULL,
    value BLOB NOT NULL,             -- interface.Attempt
    PRIMARY KEY (message, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE source_key (
    key BLOB PRIMARY KEY,
    message INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX source_key_message ON source_key (message);

CREATE TABLE progress (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    transactions INTEGER NOT NULL,   -- rises by one with each; tells whether one in doubt is there
    finished INTEGER NOT NULL,       -- messages in state finished
    salt BLOB NOT NULL DEFAULT x'',  -- key of the fingerprints of subjects; of this shard alone
    rule INTEGER NOT NULL DEFAULT 0  -- up to this number standing rules were applied to what is queued here
) STRICT;
INSERT INTO progress VALUES (1, 0, 0, randomblob(16), 0);
"""


def _with_transport(connection: apsw.Connection) -> None:
    connection.execute("ALTER TABLE message ADD COLUMN transport BLOB")


def _with_search(connection: apsw.Connection) -> None:
    """What the queue is searched by, taken out of the values beside it; what cannot be decoded stays empty."""
    connection.execute(
        "ALTER TABLE message ADD COLUMN client TEXT NOT NULL DEFAULT '';"
        "ALTER TABLE message ADD COLUMN subject BLOB;"
        "ALTER TABLE recipient ADD COLUMN route TEXT NOT NULL DEFAULT '';"
        "ALTER TABLE recipient ADD COLUMN next_hop TEXT NOT NULL DEFAULT '';"
        "ALTER TABLE recipient ADD COLUMN words TEXT NOT NULL DEFAULT '';"
        "ALTER TABLE progress ADD COLUMN salt BLOB NOT NULL DEFAULT x'';"
        "UPDATE progress SET salt = randomblob(16)"
    )
    _fill_recipients(connection)
    ((salt,),) = connection.execute("SELECT salt FROM progress")
    _fill_messages(connection, salt)


def _fill_recipients(connection: apsw.Connection) -> None:
    place = (-1, -1)
    while found := query(
        connection,
        "SELECT message, number, value FROM recipient WHERE (message, number) > (?, ?)"
        " ORDER BY message, number LIMIT ?",
        (*place, _STEP_ROWS),
    ):
        place = found[-1][0], found[-1][1]
        for number, index, value in found:
            try:
                searched = rows.searched(rows.recipient_from(value))
            except msgspec.DecodeError:
                continue
            connection.execute(
                "UPDATE recipient SET route = ?, next_hop = ?, words = ? WHERE message = ? AND number = ?",
                (*searched, number, index),
            )


def _fill_messages(connection: apsw.Connection, salt: bytes) -> None:
    place = -1
    while found := query(
        connection,
        "SELECT r.message, r.value, c.head FROM record r LEFT JOIN content c ON c.message = r.message"
        " WHERE r.message > ? ORDER BY r.message LIMIT ?",
        (place, _STEP_ROWS),
    ):
        place = found[-1][0]
        for number, value, head in found:
            try:
                client = rows.record_from(value).facts.client
            except msgspec.DecodeError:
                continue
            connection.execute(
                "UPDATE message SET client = ?, subject = ? WHERE id = ?",
                (client, None if head is None else fingerprint_of(head, salt), number),
            )


def _with_lanes(connection: apsw.Connection) -> None:
    connection.execute(
        "ALTER TABLE message ADD COLUMN lane TEXT;"
        "CREATE INDEX message_lane ON message (lane, id)"
        " WHERE state = 'queued' AND owner IS NULL AND lane IS NOT NULL"
    )


def _with_rules(connection: apsw.Connection) -> None:
    connection.execute("ALTER TABLE progress ADD COLUMN rule INTEGER NOT NULL DEFAULT 0")


_STEPS: dict[int, Callable[[apsw.Connection], None]] = {
    1: _with_transport,
    2: _with_search,
    3: _with_lanes,
    4: _with_rules,
}
"""From each older version to the next."""

PUT_MESSAGE = "INSERT INTO message VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, NULL)"
PUT_RECORD = "INSERT INTO record VALUES (?, ?)"
PUT_CONTENT = "INSERT INTO content VALUES (?, ?, ?, ?, ?, ?)"
PUT_RECIPIENT = "INSERT OR REPLACE INTO recipient VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
PUT_KEY = "INSERT INTO source_key VALUES (?, ?)"
PUT_ENTRY = "INSERT OR REPLACE INTO entry VALUES (?, ?, ?)"
PUT_ATTEMPT = "INSERT OR REPLACE INTO attempt VALUES (?, ?, ?)"
SETTLE = (
    "UPDATE message SET state = ?, due = ?, owner = ?, finished_at = ?, reason = ?, transport = ?, lane = ?,"
    " deaths = 0"
    " WHERE id = ?"
)
SENDER = "UPDATE message SET sender = ? WHERE id = ?"
DROP_CONTENT = "DELETE FROM content WHERE message = ?"
PROGRESS = "UPDATE progress SET transactions = ?, finished = finished + ?"
RULE = "UPDATE progress SET rule = max(rule, ?)"
PROGRESS_STEP = "UPDATE progress SET transactions = transactions + 1"


def open_writer(path: Path, vfs: str | None) -> apsw.Connection:
    """The one connection that writes. A commit is not synced by it: the log is, by a `Syncer`.

    Raises:
        SpoolFault: the file was written by a newer version.
        apsw.Error: it cannot be opened or read.
    """
    connection = apsw.Connection(str(path), vfs=vfs)
    try:
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        version = connection.pragma("user_version")
        if version > VERSION:
            raise SpoolFault(
                f"{path} was written by a newer version of Lonedot (its schema is {version}, ours {VERSION})"
            )
        connection.pragma("page_size", PAGE_SIZE)
        if connection.pragma("journal_mode", "WAL") != "wal":
            raise SpoolFault(f"{path}: this file system cannot share memory, which the log needs")
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.pragma("synchronous", "NORMAL")
        connection.pragma("wal_autocheckpoint", 0)
        connection.pragma("journal_size_limit", LOG_LIMIT)
        connection.pragma("cache_size", -CACHE_KIBIBYTES)
        connection.pragma("cache_spill", 0)
        if version < VERSION:
            with connection:
                if not version:
                    connection.execute(_TABLES)
                else:
                    for older in range(version, VERSION):
                        _STEPS[older](connection)
                connection.pragma("user_version", VERSION)
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path, vfs: str | None) -> apsw.Connection:
    """A connection that only reads. Its statements are run to their end at once: a reader that stays open would keep
    the log from starting anew.
    """
    connection = apsw.Connection(str(path), vfs=vfs, flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(BUSY_MILLISECONDS)
    return connection


def query(
    connection: apsw.Connection, sql: str, values: Sequence[int | float | str | bytes | None] = ()
) -> list[tuple[Any, ...]]:
    """All rows of an answer."""
    return connection.execute(sql, values).fetchall()
