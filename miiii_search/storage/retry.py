"""Retry policy for a database that is temporarily unavailable: a restart, a failover, an interrupted network."""

from __future__ import annotations

import logging
import math
import re
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import optuna
import sqlalchemy as sa

from miiii_search.errors import AccessRefusedError, StorageUnavailableError

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_WAIT_SECONDS = 0.5
"""Seconds between the first failed attempt and the second. Each further failure doubles the wait."""
MAX_WAIT_SECONDS = 30.0
"""Upper limit of the wait between two attempts, in seconds."""

READ_ONLY = "25006"
"""SQLSTATE of a server that accepts no writes, such as a standby before it takes over."""

INSUFFICIENT_PRIVILEGE = "42501"
"""SQLSTATE of a statement that the role may not execute."""

PERMANENT_SQLITE_CODES = frozenset(
    {
        sqlite3.SQLITE_ERROR,  # for example, no such table
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    }
)
"""Primary result codes of SQLite for errors that do not go away by waiting."""

LOGIN_REFUSED_STATES = ("28P01", "28000")
"""SQLSTATEs of a refused login: a wrong password, and any other problem with the role or the access rules."""

LOGIN_REFUSED_MESSAGES = re.compile(
    "password authentication failed|is not permitted to log in|no pg_hba.conf entry|pg_hba.conf rejects connection|"
    'permission denied for database|FATAL: +(role|database) ".*" does not exist|'
    "SASL authentication failed|no such user"  # PgBouncer's messages for a wrong password and a removed role
)
"""Messages of a refused login. psycopg2 gives no SQLSTATE when a connection could not be opened."""


class DatabaseRetry:
    """Retries with exponential backoff for a database that may be temporarily unavailable. For use by one thread.

    Every action must be idempotent: an attempt that failed may have been carried out all the same.

    A database that answers but refuses the login will keep refusing it, unlike one that is down. After
    `refusal_seconds` of refusals, `attempt` raises `AccessRefusedError`.

    Args:
        refusal_seconds: How long to retry while the login is refused, in seconds. Unlimited by default.
        is_logged: Log when the database becomes unavailable, refuses the login, or is available again. Of several
            threads that use one database, one is enough.
    """

    def __init__(self, refusal_seconds: float = math.inf, is_logged: bool = True) -> None:
        self._is_logged = is_logged
        self._refusal_seconds = refusal_seconds
        self._wait = FIRST_WAIT_SECONDS
        self._next_attempt_at = 0.0
        self._unavailable_since = 0.0
        self._refused_since = 0.0

    @property
    def is_unavailable(self) -> bool:
        """Whether the last attempt failed because the database was unavailable."""
        return self._unavailable_since > 0

    def skip_wait(self) -> None:
        """Make the next attempt at once, without the wait that the last failure caused."""
        self._next_attempt_at = 0.0

    def attempt(self, action: Callable[[], T]) -> T:
        """Run the action once, unless the wait after the last failure is not over yet.

        Args:
            action: An idempotent access to the database.

        Returns:
            The return value of the action.

        Raises:
            StorageUnavailableError: The database is unavailable, or the wait is not over and nothing was attempted.
                It may be unknown whether the action took effect.
            AccessRefusedError: The login has been refused for `refusal_seconds`.
        """
        if time.monotonic() < self._next_attempt_at:
            raise StorageUnavailableError("the database did not answer a moment ago; it is too early to try again")
        try:
            result = action()
        except (sa.exc.DBAPIError, optuna.exceptions.StorageInternalError) as error:
            if not is_outage(error):
                raise
            self._record_failure(error)
            raise StorageUnavailableError(f"the database does not answer: {driver_message(error)}") from error
        if self._unavailable_since:
            self._log(logging.INFO, f"the database is back after {time.monotonic() - self._unavailable_since:.0f} s")
            self._wait = FIRST_WAIT_SECONDS
            self._next_attempt_at = self._unavailable_since = self._refused_since = 0.0
        return result

    def retry_until(self, action: Callable[[], T], stop: threading.Event) -> T:
        """Run the action until it succeeds or `stop` is set.

        Args:
            action: An idempotent access to the database.
            stop: Ends the retries. The action is attempted at least once, even if the event is set already.

        Returns:
            The return value of the action.

        Raises:
            StorageUnavailableError: `stop` was set while the database was unavailable.
            AccessRefusedError: The login has been refused for `refusal_seconds`.
        """
        while True:
            try:
                return self.attempt(action)
            except StorageUnavailableError:
                if stop.wait(max(self._next_attempt_at - time.monotonic(), 0.0)):
                    raise

    def _log(self, level: int, message: str) -> None:
        if self._is_logged:
            logger.log(level, message)

    def _record_failure(self, error: Exception) -> None:
        now, reason, is_first = time.monotonic(), driver_message(error), not self._unavailable_since
        self._unavailable_since = self._unavailable_since or now
        self._next_attempt_at, self._wait = now + self._wait, min(2 * self._wait, MAX_WAIT_SECONDS)
        if not is_login_refusal(error):
            self._refused_since = 0.0
            if is_first:
                self._log(logging.WARNING, f"the database does not answer ({reason}); trying again until it does")
            return
        if not self._refused_since:
            self._refused_since = now
            limit = f" for {self._refusal_seconds:g} s" if math.isfinite(self._refusal_seconds) else ""
            self._log(logging.WARNING, f"the database refuses the login ({reason}); trying again{limit}")
        if now >= self._refused_since + self._refusal_seconds:
            raise AccessRefusedError(
                f"the database has refused the login for {now - self._refused_since:.0f} s ({reason}); was the "
                "invitation of this machine revoked, or replaced by another one?"
            )
        self._next_attempt_at = min(self._next_attempt_at, self._refused_since + self._refusal_seconds)


def is_outage(error: BaseException | None) -> bool:
    """Return whether an error means that the database is temporarily unavailable.

    Args:
        error: Any exception. The causes of errors that Optuna or SQLAlchemy wrapped are examined as well.

    Returns:
        True if a later attempt may succeed without a change; False for a mistake in a statement and all other errors.
    """
    if isinstance(error, optuna.exceptions.StorageInternalError | sa.exc.PendingRollbackError):
        # Optuna wraps the driver's error. It may also have repeated the statement on the lost connection.
        return is_outage(error.__cause__) or is_outage(error.__context__)
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if getattr(error.orig, "pgcode", None) == READ_ONLY:
        return True
    code = getattr(error.orig, "sqlite_errorcode", None)
    is_permanent = code is not None and code & 0xFF in PERMANENT_SQLITE_CODES  # the low byte is the primary code
    return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError) and not is_permanent


def is_database_error(error: BaseException | None) -> bool:
    """Return whether an error comes from the database, its driver or a library between: an outage or any other."""
    return isinstance(error, optuna.exceptions.StorageInternalError | sa.exc.SQLAlchemyError)


def is_operational_error(error: BaseException) -> bool:
    """Return whether an error concerns the operation of the database, and not a mistake in a statement."""
    return isinstance(error, optuna.exceptions.StorageInternalError | sa.exc.OperationalError)


def is_write_refusal(error: sa.exc.DBAPIError) -> bool:
    """Return whether a statement failed because the database, or this role, may not write."""
    if getattr(error.orig, "pgcode", None) in (READ_ONLY, INSUFFICIENT_PRIVILEGE):
        return True
    return getattr(error.orig, "sqlite_errorname", "").startswith("SQLITE_READONLY")


def is_login_refusal(error: BaseException | None) -> bool:
    """Return whether the database answered and refused the login. Further attempts do not change that."""
    if isinstance(error, optuna.exceptions.StorageInternalError | sa.exc.PendingRollbackError):
        return is_login_refusal(error.__cause__) or is_login_refusal(error.__context__)
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    if getattr(error.orig, "pgcode", None) in LOGIN_REFUSED_STATES:
        return True
    return LOGIN_REFUSED_MESSAGES.search(str(error.orig)) is not None


def driver_message(error: Exception) -> str:
    """Return the first line of the database driver's own message, without SQL.

    For a SQLite file that stays locked, a possible reason is added.
    """
    cause: BaseException | None = error
    while isinstance(cause, optuna.exceptions.StorageInternalError | sa.exc.PendingRollbackError):
        cause = cause.__cause__ or cause.__context__
    original = getattr(cause, "orig", None) or cause or error
    message = (str(original).strip().splitlines() or [type(original).__name__])[0]
    if getattr(original, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
        message += "; is a process that uses it stopped, for example by Ctrl-Z?"
    return message
