"""Messages between trainers and their callers: the commands of the callers, and the events that trainers post."""

from __future__ import annotations

from dataclasses import dataclass

from miiii_search.experiment.record import Floats, Record, WeightSnapshot
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.lane_state import Arrays, RunProgress
from miiii_search.training.lane_stores import PendingRecords


@dataclass(frozen=True)
class RunRequest:
    """A run that a trainer is to train."""

    number: int
    """A number that the caller chooses. All events of the run carry it."""
    experiment: Experiment
    hyperparameters: Hyperparameters
    state: Arrays | None = None
    """The state from which to continue. By default the run starts with its first epoch."""


@dataclass(frozen=True)
class Admit:
    """Train runs, each in a lane of its own."""

    runs: tuple[RunRequest, ...]


@dataclass(frozen=True)
class Stop:
    """End a run at its current epoch. Its last update has a final state."""

    run: int


@dataclass(frozen=True)
class Suspend:
    """Save a run, free its lane and post a `RunSuspended`."""

    run: int


@dataclass(frozen=True)
class Drop:
    """Free the lane of a run and forget it."""

    run: int


@dataclass(frozen=True)
class Close:
    """End the trainer after the current chunk."""


TrainerCommand = Admit | Stop | Suspend | Drop | Close
"""A command of a trainer's caller. Commands about runs that have ended are ignored."""


@dataclass(frozen=True)
class FinalState:
    """The end of a run. Both fields are empty if its loss became infinite or NaN."""

    final_metrics: dict[str, Floats]
    """See `Lanes.final_metrics`."""
    weights: Arrays


@dataclass(frozen=True)
class RunUpdate:
    """The progress of one run in one chunk."""

    run: int
    progress: RunProgress
    epochs_per_second: float
    final_state: FinalState | None
    """The end of a run that has ended or was stopped. No other event of the run follows."""
    weight_snapshot: WeightSnapshot | None
    _records: PendingRecords
    _lane: int

    def record(self) -> Record:
        """Return what was recorded. Wait until it is on the host; the device computes the next chunk meanwhile."""
        return self._records.record(self._lane)


@dataclass(frozen=True)
class RunSaved:
    """The complete state of one run at one epoch. All updates up to this epoch were posted before."""

    run: int
    epoch: int
    state: Arrays


@dataclass(frozen=True)
class RunSuspended:
    """A run that has left its lane because the caller suspended it.

    If it had begun and the trainer saves runs, its state was posted before as `RunSaved`.
    """

    run: int


@dataclass(frozen=True)
class RunsOutOfMemory:
    """Runs that do not fit into the memory of the device. No other event of them follows.

    The states that could still be read were posted before as `RunSaved`.
    """

    runs: tuple[int, ...]
    bytes_per_lane: int | None
    """Bytes that one of the runs needs during training, or None if the compiler does not tell."""
    reason: str
    """The first line of the device's error message."""


TrainerEvent = RunUpdate | RunSaved | RunSuspended | RunsOutOfMemory | BaseException
"""An event that a trainer posts. An exception is the error that ended the trainer."""


@dataclass(frozen=True)
class ChunkTiming:
    """The time at which a chunk was computed, in seconds of `time.monotonic`."""

    start: float
    end: float
    lanes: int
    """Number of lanes in the chunk."""
