"""A trial in one of a worker's lanes: what was trained of it, and what of that is not written yet."""

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


@dataclass
class ActiveTrial:
    """A trial that is trained, or that has ended and is being written."""

    lease: Lease
    experiment: Experiment
    hyperparameters: Hyperparameters
    rungs: list[int]
    """Still ahead."""
    beside: int = 1
    """How many lanes its worker had when it was claimed."""
    retries: int = 0
    """How often the trial went wrong before."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Of the checkpoint that it goes on from."""
    started: float = field(default_factory=time.monotonic)
    records: list[Record] = field(default_factory=list)
    spectra: dict[int, Floats] = field(default_factory=dict)
    """By epoch. Not the weights beside them: of a full worker those are gigabytes."""
    progress: RunProgress = field(default_factory=lambda: RunProgress(0, None, None, ended=False))
    epochs_per_second: float = 0.0
    reports: dict[int, float] = field(default_factory=dict)
    """At rungs (epoch → accuracy), not written yet."""
    undecided: list[int] = field(default_factory=list)
    """Rungs that were written, and about which the rule was not asked yet."""
    saved_epoch: int = 0
    saving: Future[int | None] | None = None
    pruned: str | None = None
    """Why the trial is given up."""
    suspended: bool = False
    """The pool was told to save it and to free its lane, since the study is paused."""
    given_up: bool = False
    """It was suspended, or did not fit into the memory, and goes back to the queue."""
    end: FinalState | None = None
    written: Future[str | None] | None = None
    """The note of the trial's end, or None if its lease was lost."""

    @property
    def trains(self) -> bool:
        """Whether it takes a lane."""
        return self.end is None and not self.given_up

    @property
    def value(self) -> float | None:
        """What its trial is told, or will be: the objective, or the last accuracy if it was given up; None while it is
        trained, or if its loss was not finite."""
        if self.end is None or self.progress.failed_epoch is not None:
            return None
        accuracy = mean_accuracy(self.experiment, self.record().validation_accuracy[-1])
        return objective(self.experiment, accuracy, self.progress.solved_epoch)

    def heartbeat(self) -> Heartbeat:
        """What the lease is renewed with."""
        return Heartbeat(self.lease, self.progress.epoch, self.epochs_per_second, self.saved_epoch)

    @property
    def seconds(self) -> float:
        """In training, on all workers."""
        return round(float(self.origin.get("seconds", 0.0)) + time.monotonic() - self.started, 3)

    def resumed(self) -> list[Any]:
        """Where the trial was trained before, oldest first: device, versions and the epoch reached there."""
        if not self.origin:
            return []
        last = {key: value for key, value in self.origin.items() if key not in ("resumed", "seconds")}
        return [*self.origin.get("resumed", []), last]

    def record(self) -> Record:
        """All of its evaluations so far, of one at least."""
        self.records = [Record.concatenate(self.records)]
        return self.records[0]

    def checkpoint(self, saved: RunSaved, where: Mapping[str, Any]) -> Checkpoint:
        """All that the trial is, as the pool saved it; `where` it was trained is told to whoever resumes it."""
        return Checkpoint(
            self.experiment,
            self.hyperparameters,
            saved.epoch,
            saved.state,
            self.record(),
            dict(self.spectra),
            {"epoch": saved.epoch, **where, "seconds": self.seconds, "resumed": self.resumed()},
        )

    def resume(self, checkpoint: Checkpoint) -> None:
        """Goes on from a checkpoint."""
        self.origin = checkpoint.origin
        self.spectra = dict(checkpoint.spectra)
        self.progress = RunProgress(checkpoint.epoch, None, None, ended=False)
        # Again: the worker that saved it may have died before it reported them.
        self._record(checkpoint.record)

    def take(self, update: RunUpdate) -> None:
        """Takes what was trained."""
        self.progress, self.end, self.epochs_per_second = update.progress, update.final_state, update.epochs_per_second
        if update.weight_snapshot is not None:
            self.spectra[update.weight_snapshot.epoch] = update.weight_snapshot.spectrum
        if self.progress.ended:  # by itself, before it could be given up
            self.pruned = None
        self._record(update.record())

    def _record(self, record: Record) -> None:
        self.records.append(record)
        for epoch, accuracy in zip(record.epoch, record.validation_accuracy, strict=True):
            if self.rungs and epoch >= self.rungs[0]:
                self.rungs.pop(0)
                self.reports[int(epoch)] = mean_accuracy(self.experiment, accuracy)
        if self.end is not None and len(record):
            self.reports[int(record.epoch[-1])] = mean_accuracy(self.experiment, record.validation_accuracy[-1])
