"""Optuna's cache of finished trials, for a process that outlives the studies it shows."""

from __future__ import annotations

import optuna
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage, _StudyInfo

from miiii_search.search import attributes
from miiii_search.search.attributes import ID_KEY


class StudyCache(_CachedStorage):
    """Forgets a study once another one has its number.

    SQLite gives the numbers of a deleted study and of its trials to the next one. Optuna's cache would show the ended
    trials of the deleted study as those of the new one.
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._ids: dict[int, str | None] = {}

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        with self._backend.engine.connect() as connection:
            found = attributes.read(connection, study_id, ID_KEY).get(ID_KEY)
        with self._lock:
            if self._ids.setdefault(study_id, found) != found:
                self._ids[study_id] = found
                self._forget(study_id)
        super()._read_trials_from_remote_storage(study_id)

    def _forget(self, study_id: int) -> None:
        for number in self._studies.pop(study_id, _StudyInfo()).trials:
            trial_id = self._study_id_and_number_to_trial_id.pop((study_id, number))
            self._trial_id_to_study_id_and_number.pop(trial_id, None)


def cached(storage: optuna.storages.BaseStorage) -> optuna.storages.BaseStorage:
    """The storage with a cache of its finished trials, if it is a database."""
    return StudyCache(storage) if isinstance(storage, RDBStorage) else storage
