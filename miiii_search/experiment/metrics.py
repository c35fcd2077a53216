"""The final metrics of a run, as plain data that files store, and their comparison with another run's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from miiii_search.experiment.record import Floats, Record
from miiii_search.experiment.spec import Experiment, Spec

Verdict = Literal["identical", "agrees", "differs"]
PerTask = Annotated[tuple[float, ...], Field(strict=False)]

ACCURACY_TOLERANCE = 0.005
"""Half a percentage point."""
EPOCHS_TOLERANCE = 0.05
"""Relative."""

_LARGEST = float(np.finfo(np.float32).max)


def format_accuracy(accuracy: float) -> str:
    """Return an accuracy with three decimals. An accuracy below 1 is never shown as 1."""
    return "0.999" if 0.999 < accuracy < 1 else f"{accuracy:.3f}"


class Metrics(Spec):
    """The metrics of one run at its end, measured without dropout.

    Values per task are in the order of `moduli`. Losses are in nats.
    """

    epochs_trained: int
    """Number of epochs that were trained."""
    epochs_to_solve: int | None = None
    """The first epoch of the streak of evaluations that solved the run. Unset if it was not solved."""
    validation_accuracy_mean: float
    """Mean over the scored tasks."""
    moduli: Annotated[tuple[int, ...], Field(strict=False)]
    """Modulus of each task, by which it is known."""
    train_accuracy: PerTask
    """Accuracy of each task on the whole training split."""
    train_loss: PerTask
    """Mean cross-entropy of each task on the whole training split."""
    validation_accuracy: PerTask
    """Accuracy of each task on the validation split."""
    validation_loss: PerTask
    """Mean cross-entropy of each task on the validation split."""
    test_accuracy: PerTask
    """Accuracy of each task on the test split."""
    test_loss: PerTask
    """Mean cross-entropy of each task on the test split."""
    weights_sha256: str
    """Hash of the weights, by which `train` tells whether a run was repeated bit for bit."""


def summarize(
    experiment: Experiment,
    record: Record,
    solved_epoch: int | None,
    final_metrics: Mapping[str, Floats],
    weights: Mapping[str, np.ndarray[Any, Any]],
) -> Metrics:
    """Compute the metrics of a run that has ended with finite losses.

    Args:
        experiment: The run's experiment.
        record: The run's record. Its last row is the last evaluation of the run.
        solved_epoch: The first epoch of the streak that solved the run, or None.
        final_metrics: Loss and accuracy on the training and test splits, as `Lanes.final_metrics` returns them.
        weights: The run's weights, by name.

    Returns:
        The metrics. Infinite losses are replaced by the largest float32, since JSON has no infinity.
    """
    # The loss on one split alone may overflow although the run counts as finite.
    finite = {
        name: tuple(map(float, np.nan_to_num(values, nan=_LARGEST, posinf=_LARGEST)))
        for name, values in final_metrics.items()
    }
    return Metrics(
        epochs_trained=int(record.epoch[-1]),
        epochs_to_solve=solved_epoch,
        validation_accuracy_mean=mean_accuracy(experiment, record.validation_accuracy[-1]),
        moduli=experiment.task_moduli,
        validation_accuracy=tuple(map(float, record.validation_accuracy[-1])),
        validation_loss=tuple(map(float, record.validation_loss[-1])),
        weights_sha256=hash_weights(weights),
        **finite,
    )


def mean_accuracy(experiment: Experiment, accuracy: Floats) -> float:
    """Return the mean accuracy over the scored tasks.

    It is computed in float64 on the host, so that it does not depend on the device.

    Args:
        experiment: The experiment, which knows the scored tasks.
        accuracy: The accuracy of each task, `[tasks]`.
    """
    return float(np.mean(np.asarray(accuracy, np.float64)[np.asarray(experiment.scored)]))


def hash_weights(weights: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """Return the SHA-256 of all weights and their names, in the order of the names."""
    sha256 = hashlib.sha256()
    for name in sorted(weights):
        sha256.update(name.encode())
        sha256.update(np.ascontiguousarray(weights[name]).tobytes())
    return sha256.hexdigest()


def compare_metrics(recorded: Metrics, measured: Metrics) -> tuple[Verdict, str]:
    """Compare the metrics of a repeated run with those that were recorded.

    Args:
        recorded: The metrics of the first run.
        measured: The metrics of its repetition.

    Returns:
        The verdict and the figures behind it. `identical`: every number is equal, and so is the hash of the weights.
        `agrees`: the validation accuracy of every task differs by at most half a percentage point, and the epochs to
        solve by at most 5 %. `differs`: anything else.
    """
    if recorded == measured:
        return "identical", "every metric and every weight"
    if recorded.moduli != measured.moduli:
        return "differs", "the tasks are not the same"
    # Rounded: accuracies are float32, and 0.505 - 0.5 may be on either side of 0.005.
    gaps = np.abs(np.subtract(recorded.validation_accuracy, measured.validation_accuracy)).round(6)
    worst = int(np.argmax(gaps))
    words = f"validation accuracy differs by {gaps[worst]:.4f} at most (q = {recorded.moduli[worst]})"
    before, after = recorded.epochs_to_solve, measured.epochs_to_solve
    if (before is None) != (after is None):
        solver, other = ("this run", "the recorded one") if before is None else ("the recorded run", "this one")
        return "differs", f"{words}; {solver} was solved, {other} was not"
    close = bool(gaps[worst] <= ACCURACY_TOLERANCE)
    if before is not None and after is not None:
        words += f"; solved at epoch {after:,}, recorded {before:,}"
        close = close and abs(after - before) <= EPOCHS_TOLERANCE * before
    return ("agrees" if close else "differs"), words
