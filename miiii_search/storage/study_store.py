"""The store of one study: everything that is read from and written to its rows, except by its queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from miiii_search.storage.retry import is_write_refusal
from miiii_search.storage.study_attrs import ID_KEY
from miiii_search.storage.study_reader import StudyReader
from miiii_search.storage.study_transaction import StudyTransaction


class StudyStore(StudyReader):
    """Reads and changes one study. Its methods may be called by several threads.

    `trial_queue.TrialQueue` does the rest: claims, leases, reports and results. Only these two classes, and
    `StudyCatalog` for all studies of a database, talk SQL.

    While the database is unavailable, every method raises an error for which `storage.retry.is_outage` is true. A
    transaction may have been committed before the connection was lost. Use `storage.retry.DatabaseRetry` to repeat.
    """

    @contextmanager
    def reading(self) -> Iterator[StudyReader]:
        """Read with one connection, which saves connecting anew for each call. May be called again.

        The reader must not be used after the block. On PostgreSQL each call sees what was committed before it.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._database.engine.connect() as connection:
            yield StudyReader(self._database, self.identity, connection)

    @contextmanager
    def snapshot(self) -> Iterator[StudyReader]:
        """Read the study as it is at one moment, however long reading takes. May be called again.

        The reader must not be used after the block. Its `read_trials` and `read_all_trials` are not part of the
        snapshot. After the study was deleted, it shows no rows.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._database.engine.connect() as connection:
            if connection.dialect.name != "sqlite":  # SQLite's transactions are all like this
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield StudyReader(self._database, self.identity, connection)

    @contextmanager
    def transaction(self) -> Iterator[StudyTransaction]:
        """Open a transaction for reading and writing. It is rolled back if the block raises an exception.

        A second call opens another one. It must not be used after the block. A block that is repeated, because the
        answer was lost, must find out itself what has been done. On SQLite it excludes every other writer from the
        beginning.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable. The transaction may have been committed.
        """
        with self._database.transaction() as connection:
            yield StudyTransaction(self._database, self.identity, connection)

    def write_note(self, body: str) -> bool:
        """Replace the study's note in one transaction, unless a user has edited it. May be called twice.

        Returns:
            Whether the note was replaced.

        Raises:
            StudyDeletedError: The study was deleted.
            sqlalchemy.exc.DBAPIError: The database is unavailable. The note may have been replaced.
        """
        with self.transaction() as tx:
            # A shared lock, because this does not change what others write. It is taken before the note is locked:
            # inserting an attribute waits for the study's row, and `extend` locks the row before the note.
            tx.lock(shared=True)
            return tx.rewrite_note(body)

    def ensure_id(self, new_id: str) -> str | None:
        """Give an identity to a study that an older version created. Called twice, it returns the first identity.

        Concurrent callers all get the same one.

        Args:
            new_id: The identity, if the study has none.

        Returns:
            The identity. None if the study was deleted, or if the role may only read: reading works without one.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        try:
            with self.transaction() as tx:
                if not tx.lock_row():
                    return None
                found: str | None = tx.read_attributes(ID_KEY).get(ID_KEY)
                if found is None:
                    found = new_id
                    tx.write_attributes({ID_KEY: found})
                return found
        except sa.exc.DBAPIError as error:
            if not is_write_refusal(error):
                raise
            return None
