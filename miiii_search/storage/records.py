"""Plain data that the store returns or writes. Nothing here accesses a database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from optuna.trial import TrialState

from miiii_search.storage.study_attrs import CREATED_KEY, ID_KEY

FINISHED_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
"""States of finished trials, best first."""

DETAILED_TRIALS = 16
"""Number of running trials, by number, whose parameters and curves are read."""


@dataclass(frozen=True)
class StudyIdentity:
    """A study, told apart from a later one with the same `study_id`: SQLite reuses the ids of deleted studies.

    Attributes:
        study_id: Optuna's id of the study.
        name: Name of the study.
        created_at: Time of creation, in seconds since 1970 by the database's clock; None if it is not stored.
        id: Random identity of the study; None if it is not known.
    """

    study_id: int
    name: str
    created_at: float | None = None
    id: str | None = None

    def is_in(self, attributes: Mapping[str, Any]) -> bool:
        """Return whether these are attributes of this study, not of a later one with the same `study_id`."""
        return attributes.get(CREATED_KEY) == self.created_at and self.id in (None, attributes.get(ID_KEY))


@dataclass(frozen=True)
class StudyCounts:
    """Aggregates of a study that are cheap to read however many trials it has."""

    counts: dict[TrialState, int]
    """Number of trials in each state."""
    oldest_lease_seconds: float
    """Longest time since a lease was renewed, in seconds by the database's clock; 0 if nothing is leased."""


@dataclass(frozen=True)
class StudyContents:
    """Numbers of what a study stores in the database."""

    trials: int
    artifacts: int
    checkpoints: int
    size: int
    """Size in bytes of the artifacts and checkpoints."""
    leases: int
    """Number of trials that workers train at the moment."""


@dataclass(frozen=True)
class StudyRow:
    """A study of a database, with the aggregates from which an overview is made.

    Attributes:
        study_id: Optuna's id of the study.
        name: Name of the study.
        attributes: Those of the requested attributes that the study has, by key.
        counts: Number of trials in each state.
        best: Highest value of the complete trials, if the study maximizes a single objective; None without one.
        first_start: Time at which the first trial was started, in UTC; None if none was.
        is_trained: Whether one of its leases is valid.
    """

    study_id: int
    name: str
    attributes: dict[str, Any]
    counts: dict[TrialState, int]
    best: float | None
    first_start: datetime | None
    is_trained: bool


@dataclass(frozen=True)
class TrialRef:
    """A trial by its id in the database and its number within the study."""

    trial_id: int
    number: int


@dataclass(frozen=True)
class NewTrial:
    """A trial to be added.

    Attributes:
        params: Hyperparameters by name.
        system_attributes: System attributes by key.
    """

    params: Mapping[str, Any]
    system_attributes: Mapping[str, Any]


@dataclass(frozen=True)
class FinishedTrial:
    """The fields of a finished trial by which configurations are compared."""

    trial_id: int
    number: int
    state: TrialState
    value: float | None
    params: dict[str, Any]
    epochs_to_solve: int | None
    """The trial's attribute of this name. A pruned or failed trial may have it too; see `solved_at`."""

    @property
    def solved_at(self) -> int | None:
        """Epoch at which a complete trial was solved; None for other trials."""
        return self.epochs_to_solve if self.state == TrialState.COMPLETE else None


@dataclass(frozen=True)
class PrunedTrial:
    """A pruned trial, and the pruner's reason."""

    number: int
    epoch: int | None
    reason: str | None


@dataclass(frozen=True)
class RunningTrial:
    """A running trial that a worker leases."""

    number: int
    worker: str
    epoch: int
    epochs_per_second: float
    silent_seconds: float
    """Seconds since its lease was last renewed, by the database's clock."""
    saved_epoch: int
    """Epoch of its last checkpoint; 0 before the first."""
    curve: tuple[float, ...]
    """Validation accuracy at each rung so far; empty beyond the first `DETAILED_TRIALS` trials."""
    params: dict[str, Any]
    """Parameters by name; empty beyond the first `DETAILED_TRIALS` trials."""


@dataclass(frozen=True)
class WaitingTrial:
    """A trial in the queue."""

    trial_id: int
    replicate: int
    shape: str
    was_started: bool


@dataclass
class KnownTrials:
    """The trials of a study that have a shape, as one read of the database found them."""

    finished: dict[int, float | None] = field(default_factory=dict)
    """Values by trial id, in the order in which the trials finished. A failed trial has None."""
    running: list[int] = field(default_factory=list)
    """Trial ids, in the order in which they started."""
    waiting: list[WaitingTrial] = field(default_factory=list)
    """The first waiting trials, in the order of their numbers."""


@dataclass(frozen=True)
class PeerReports:
    """The reports that a pruner compares.

    Attributes:
        finished: States of all finished trials, by trial id.
        last: The last report by epoch, of each finished trial that was not known; empty if it has none.
        at_epochs: Trial id, state, epoch and value of each report at a requested epoch.
    """

    finished: dict[int, TrialState]
    last: dict[int, dict[int, float]]
    at_epochs: list[tuple[int, TrialState, int, float]]


@dataclass(frozen=True)
class StoredArtifacts:
    """The artifacts of some finished trials.

    Attributes:
        trial_ids: Ids of the trials that have artifacts.
        artifact_ids: Ids of the artifacts.
        size: Size in bytes of those that the database stores.
    """

    trial_ids: frozenset[int]
    artifact_ids: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class StoredCheckpoint:
    """A shared checkpoint in the database, without its bytes."""

    trial_id: int
    epoch: int
