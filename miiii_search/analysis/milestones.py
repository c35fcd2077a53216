"""When a run memorised, and in which order its tasks generalised (4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from miiii_search.experiment.record import Floats, Record
from miiii_search.experiment.spec import Experiment

LEARNED_ACCURACY = 0.99
"""The accuracy at which a task counts as learned: above what luck gives, below what a stray sample takes."""

PANELS_PER_ROW = 3
"""For so many evaluations, so that a spike does not count."""


@dataclass(frozen=True)
class Milestones:
    """Epochs; None where it has not come to that."""

    memorised: dict[int, int | None]
    """By modulus: when training accuracy came to stay at `LEARNED_ACCURACY` for some evaluations."""
    generalised: dict[int, int | None]
    """By modulus: the same of validation accuracy."""

    @property
    def order(self) -> list[int]:
        """The moduli that have generalised, first ones first; of a tie the smaller modulus."""
        reached = [(epoch, q) for q, epoch in self.generalised.items() if epoch is not None]
        return [q for _, q in sorted(reached)]

    @property
    def delay(self) -> dict[int, int]:
        """By modulus: epochs from memorised to generalised; negative where validation came first."""
        return {
            q: generalised - memorised
            for q, generalised in self.generalised.items()
            if generalised is not None and (memorised := self.memorised[q]) is not None
        }


def find_milestones(experiment: Experiment, record: Record) -> Milestones:
    """What a record shows of each task."""

    def reached(accuracy: Floats) -> dict[int, int | None]:
        return {q: _first_streak(record.epoch, accuracy[:, task]) for task, q in enumerate(experiment.moduli)}

    return Milestones(reached(record.train_accuracy), reached(record.validation_accuracy))


def _first_streak(epochs: np.ndarray[tuple[int], np.dtype[np.int32]], accuracy: Floats) -> int | None:
    """The first epoch of the first `PANELS_PER_ROW` evaluations at `LEARNED_ACCURACY`."""
    if len(accuracy) < PANELS_PER_ROW:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(accuracy >= LEARNED_ACCURACY, PANELS_PER_ROW).all(axis=1)
    return int(epochs[windows.argmax()]) if windows.any() else None
