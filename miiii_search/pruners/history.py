"""What a pruning rule sees of the run that it decides on."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from miiii_search.config.study_spec import rungs
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment

Values = NDArray[np.float64]


@dataclass(frozen=True)
class History:
    """A run at its rungs so far, oldest first; of its tasks, those that are scored.

    Losses are cross-entropies in units of ln q, so that guessing has 1 whatever the task. What is
    said of training is what the epoch's step saw, with dropout.
    """

    epoch: NDArray[np.int64]  # [rungs]
    train_accuracy: Values  # [rungs, tasks]
    validation_accuracy: Values  # [rungs, tasks]
    validation_loss: Values  # [rungs, tasks]
    weight_norm: Values  # [rungs], L2, all matrices together

    def __len__(self) -> int:
        return len(self.epoch)

    def until(self, epoch: int) -> History:
        """The rungs up to and with an epoch."""
        n = int(np.searchsorted(self.epoch, epoch, side="right"))
        return History(**{field.name: getattr(self, field.name)[:n] for field in fields(self)})


def history_of(experiment: Experiment, record: Record) -> History:
    """The history of the evaluations in `record`, in float64, so that they do not depend on a device."""
    scored = np.asarray(experiment.scored)
    guessing = np.log(np.asarray(experiment.moduli, np.float64)[scored])
    return History(
        record.epoch.astype(np.int64),
        record.train_accuracy[:, scored].astype(np.float64),
        record.validation_accuracy[:, scored].astype(np.float64),
        record.validation_loss[:, scored] / guessing,
        np.sqrt((record.weight_norm.astype(np.float64) ** 2).sum(axis=1)),
    )


def history_at_rungs(experiment: Experiment, record: Record) -> History:
    """What a rule sees of a run of which this is recorded."""
    return history_of(experiment, record.rows(np.isin(record.epoch, rungs(experiment))))
