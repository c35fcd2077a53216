"""What a run came to, in a form that a file can hold and that two runs can be compared by."""

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

HALF_A_POINT = 0.005
FIVE_PERCENT = 0.05


def format_accuracy(accuracy: float) -> str:
    """Three decimals; what falls short of 1 does not read as 1."""
    return "0.999" if 0.999 < accuracy < 1 else f"{accuracy:.3f}"


class Metrics(Spec):
    """The end of one run, without dropout. Per-task values are in the order of `moduli`; losses in nats."""

    epochs_trained: int
    epochs_to_solve: int | None = None
    """The first epoch of the streak of evaluations that solved the run; unset if it was not solved."""
    validation_accuracy_mean: float
    """Over the scored tasks."""
    moduli: Annotated[tuple[int, ...], Field(strict=False)]
    train_accuracy: PerTask
    train_loss: PerTask
    validation_accuracy: PerTask
    validation_loss: PerTask
    test_accuracy: PerTask
    test_loss: PerTask
    weights_sha256: str


def summarize(
    experiment: Experiment,
    record: Record,
    solved_epoch: int | None,
    final: Mapping[str, Floats],
    weights: Mapping[str, np.ndarray[Any, Any]],
) -> Metrics:
    """The metrics of a run that has ended, with finite losses, at its record's last evaluation.

    `final` is what `Lanes.final` returns.
    """
    # A finite number even where one split alone overflows: a file cannot hold another.
    at_end = {name: tuple(map(float, np.nan_to_num(v, nan=_LARGEST, posinf=_LARGEST))) for name, v in final.items()}
    return Metrics(
        epochs_trained=int(record.epoch[-1]),
        epochs_to_solve=solved_epoch,
        validation_accuracy_mean=mean_accuracy(experiment, record.validation_accuracy[-1]),
        moduli=experiment.moduli,
        validation_accuracy=tuple(map(float, record.validation_accuracy[-1])),
        validation_loss=tuple(map(float, record.validation_loss[-1])),
        weights_sha256=hash_weights(weights),
        **at_end,
    )


def mean_accuracy(experiment: Experiment, accuracy: Floats) -> float:
    """The mean over the scored tasks, computed in float64 so that it does not depend on a device."""
    return float(np.mean(np.asarray(accuracy, np.float64)[np.asarray(experiment.scored)]))


def hash_weights(weights: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """SHA-256 over all weights, in the order of their names."""
    sha256 = hashlib.sha256()
    for name in sorted(weights):
        sha256.update(name.encode())
        sha256.update(np.ascontiguousarray(weights[name]).tobytes())
    return sha256.hexdigest()


def compare_metrics(recorded: Metrics, measured: Metrics) -> tuple[Verdict, str]:
    """Whether a run repeats what was recorded, and the figures that say so.

    `identical`: every number, the weights' digest included. `agrees`: every task's validation accuracy within
    half a point, and epochs to solve within 5 %.
    """
    if recorded == measured:
        return "identical", "every metric and every weight"
    if recorded.moduli != measured.moduli:
        return "differs", "the tasks are not the same"
    # Rounded, since accuracies are float32 and 0.505 - 0.5 would be either side of half a point.
    gaps = np.abs(np.subtract(recorded.validation_accuracy, measured.validation_accuracy)).round(6)
    worst = int(np.argmax(gaps))
    words = f"validation accuracy differs by {gaps[worst]:.4f} at most (q = {recorded.moduli[worst]})"
    before, after = recorded.epochs_to_solve, measured.epochs_to_solve
    if (before is None) != (after is None):
        solver, other = ("this run", "the recorded one") if before is None else ("the recorded run", "this one")
        return "differs", f"{words}; {solver} was solved, {other} was not"
    close = bool(gaps[worst] <= HALF_A_POINT)
    if before is not None and after is not None:
        words += f"; solved at epoch {after:,}, recorded {before:,}"
        close = close and abs(after - before) <= FIVE_PERCENT * before
    return ("agrees" if close else "differs"), words


_LARGEST = float(np.finfo(np.float32).max)
