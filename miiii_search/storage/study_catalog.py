"""The studies of a database: their names, an overview of all, and creating the row of one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.study import StudyDirection

from miiii_search.errors import DuplicateStudyError, StudyDeletedError
from miiii_search.storage import _overview, archive_rows, deleted_studies, schema, study_attrs
from miiii_search.storage.abandoned import AbandonedTrial, find_abandoned
from miiii_search.storage.database import Database
from miiii_search.storage.records import StudyIdentity, StudyRow
from miiii_search.storage.revisions import Revision, read_revisions
from miiii_search.storage.study_store import StudyStore
from miiii_search.storage.study_transaction import StudyTransaction
from miiii_search.storage.usage import Usage, read_usage


class CatalogReader:
    """Reads which studies a database holds. It changes nothing, so a method that is called twice reads again.

    Args:
        database: The database.
        connection: The connection to read from; None opens one for each call.
    """

    def __init__(self, database: Database, connection: sa.Connection | None = None) -> None:
        self._database = database
        self._connection = connection

    @contextmanager
    def _connect(self) -> Iterator[sa.Connection]:
        if self._connection is not None:
            yield self._connection
        else:
            with self._database.engine.connect() as connection:
                yield connection

    def names(self) -> list[str]:
        """Return the names of all studies, sorted by the database. Called twice, it reads again.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return list(connection.execute(sa.select(schema.studies.c.study_name).order_by("study_name")).scalars())

    def read_attribute(self, key: str) -> list[Any]:
        """Return the values of a system attribute, one per study that has it. Called twice, it reads again.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return study_attrs.read_from_all_studies(connection, key)

    def find(self, name: str) -> int | None:
        """Return Optuna's id of the study with a name, or None. Called twice, it reads again.

        Raises:
            optuna.exceptions.StorageInternalError: The database is unavailable.
        """
        try:
            return self._database.optuna.get_study_id_from_name(name)
        except KeyError:
            return None

    def read_rows(self, keys: Collection[str]) -> list[StudyRow]:
        """Return all studies, sorted by name, with the aggregates from which an overview is made.

        The number of SQL statements depends on neither the number of studies nor of trials. Called twice, it reads
        again.

        Args:
            keys: System attributes to read.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return _overview.read_rows(connection, keys)

    def read_usage(self, study_id: int) -> Usage:
        """Return the part of its budget that a study has used. Called twice, it reads again.

        After the study was deleted, nothing is used.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return read_usage(connection, study_id)

    def find_abandoned(self) -> list[AbandonedTrial]:
        """Return the trials of all studies that a coordinator, if one ran, would have returned to the queue by now.

        Called twice, it reads again. The trials are ordered by study and number.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return find_abandoned(connection)

    def read_revisions(self) -> dict[int, Revision]:
        """Return the revision of every study, by its id, in one statement. Called twice, it reads again.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        return read_revisions(self._database.engine)

    def read_deletions(self) -> dict[str, datetime]:
        """Return the time in UTC at which each deleted study was deleted, by name. Called twice, it reads again.

        Studies that were created again are missing.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return deleted_studies.read_deletions(connection)

    def deletion_error(self, name: str) -> StudyDeletedError | None:
        """Return the exception that says when a study was deleted. Called twice, it reads again.

        Returns:
            The exception; None if there is a study of this name, or if no deletion is recorded.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            exists = sa.select(schema.studies.c.study_id).where(schema.studies.c.study_name == name)
            if connection.execute(exists).first() is not None:
                return None
            return deleted_studies.deletion_error(connection, name)


class StudyCatalog(CatalogReader):
    """The studies of one database. Its methods may be called by several threads.

    While the database is unavailable, every method raises an error for which `storage.retry.is_outage` is true.
    """

    @contextmanager
    def reading(self) -> Iterator[CatalogReader]:
        """Read with one connection, which saves connecting anew for each call. May be called again.

        The reader must not be used after the block.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._database.engine.connect() as connection:
            yield CatalogReader(self._database, connection)

    def store(self, identity: StudyIdentity) -> StudyStore:
        """Return the store of a study. Does not access the database."""
        return StudyStore(self._database, identity)

    def find_or_insert(self, name: str) -> tuple[int, bool] | None:
        """Insert the row of a study that maximizes a single objective, if there is no study of this name.

        Called twice, it finds the study. The row has no attributes yet, so that nobody can open the study.

        Returns:
            Optuna's id of the study, and whether it maximizes a single objective. None if it is deleted meanwhile.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable. The row may have been inserted.
            optuna.exceptions.StorageInternalError: The same, where Optuna reports it.
        """
        storage, maximize = self._database.optuna, [StudyDirection.MAXIMIZE]
        try:
            try:
                study_id = storage.create_new_study(maximize, name)
            except optuna.exceptions.DuplicatedStudyError:
                study_id = storage.get_study_id_from_name(name)
            return study_id, storage.get_study_directions(study_id) == maximize
        except KeyError:
            return None

    @contextmanager
    def insert(self, name: str) -> Iterator[StudyTransaction]:
        """Insert the row of a study, and open a transaction that fills it. It is rolled back after an exception.

        A record that a study of this name was deleted is removed. A second call fails, because the study exists then.

        Raises:
            DuplicateStudyError: There is a study of this name.
            InconsistentRowsError: The database refuses what was inserted. Nothing was inserted.
            sqlalchemy.exc.DBAPIError: The database is unavailable. The study may have been created.
        """
        studies = schema.studies
        try:
            with self._database.transaction() as connection:
                if connection.execute(sa.select(studies.c.study_id).where(studies.c.study_name == name)).first():
                    raise DuplicateStudyError(f"there is a study `{name}` already")
                deleted_studies.clear_deletion(connection, name)
                inserted = sa.insert(studies).values(study_name=name).returning(studies.c.study_id)
                identity = StudyIdentity(connection.execute(inserted).scalar_one(), name)
                yield StudyTransaction(self._database, identity, connection)
        except (sa.exc.IntegrityError, sa.exc.DataError) as error:
            raise archive_rows.InconsistentRowsError(str(error.orig).splitlines()[0]) from None

    def record_deletion(self, name: str) -> None:
        """Record the deletion of a study that another program deleted.

        Called twice, or if there is a study of this name, it does nothing.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        deleted_studies.record_deletion_if_missing(self._database, name)
