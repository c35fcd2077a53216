"""Hand-made curves, for which the right decision of a pruner is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miiii_search.config.study_spec import StudySpec
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment
from miiii_search.simulation.curves import Curve, CurveSet, make_curve

EXPERIMENT = Experiment(p=31, task="nanda", train_fraction=0.5, validation_samples=200, epochs=8192)
MATRICES = 9

Values = Sequence[float] | NDArray[np.floating[Any]]


def epochs_of(experiment: Experiment = EXPERIMENT) -> NDArray[np.int32]:
    """Return the epochs at which a run is evaluated."""
    interval = experiment.evaluation_interval
    return np.arange(interval, experiment.epochs + 1, interval, dtype=np.int32)


def make_record(
    validation_accuracy: Values,
    validation_loss: Values,
    train_accuracy: Values | float = 1.0,
    weight_norm: Values | float = 30.0,
    experiment: Experiment = EXPERIMENT,
) -> Record:
    """The record of a run whose tasks are all alike; losses in units of guessing, as in `History`."""
    epoch = epochs_of(experiment)[: len(np.asarray(validation_accuracy))]
    tasks, n = len(experiment.task_moduli), len(epoch)
    guessing = np.log(np.asarray(experiment.task_moduli))

    def per_task(values: Any) -> NDArray[np.float32]:
        return np.broadcast_to(np.asarray(values, np.float32).reshape(-1, 1), (n, tasks)).copy()

    norm = np.broadcast_to(np.asarray(weight_norm, np.float32).reshape(-1, 1), (n, MATRICES)) / np.float32(3.0)
    return Record(
        epoch=epoch,
        train_loss=np.zeros((n, tasks), np.float32),
        train_accuracy=per_task(train_accuracy),
        validation_loss=(per_task(validation_loss) * guessing).astype(np.float32),
        validation_accuracy=per_task(validation_accuracy),
        gradient_norm=np.zeros((n, MATRICES), np.float32),
        weight_norm=norm.astype(np.float32),
    )


def curve_of(number: int, record: Record, experiment: Experiment = EXPERIMENT, **fields: Any) -> Curve:
    """Return a curve at a point of its own."""
    point: dict[str, float | int | str] = {"weight_decay": float(number)}
    return make_curve(number, point, 0, experiment, record, **fields)


def set_of(curves: Sequence[Curve], experiment: Experiment = EXPERIMENT) -> CurveSet:
    """Return the curves as the curves of one study."""
    space: dict[str, Any] = {"weight_decay": tuple(float(curve.number) for curve in curves)}
    return CurveSet("made-up", StudySpec(experiment=experiment, space=space), tuple(curves))
