"""Epochs at which a run memorised its tasks, and at which they generalised (section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from miiii_search.experiment.record import Floats, Record
from miiii_search.experiment.spec import Experiment

LEARNED_ACCURACY = 0.99
"""Accuracy at which a task counts as learned. It is above what chance gives and allows a few wrong samples."""

CONSECUTIVE_EVALUATIONS = 3
"""Number of consecutive evaluations that must reach `LEARNED_ACCURACY`, so that a spike does not count."""


@dataclass(frozen=True)
class Milestones:
    """Epochs at which the tasks of a run were learned; None for a task that was not learned."""

    memorised: dict[int, int | None]
    """By modulus: the epoch of the first of `CONSECUTIVE_EVALUATIONS` at which the training samples were learned."""
    generalised: dict[int, int | None]
    """By modulus: the same for the validation samples."""

    @property
    def order(self) -> list[int]:
        """Moduli of the tasks that have generalised, earliest first; of tasks with the same epoch the smaller first."""
        reached = [(epoch, q) for q, epoch in self.generalised.items() if epoch is not None]
        return [q for _, q in sorted(reached)]

    @property
    def delay(self) -> dict[int, int]:
        """By modulus: epochs from memorisation to generalisation, negative if the task generalised first."""
        return {
            q: generalised - memorised
            for q, generalised in self.generalised.items()
            if generalised is not None and (memorised := self.memorised[q]) is not None
        }


def find_milestones(experiment: Experiment, record: Record) -> Milestones:
    """Find when each task of a run was memorised and when it generalised."""

    def reached(accuracy: Floats) -> dict[int, int | None]:
        return {q: _first_streak(record.epoch, accuracy[:, task]) for task, q in enumerate(experiment.task_moduli)}

    return Milestones(reached(record.train_accuracy), reached(record.validation_accuracy))


def _first_streak(epochs: np.ndarray[tuple[int], np.dtype[np.int32]], accuracy: Floats) -> int | None:
    """Return the first epoch of the first `CONSECUTIVE_EVALUATIONS` at `LEARNED_ACCURACY`, or None."""
    if len(accuracy) < CONSECUTIVE_EVALUATIONS:
        return None
    windows = np.lib.stride_tricks.sliding_window_view(accuracy >= LEARNED_ACCURACY, CONSECUTIVE_EVALUATIONS)
    streaks = windows.all(axis=1)
    return int(epochs[streaks.argmax()]) if streaks.any() else None
