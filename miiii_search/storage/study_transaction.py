"""Changing one study in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from miiii_search.errors import StudyDeletedError
from miiii_search.storage import (
    _deletion,
    _trial_artifacts,
    archive_rows,
    artifacts,
    deleted_studies,
    new_trials,
    notes,
    revisions,
    schema,
    study_attrs,
)
from miiii_search.storage.artifacts import Attachment
from miiii_search.storage.records import NewTrial, StoredArtifacts, TrialRef
from miiii_search.storage.study_reader import StudyReader


class StudyTransaction(StudyReader):
    """Reads and changes one study in one transaction; see `StudyStore.transaction`.

    Nothing takes effect before the transaction ends, and nothing at all if its block raises an exception. A method
    that is called twice with the same arguments changes nothing more, unless its description says otherwise. After
    the study was deleted, `lock` raises `StudyDeletedError`; call it first. Every method raises
    `sqlalchemy.exc.DBAPIError` while the database is unavailable. The block must then end with this exception.
    """

    _connection: sa.Connection

    def lock(self, *, shared: bool = False) -> None:
        """Lock the study until the transaction ends; see `schema.lock_study`. Called twice, it is locked already.

        Args:
            shared: Take a shared lock. Transactions that only claim or end existing trials do not wait for each other.

        Raises:
            StudyDeletedError: The study was deleted.
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        keys = study_attrs.CREATED_KEY, study_attrs.ID_KEY
        if not self.lock_row(shared=shared) or not self.identity.is_in(self.read_attributes(*keys)):
            raise self.deleted_error()

    def lock_row(self, *, shared: bool = False) -> bool:
        """Lock the row of the study, whatever its identity, and return whether it exists. May be called twice.

        After the study was deleted, it returns False, or True for a later study with the same id.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        return schema.lock_study(self._connection, self.identity.study_id, shared=shared)

    def write_attributes(self, values: Mapping[str, Any]) -> None:
        """Set system attributes of the study, and overwrite those that exist. Called twice, it changes nothing more.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable, or the study was deleted and is not locked.
        """
        study_attrs.write(self._connection, self.identity.study_id, values)

    def remove_attributes(self, keys: Collection[str]) -> None:
        """Remove attributes of the study. Those that it does not have are skipped, so it may be called twice.

        After the study was deleted, there is nothing to remove.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        study_attrs.remove(self._connection, self.identity.study_id, keys)

    def rewrite_note(self, body: str) -> bool:
        """Replace the note of the study, unless a user has edited it. Called twice, it changes nothing more.

        Returns:
            Whether the note was replaced.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable, or the study was deleted and is not locked.
        """
        return notes.rewrite(self._connection, self.identity.study_id, body)

    def renew_revision(self) -> None:
        """Give the study another revision, because rows of its ended trials are rewritten; see `revisions`.

        Called twice, it gives the study two revisions, which does no harm.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable, or the study was deleted and is not locked.
        """
        revisions.renew_revision(self._connection, self.identity.study_id)

    def insert_trials(
        self, trials: Sequence[NewTrial], space: Mapping[str, BaseDistribution], state: TrialState
    ) -> list[TrialRef]:
        """Add trials, numbered after those that the study has. Called twice, it adds them twice.

        The study must be locked, or two callers would assign the same numbers.

        Args:
            trials: The new trials.
            space: Distribution of each parameter.
            state: State of the new trials.

        Returns:
            The new trials, in the order of `trials`.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable, or the study was deleted and is not locked.
        """
        return new_trials.insert_trials(self._connection, self.identity.study_id, trials, space, state)

    def rewrite_distribution(self, name: str, old: BaseDistribution, new: BaseDistribution) -> None:
        """Replace the distribution of a parameter in all trials. Their values stay the same.

        Called twice, it changes nothing more. After the study was deleted, there is nothing to change.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        new_trials.rewrite_distribution(self._connection, self.identity.study_id, name, old, new)

    def write_artifact(self, artifact_id: str, data: bytes) -> None:
        """Store the bytes of an artifact. It may not be called twice with the same id.

        Raises:
            ValueError: There are more than `MAX_ARTIFACT_BYTES` bytes.
            sqlalchemy.exc.IntegrityError: The database holds an artifact with this id.
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        artifacts.write_bytes(self._connection, artifact_id, data)

    def delete_artifacts(self, trial_ids: Collection[int]) -> StoredArtifacts:
        """Delete the artifacts of these trials, and return what was deleted. Called twice, it returns nothing then.

        After the study was deleted, there is nothing to delete. Bytes outside of the database are not touched.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        found, attachments = _trial_artifacts.find_artifacts(self._connection, self.identity.study_id, trial_ids)
        _trial_artifacts.delete_artifacts(
            self._connection, self.identity.study_id, trial_ids, found.artifact_ids, attachments
        )
        if found.artifact_ids:
            self.renew_revision()
        return found

    def delete_attachments(self, attachments: Sequence[Attachment]) -> None:
        """Delete the links of artifacts that were attached later, and their bytes if the database holds them.

        Called twice, or after the study was deleted, it does nothing.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        artifacts.delete_attachments(self._connection, self.identity.study_id, attachments)

    def delete_study(self) -> list[str]:
        """Delete all rows of the study, and record its name as deleted. Called twice, it deletes nothing more.

        The study must be locked. Workers that hold leases lose them, and notice that the study is deleted.

        Returns:
            The ids of its artifacts. Those outside of the database are not deleted.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        artifact_ids = _deletion.delete_rows(self._connection, self.identity.study_id)
        deleted_studies.record_deletion(self._connection, self.identity.name)
        return artifact_ids

    def delete_empty_study(self) -> None:
        """Delete the rows of a study without trials, and record no deletion. Called twice, it deletes nothing more.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        _deletion.delete_empty_rows(self._connection, self.identity.study_id)

    def deletion_error(self) -> StudyDeletedError | None:
        """Return the exception that says when a study of this name was deleted. Called twice, it reads again.

        Returns:
            The exception; None if no deletion is recorded.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        return deleted_studies.deletion_error(self._connection, self.identity.name)

    def clear_deletion(self) -> None:
        """Delete the record that a study of this name was deleted. Called twice, it deletes nothing more.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        deleted_studies.clear_deletion(self._connection, self.identity.name)

    def insert_archived_trials(self, rows: Sequence[archive_rows.Row]) -> dict[int, int]:
        """Insert the rows of an archive's trials into a study that has none. It must be called once.

        Returns:
            The new trial ids by the ids in the archive.

        Raises:
            ArchiveError: The rows are not valid.
            ValueError: A value cannot be parsed.
            sqlalchemy.exc.DBAPIError: The database is unavailable, or refuses a row.
        """
        return archive_rows.insert_trials(self._connection, self.identity.study_id, rows)

    def insert_archived_rows(self, table: str, rows: Sequence[archive_rows.Row], trial_ids: Mapping[int, int]) -> None:
        """Insert rows of an archive. It must be called once for each table.

        Args:
            table: Name of the table: one of `archive_rows.STUDY_TABLES` or `TRIAL_TABLES`, or `DEVICE_TIME`.
            rows: The rows.
            trial_ids: The new trial ids by the ids in the archive.

        Raises:
            ArchiveError: The rows are not valid.
            ValueError: A value cannot be parsed.
            sqlalchemy.exc.DBAPIError: The database is unavailable, or refuses a row.
        """
        archive_rows.insert_rows(self._connection, self.identity.study_id, table, rows, trial_ids)

    def insert_checkpoint(self, trial_id: int, epoch: int, data: bytes) -> None:
        """Insert the checkpoint of a trial. It must be called once for each trial.

        Raises:
            sqlalchemy.exc.IntegrityError: The trial has a checkpoint.
            sqlalchemy.exc.DBAPIError: The database is unavailable.
        """
        archive_rows.insert_checkpoint(self._connection, trial_id, epoch, data)
