"""Brings a worker's trials from their claim to their end: reports, checkpoints, pruning, results."""

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
from miiii_search.trial_queue.requeue import requeue_leases
from miiii_search.trial_queue.results import report
from miiii_search.worker.active_trial import ActiveTrial
from miiii_search.worker.checkpoint_writer import CheckpointWriter
from miiii_search.worker.finalizer import TrialFinalizer
from miiii_search.worker.lane_tuner import LaneTuner
from miiii_search.worker.pruning import PruningEvaluator
from miiii_search.worker.snapshot_writer import SnapshotWriter

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

    def suspend_all(self) -> None:
        """Have all trials that are trained saved and returned to the queue, because the study is paused."""
        for number, trial in self.trials.items():
            if trial.is_training and not trial.suspended:
                trial.suspended = self._trainers.suspend(number)

    def process(self, events: Sequence[RunEvent], lost: set[Lease]) -> None:
        """Apply what the pool has posted, then report, prune and finish trials.

        Args:
            events: What the pool has posted since the last call, oldest first.
            lost: Leases that turned out to be lost. Their trials are dropped.
        """
        for event in events:
            self._apply(event)
        for trial in self.trials.values():
            trial.checkpoints.update()
        unfinished = {n: trial for n, trial in self.trials.items() if trial.finalization is None}
        # The heartbeat thread renews the leases of trials that have nothing to report.
        reporting = {
            n: trial
            for n, trial in unfinished.items()
            if trial.reports.pending or trial.has_ended or trial.lease in lost
        }
        if reporting:
            self._report(reporting)
        if any(trial.reports.undecided for trial in unfinished.values()):
            self._prune()
        for number, trial in list(self.trials.items()):
            self._finish(number, trial)

    def close(self, deadline: float) -> None:
        """Wait for the results that are being written, until the deadline, in seconds of `time.monotonic`."""
        self._finalizer.close(deadline)

    def held_leases(self) -> list[Lease]:
        """Return the leases of the trials that have not been handed over to be written."""
        return [trial.lease for trial in self.trials.values() if trial.finalization is None]

    def _apply(self, event: RunEvent) -> None:
        if isinstance(event, RunsOutOfMemory):
            self._requeue_unfit(event)
            return
        if (trial := self.trials.get(event.run)) is None:
            return
        if isinstance(event, RunSaved):
            self._save(trial, event)
        elif isinstance(event, RunSuspended):
            self._trainers.drop(event.run)
            trial.requeue = True
        else:
            self._counters.lane_epochs += max(event.progress.epoch - trial.history.progress.epoch, 0)
            trial.apply_update(event)
            if self._snapshot_writer is not None and event.weight_snapshot is not None:
                self._snapshot_writer.write(trial.lease.number, event.weight_snapshot)

    def _report(self, reporting: Mapping[int, ActiveTrial]) -> None:
        """Write pending reports, if the database can be reached. Drop the trials whose leases were lost."""
        reports = {trial.lease: dict(trial.reports.pending) for trial in reporting.values() if trial.reports.pending}
        heartbeats = [trial.heartbeat() for trial in reporting.values()]
        seconds = self._study.spec.lease_seconds
        try:
            held = self._retry.attempt(lambda: report(self._study.database, heartbeats, reports, seconds))
        except StorageUnavailableError:
            return
        self._counters.wrote_at = time.monotonic()
        floor = self._study.spec.pruning_floor
        for number, trial in reporting.items():
            if trial.lease in held:
                trial.reports.mark_written(floor)
            else:
                self._drop(number)

    def _prune(self) -> None:
        """Ask the pruner about every trial that has passed a rung at or above the pruning floor."""
        with contextlib.suppress(StorageUnavailableError):  # tried again later
            self._retry.attempt(lambda: self._pruning.evaluate(self.trials.values()))
        for number, trial in self.trials.items():
            if trial.prune_reason is not None and not trial.has_ended:
                self._trainers.stop(number)

    def _finish(self, number: int, trial: ActiveTrial) -> None:
        """Take the next step of a trial that returns to the queue, has ended, or has been written."""
        if trial.requeue and trial.checkpoints.pending is None:
            self._requeue(number)
        elif trial.has_ended and trial.finalization is None and not trial.reports.pending:
            self._trainers.drop(number)
            trial.finalization = self._finalizer.submit(trial)
        elif trial.finalization is not None and trial.finalization.done():
            del self.trials[number]
            if (note := trial.finalization.result()) is not None:
                epoch = trial.history.progress.epoch
                logger.info(note, extra={**self._log_fields, "trial": trial.lease.number, "epoch": epoch})

    def _save(self, trial: ActiveTrial, saved: RunSaved) -> None:
        """Give a checkpoint to the thread that writes them, unless it still writes the last one of this trial."""
        if self._checkpoint_writer is None or trial.has_ended:
            return
        is_last = trial.suspended or self._checkpoint_writer.is_draining
        if trial.checkpoints.pending is not None and not is_last:
            return
        environment = {name: self._attributes[name] for name in ("device", "versions", "numerics")}
        checkpoint = trial.make_checkpoint(saved, environment)
        trial.checkpoints.pending = self._checkpoint_writer.save(trial.heartbeat(), checkpoint, is_last)

    def _requeue_unfit(self, event: RunsOutOfMemory) -> None:
        """Return runs that did not fit into the memory to the queue, once their last states are saved."""
        n_training = sum(trial.is_training for trial in self.trials.values())
        hit = [self.trials[number] for number in event.runs if number in self.trials]
        self._tuner.shrink(event, hit, n_training)
        for number in event.runs:
            self._trainers.drop(number)
        for trial in hit:
            trial.requeue = True

    def _requeue(self, number: int) -> None:
        with contextlib.suppress(StorageUnavailableError):  # tried again later
            lease = self.trials[number].lease
            self._retry.attempt(lambda: requeue_leases(self._study.database, [lease]))
            del self.trials[number]

    def _drop(self, number: int) -> None:
        """Stop training a trial whose lease was lost."""
        self._trainers.drop(number)
        trial = self.trials.pop(number).lease.number
        message = f"Trial {trial} was taken from this worker"
        logger.warning(message, extra={**self._log_fields, "trial": trial})
