"""The measurements of a run that a pruner decides on."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from miiii_search.config.study_spec import rungs
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment
from miiii_search.experiment.tasks import guessing_losses

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class History:
    """Measurements of a run at its rungs so far, oldest first, for the scored tasks only.

    A loss is a cross-entropy divided by that of guessing, which is ln q for q classes. So guessing has a loss of 1 in
    every task. Training accuracy is measured during the epoch's step, with dropout.
    """

    epoch: NDArray[np.int64]  # [rungs]
    train_accuracy: Floats  # [rungs, tasks]
    validation_accuracy: Floats  # [rungs, tasks]
    validation_loss: Floats  # [rungs, tasks]
    weight_norm: Floats  # [rungs], L2 norm of all weight matrices together

    def __len__(self) -> int:
        return len(self.epoch)

    def until(self, epoch: int) -> History:
        """Return the history up to and including an epoch."""
        n = int(np.searchsorted(self.epoch, epoch, side="right"))
        return History(**{field.name: getattr(self, field.name)[:n] for field in fields(self)})


def history_of(experiment: Experiment, record: Record) -> History:
    """Return the history of a run at every evaluation of its record, in float64 so that it is the same on any device.

    Args:
        experiment: Settings of the run, which say which tasks are scored.
        record: Evaluations of the run.
    """
    scored = np.asarray(experiment.scored)
    guessing_loss = guessing_losses(experiment)[scored]
    return History(
        record.epoch.astype(np.int64),
        record.train_accuracy[:, scored].astype(np.float64),
        record.validation_accuracy[:, scored].astype(np.float64),
        record.validation_loss[:, scored] / guessing_loss,
        np.sqrt((record.weight_norm.astype(np.float64) ** 2).sum(axis=1)),
    )


def history_at_rungs(experiment: Experiment, record: Record) -> History:
    """Return the history of a run at its rungs, which is what a pruner sees."""
    return history_of(experiment, record.rows(np.isin(record.epoch, rungs(experiment))))
