"""A trial that a worker trains: what was trained so far, and which part of that is not written yet."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from miiii_search.experiment.metrics import mean_accuracy
from miiii_search.experiment.record import Floats, Record
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.study.objective import objective
from miiii_search.training.checkpoint import Checkpoint
from miiii_search.training.lane_state import RunProgress
from miiii_search.training.trainer_messages import FinalState, RunSaved, RunUpdate
from miiii_search.trial_queue.leases import Heartbeat, Lease
from miiii_search.worker.life_events import ResultEvent
from miiii_search.worker.trial_life import IN_LANE, TrialLife


@dataclass
class TrainingHistory:
    """Everything that training a trial has produced so far, on this worker and on earlier ones."""

    origin: Mapping[str, Any] = field(default_factory=dict)
    """Provenance of the checkpoint from which the trial was resumed; empty if it started at epoch 0."""
    started_at: float = field(default_factory=time.monotonic)
    """Start of training on this worker, in seconds of `time.monotonic`."""
    progress: RunProgress = field(default_factory=lambda: RunProgress(0, None, None, ended=False))
    epochs_per_second: float = 0.0
    spectra: dict[int, Floats] = field(default_factory=dict)
    """Spectra of the weights by epoch. The weights themselves are not kept: a full worker would hold gigabytes."""
    final_state: FinalState | None = None
    """Final metrics and weights, once training has ended."""
    _records: list[Record] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Time since training started, in seconds, including the time on earlier workers."""
        return round(float(self.origin.get("seconds", 0.0)) + time.monotonic() - self.started_at, 3)

    def add_record(self, record: Record) -> None:
        """Append new evaluations."""
        self._records.append(record)

    def record(self) -> Record:
        """Return all evaluations so far; there must be at least one."""
        self._records = [Record.concatenate(self._records)]
        return self._records[0]

    def earlier_workers(self) -> list[Any]:
        """Return where the trial was trained before, oldest first: device, versions and the epoch reached there."""
        if not self.origin:
            return []
        last = {key: value for key, value in self.origin.items() if key not in ("resumed", "seconds")}
        return [*self.origin.get("resumed", []), last]


@dataclass
class RungReports:
    """Validation accuracies at rungs, on their way into the database and from there to the pruner."""

    upcoming_rungs: list[int]
    """Rungs (epochs) that training has not reached yet, in ascending order."""
    pending: dict[int, float] = field(default_factory=dict)
    """Mean validation accuracy by epoch, not written to the database yet."""
    undecided: list[int] = field(default_factory=list)
    """Rungs that were written, and for which the pruner has not been asked yet."""

    def add(self, experiment: Experiment, record: Record, *, is_last: bool) -> None:
        """Add the accuracies at the rungs that new evaluations have passed.

        Args:
            experiment: The experiment, which defines the tasks over which accuracies are averaged.
            record: The new evaluations.
            is_last: Whether training has ended. The last evaluation is reported then, too.
        """
        for epoch, accuracy in zip(record.epoch, record.validation_accuracy, strict=True):
            if self.upcoming_rungs and epoch >= self.upcoming_rungs[0]:
                self.upcoming_rungs.pop(0)
                self.pending[int(epoch)] = mean_accuracy(experiment, accuracy)
        if is_last and len(record):
            self.pending[int(record.epoch[-1])] = mean_accuracy(experiment, record.validation_accuracy[-1])

    def mark_written(self, pruning_floor: int) -> None:
        """Move the pending reports to the pruner, from the epoch `pruning_floor` on."""
        self.undecided += [epoch for epoch in self.pending if epoch >= pruning_floor]
        self.pending = {}


@dataclass
class CheckpointState:
    """Checkpoints of one trial: the last one that was saved, and those that are being written."""

    saved_epoch: int = 0
    """Epoch of the last saved checkpoint; 0 if there is none."""
    pending: list[Future[int | None]] = field(default_factory=list)
    """Checkpoints that are being written, oldest first. The result of each is its epoch, or None if the disk did not
    accept it."""

    def take_written(self) -> int:
        """Record the epochs of the checkpoints that were written since the last call, and return their number."""
        written = [future for future in self.pending if future.done()]
        self.pending = [future for future in self.pending if future not in written]
        for future in written:
            self.saved_epoch = future.result() or self.saved_epoch
        return len(written)


@dataclass
class ActiveTrial:
    """A trial that is being trained, or that has ended and is being written."""

    lease: Lease
    experiment: Experiment
    hyperparameters: Hyperparameters
    reports: RungReports
    lanes_at_claim: int = 1
    """Number of lanes that the worker had when it claimed the trial."""
    retries: int = 0
    """Number of earlier attempts that ended with a loss that was not finite."""
    history: TrainingHistory = field(default_factory=TrainingHistory)
    checkpoints: CheckpointState = field(default_factory=CheckpointState)
    life: TrialLife = field(default_factory=TrialLife)
    """Phase of the trial in this worker, and what the worker owes it. Only `TrialManager` changes it."""
    result: Future[ResultEvent] | None = None
    """The answer of the thread that writes the result, once it was told to."""

    @property
    def has_ended(self) -> bool:
        """Whether training has ended, by itself or because the trial was pruned."""
        return self.history.final_state is not None

    @property
    def is_training(self) -> bool:
        """Whether the trial occupies a lane, or is about to."""
        return self.life.phase in IN_LANE

    @property
    def prune_reason(self) -> str | None:
        """Reason for which the trial is pruned; None while it is not."""
        return self.life.prune_reason

    @property
    def value(self) -> float | None:
        """The value that the trial gets in the study; None while it is trained, or if its loss was not finite.

        This is the objective. For a pruned trial, it is that of the last evaluation.
        """
        if not self.has_ended or self.history.progress.failed_epoch is not None:
            return None
        accuracy = mean_accuracy(self.experiment, self.history.record().validation_accuracy[-1])
        return objective(self.experiment, accuracy, self.history.progress.solved_epoch)

    def heartbeat(self) -> Heartbeat:
        """Return the progress with which the lease is renewed."""
        history = self.history
        return Heartbeat(self.lease, history.progress.epoch, history.epochs_per_second, self.checkpoints.saved_epoch)

    def apply_update(self, update: RunUpdate) -> None:
        """Add what the trainer pool has trained."""
        history = self.history
        history.progress, history.final_state = update.progress, update.final_state
        history.epochs_per_second = update.epochs_per_second
        if update.weight_snapshot is not None:
            history.spectra[update.weight_snapshot.epoch] = update.weight_snapshot.spectrum
        self._add_record(update.record())

    def resume(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint.

        Its evaluations are reported again: the worker that saved it may have stopped before it reported them.
        """
        self.history.origin = checkpoint.origin
        self.history.spectra = dict(checkpoint.spectra)
        self.history.progress = RunProgress(checkpoint.epoch, None, None, ended=False)
        self._add_record(checkpoint.record)

    def make_checkpoint(self, saved: RunSaved, environment: Mapping[str, Any]) -> Checkpoint:
        """Return a checkpoint of the trial.

        Args:
            saved: The state of the run, as the trainer pool saved it.
            environment: Device, versions and numerics of this worker. The next worker of the trial records them.
        """
        history = self.history
        origin = {
            "epoch": saved.epoch,
            **environment,
            "seconds": history.seconds,
            "resumed": history.earlier_workers(),
        }
        return Checkpoint(
            self.experiment,
            self.hyperparameters,
            saved.epoch,
            saved.state,
            history.record(),
            dict(history.spectra),
            origin,
        )

    def _add_record(self, record: Record) -> None:
        self.history.add_record(record)
        self.reports.add(self.experiment, record, is_last=self.has_ended)
