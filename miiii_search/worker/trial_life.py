"""The life of a trial in a worker: its phases, and the rules by which it goes from one to the next.

`transition` holds all of these rules and does nothing else. It touches no database, thread or clock, so it can be
tested with any order of events. The worker's `TrialManager` turns messages into events and carries out what follows.
The replay in `simulation` does the same with recorded runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from miiii_search.worker.life_events import (
    CheckpointWritten,
    Event,
    LaneFreed,
    LeaseLost,
    LeaseMissed,
    NotWritten,
    PrunerDecided,
    RanOutOfMemory,
    ReportsWritten,
    ResultRefused,
    ResultWritten,
    Returned,
    StateReceived,
    StudyPaused,
    SuspensionBegun,
    Trained,
    TrainersClosed,
    TrainingEnded,
    WorkerStopping,
)


class Phase(Enum):
    """Phase of a trial in a worker. The last four are final: the worker is done with the trial."""

    TRAINING = "training"
    """The run has a lane, or is about to get one."""
    STOPPING = "stopping"
    """The trial is pruned. The trainer was told to end the run."""
    SUSPENDING = "suspending"
    """The study is paused, or the worker stops. The run is being saved before it leaves its lane."""
    SAVING = "saving"
    """The run left its lane before its end. Its last checkpoint is being written."""
    REQUEUING = "requeuing"
    """The run left its lane before its end, and its checkpoints are written. The trial returns to the queue."""
    REPORTING = "reporting"
    """Training has ended. The last reports are being written."""
    FINALIZING = "finalizing"
    """All reports are written. The result is being written."""
    DONE = "done"
    """The result is written."""
    REQUEUED = "requeued"
    """The trial is in the queue again."""
    LOST = "lost"
    """The lease was lost. The trial belongs to another worker, or to nobody, and this worker must not write."""
    ABANDONED = "abandoned"
    """The worker had to end before the database answered. The trial returns to the queue when its lease runs out."""


IN_LANE = frozenset({Phase.TRAINING, Phase.STOPPING, Phase.SUSPENDING})
"""Phases in which the run occupies a lane."""
FINAL = frozenset({Phase.DONE, Phase.REQUEUED, Phase.LOST, Phase.ABANDONED})
"""Phases that a trial never leaves."""


class Duty(Enum):
    """Something that the worker tries again at every turn, until an event answers it."""

    SUSPEND_RUN = "suspend the run"
    """Have the trainer save the run and free its lane. A run that still waits for its trainer cannot be suspended."""
    WRITE_REPORTS = "write the reports"
    """Renew the lease, and write the validation accuracies that are not in the database yet."""
    ASK_PRUNER = "ask the pruner"
    """Ask the pruner about the rungs that were written."""
    RETURN_TO_QUEUE = "return the trial to the queue"
    """Set the trial WAITING and end the lease."""


DUTIES_IN = {
    Phase.TRAINING: frozenset({Duty.WRITE_REPORTS, Duty.ASK_PRUNER}),
    Phase.STOPPING: frozenset({Duty.WRITE_REPORTS}),
    Phase.SUSPENDING: frozenset({Duty.SUSPEND_RUN, Duty.WRITE_REPORTS}),
    Phase.SAVING: frozenset({Duty.WRITE_REPORTS}),
    Phase.REQUEUING: frozenset({Duty.WRITE_REPORTS, Duty.RETURN_TO_QUEUE}),
    Phase.REPORTING: frozenset({Duty.WRITE_REPORTS}),
}
"""The duties that a phase may have. All others end with the phase before it."""


class Action(Enum):
    """Something that the worker does once, right after a transition."""

    STOP_RUN = "stop the run"
    """Have the trainer end the run at its current epoch. It answers with the run's final state."""
    DROP_RUN = "drop the run"
    """Have the trainer free the lane and forget the run."""
    WRITE_CHECKPOINT = "write a checkpoint"
    """Give the state that the trainer has just posted to the thread that writes checkpoints."""
    WRITE_RESULT = "write the result"
    """Give the trial to the thread that writes results."""


@dataclass(frozen=True)
class TrialLife:
    """The state of a trial in a worker. It is immutable; `transition` returns the next one."""

    phase: Phase = Phase.TRAINING
    duties: frozenset[Duty] = frozenset()
    """Work that the worker owes. It tries at every turn, until an event answers it."""
    saving: int = 0
    """Number of checkpoints that are being written."""
    prune_reason: str | None = None
    """Reason for which the trial is pruned; None while it is not."""


Step = tuple[TrialLife, tuple[Action, ...]]
"""The next state of a trial, and what the worker then does, in this order."""


def transition(life: TrialLife, event: Event) -> Step:
    """Return what an event makes of a trial. This function is pure and accepts events in any order.

    An event that does not concern a trial in its phase changes nothing. Such events arrive when two things happen at
    once: for example, a run ends while the study is being paused.

    Args:
        life: The state of the trial.
        event: What happened.

    Returns:
        The next state of the trial, and what the worker does once. The duties in the state are tried at every turn.
    """
    if life.phase in FINAL:
        return life, ()
    return _RULES[type(event)](life, event)


def _enter(life: TrialLife, phase: Phase, *duties: Duty) -> TrialLife:
    """Return the state in another phase, with further duties, without those that the phase does not have."""
    return replace(life, phase=phase, duties=(life.duties | set(duties)) & DUTIES_IN.get(phase, frozenset()))


def _owe(life: TrialLife, duty: Duty) -> TrialLife:
    return _enter(life, life.phase, duty)


def _answered(life: TrialLife, duty: Duty) -> TrialLife:
    return replace(life, duties=life.duties - {duty})


def _leave_lane(life: TrialLife) -> TrialLife:
    if life.saving:
        return _enter(life, Phase.SAVING)
    return _enter(life, Phase.REQUEUING, Duty.RETURN_TO_QUEUE)


def _on_trained(life: TrialLife, event: Trained) -> Step:
    if life.phase not in IN_LANE:
        return life, ()
    if event.has_reports:
        life = _owe(life, Duty.WRITE_REPORTS)
    # The trainer forgets what it was told about a run that it had not started yet.
    return life, (Action.STOP_RUN,) if life.phase == Phase.STOPPING else ()


def _on_training_ended(life: TrialLife, event: TrainingEnded) -> Step:
    if life.phase not in IN_LANE:
        return life, ()
    # A run that ends by itself before it could be pruned has its own result.
    life = replace(life, prune_reason=None if event.by_itself else life.prune_reason)
    # Reports are written even if there are none: it is the last look at the lease before the result is made.
    return _enter(life, Phase.REPORTING, Duty.WRITE_REPORTS), (Action.DROP_RUN,)


def _on_state_received(life: TrialLife, _: StateReceived) -> Step:
    # A disk that is slower than the trainer gets every second state or fewer, except for the last one.
    if life.phase not in IN_LANE or (life.saving and life.phase != Phase.SUSPENDING):
        return life, ()
    return replace(life, saving=life.saving + 1), (Action.WRITE_CHECKPOINT,)


def _on_suspension_begun(life: TrialLife, _: SuspensionBegun) -> Step:
    return _answered(life, Duty.SUSPEND_RUN), ()


def _on_lane_freed(life: TrialLife, _: LaneFreed | RanOutOfMemory) -> Step:
    if life.phase not in IN_LANE:
        return life, ()
    return _leave_lane(life), (Action.DROP_RUN,)


def _on_reports_written(life: TrialLife, event: ReportsWritten) -> Step:
    life = _answered(life, Duty.WRITE_REPORTS)
    if life.phase == Phase.REPORTING:
        return _enter(life, Phase.FINALIZING), (Action.WRITE_RESULT,)
    return (_owe(life, Duty.ASK_PRUNER) if event.has_rungs else life), ()


def _on_pruner_decided(life: TrialLife, event: PrunerDecided) -> Step:
    life = _answered(life, Duty.ASK_PRUNER)
    if life.phase != Phase.TRAINING or event.reason is None:
        return life, ()
    return _enter(replace(life, prune_reason=event.reason), Phase.STOPPING), (Action.STOP_RUN,)


def _on_lease_missed(life: TrialLife, _: LeaseMissed) -> Step:
    return _owe(life, Duty.WRITE_REPORTS), ()  # it renews the lease, and so finds out


def _on_lease_lost(life: TrialLife, _: LeaseLost) -> Step:
    return _enter(life, Phase.LOST), (Action.DROP_RUN,)


def _on_checkpoint_written(life: TrialLife, _: CheckpointWritten) -> Step:
    life = replace(life, saving=max(life.saving - 1, 0))
    return (_leave_lane(life) if life.phase == Phase.SAVING else life), ()


def _on_result_written(life: TrialLife, _: ResultWritten) -> Step:
    return (_enter(life, Phase.DONE) if life.phase == Phase.FINALIZING else life), ()


def _on_result_refused(life: TrialLife, _: ResultRefused) -> Step:
    return (_enter(life, Phase.REQUEUED) if life.phase == Phase.FINALIZING else life), ()


def _on_returned(life: TrialLife, _: Returned) -> Step:
    return (_enter(life, Phase.REQUEUED) if life.phase == Phase.REQUEUING else life), ()


def _on_not_written(life: TrialLife, _: NotWritten) -> Step:
    waits = life.phase in (Phase.FINALIZING, Phase.REQUEUING)
    return (_enter(life, Phase.ABANDONED) if waits else life), ()


def _on_study_paused(life: TrialLife, _: StudyPaused) -> Step:
    if life.phase not in (Phase.TRAINING, Phase.STOPPING):
        return life, ()
    return _enter(life, Phase.SUSPENDING, Duty.SUSPEND_RUN), ()


def _on_worker_stopping(life: TrialLife, _: WorkerStopping) -> Step:
    return (_enter(life, Phase.SUSPENDING) if life.phase in (Phase.TRAINING, Phase.STOPPING) else life), ()


def _on_trainers_closed(life: TrialLife, _: TrainersClosed) -> Step:
    if life.phase == Phase.FINALIZING:  # its thread writes the result, or the lease runs out
        return life, ()
    return _enter(life, Phase.REQUEUING, Duty.RETURN_TO_QUEUE), ()


_RULES: dict[type[Any], Callable[[TrialLife, Any], Step]] = {
    Trained: _on_trained,
    TrainingEnded: _on_training_ended,
    StateReceived: _on_state_received,
    SuspensionBegun: _on_suspension_begun,
    LaneFreed: _on_lane_freed,
    RanOutOfMemory: _on_lane_freed,
    ReportsWritten: _on_reports_written,
    PrunerDecided: _on_pruner_decided,
    LeaseMissed: _on_lease_missed,
    LeaseLost: _on_lease_lost,
    CheckpointWritten: _on_checkpoint_written,
    ResultWritten: _on_result_written,
    ResultRefused: _on_result_refused,
    Returned: _on_returned,
    NotWritten: _on_not_written,
    StudyPaused: _on_study_paused,
    WorkerStopping: _on_worker_stopping,
    TrainersClosed: _on_trainers_closed,
}
