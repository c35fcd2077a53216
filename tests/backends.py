"""The databases on which the contract suites run: SQLite, PostgreSQL, and the one in memory, behind one interface.

What a database holds is read as the `MemoryContents` of the fake, so that tests look at all three in the same way.
"""

from __future__ import annotations

import contextlib
import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import optuna
import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.config.overrides import to_tree
from miiii_search.config.study_spec import StudySpec
from miiii_search.storage import schema, study_attrs
from miiii_search.storage.database import Database
from miiii_search.storage.study_attrs import CREATED_KEY, ID_KEY, SPEC_KEY
from miiii_search.study.create import create_study
from miiii_search.study.delete import delete
from miiii_search.study.open import open_study
from miiii_search.study.trials import distributions, new_trial
from miiii_search.testing.memory_database import (
    MemoryCheckpoint,
    MemoryContents,
    MemoryDatabase,
    MemoryDeviceTime,
    MemoryLease,
    MemoryStudy,
    MemoryTrial,
    outage,
    through_json,
)
from miiii_search.testing.memory_trial_queue import MemoryTrialQueue
from miiii_search.trial_queue.trial_queue import TrialQueue

NOW = 2_000_000_000.0
"""First time of the clock, in seconds since 1970. It is later than the start of any server."""


class Backend(ABC):
    """A database with a clock that the test sets."""

    now = NOW
    """Time of the database's clock, in seconds since 1970."""
    server_started_at = 0.0
    """Time at which the server started, in seconds since 1970."""

    @abstractmethod
    def queue(self, study_id: int) -> TrialQueue:
        """Return the queue of a study."""

    @abstractmethod
    def create(self, name: str, spec: StudySpec) -> int:
        """Create a study with its whole queue, and return its id."""

    @abstractmethod
    def delete(self, study_id: int) -> None:
        """Delete a study, even if its trials are leased."""

    @abstractmethod
    def write_attributes(self, study_id: int, values: Mapping[str, Any]) -> None:
        """Set system attributes of a study; None removes one."""

    @abstractmethod
    def add_elsewhere(self, study_id: int, state: TrialState, value: float | None = None) -> int:
        """Add a trial as another program with Optuna does, and return its id."""

    @abstractmethod
    def end_elsewhere(self, trial_id: int, state: TrialState, value: float | None = None) -> None:
        """End a trial as another program with Optuna does."""

    @abstractmethod
    def contents(self) -> MemoryContents:
        """Return a copy of all that the database holds."""

    @abstractmethod
    def outage(self) -> contextlib.AbstractContextManager[object]:
        """Let every access fail."""

    @abstractmethod
    def losing_answers(self) -> contextlib.AbstractContextManager[object]:
        """Let every transaction for writing take effect, and its answer be lost."""


class MemoryBackend(Backend):
    """The fake."""

    def __init__(self) -> None:
        self.database = MemoryDatabase(NOW)

    @property
    def now(self) -> float:
        """The clock of the fake."""
        return self.database.now

    @now.setter
    def now(self, now: float) -> None:
        self.database.now = now

    @property
    def server_started_at(self) -> float:
        """The start of the fake's server."""
        return self.database.started_at

    @server_started_at.setter
    def server_started_at(self, at: float) -> None:
        self.database.started_at = at

    def queue(self, study_id: int) -> TrialQueue:
        return MemoryTrialQueue(self.database, study_id)

    def create(self, name: str, spec: StudySpec) -> int:
        with self.database.transaction() as contents:
            study, space = contents.add_study(name), distributions(spec)
            study.system_attributes = {SPEC_KEY: through_json(to_tree(spec)), ID_KEY: name, CREATED_KEY: self.now}
            for point, replicate in spec.queue():
                made, trial = new_trial(spec, point, replicate), contents.add_trial(study.study_id)
                trial.params = dict(made.params)
                trial.distributions = {key: space[key] for key in made.params}
                trial.system_attributes = through_json(dict(made.system_attributes))
            return study.study_id

    def delete(self, study_id: int) -> None:
        with self.database.transaction() as contents:
            ids = {trial.trial_id for trial in contents.trials_of(study_id)}
            del contents.studies[study_id]
            for table in (contents.trials, contents.leases, contents.checkpoints):
                for trial_id in ids & table.keys():
                    del table[trial_id]
            contents.device_time = {k: row for k, row in contents.device_time.items() if row.study_id != study_id}

    def write_attributes(self, study_id: int, values: Mapping[str, Any]) -> None:
        with self.database.transaction() as contents:
            attributes = contents.studies[study_id].system_attributes | through_json(dict(values))
            contents.studies[study_id].system_attributes = {k: v for k, v in attributes.items() if v is not None}

    def add_elsewhere(self, study_id: int, state: TrialState, value: float | None = None) -> int:
        with self.database.transaction() as contents:
            trial = contents.add_trial(study_id, state)
            trial.value = value
            trial.started_at = None if state == TrialState.WAITING else self.database.utc_now()
            trial.completed_at = self.database.utc_now() if state.is_finished() else None
            return trial.trial_id

    def end_elsewhere(self, trial_id: int, state: TrialState, value: float | None = None) -> None:
        with self.database.transaction() as contents:
            trial = contents.trials[trial_id]
            trial.state, trial.value, trial.completed_at = state, value, self.database.utc_now()

    def contents(self) -> MemoryContents:
        return copy.deepcopy(self.database.contents)

    def outage(self) -> contextlib.AbstractContextManager[object]:
        return mock.patch.object(self.database, "is_away", True)

    def losing_answers(self) -> contextlib.AbstractContextManager[object]:
        return mock.patch.object(self.database, "loses_answers", True)


class SqlBackend(Backend):
    """A real database. Use it within `clock`."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @contextlib.contextmanager
    def clock(self) -> Iterator[None]:
        """Replace the database's clock, and the start of its server, by those of this object."""
        with (
            mock.patch.object(schema, "now", lambda _: sa.literal(self.now, sa.Double)),
            mock.patch.object(schema, "server_start_time", lambda _: sa.literal(self.server_started_at, sa.Double)),
        ):
            yield

    def queue(self, study_id: int) -> TrialQueue:
        return TrialQueue(self.database, study_id)

    def create(self, name: str, spec: StudySpec) -> int:
        return create_study(self.database, name, spec).study_id

    def delete(self, study_id: int) -> None:
        name = self.database.optuna.get_study_name_from_id(study_id)
        delete(open_study(self.database, name), force=True)

    def write_attributes(self, study_id: int, values: Mapping[str, Any]) -> None:
        with self.database.transaction() as connection:
            study_attrs.remove(connection, study_id, list(values))
            study_attrs.write(connection, study_id, {k: v for k, v in values.items() if v is not None})

    def add_elsewhere(self, study_id: int, state: TrialState, value: float | None = None) -> int:
        made = optuna.trial.create_trial(state=state, value=value)
        return self.database.optuna.create_new_trial(study_id, made)

    def end_elsewhere(self, trial_id: int, state: TrialState, value: float | None = None) -> None:
        self.database.optuna.set_trial_state_values(trial_id, state, None if value is None else [value])

    def contents(self) -> MemoryContents:
        found = MemoryContents()
        with self.database.engine.connect() as connection:

            def rows(table: Any) -> list[Any]:
                return list(connection.execute(sa.select(table)).all())

            found.studies = {row.study_id: MemoryStudy(row.study_id, row.study_name) for row in rows(schema.studies)}
            for row in rows(schema.study_system_attributes):
                found.studies[row.study_id].system_attributes[row.key] = json.loads(row.value_json)
            found.leases = {row.trial_id: MemoryLease(**row._mapping) for row in rows(schema.leases)}
            found.checkpoints = {r.trial_id: MemoryCheckpoint(r.epoch, r.data) for r in rows(schema.checkpoints)}
            found.artifacts = {row.artifact_id: row.data for row in rows(schema.artifacts)}
            found.device_time = {r.holder: MemoryDeviceTime(r.study_id, r.seconds) for r in rows(schema.device_time)}
            found.deleted_studies = {row.study_name: row.deleted_at for row in rows(schema.deleted_studies)}
        for study_id in found.studies:
            for trial in self.database.optuna.get_all_trials(study_id):
                found.trials[trial._trial_id] = MemoryTrial(
                    trial._trial_id,
                    study_id,
                    trial.number,
                    trial.state,
                    trial.params,
                    trial.distributions,
                    trial.value,
                    trial.intermediate_values,
                    trial.user_attrs,
                    trial.system_attrs,
                    trial.datetime_start,
                    trial.datetime_complete,
                )
        return found

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        def fail(*_: object) -> None:
            raise outage()

        sa.event.listen(self.database.engine, "begin", fail)
        try:
            yield
        finally:
            sa.event.remove(self.database.engine, "begin", fail)

    @contextlib.contextmanager
    def losing_answers(self) -> Iterator[None]:
        transaction = Database.transaction

        @contextlib.contextmanager
        def losing(database: Database) -> Iterator[sa.Connection]:
            with transaction(database) as connection:
                yield connection
            raise outage()

        with mock.patch.object(Database, "transaction", losing):
            yield
