"""Recipients in a database: one query, asked through SQLAlchemy in threads of its own.

Rules a change here must keep:
1. What a client said is a bound parameter, never text of the query.
2. Nothing is written: SQLite is opened read-only, PostgreSQL is asked in read-only transactions.
3. No question outlives its time: a database that hangs holds `THREADS` threads for so long, and nothing else.
4. A fault of the database is never "unknown"; its words are told without the password, which no URL here has.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

from sqlalchemy import Connection, Engine, TextClause, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from lonedot.directory.faults import DirectoryFault

__all__ = ["PARAMETERS", "STATEMENT_SECONDS", "Database", "SqlRecipients", "fault_of_query", "fault_of_url"]

PARAMETERS = ("address", "local", "domain")
"""What a query may name, each behind a colon."""
THREADS = 4
"""Questions to one database at one time, and connections that are kept."""
CONNECT_SECONDS = 10
STATEMENT_SECONDS = 15.0
RECYCLE_SECONDS = 3600
"""A connection that is older is made anew."""
STEPS = 10_000
"""Instructions of SQLite between two looks at the clock."""


def fault_of_url(url: str) -> str:
    """Why no database can be reached by that URL; empty when one may be."""
    try:
        create_engine(url)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        return f"the address of the database cannot be used: {_words(error)}"
    return ""


def fault_of_query(query: str) -> str:
    """Why a query cannot be asked; empty when it can."""
    named = set(text(query).compile().params)
    if strange := sorted(named - set(PARAMETERS)):
        known = ", ".join(f":{one}" for one in PARAMETERS)
        return f"the query names :{strange[0]}, and there are {known}"
    if not named & {"address", "local"}:
        return "the query asks for nobody: it names neither :address nor :local"
    return ""


class Database:
    """A database that is asked; domains with the same one share it. Nothing is opened before the first question."""

    def __init__(
        self,
        url: str,
        password: Callable[[], str] | None = None,
        seconds: float = STATEMENT_SECONDS,
    ) -> None:
        """`url` begins with `sqlite:///` or `postgresql+psycopg://`. `password` is asked for each new connection; it
        raises DirectoryFault. `seconds`: what one question may take.
        """
        self._url = make_url(url)
        self.name = self._url.render_as_string(hide_password=True)
        self._password = password
        self._seconds = seconds
        self._is_sqlite = self._url.get_backend_name() == "sqlite"
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="directory")
        self._engine = self._made()
        weakref.finalize(self, self._engine.dispose)  # nobody else knows when the last domain has gone

    async def has_row(self, query: TextClause, values: dict[str, str]) -> bool:
        """The query finds a row whose first value is not null, false or 0.

        Raises:
            DirectoryFault: it cannot be asked, or has a fault.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, query, values)

    def _ask(self, query: TextClause, values: dict[str, str]) -> bool:
        try:
            with self._engine.connect() as connection:
                self._bound(connection)
                row = connection.execute(query, values).first()
                return row is not None and bool(row[0])
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise DirectoryFault(f"{self.name}: {_words(error)}") from error

    def _bound(self, connection: Connection) -> None:
        """Let the database itself end a question whose time is over."""
        if self._is_sqlite:
            until = time.monotonic() + self._seconds
            lite = connection.connection.driver_connection
            assert isinstance(lite, sqlite3.Connection)
            lite.set_progress_handler(lambda: time.monotonic() > until, STEPS)
        else:
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {self._seconds * 1000:.0f}")

    def _made(self) -> Engine:
        if self._is_sqlite:
            path = f"file:{quote(self._url.database or '')}?mode=ro"
            # By default a file that is not there would be made.
            return create_engine(
                self._url,
                creator=lambda: sqlite3.connect(path, uri=True, timeout=5.0, check_same_thread=False),
                pool_size=THREADS,
                max_overflow=0,
            )
        engine = create_engine(
            self._url,
            pool_size=THREADS,
            max_overflow=0,
            pool_pre_ping=True,
            pool_recycle=RECYCLE_SECONDS,
            connect_args={
                "connect_timeout": CONNECT_SECONDS,
                "tcp_user_timeout": int(self._seconds * 1000),
                "prepare_threshold": None,  # a pooler of connections does not know what another has prepared
            },
        ).execution_options(postgresql_readonly=True)
        if self._password is not None:
            password = self._password

            @event.listens_for(engine, "do_connect")
            def with_password(
                dialect: object, record: object, args: object, values: dict[str, object]
            ) -> None:
                values["password"] = password()

        return engine


class SqlRecipients:
    """Asks a database; a memory stands before it."""

    def __init__(self, database: Database, query: str, domain: str) -> None:
        self._database = database
        self._query = text(query)
        self._named = set(self._query.compile().params)
        self._domain = domain

    def known(self, local: str) -> bool | None:
        """False of what no database can hold as a text; else it has to be asked."""
        return None if local and local.isprintable() else False

    async def has(self, local: str) -> bool:
        if self.known(local) is False:
            return False
        values = {"address": f"{local}@{self._domain}", "local": local, "domain": self._domain}
        return await self._database.has_row(
            self._query, {name: value for name, value in values.items() if name in self._named}
        )


def _words(error: BaseException) -> str:
    """What the database says, on one line; without the query and its parameters, which SQLAlchemy would add."""
    said = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(str(said).split())[:300] or type(said).__name__
