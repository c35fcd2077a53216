"""`StudyStore` in memory, for unit tests. The contract suite compares it with SQLite and PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from miiii_search.errors import StudyDeletedError
from miiii_search.storage import archive_rows, deleted_studies, notes
from miiii_search.storage.artifacts import (
    MAX_ARTIFACT_BYTES,
    Attachment,
)
from miiii_search.storage.records import (
    NewTrial,
    StoredArtifacts,
    TrialRef,
)
from miiii_search.storage.study_attrs import CREATED_KEY, ID_KEY, REVISION_KEY
from miiii_search.storage.study_store import StudyStore
from miiii_search.storage.study_transaction import StudyTransaction
from miiii_search.testing import _memory_rows
from miiii_search.testing.memory_database import MemoryCheckpoint, MemoryContents, MemoryStudy, through_json
from miiii_search.testing.memory_study_reader import MemoryStudyReader, artifact_links


class MemoryStudyTransaction(MemoryStudyReader, StudyTransaction):
    """Changes one study in an open transaction of a `MemoryDatabase`. See `StudyTransaction` for each method."""

    @contextmanager
    def _writing(self) -> Iterator[tuple[MemoryContents, MemoryStudy]]:
        """Yield what the open transaction changes, and the row of the study."""
        with self._memory.reading() as contents:
            study = contents.studies.get(self.identity.study_id)
            if study is None:
                raise sa.exc.IntegrityError("INSERT", {}, KeyError("there is no such study"))
            yield contents, study

    def lock(self, *, shared: bool = False) -> None:
        """Do what `StudyTransaction.lock` does."""
        if not self.lock_row() or not self.identity.is_in(self.read_attributes(CREATED_KEY, ID_KEY)):
            raise self.deleted_error()

    def lock_row(self, *, shared: bool = False) -> bool:
        """Do what `StudyTransaction.lock_row` does."""
        with self._memory.reading() as contents:
            return self.identity.study_id in contents.studies

    def write_attributes(self, values: Mapping[str, Any]) -> None:
        """Do what `StudyTransaction.write_attributes` does."""
        with self._writing() as (_, study):
            study.system_attributes.update(through_json(dict(values)))

    def remove_attributes(self, keys: Collection[str]) -> None:
        """Do what `StudyTransaction.remove_attributes` does."""
        with self._memory.reading() as contents:
            for key in keys:
                self._attributes(contents).pop(key, None)

    def rewrite_note(self, body: str) -> bool:
        """Do what `StudyTransaction.rewrite_note` does."""
        with self._writing() as (_, study):
            if study.system_attributes.get("dashboard:note_ver", notes.OWN_VERSION) != notes.OWN_VERSION:
                return False
            for key in [key for key in study.system_attributes if key.startswith("dashboard:note_str:")]:
                del study.system_attributes[key]
            study.system_attributes.update(notes.attributes(body))
            return True

    def renew_revision(self) -> None:
        """Do what `StudyTransaction.renew_revision` does."""
        self.write_attributes({REVISION_KEY: uuid.uuid4().hex})

    def insert_trials(
        self, trials: Sequence[NewTrial], space: Mapping[str, BaseDistribution], state: TrialState
    ) -> list[TrialRef]:
        """Do what `StudyTransaction.insert_trials` does."""
        added = []
        with self._writing() as (contents, study):
            for new in trials:
                trial = contents.add_trial(study.study_id, state)
                trial.params, trial.distributions = dict(new.params), {name: space[name] for name in new.params}
                trial.system_attributes = through_json(dict(new.system_attributes))
                added.append(TrialRef(trial.trial_id, trial.number))
        return added

    def rewrite_distribution(self, name: str, old: BaseDistribution, new: BaseDistribution) -> None:
        """Do what `StudyTransaction.rewrite_distribution` does."""
        with self._memory.reading() as contents:
            for trial in self._trials(contents):
                if trial.distributions.get(name) == old:
                    trial.distributions[name] = new

    def write_artifact(self, artifact_id: str, data: bytes) -> None:
        """Do what `StudyTransaction.write_artifact` does."""
        if len(data) > MAX_ARTIFACT_BYTES:
            raise ValueError(
                f"an artifact in the database has at most {MAX_ARTIFACT_BYTES} bytes, this one {len(data)}"
            )
        with self._memory.reading() as contents:
            if artifact_id in contents.artifacts:
                raise sa.exc.IntegrityError("INSERT", {}, KeyError(artifact_id))
            contents.artifacts[artifact_id] = data

    def delete_artifacts(self, trial_ids: Collection[int]) -> StoredArtifacts:
        """Do what `StudyTransaction.delete_artifacts` does."""
        found = self.find_artifacts(trial_ids)
        self.delete_attachments(self.find_attachments(trial_ids))
        with self._memory.reading() as contents:
            for artifact_id in found.artifact_ids:
                contents.artifacts.pop(artifact_id, None)
            for trial in (contents.trials[i] for i in trial_ids if i in contents.trials):
                for key in artifact_links(trial.system_attributes):
                    del trial.system_attributes[key]
        if found.artifact_ids:
            self.renew_revision()
        return found

    def delete_attachments(self, attachments: Sequence[Attachment]) -> None:
        """Do what `StudyTransaction.delete_attachments` does."""
        self.remove_attributes([file.key for file in attachments])
        with self._memory.reading() as contents:
            for file in attachments:
                contents.artifacts.pop(file.artifact_id, None)

    def delete_study(self) -> list[str]:
        """Do what `StudyTransaction.delete_study` does."""
        artifact_ids = self.linked_artifact_ids()
        with self._memory.reading() as contents:
            for artifact_id in artifact_ids:
                contents.artifacts.pop(artifact_id, None)
            for trial in self._trials(contents):
                for table in (contents.leases, contents.checkpoints, contents.trials):
                    table.pop(trial.trial_id, None)
            rows = contents.device_time.items()
            contents.device_time = {k: row for k, row in rows if row.study_id != self.identity.study_id}
            contents.deleted_studies[self.identity.name] = self._memory.now
        self.delete_empty_study()
        return artifact_ids

    def delete_empty_study(self) -> None:
        """Do what `StudyTransaction.delete_empty_study` does."""
        with self._memory.reading() as contents:
            contents.studies.pop(self.identity.study_id, None)

    def deletion_error(self) -> StudyDeletedError | None:
        """Do what `StudyTransaction.deletion_error` does."""
        with self._memory.reading() as contents:
            at = contents.deleted_studies.get(self.identity.name)
            return None if at is None else deleted_studies.deleted_at(self.identity.name, at)

    def clear_deletion(self) -> None:
        """Do what `StudyTransaction.clear_deletion` does."""
        with self._memory.reading() as contents:
            contents.deleted_studies.pop(self.identity.name, None)

    def insert_archived_trials(self, rows: Sequence[archive_rows.Row]) -> dict[int, int]:
        """Do what `StudyTransaction.insert_archived_trials` does."""
        with self._writing() as (contents, study):
            return _memory_rows.insert_trials(contents, study.study_id, rows)

    def insert_archived_rows(self, table: str, rows: Sequence[archive_rows.Row], trial_ids: Mapping[int, int]) -> None:
        """Do what `StudyTransaction.insert_archived_rows` does."""
        with self._writing() as (contents, study):
            _memory_rows.insert_rows(contents, study.study_id, table, rows, trial_ids)

    def insert_checkpoint(self, trial_id: int, epoch: int, data: bytes) -> None:
        """Do what `StudyTransaction.insert_checkpoint` does."""
        with self._memory.reading() as contents:
            if trial_id in contents.checkpoints:
                raise sa.exc.IntegrityError("INSERT", {}, KeyError(trial_id))
            contents.checkpoints[trial_id] = MemoryCheckpoint(epoch, data)


class MemoryStudyStore(MemoryStudyReader, StudyStore):
    """The store of one study in a `MemoryDatabase`. See `StudyStore` for what each method does."""

    @contextmanager
    def reading(self) -> Iterator[MemoryStudyReader]:
        """Do what `StudyStore.reading` does."""
        with self._memory.reading():
            yield MemoryStudyReader(self._memory, self.identity)

    @contextmanager
    def snapshot(self) -> Iterator[MemoryStudyReader]:
        """Do what `StudyStore.snapshot` does."""
        with self.reading() as reader:
            yield reader

    @contextmanager
    def transaction(self) -> Iterator[MemoryStudyTransaction]:
        """Do what `StudyStore.transaction` does."""
        with self._memory.transaction():
            yield MemoryStudyTransaction(self._memory, self.identity)

    def write_note(self, body: str) -> bool:
        """Do what `StudyStore.write_note` does."""
        with self.transaction() as tx:
            tx.lock(shared=True)
            return tx.rewrite_note(body)

    def ensure_id(self, new_id: str) -> str | None:
        """Do what `StudyStore.ensure_id` does."""
        with self.transaction() as tx:
            if not tx.lock_row():
                return None
            found: str = tx.read_attributes(ID_KEY).get(ID_KEY, new_id)
            tx.write_attributes({ID_KEY: found})
            return found
