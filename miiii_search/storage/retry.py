"""Retries for a database that goes away and comes back: a restart, a failover, a network that is cut."""

from __future__ import annotations

import math
import re
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import optuna
import sqlalchemy as sa

from miiii_search.errors import AccessRefusedError

T = TypeVar("T")

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0
"""Between two tries."""


READ_ONLY = "25006"
"""PostgreSQL's code for a server that takes no writes, such as a standby before it takes over."""

INSUFFICIENT_PRIVILEGE = "42501"


STAYS = frozenset(
    {
        sqlite3.SQLITE_ERROR,  # no such table, for instance
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    }
)
"""SQLite's result codes that waiting does not change."""

REFUSED_CODES = ("28P01", "28000")
"""SQLSTATEs of a refused login: a wrong password, and anything else about the role or the rules for it."""

REFUSED_WORDS = re.compile(
    "password authentication failed|is not permitted to log in|no pg_hba.conf entry|pg_hba.conf rejects connection|"
    'permission denied for database|FATAL: +(role|database) ".*" does not exist|'
    "SASL authentication failed|no such user"  # PgBouncer's words for a wrong password and a role that is gone
)
"""The same in words, because psycopg2 has no SQLSTATE for a connection that was never made."""


class DatabaseUnavailableError(Exception):
    """The database does not answer, or did not a moment ago; nothing was written, or it is not known whether."""


class DatabaseRetry:
    """Tries at a database, further and further apart while it is away. For one thread.

    Everything that is tried must be such that doing it twice is doing it once. `say` is told when the database goes
    and when it is back.

    A database that answers but refuses the login for `refusal_seconds` on end will not change its mind, unlike one that
    is away: `attempt` then raises `AccessRefusedError`. By default it never does.
    """

    def __init__(self, say: Callable[[str], None] = lambda line: None, refusal_seconds: float = math.inf) -> None:
        self._say = say
        self._refusal_seconds = refusal_seconds
        self._wait = FIRST_SECONDS
        self._again = self._since = self._refused_since = 0.0

    @property
    def is_away(self) -> bool:
        """Whether the last try failed."""
        return self._since > 0

    def hurry(self) -> None:
        """Has the next try made at once, however long the pause after the last one was to be."""
        self._again = 0.0

    def attempt(self, action: Callable[[], T]) -> T:
        """What the action returns.

        Raises `DatabaseUnavailableError`, and does nothing where it is too early to try again.

        Raises `AccessRefusedError` once the login has been refused for too long.
        """
        if time.monotonic() < self._again:
            raise DatabaseUnavailableError
        try:
            result = action()
        except (sa.exc.DBAPIError, optuna.exceptions.StorageInternalError) as error:
            if not is_lost(error):
                raise
            self._failed(error)
            raise DatabaseUnavailableError from error
        if self._since:
            self._say(f"the database is back after {time.monotonic() - self._since:.0f} s")
            self._wait, self._again, self._since, self._refused_since = FIRST_SECONDS, 0.0, 0.0, 0.0
        return result

    def retry_until(self, action: Callable[[], T], stop: threading.Event) -> T:
        """What the action returns, however long that takes. Raises `DatabaseUnavailableError` once `stop` is set."""
        while True:
            try:
                return self.attempt(action)
            except DatabaseUnavailableError:
                if stop.wait(max(self._again - time.monotonic(), 0.0)):
                    raise

    def _failed(self, error: Exception) -> None:
        now, reason, is_first = time.monotonic(), first_line(error), not self._since
        self._since = self._since or now
        self._again, self._wait = now + self._wait, min(2 * self._wait, LONGEST_SECONDS)
        if not is_refused(error):
            self._refused_since = 0.0
            if is_first:
                self._say(f"the database does not answer ({reason}); trying again until it does")
            return
        if not self._refused_since:
            self._refused_since = now
            limit = f" for {self._refusal_seconds:g} s" if math.isfinite(self._refusal_seconds) else ""
            self._say(f"the database refuses the login ({reason}); trying again{limit}")
        if now >= self._refused_since + self._refusal_seconds:
            raise AccessRefusedError(
                f"the database has refused the login for {now - self._refused_since:.0f} s ({reason}); was the "
                "invitation of this machine revoked, or replaced by another one?"
            )
        self._again = min(self._again, self._refused_since + self._refusal_seconds)


def is_lost(error: BaseException | None) -> bool:
    """Whether an error is the database's absence, and not a mistake of ours."""
    if isinstance(error, optuna.exceptions.StorageInternalError | sa.exc.PendingRollbackError):
        # Optuna wraps what it met; and it may have tried again on the connection that was lost.
        return is_lost(error.__cause__) or is_lost(error.__context__)
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    code = getattr(error.orig, "sqlite_errorcode", None)
    mistake = code is not None and code & 0xFF in STAYS  # the low byte is the primary code
    if getattr(error.orig, "pgcode", None) == READ_ONLY:
        return True
    return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError) and not mistake


def is_read_only(error: sa.exc.DBAPIError) -> bool:
    """Whether the database does not let this role, or anyone, write."""
    if getattr(error.orig, "pgcode", None) in (READ_ONLY, INSUFFICIENT_PRIVILEGE):
        return True
    return getattr(error.orig, "sqlite_errorname", "").startswith("SQLITE_READONLY")


def is_refused(error: BaseException | None) -> bool:
    """Whether a database that answers refused the login, which trying again does not change."""
    if isinstance(error, optuna.exceptions.StorageInternalError | sa.exc.PendingRollbackError):
        return is_refused(error.__cause__) or is_refused(error.__context__)
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    words = str(error.orig)
    return getattr(error.orig, "pgcode", None) in REFUSED_CODES or REFUSED_WORDS.search(words) is not None


def first_line(error: Exception) -> str:
    """The driver's own words, without SQL; of a SQLite file that stays locked, with what may be the reason."""
    cause: BaseException | None = error
    while isinstance(cause, optuna.exceptions.StorageInternalError | sa.exc.PendingRollbackError):
        cause = cause.__cause__ or cause.__context__
    original = getattr(cause, "orig", None) or cause or error
    words = (str(original).strip().splitlines() or [type(original).__name__])[0]
    if getattr(original, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
        words += "; is a process that uses it stopped, as by Ctrl-Z?"
    return words
