"""Turns messages into events in the lives of a worker's trials, and carries out what follows from them.

What follows is decided in `trial_life`; here it is done.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from miiii_search.errors import StorageUnavailableError
from miiii_search.metrics.prometheus import WorkerCounters
from miiii_search.storage.retry import DatabaseRetry
from miiii_search.study.study import Study
from miiii_search.training.trainer_messages import RunSaved, RunsOutOfMemory, RunSuspended, RunUpdate
from miiii_search.training.trainer_pool import TrainerPool
from miiii_search.trial_queue.leases import Lease
from miiii_search.worker.active_trial import ActiveTrial
from miiii_search.worker.checkpoint_writer import CheckpointWriter
from miiii_search.worker.finalizer import TrialFinalizer
from miiii_search.worker.lane_tuner import LaneTuner
from miiii_search.worker.life_events import (
    CheckpointWritten,
    Event,
    LaneFreed,
    LeaseLost,
    LeaseMissed,
    PrunerDecided,
    RanOutOfMemory,
    ReportsWritten,
    ResultRefused,
    ResultWritten,
    Returned,
    StateReceived,
    SuspensionBegun,
    Trained,
    TrainingEnded,
)
from miiii_search.worker.pruning import PruningEvaluator
from miiii_search.worker.snapshot_writer import SnapshotWriter
from miiii_search.worker.trial_life import FINAL, Action, Duty, Phase, transition

logger = logging.getLogger(__name__)

RunEvent = RunUpdate | RunSaved | RunSuspended | RunsOutOfMemory
"""An event that a trainer pool posts about one or more runs."""


class TrialManager:
    """The active trials of one worker. For use by the worker's main thread.

    Args:
        study: The study.
        trainers: The pool that trains the trials.
        tuner: Lowers the number of lanes when the memory is too small.
        retry: Retries for the database.
        checkpoint_writer: Writes checkpoints; None if the worker keeps none.
        snapshot_writer: Writes snapshots of the weights; None if the worker keeps none.
        counters: Counters of the worker's metrics.
        attributes: Attributes that each trial gets: the worker's name, its device, versions and the like.
    """

    def __init__(
        self,
        study: Study,
        trainers: TrainerPool,
        tuner: LaneTuner,
        retry: DatabaseRetry,
        *,
        checkpoint_writer: CheckpointWriter | None,
        snapshot_writer: SnapshotWriter | None,
        counters: WorkerCounters,
        attributes: Mapping[str, Any],
    ) -> None:
        self._study = study
        self._trainers = trainers
        self._tuner = tuner
        self._retry = retry
        self._checkpoint_writer = checkpoint_writer
        self._snapshot_writer = snapshot_writer
        self._counters = counters
        self._attributes = attributes
        self._log_fields = {"study": study.name, "worker": attributes["worker"]}
        self._pruning = PruningEvaluator(study)
        self._finalizer = TrialFinalizer(study, attributes, checkpoint_writer)
        self.trials: dict[int, ActiveTrial] = {}
        """Active trials by the number of their run in the pool. A trial may return to the worker that lost it."""

    def add(self, claimed: Mapping[int, ActiveTrial]) -> None:
        """Take care of trials that were claimed, by the number of their run in the pool."""
        for number, trial in claimed.items():
            self.trials[number] = trial
            self._tell(number, Trained(has_reports=bool(trial.reports.pending)))  # those of its checkpoint

    def tell_all(self, event: Event) -> None:
        """Apply an event to every trial."""
        for number in list(self.trials):
            self._tell(number, event)

    def process(self, messages: Sequence[RunEvent], missed: set[Lease]) -> None:
        """Apply what the pool has posted, then do what the worker owes its trials.

        Args:
            messages: What the pool has posted since the last call, oldest first.
            missed: Leases that the heartbeat thread did not find.
        """
        for message in messages:
            self._receive(message)
        for number, trial in list(self.trials.items()):
            self._read_answers(number, trial)
            if trial.lease in missed:
                self._tell(number, LeaseMissed())
        self._suspend_runs()
        self._write_reports()
        self._ask_pruner()
        self._return_to_queue()

    def close(self, deadline: float) -> None:
        """Wait for the results that are being written, until the deadline, in seconds of `time.monotonic`."""
        self._finalizer.close(deadline)
        for number, trial in list(self.trials.items()):
            self._read_answers(number, trial)

    def held_leases(self) -> list[Lease]:
        """Return the leases of the trials that are to return to the queue."""
        return [trial.lease for trial in self._owing(Duty.RETURN_TO_QUEUE).values()]

    def _tell(self, number: int, event: Event) -> tuple[Action, ...]:
        """Apply an event to a trial, and do what follows. Return it. Unknown trials are ignored."""
        if (trial := self.trials.get(number)) is None:
            return ()
        trial.life, actions = transition(trial.life, event)
        for action in actions:
            if action == Action.STOP_RUN:
                self._trainers.stop(number)
            elif action == Action.DROP_RUN:
                self._tuner.withdraw(number)
                self._trainers.drop(number)
            elif action == Action.WRITE_RESULT:
                trial.result = self._finalizer.submit(trial)
        if trial.life.phase in FINAL:
            del self.trials[number]
            self._log_end(trial, event)
        return actions

    def _log_end(self, trial: ActiveTrial, event: Event) -> None:
        fields = {**self._log_fields, "trial": trial.lease.number, "epoch": trial.history.progress.epoch}
        if isinstance(event, ResultWritten | ResultRefused):
            logger.info(event.note, extra=fields)
        elif trial.life.phase == Phase.LOST:
            logger.warning(f"Trial {trial.lease.number} was taken from this worker", extra=fields)

    def _owing(self, duty: Duty) -> dict[int, ActiveTrial]:
        """Return the trials to which the worker owes something, by the numbers of their runs."""
        return {number: trial for number, trial in self.trials.items() if duty in trial.life.duties}

    def _receive(self, message: RunEvent) -> None:
        """Turn a message of the pool into an event."""
        if isinstance(message, RunsOutOfMemory):
            self._leave_memory(message)
        elif (trial := self.trials.get(message.run)) is None:
            return
        elif isinstance(message, RunSaved):
            self._save(message.run, trial, message)
        elif isinstance(message, RunSuspended):
            self._tell(message.run, LaneFreed())
        elif trial.is_training:
            self._update(message.run, trial, message)

    def _update(self, number: int, trial: ActiveTrial, update: RunUpdate) -> None:
        self._counters.lane_epochs += max(update.progress.epoch - trial.history.progress.epoch, 0)
        trial.apply_update(update)
        if self._snapshot_writer is not None and update.weight_snapshot is not None:
            self._snapshot_writer.write(trial.lease.number, update.weight_snapshot)
        if trial.has_ended:
            self._tell(number, TrainingEnded(by_itself=update.progress.ended))
        else:
            self._tell(number, Trained(has_reports=bool(trial.reports.pending)))

    def _save(self, number: int, trial: ActiveTrial, saved: RunSaved) -> None:
        """Give a checkpoint to the thread that writes them, if the trial is to have one."""
        if self._checkpoint_writer is None or Action.WRITE_CHECKPOINT not in self._tell(number, StateReceived()):
            return
        environment = {name: self._attributes[name] for name in ("device", "versions", "numerics")}
        is_last = trial.life.phase == Phase.SUSPENDING
        written = self._checkpoint_writer.save(trial.heartbeat(), trial.make_checkpoint(saved, environment), is_last)
        trial.checkpoints.pending.append(written)

    def _leave_memory(self, message: RunsOutOfMemory) -> None:
        """Lower the number of lanes, and return the runs that did not fit to the queue."""
        n_training = sum(trial.is_training for trial in self.trials.values())
        hit = [self.trials[number] for number in message.runs if number in self.trials]
        self._tuner.shrink(message, hit, n_training)
        for number in message.runs:
            self._tell(number, RanOutOfMemory())

    def _read_answers(self, number: int, trial: ActiveTrial) -> None:
        """Turn what the writing threads have done for a trial into events."""
        for _ in range(trial.checkpoints.take_written()):
            self._tell(number, CheckpointWritten())
        if trial.result is not None and trial.result.done():
            self._tell(number, trial.result.result())

    def _suspend_runs(self) -> None:
        for number in self._owing(Duty.SUSPEND_RUN):
            if self._trainers.suspend(number):
                self._tell(number, SuspensionBegun())

    def _write_reports(self) -> None:
        """Write pending reports, if the database can be reached. The heartbeat thread renews all other leases."""
        if not (owing := self._owing(Duty.WRITE_REPORTS)):
            return
        reports = {trial.lease: dict(trial.reports.pending) for trial in owing.values() if trial.reports.pending}
        heartbeats = [trial.heartbeat() for trial in owing.values()]
        seconds = self._study.spec.lease_seconds
        try:
            held = self._retry.attempt(lambda: self._study.queue.report(heartbeats, reports, seconds))
        except StorageUnavailableError:
            return
        self._counters.wrote_at = time.monotonic()
        for number, trial in owing.items():
            if trial.lease in held:
                trial.reports.mark_written(self._study.spec.pruning_floor)
                self._tell(number, ReportsWritten(has_rungs=bool(trial.reports.undecided)))
            else:
                self._tell(number, LeaseLost())

    def _ask_pruner(self) -> None:
        if owing := self._owing(Duty.ASK_PRUNER):
            trials = list(owing.values())
            with contextlib.suppress(StorageUnavailableError):  # tried again at the next turn
                reasons = self._retry.attempt(lambda: self._pruning.evaluate(trials))
                for number, reason in zip(owing, reasons, strict=True):
                    self._tell(number, PrunerDecided(reason))

    def _return_to_queue(self) -> None:
        if owing := self._owing(Duty.RETURN_TO_QUEUE):
            with contextlib.suppress(StorageUnavailableError):  # tried again at the next turn
                self._retry.attempt(lambda: self._study.queue.requeue(self.held_leases()))
                for number in owing:
                    self._tell(number, Returned())
