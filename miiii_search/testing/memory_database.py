"""A database in memory: the data that the in-memory fakes of the store and of the queue share.

The fakes are `MemoryStudyStore` and `MemoryTrialQueue`. They need no SQL, and the contract suites compare them with
SQLite and PostgreSQL. Rows are plain objects in dictionaries, so a test can look at them or change them.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState


@dataclass
class MemoryStudy:
    """One row of the table of studies, with its attributes.

    Attributes:
        study_id: Optuna's id of the study.
        name: Name of the study.
        system_attributes: Optuna's system attributes by key, as JSON would return them. The notes are among them.
        user_attributes: Optuna's user attributes by key.
    """

    study_id: int
    name: str
    system_attributes: dict[str, Any] = field(default_factory=dict)
    user_attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class MemoryTrial:
    """One row of the table of trials, with all rows that belong to it.

    Attributes:
        trial_id: Optuna's id of the trial.
        study_id: Optuna's id of the study.
        number: Number of the trial within its study.
        state: State of the trial.
        params: Hyperparameters by name.
        distributions: Distributions by the name of the hyperparameter.
        value: Value of the trial; None if it has none.
        reports: Intermediate values by epoch.
        user_attributes: Optuna's user attributes by key.
        system_attributes: Optuna's system attributes by key, as JSON would return them.
        started_at: Time of the first claim, UTC without a time zone.
        completed_at: Time of the end, UTC without a time zone.
    """

    trial_id: int
    study_id: int
    number: int
    state: TrialState = TrialState.WAITING
    params: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)
    value: float | None = None
    reports: dict[int, float] = field(default_factory=dict)
    user_attributes: dict[str, Any] = field(default_factory=dict)
    system_attributes: dict[str, Any] = field(default_factory=dict)
    started_at: datetime | None = None
    completed_at: datetime | None = None

    def to_optuna(self) -> FrozenTrial:
        """Return the trial as Optuna's storage returns it, as a copy."""
        return FrozenTrial(
            number=self.number,
            state=self.state,
            value=self.value,
            datetime_start=self.started_at,
            datetime_complete=self.completed_at,
            params=dict(self.params),
            distributions=dict(self.distributions),
            user_attrs=copy.deepcopy(self.user_attributes),
            system_attrs=copy.deepcopy(self.system_attributes),
            intermediate_values=dict(self.reports),
            trial_id=self.trial_id,
        )


@dataclass
class MemoryLease:
    """One row of the table of leases; see `schema.leases`. Times are in seconds of the database's clock."""

    trial_id: int
    study_id: int
    token: str
    worker: str
    expires_at: float
    renewed_at: float
    epoch: int = 0
    epochs_per_second: float = 0.0
    saved_epoch: int = 0


@dataclass
class MemoryCheckpoint:
    """One row of the table of shared checkpoints; see `schema.checkpoints`."""

    epoch: int
    data: bytes


@dataclass
class MemoryDeviceTime:
    """One row of the ledger of device time; see `schema.device_time`."""

    study_id: int
    seconds: float


@dataclass
class MemoryContents:
    """Everything that a database holds.

    Attributes:
        studies: Studies by id.
        trials: Trials by id.
        leases: Leases by the id of their trial.
        checkpoints: Shared checkpoints by the id of their trial.
        artifacts: Bytes of artifacts by the artifact's id.
        device_time: The ledger of device time by holder.
        deleted_studies: Time of deletion by the name of the study, in seconds since 1970.
        last_study_id: The last id that a study got. No id is used twice.
        last_trial_id: The last id that a trial got. No id is used twice.
    """

    studies: dict[int, MemoryStudy] = field(default_factory=dict)
    trials: dict[int, MemoryTrial] = field(default_factory=dict)
    leases: dict[int, MemoryLease] = field(default_factory=dict)
    checkpoints: dict[int, MemoryCheckpoint] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    device_time: dict[str, MemoryDeviceTime] = field(default_factory=dict)
    deleted_studies: dict[str, float] = field(default_factory=dict)
    last_study_id: int = 0
    last_trial_id: int = 0

    def study_named(self, name: str) -> MemoryStudy | None:
        """Return the study with a name, or None."""
        return next((study for study in self.studies.values() if study.name == name), None)

    def trials_of(self, study_id: int) -> list[MemoryTrial]:
        """Return the trials of a study, ordered by number."""
        found = [trial for trial in self.trials.values() if trial.study_id == study_id]
        return sorted(found, key=lambda trial: trial.number)

    def add_study(self, name: str) -> MemoryStudy:
        """Add a study without attributes or trials, and return it."""
        self.last_study_id += 1
        study = self.studies[self.last_study_id] = MemoryStudy(self.last_study_id, name)
        return study

    def add_trial(self, study_id: int, state: TrialState = TrialState.WAITING) -> MemoryTrial:
        """Add a trial, numbered after those that the study has, and return it."""
        self.last_trial_id += 1
        number = len(self.trials_of(study_id))
        trial = self.trials[self.last_trial_id] = MemoryTrial(self.last_trial_id, study_id, number, state)
        return trial


class MemoryDatabase:
    """A database in memory, with a clock that a test sets and a switch for an outage. For use by several threads.

    Args:
        now: First time of the clock, in seconds since 1970.
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.contents = MemoryContents()
        self.now = now
        """Time of the database's clock, in seconds since 1970. Only a test changes it."""
        self.started_at = 0.0
        """Time at which the server started, in seconds since 1970; 0 for a database without a server."""
        self.is_away = False
        """Whether every access fails as during an outage. Nothing is changed then."""
        self.loses_answers = False
        """Whether every transaction for writing takes effect, and its answer is lost with the connection."""
        self._lock = threading.RLock()

    @contextmanager
    def transaction(self) -> Iterator[MemoryContents]:
        """Open a transaction for reading and writing. All of its changes are undone if the block raises an exception.

        Transactions of several threads take turns. Within a thread, a transaction may contain another one.

        Raises:
            sqlalchemy.exc.OperationalError: The database is away, or the answer was lost.
        """
        with self._lock:
            self._check_connection()
            before = copy.deepcopy(self.contents)
            try:
                yield self.contents
            except BaseException:
                self.contents = before
                raise
            if self.loses_answers:
                raise outage()

    @contextmanager
    def reading(self) -> Iterator[MemoryContents]:
        """Open a transaction that only reads. The block must not change anything.

        Raises:
            sqlalchemy.exc.OperationalError: The database is away.
        """
        with self._lock:
            self._check_connection()
            yield self.contents

    def utc_now(self) -> datetime:
        """Return the time of the clock as Optuna stores times: UTC without a time zone."""
        return datetime.fromtimestamp(self.now, UTC).replace(tzinfo=None)

    def _check_connection(self) -> None:
        if self.is_away:
            raise outage()


def outage() -> sa.exc.OperationalError:
    """Return the error that a statement raises during an outage; `storage.retry.is_outage` is true for it."""
    return sa.exc.OperationalError("SELECT 1", {}, ConnectionError("the database in memory is away"))


def through_json(value: Any) -> Any:
    """Return a value as it is read back after it was stored as JSON: tuples become lists, for example."""
    return json.loads(json.dumps(value))
