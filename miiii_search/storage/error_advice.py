"""Advice for users about errors of a database: by SQLSTATE, by SQLite's result code, and by the message of libpq.

Errors that only a bug in this package can cause, such as a violated constraint, are not listed.
"""

from __future__ import annotations

import sqlite3

import optuna
import sqlalchemy as sa

from miiii_search.redaction import hide_passwords
from miiii_search.storage.retry import INSUFFICIENT_PRIVILEGE, READ_ONLY, driver_message, is_outage

RESTORE_BACKUP = "the file or disk is damaged: restore a backup"
OTHER_VERSION = (
    "its tables are not those of this version: is it the right database, and the version of miiii-search that "
    "created it?"
)
USE_OWNER = (
    "this role may not do that: use the URL of the database's owner; in an installation of containers, type "
    "docker compose exec coordinator miiii-search ..."
)

POSTGRES_ADVICE = {
    READ_ONLY: "it accepts no writes: connect to the primary server",
    INSUFFICIENT_PRIVILEGE: USE_OWNER,
    "42P01": OTHER_VERSION,
    "42703": OTHER_VERSION,
    "42704": OTHER_VERSION,
    "42804": OTHER_VERSION,
    "42883": OTHER_VERSION,
    "3F000": OTHER_VERSION,
    "53100": "the server's disk is full: free space there, and run the command again",
    "53200": "the server has no memory left: end other programs there, or add memory",
    "53300": "it has too many connections: use fewer workers, a larger max_connections, or PgBouncer",
    "53400": "a limit of the server is reached: see its configuration",
    "54000": "a limit of the server is reached: see its log",
    "55P03": "another transaction holds a lock: run the command again",
    "57014": "the server cancelled the statement, perhaps by statement_timeout: run the command again",
    "40001": "the transaction conflicted with another one: run the command again",
    "40P01": "the transaction conflicted with another one: run the command again",
    "22P05": "its encoding must be UTF8: create it with ENCODING 'UTF8'",
    "58030": RESTORE_BACKUP,
    "XX001": RESTORE_BACKUP,
    "XX002": RESTORE_BACKUP,
}
"""Advice by SQLSTATE."""

SQLITE_ADVICE = {
    sqlite3.SQLITE_PERM: "change the permissions of the file and its folder, or run this as their owner",
    sqlite3.SQLITE_AUTH: "change the permissions of the file and its folder, or run this as their owner",
    sqlite3.SQLITE_BUSY: "another process writes to it: wait for it or end it, and run the command again",
    sqlite3.SQLITE_LOCKED: "another process writes to it: wait for it or end it, and run the command again",
    sqlite3.SQLITE_NOMEM: "this machine has no memory left: end other programs",
    sqlite3.SQLITE_READONLY: "it may only be read here: run this as the file's owner, or where its disk is mounted "
    "for writing",
    sqlite3.SQLITE_IOERR: "its disk failed, or accepted no more bytes: see the system's log",
    sqlite3.SQLITE_CORRUPT: RESTORE_BACKUP,
    sqlite3.SQLITE_FULL: "its disk is full: free space there, and run the command again",
    sqlite3.SQLITE_CANTOPEN: "may its file and folder be read and written by this user?",
    sqlite3.SQLITE_TOOBIG: "a value is larger than SQLite allows: use PostgreSQL",
    sqlite3.SQLITE_SCHEMA: OTHER_VERSION,
    sqlite3.SQLITE_NOTADB: "name the file of a study's database with --storage, or restore a backup",
}
"""Advice by SQLite's primary result code."""


CONNECTION_ADVICE = {
    "password authentication failed": "are role and password right, and its special characters percent-encoded? "
    "Was the invitation of this machine revoked, or replaced by another one?",
    "no password supplied": "put it into the URL, postgresql://USER:PASSWORD@HOST/DATABASE",
    "no encryption": "add ?sslmode=verify-full&sslrootcert=FILE to the URL",
    "does not support SSL": "is it the right server? Ours uses TLS",
    "root certificate file": "copy the CA's certificate there, or name its path with sslrootcert=FILE",
    "certificate verify failed": "is sslrootcert the CA of this server, and are clock and certificates in date?",
    "does not match host name": "use the name that the certificate has",
    "does not exist": "are the names of role and database right?",
    "too many connections": "use fewer workers, a larger max_connections, or PgBouncer",
    "too many clients": "use fewer workers, a larger max_connections, or PgBouncer",
    "permission denied": "let the role connect to this database",
}
"""Advice by a part of the message of libpq or the server, for a connection that could not be opened.

workers/README.md lists these messages.
"""


def explain(error: BaseException, database: str) -> str | None:
    """Return one line about an error of a database, with advice.

    Args:
        error: Any exception.
        database: The URL of the database as it may be shown.

    Returns:
        The line, or None for an error that no user can fix and for errors that are not a database's.
    """
    driver_error = _driver_error(error)
    if driver_error is None:
        return None
    message = hide_passwords(driver_message(driver_error))
    if advice := _advice(driver_error.orig):
        return f"cannot use {database}: {message}; {advice}"
    if is_outage(driver_error):
        return (
            f"the database stopped answering ({message}); once it is back, the same command continues, and "
            "trials that were running go back to the queue when their leases run out"
        )
    return None


def advice_for(error: BaseException) -> str | None:
    """Return the advice for an error code of a database, or None if there is no code or no advice for it."""
    driver_error = _driver_error(error)
    return _advice(driver_error.orig) if driver_error is not None else None


def connection_advice(message: str) -> str:
    """Return the advice for a connection that could not be opened, given the message of the driver."""
    return next((advice for part, advice in CONNECTION_ADVICE.items() if part in message), "is the server there?")


def without_question(message: str) -> str:
    """Return a message of libpq without the question that it ends with; `connection_advice` asks a better one."""
    question = "Is the server running on that host and accepting TCP/IP connections?"
    return message.removesuffix(question).rstrip(": ")


def _driver_error(error: BaseException | None) -> sa.exc.DBAPIError | None:
    """Return the driver's error, which Optuna and SQLAlchemy may have wrapped."""
    while isinstance(error, optuna.exceptions.StorageInternalError | sa.exc.PendingRollbackError):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, sa.exc.DBAPIError) else None


def _advice(driver_error: BaseException | None) -> str | None:
    if state := getattr(driver_error, "pgcode", None):
        return POSTGRES_ADVICE.get(state)
    code = getattr(driver_error, "sqlite_errorcode", None)
    if code is None:
        return None
    if code == sqlite3.SQLITE_ERROR:
        message = str(driver_error)
        is_missing = message.startswith(("no such table", "no such column")) or "has no column" in message
        return OTHER_VERSION if is_missing else None
    return SQLITE_ADVICE.get(code & 0xFF)  # the low byte is the primary code
