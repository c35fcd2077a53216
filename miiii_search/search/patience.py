"""Patience with a database that goes away and comes back: a restart, a failover, a network that is cut."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import optuna
import sqlalchemy as sa

T = TypeVar("T")

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0
"""Between two tries."""


READ_ONLY = "25006"
"""PostgreSQL's code for a server that takes no writes, such as a standby before it takes over."""


class Away(Exception):
    """The database does not answer, or did not a moment ago; nothing was written, or it is not known whether."""


class Patience:
    """Tries at a database, further and further apart while it is away. For one thread.

    Everything that is tried must be such that doing it twice is doing it once. `say` is told when the database goes
    and when it is back.
    """

    def __init__(self, say: Callable[[str], None] = lambda line: None) -> None:
        self._say = say
        self._wait = FIRST_SECONDS
        self._again = self._since = 0.0

    @property
    def is_away(self) -> bool:
        """Whether the last try failed."""
        return self._since > 0

    def hurry(self) -> None:
        """Has the next try made at once, however long the pause after the last one was to be."""
        self._again = 0.0

    def attempt(self, action: Callable[[], T]) -> T:
        """What the action returns. Raises `Away`, and does nothing where it is too early to try again."""
        if time.monotonic() < self._again:
            raise Away
        try:
            result = action()
        except (sa.exc.DBAPIError, optuna.exceptions.StorageInternalError) as error:
            if not is_lost(error):
                raise
            self._failed(error)
            raise Away from error
        if self._since:
            self._say(f"the database is back after {time.monotonic() - self._since:.0f} s")
            self._wait, self._again, self._since = FIRST_SECONDS, 0.0, 0.0
        return result

    def insist(self, action: Callable[[], T], stop: threading.Event) -> T:
        """What the action returns, however long that takes. Raises `Away` once `stop` is set."""
        while True:
            try:
                return self.attempt(action)
            except Away:
                if stop.wait(max(self._again - time.monotonic(), 0.0)):
                    raise

    def _failed(self, error: Exception) -> None:
        now = time.monotonic()
        if not self._since:
            self._since = now
            self._say(f"the database does not answer ({first_line(error)}); trying again until it does")
        self._again, self._wait = now + self._wait, min(2 * self._wait, LONGEST_SECONDS)


def is_lost(error: BaseException | None) -> bool:
    """Whether an error is the database's absence, and not a mistake of ours."""
    if isinstance(error, optuna.exceptions.StorageInternalError | sa.exc.PendingRollbackError):
        # Optuna wraps what it met; and it may have tried again on the connection that was lost.
        return is_lost(error.__cause__) or is_lost(error.__context__)
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    mistake = getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR  # no such table, for instance
    if getattr(error.orig, "pgcode", None) == READ_ONLY:
        return True
    return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError) and not mistake


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
