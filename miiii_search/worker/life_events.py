"""Events in the life of a trial: what the trainer posts, what the database answers, and what users ask for."""

from __future__ import annotations

from dataclasses import dataclass

# --- events: from the trainer ---


@dataclass(frozen=True)
class Trained:
    """The trainer has trained the run further, or the worker has resumed it from a checkpoint."""

    has_reports: bool
    """Whether there are reports that are not in the database yet."""


@dataclass(frozen=True)
class TrainingEnded:
    """The trainer has ended the run, and freed its lane."""

    by_itself: bool
    """Whether the run ended by itself, and not because it was stopped."""


@dataclass(frozen=True)
class StateReceived:
    """The trainer has posted the run's complete state, from which a checkpoint can be made."""


@dataclass(frozen=True)
class SuspensionBegun:
    """The trainer has been told to suspend the run. It will answer with `LaneFreed` or `TrainingEnded`."""


@dataclass(frozen=True)
class LaneFreed:
    """The run has left its lane, because it was suspended."""


@dataclass(frozen=True)
class RanOutOfMemory:
    """The run has left its lane, because it did not fit into the memory."""


# --- events: from the database, and from the threads that write ---


@dataclass(frozen=True)
class ReportsWritten:
    """All reports so far are in the database, and the lease is still held."""

    has_rungs: bool
    """Whether the pruner is to be asked about any of them."""


@dataclass(frozen=True)
class PrunerDecided:
    """The pruner has decided about all rungs that were written."""

    reason: str | None
    """Reason for which the trial is pruned; None if it continues."""


@dataclass(frozen=True)
class LeaseMissed:
    """The thread that renews leases did not find this one. A write must confirm that it was lost."""


@dataclass(frozen=True)
class LeaseLost:
    """A write has found that the lease was lost, and has written nothing."""


@dataclass(frozen=True)
class CheckpointWritten:
    """A checkpoint is written, or was refused by the disk."""


@dataclass(frozen=True)
class ResultWritten:
    """The result is in the database."""

    note: str
    """One sentence on how the trial ended."""


@dataclass(frozen=True)
class ResultRefused:
    """The trial returned to the queue instead of ending: it is repeated, or the budget of solved trials is spent."""

    note: str
    """One sentence that says why."""


@dataclass(frozen=True)
class Returned:
    """The trial is in the queue again."""


@dataclass(frozen=True)
class NotWritten:
    """The worker had to end before the database answered."""


# --- events: from the user and the coordinator ---


@dataclass(frozen=True)
class StudyPaused:
    """The study is paused."""


@dataclass(frozen=True)
class WorkerStopping:
    """The worker stops. The trainers are about to save all runs and to end."""


@dataclass(frozen=True)
class TrainersClosed:
    """The worker stops. The trainers have ended, and the last checkpoints and results are written."""


ResultEvent = ResultWritten | ResultRefused | LeaseLost | NotWritten
"""An answer of the thread that writes results."""

Event = (
    Trained
    | TrainingEnded
    | StateReceived
    | SuspensionBegun
    | LaneFreed
    | RanOutOfMemory
    | ReportsWritten
    | PrunerDecided
    | LeaseMissed
    | LeaseLost
    | CheckpointWritten
    | ResultWritten
    | ResultRefused
    | Returned
    | NotWritten
    | StudyPaused
    | WorkerStopping
    | TrainersClosed
)
"""An event in the life of a trial."""
