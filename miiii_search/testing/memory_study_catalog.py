"""`StudyCatalog` in memory, for unit tests. The contract suite compares it with SQLite and PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, cast

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.config.study_spec import StudySpec
from miiii_search.errors import DuplicateStudyError, StudyDeletedError
from miiii_search.storage import deleted_studies
from miiii_search.storage.abandoned import AbandonedTrial
from miiii_search.storage.database import Database
from miiii_search.storage.records import StudyIdentity, StudyRow
from miiii_search.storage.revisions import Revision
from miiii_search.storage.study_attrs import CREATED_KEY, REVISION_KEY
from miiii_search.storage.study_catalog import StudyCatalog
from miiii_search.storage.usage import Usage
from miiii_search.study.create import create_study
from miiii_search.study.study import Study
from miiii_search.testing.memory_database import MemoryContents, MemoryDatabase, MemoryStudy, through_json
from miiii_search.testing.memory_study_store import MemoryStudyStore, MemoryStudyTransaction
from miiii_search.testing.memory_trial_queue import MemoryTrialQueue


class MemoryStudyCatalog(StudyCatalog):
    """The studies of a `MemoryDatabase`. See `StudyCatalog` for what each method does.

    Args:
        memory: The database.
    """

    def __init__(self, memory: MemoryDatabase) -> None:
        self._memory = memory

    @contextmanager
    def reading(self) -> Iterator[MemoryStudyCatalog]:
        """Do what `StudyCatalog.reading` does."""
        with self._memory.reading():
            yield self

    def store(self, identity: StudyIdentity) -> MemoryStudyStore:
        """Do what `StudyCatalog.store` does."""
        return MemoryStudyStore(self._memory, identity)

    def names(self) -> list[str]:
        """Do what `CatalogReader.names` does."""
        with self._memory.reading() as contents:
            return sorted(study.name for study in contents.studies.values())

    def read_attribute(self, key: str) -> list[Any]:
        """Do what `CatalogReader.read_attribute` does."""
        with self._memory.reading() as contents:
            known = [study.system_attributes for study in contents.studies.values()]
            found: list[Any] = through_json([attributes[key] for attributes in known if key in attributes])
            return found

    def find(self, name: str) -> int | None:
        """Do what `CatalogReader.find` does."""
        with self._memory.reading() as contents:
            study = contents.study_named(name)
            return None if study is None else study.study_id

    def find_or_insert(self, name: str) -> tuple[int, bool] | None:
        """Do what `StudyCatalog.find_or_insert` does. All studies in memory maximize a single objective."""
        with self._memory.transaction() as contents:
            return (contents.study_named(name) or contents.add_study(name)).study_id, True

    @contextmanager
    def insert(self, name: str) -> Iterator[MemoryStudyTransaction]:
        """Do what `StudyCatalog.insert` does."""
        with self._memory.transaction() as contents:
            if contents.study_named(name) is not None:
                raise DuplicateStudyError(f"there is a study `{name}` already")
            contents.deleted_studies.pop(name, None)
            yield MemoryStudyTransaction(self._memory, StudyIdentity(contents.add_study(name).study_id, name))

    def read_rows(self, keys: Collection[str]) -> list[StudyRow]:
        """Do what `CatalogReader.read_rows` does."""
        with self._memory.reading() as contents:
            studies = sorted(contents.studies.values(), key=lambda study: study.name)
            return [self._row(contents, study, keys) for study in studies]

    def _row(self, contents: MemoryContents, study: MemoryStudy, keys: Collection[str]) -> StudyRow:
        trials = contents.trials_of(study.study_id)
        values = [t.value for t in trials if t.state == TrialState.COMPLETE and t.value is not None]
        starts = [trial.started_at for trial in trials if trial.started_at is not None]
        leases = [lease for lease in contents.leases.values() if lease.study_id == study.study_id]
        return StudyRow(
            study.study_id,
            study.name,
            through_json({key: value for key, value in study.system_attributes.items() if key in keys}),
            self.store(StudyIdentity(study.study_id, study.name)).count_trials(),
            max(values, default=None),
            min(starts).replace(tzinfo=UTC) if starts else None,
            any(lease.expires_at > self._memory.now for lease in leases),
        )

    def read_usage(self, study_id: int) -> Usage:
        """Do what `CatalogReader.read_usage` does."""
        return MemoryTrialQueue(self._memory, study_id).read_usage()

    def find_abandoned(self) -> list[AbandonedTrial]:
        """Do what `CatalogReader.find_abandoned` does."""
        with self._memory.reading() as contents:
            queues = [MemoryTrialQueue(self._memory, study_id) for study_id in sorted(contents.studies)]
            return [trial for queue in queues for trial in queue.find_abandoned()]

    def read_revisions(self) -> dict[int, Revision]:
        """Do what `CatalogReader.read_revisions` does."""
        with self._memory.reading() as contents:
            found: dict[int, Revision] = {}
            for study_id, study in contents.studies.items():
                known = study.system_attributes
                stored = next((known[key] for key in (REVISION_KEY, CREATED_KEY) if key in known), None)
                first = next((trial.started_at for trial in contents.trials_of(study_id)), None)
                identity = json.dumps(stored) if stored is not None else str(first) if first else None
                found[study_id] = (study.name, identity)
            return found

    def read_deletions(self) -> dict[str, datetime]:
        """Do what `CatalogReader.read_deletions` does."""
        with self._memory.reading() as contents:
            return {name: datetime.fromtimestamp(at, UTC) for name, at in sorted(contents.deleted_studies.items())}

    def deletion_error(self, name: str) -> StudyDeletedError | None:
        """Do what `CatalogReader.deletion_error` does."""
        with self._memory.reading() as contents:
            if contents.study_named(name) is not None or name not in contents.deleted_studies:
                return None
            return deleted_studies.deleted_at(name, contents.deleted_studies[name])

    def record_deletion(self, name: str) -> None:
        """Do what `StudyCatalog.record_deletion` does."""
        with self._memory.transaction() as contents:
            if contents.study_named(name) is None:
                contents.deleted_studies.setdefault(name, self._memory.now)


class _Database:
    """A `MemoryDatabase` where a `Study` expects a `Database`: without connections, and with a catalog."""

    def __init__(self, memory: MemoryDatabase) -> None:
        self.memory = memory
        self.studies = MemoryStudyCatalog(memory)
        self.read_only = False
        self.url = sa.make_url("sqlite:///memory")

    def __str__(self) -> str:
        return "memory"


def create_memory_study(memory: MemoryDatabase, name: str, spec: StudySpec) -> Study:
    """Create a study in a `MemoryDatabase`, or open it. Its store and its queue are the fakes.

    Everything that uses only `Study.store`, `Study.queue` and `Database.studies` works with it.
    """
    study = create_study(cast(Database, _Database(memory)), name, spec)
    study.queue = MemoryTrialQueue(memory, study.study_id)
    return study
