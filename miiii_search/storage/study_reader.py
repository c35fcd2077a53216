"""Reading one study: its attributes, its budget, its artifacts and its rows."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from miiii_search.storage import _deletion, _trial_artifacts, archive_rows, schema, study_attrs
from miiii_search.storage.abandoned import AbandonedTrial, find_abandoned
from miiii_search.storage.artifacts import Attachment, find_attachments, linked_artifact_ids
from miiii_search.storage.records import StoredArtifacts, StoredCheckpoint, StudyContents, StudyCounts
from miiii_search.storage.trial_counts import count_trials
from miiii_search.storage.trial_reader import TrialReader
from miiii_search.storage.usage import Usage, read_usage


class StudyReader(TrialReader):
    """Reads one study. It changes nothing, so a method that is called twice reads again."""

    def read_attributes(self, *keys: str) -> dict[str, Any]:
        """Return those of the study's system attributes that it has, by key. Called twice, it reads again.

        After the study was deleted, it returns nothing, or the attributes of a later study with the same id. See
        `StudyIdentity.is_in`.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return study_attrs.read(connection, self.identity.study_id, *keys)

    def now(self) -> float:
        """Return the time of the database's clock, in seconds since 1970. Called twice, it reads again.

        It does not depend on the study.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return study_attrs.now(connection)

    def read_usage(self) -> Usage:
        """Return the part of its budget that the study has used. Called twice, it reads again.

        After the study was deleted, nothing is used.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return read_usage(connection, self.identity.study_id)

    def read_counts(self) -> StudyCounts:
        """Count the trials in each state, and read the age of the oldest lease. Called twice, it reads again.

        After the study was deleted, everything is 0.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        leases, study_id = schema.leases, self.identity.study_id
        with self._connect() as connection:
            age = schema.now(connection) - sa.func.min(leases.c.renewed_at)
            oldest = connection.execute(sa.select(age).where(leases.c.study_id == study_id)).scalar_one()
            return StudyCounts(count_trials(connection, study_id), max(oldest or 0.0, 0.0))

    def find_abandoned(self) -> list[AbandonedTrial]:
        """Return what `TrialQueue.find_abandoned` returns, with the connection of this reader.

        Called twice, it reads again. After the study was deleted, it returns nothing.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return find_abandoned(connection, self.identity.study_id)

    def read_contents(self) -> StudyContents:
        """Count what deleting the study would delete. Called twice, it reads again.

        After the study was deleted, everything is 0.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return _deletion.read_contents(connection, self.identity.study_id)

    def linked_artifact_ids(self) -> list[str]:
        """Return the ids of all artifacts that the study or its trials link, sorted. Called twice, it reads again.

        After the study was deleted, it returns nothing.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return linked_artifact_ids(connection, self.identity.study_id)

    def find_attachments(self, trial_ids: Collection[int]) -> list[Attachment]:
        """Return the artifacts that were attached to these trials after their end. Called twice, it reads again.

        After the study was deleted, it returns nothing.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return find_attachments(connection, self.identity.study_id, trial_ids)

    def find_artifacts(self, trial_ids: Collection[int]) -> StoredArtifacts:
        """Return the artifacts of these trials, including those that were attached later. Called twice, it reads again.

        After the study was deleted, it returns nothing.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return _trial_artifacts.find_artifacts(connection, self.identity.study_id, trial_ids)[0]

    def read_artifact(self, artifact_id: str) -> bytes | None:
        """Return the bytes of an artifact; None if the database does not hold it. Called twice, it reads again.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        query = sa.select(schema.artifacts.c.data).where(schema.artifacts.c.artifact_id == artifact_id)
        with self._connect() as connection:
            return connection.execute(query).scalar_one_or_none()

    def has_artifact(self, artifact_id: str) -> bool:
        """Return whether the database holds an artifact with this id, of any study. Called twice, it reads again.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        table = schema.artifacts
        query = sa.select(table.c.artifact_id).where(table.c.artifact_id == artifact_id)
        with self._connect() as connection:
            return connection.execute(query).first() is not None

    def read_rows(self) -> dict[str, Any]:
        """Return the rows of the study and its trials as JSON; see `archive_rows.read_rows`.

        Called twice, it reads again. After the study was deleted, there are no rows.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return archive_rows.read_rows(connection, self.identity.study_id)

    def read_checkpoints(self) -> list[StoredCheckpoint]:
        """Return the checkpoints of the study's trials, without their bytes. Called twice, it reads again.

        After the study was deleted, it returns nothing.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return archive_rows.read_checkpoints(connection, self.identity.study_id)

    def read_checkpoint_data(self, trial_id: int) -> bytes:
        """Return the bytes of a trial's checkpoint. Called twice, it reads again.

        Raises:
            sqlalchemy.exc.NoResultFound: The trial has no checkpoint.
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        with self._connect() as connection:
            return archive_rows.read_checkpoint_data(connection, trial_id)
