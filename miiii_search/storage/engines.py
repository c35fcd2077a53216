"""SQLAlchemy engines for SQLite and PostgreSQL, with time limits so that no process waits forever."""

from __future__ import annotations

import select
import sqlite3
import time
from pathlib import Path
from typing import Any

import psycopg2.extensions
import sqlalchemy as sa

from miiii_search.storage import sqlite

SQLITE_LOCK_SECONDS = 60
"""Time limit of waiting for another writer of the same SQLite file."""

CONNECT_TIMEOUT_SECONDS = 5
"""Time limit of opening a connection. The default of libpq is several minutes."""

RESPONSE_TIMEOUT_SECONDS = 30
"""Time limit of a server's response. It is longer than any of our statements takes, including waits for locks."""

IDLE_TRANSACTION_SECONDS = 20
"""Time after which the server ends an idle transaction. It is shorter than `RESPONSE_TIMEOUT_SECONDS`, so that
others that wait for the transaction's locks get them before they time out."""


def make_engine(url: sa.URL, *, read_only: bool) -> sa.Engine:
    """Create the engine for our own transactions; Optuna's storage has an engine of its own.

    Args:
        url: A URL from `urls.parse_url`.
        read_only: Whether the URL is a SQLite file that this process may only read.
    """
    engine = sa.create_engine(url, **engine_arguments(url, read_only=read_only))
    if url.drivername == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def configure(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # the driver must not begin transactions; `begin` below does
            if not read_only:
                _enable_wal(connection)
                connection.execute("PRAGMA synchronous=NORMAL")

        @sa.event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            immediate = connection.get_execution_options().get("immediate")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def engine_arguments(url: sa.URL, *, read_only: bool = False) -> dict[str, Any]:
    """Return the keyword arguments of `sqlalchemy.create_engine` for a storage URL."""
    if read_only:
        path = Path(url.database or "")
        # A new connection each time, because how the file is read depends on whether another process writes it.
        return {"creator": lambda: sqlite.connect_read_only(path, SQLITE_LOCK_SECONDS), "poolclass": sa.NullPool}
    if url.drivername == "sqlite":
        return {"connect_args": {"timeout": SQLITE_LOCK_SECONDS}}
    # Pre-ping detects connections that a restart of the server has closed. The pool is small: workers are many.
    return {
        "poolclass": _Pool,
        "pool_pre_ping": True,
        "pool_size": 2,
        "max_overflow": 4,
        "connect_args": {
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "application_name": "miiii-search",
            # A connection whose other end disappeared without notice is closed after 10 + 3 * 5 seconds.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 1000 * RESPONSE_TIMEOUT_SECONDS,
        },
    }


def limit_response_time() -> None:
    """Make every psycopg2 call of this process fail if the server stays silent, instead of waiting forever."""

    def wait(connection: Any) -> None:
        # libpq's own connect_timeout does not apply to asynchronous waiting.
        connecting = connection.status == psycopg2.extensions.STATUS_SETUP
        seconds = CONNECT_TIMEOUT_SECONDS if connecting else RESPONSE_TIMEOUT_SECONDS
        while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
            reading, writing = ([connection], []) if state == psycopg2.extensions.POLL_READ else ([], [connection])
            if not any(select.select(reading, writing, [], seconds)):
                # psycopg2 closes the connection by itself. Closing it here would wait for the server.
                raise psycopg2.OperationalError(f"the server has been silent for {seconds} s")

    psycopg2.extensions.set_wait_callback(wait)


class _Pool(sa.QueuePool):
    """A connection pool whose connections make the server end idle transactions.

    A process that was stopped within a transaction would keep its locks until it continues. A machine that
    disappeared would keep them until the server's keepalive ends after two hours. Meanwhile nobody could return its
    trials to the queue. A process that continues later finds its connection closed.
    """

    __module__ = "sqlalchemy.pool"  # SQLAlchemy names its logger after the module, and it must not be one of ours.


@sa.event.listens_for(_Pool, "connect")
def _limit_idle_transactions(connection: Any, _record: Any) -> None:
    connection.autocommit = True  # otherwise a rollback of the transaction would undo the setting
    with connection.cursor() as cursor:
        # PgBouncer refuses this setting as a parameter of the connection.
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_TRANSACTION_SECONDS}s'")
    connection.autocommit = False


def _enable_wal(connection: sqlite3.Connection) -> None:
    """Let readers work while one process writes. The file keeps this mode."""
    deadline = time.monotonic() + SQLITE_LOCK_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            # SQLite does not wait for another process that changes the same new file to WAL.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
