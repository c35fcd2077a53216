"""What to do about an error of a database, by SQLSTATE and by SQLite's result codes.

Errors that only a mistake in this package can cause, such as a violated constraint, are not listed.
"""

from __future__ import annotations

import sqlite3

import optuna
import sqlalchemy as sa

from miiii_search.redaction import hide_passwords
from miiii_search.storage.retry import driver_message, is_outage

BACKUP = "the file or disk is damaged: restore a backup"
OTHER_TABLES = (
    "its tables are not those that this version works with: is it the right database, and the version of "
    "miiii-search that created it?"
)
OWNER = (
    "this role may not do that: use the URL of the database's owner; in an installation of containers, type "
    "docker compose exec coordinator miiii-search ..."
)

INSUFFICIENT_PRIVILEGE = "42501"

POSTGRES_ADVICE = {
    "25006": "it takes no writes: connect to the primary server",
    INSUFFICIENT_PRIVILEGE: OWNER,
    "42P01": OTHER_TABLES,
    "42703": OTHER_TABLES,
    "42704": OTHER_TABLES,
    "42804": OTHER_TABLES,
    "42883": OTHER_TABLES,
    "3F000": OTHER_TABLES,
    "53100": "the server's disk is full: make room there, and run the command again",
    "53200": "the server has no memory left: end other programs there, or give it more",
    "53300": "it has too many connections: use fewer workers, a larger max_connections, or PgBouncer",
    "53400": "a limit of the server is reached: see its configuration",
    "54000": "a limit of the server is reached: see its log",
    "55P03": "another transaction holds a lock: run the command again",
    "57014": "the server cancelled the statement, perhaps by statement_timeout: run the command again",
    "40001": "another transaction was first: run the command again",
    "40P01": "another transaction was first: run the command again",
    "22P05": "its encoding must be UTF8: create it with ENCODING 'UTF8'",
    "58030": BACKUP,
    "XX001": BACKUP,
    "XX002": BACKUP,
}
"""By SQLSTATE."""

SQLITE_ADVICE = {
    sqlite3.SQLITE_PERM: "change the permissions of the file and its folder, or run this as their owner",
    sqlite3.SQLITE_AUTH: "change the permissions of the file and its folder, or run this as their owner",
    sqlite3.SQLITE_BUSY: "another process writes to it: wait for it or end it, and run the command again",
    sqlite3.SQLITE_LOCKED: "another process writes to it: wait for it or end it, and run the command again",
    sqlite3.SQLITE_NOMEM: "this machine has no memory left: end other programs",
    sqlite3.SQLITE_READONLY: "it may only be read here: run this as the file's owner, or where its disk is mounted "
    "to be written",
    sqlite3.SQLITE_IOERR: "its disk fails, or took no more bytes: see the system's log",
    sqlite3.SQLITE_CORRUPT: BACKUP,
    sqlite3.SQLITE_FULL: "its disk is full: make room there, and run the command again",
    sqlite3.SQLITE_CANTOPEN: "may its file and folder be read and written by this user?",
    sqlite3.SQLITE_TOOBIG: "a value is larger than SQLite takes: use PostgreSQL",
    sqlite3.SQLITE_SCHEMA: OTHER_TABLES,
    sqlite3.SQLITE_NOTADB: "name the file of a study's database with --storage, or restore a backup",
}
"""By SQLite's primary result code."""


def explain(error: BaseException, database: str) -> str | None:
    """One line about an error of a database, with what to do. None for any other error, and for mistakes of ours.

    `database` is its URL as it may be shown.
    """
    driver = _driver_error(error)
    if driver is None:
        return None
    words = hide_passwords(driver_message(driver))
    if advice := _advice(driver.orig):
        return f"cannot use {database}: {words}; {advice}"
    if is_outage(driver):
        return (
            f"the database stopped answering ({words}); once it is back, the same command continues, and "
            "trials that were running go back to the queue when their leases run out"
        )
    return None


def advice_for(error: BaseException) -> str | None:
    """What to do about an error of a database, if its code says that."""
    driver = _driver_error(error)
    return _advice(driver.orig) if driver is not None else None


def _driver_error(error: BaseException | None) -> sa.exc.DBAPIError | None:
    """The database's own error, which Optuna and SQLAlchemy may have wrapped."""
    while isinstance(error, optuna.exceptions.StorageInternalError | sa.exc.PendingRollbackError):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, sa.exc.DBAPIError) else None


def _advice(original: BaseException | None) -> str | None:
    if state := getattr(original, "pgcode", None):
        return POSTGRES_ADVICE.get(state)
    code = getattr(original, "sqlite_errorcode", None)
    if code is None:
        return None
    if code == sqlite3.SQLITE_ERROR:
        is_missing = str(original).startswith(("no such table", "no such column")) or "has no column" in str(original)
        return OTHER_TABLES if is_missing else None
    return SQLITE_ADVICE.get(code & 0xFF)
