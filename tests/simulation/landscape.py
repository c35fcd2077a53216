"""Studies of a whole grid, in which a function of the point determines how a run ends."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from miiii_search.config.search_space import Dimension, Point
from miiii_search.config.study_spec import StudySpec
from miiii_search.pruners.base import PruningContext
from miiii_search.simulation.curves import Curve, CurveSet, make_curve
from tests.simulation.support import EXPERIMENT, epochs_of, make_record

SPACE: dict[str, Dimension] = {
    "learning_rate": (3e-4, 1e-3, 3e-3, 1e-2),
    "weight_decay": (0.0, 0.1, 0.5, 1.0),
    "dropout": (0.0, 0.1, 0.2),
}
SPEC = StudySpec(experiment=EXPERIMENT, space=SPACE)


def curve_at(number: int, point: Point, accuracy: float, solved: int | None = None, failed: bool = False) -> Curve:
    """Return a run with this accuracy, solved from an epoch on or never. A failing run fails half-way."""
    epoch = epochs_of()
    values = np.where(epoch >= solved, 1.0, accuracy) if solved else np.full(len(epoch), accuracy)
    values = values[: len(values) // 2] if failed else values
    record = make_record(values, np.ones(len(values)))
    end = int(record.epoch[-1]) if failed else None
    return make_curve(number, point, 0, EXPERIMENT, record, failed_epoch=end)


def landscape(height: Callable[[Point], float], seed: int = 0) -> CurveSet:
    """Return a curve for each point of the grid, in a shuffled order.

    The higher a point, the sooner its run is solved: never at height 0, at once at height 1.
    """
    points = SPEC.grid()
    random.Random(seed).shuffle(points)
    curves = []
    for k, point in enumerate(points):
        solved = int(EXPERIMENT.epochs * (1 - height(point)))
        curves.append(curve_at(k, point, 0.3 * height(point), solved if solved < EXPERIMENT.epochs * 0.9 else None))
    return CurveSet("landscape", SPEC, tuple(curves))


class LowAccuracy:
    """A pruner that prunes runs below an accuracy."""

    uses_peers = False

    def __init__(self, accuracy: float) -> None:
        self._accuracy = accuracy

    def should_prune(self, context: PruningContext) -> str | None:
        """Looks at the last rung."""
        return "low" if context.history.validation_accuracy[-1].mean() < self._accuracy else None
