"""Accuracy curves from another source, such as a figure of the paper, and the differences of a run from them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.record import Floats, Record
from miiii_search.experiment.spec import Experiment

SPLITS = ("training", "validation")

WINDOW_SHARE = 0.05
"""Half width of the averaging window, relative to the epoch.

A run's value at an epoch is the mean of its evaluations in this window, and of at least the nearest evaluation.
"""

MeanAccuracies = NDArray[np.float64]


@dataclass(frozen=True)
class ReferenceCurves:
    """Accuracies of every task at some epochs of another run, for both splits."""

    name: str
    moduli: tuple[int, ...]
    epochs: NDArray[np.int64]  # [epochs], ascending
    accuracy: dict[str, MeanAccuracies]  # by split: [epochs, tasks]
    floor: float
    """Smallest accuracy that the source can show. Curves read off a figure end at the edge of its axes."""


@dataclass(frozen=True)
class ReferenceDifferences:
    """Mean accuracies of a run and a reference over their common tasks, at the reference's epochs."""

    epochs: NDArray[np.int64]  # [epochs]
    reference: dict[str, MeanAccuracies]  # by split: [epochs]
    run: dict[str, MeanAccuracies]  # by split: [epochs]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        accuracies = {
            split: {"reference": self.reference[split].tolist(), "run": self.run[split].tolist()} for split in SPLITS
        }
        return {"epochs": self.epochs.tolist(), **accuracies}

    def largest(self, split: str, until: int | None = None) -> tuple[float, int]:
        """Return the largest absolute difference on a split, and the epoch at which it occurs.

        Args:
            split: One of `SPLITS`.
            until: Last epoch to consider; all epochs if it is None.

        Returns:
            The difference and its epoch; both are 0 if there is no epoch up to `until`.
        """
        within = self.epochs <= (until or np.inf)
        if not within.any():
            return 0.0, 0
        gaps = np.abs(self.run[split] - self.reference[split])[within]
        return float(gaps.max()), int(self.epochs[within][gaps.argmax()])


def read_reference(path: Path) -> ReferenceCurves:
    """Read accuracy curves from a CSV file with the columns split, epoch and one for each modulus.

    The split is `training` or `validation`; both have the same epochs. If an epoch occurs twice, the last row counts.
    The smallest accuracy in the file is used as the smallest that its source can show.

    Raises:
        MiiiiSearchError: The file cannot be read, or is not of this form. The message names the line.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError) as error:
        raise MiiiiSearchError(f"cannot read the reference {path}: {error}") from None
    if header[:2] != ["split", "epoch"] or not all(q.isdigit() for q in header[2:]) or len(header) < 3:
        raise MiiiiSearchError(
            f"the first line of {path} must be split,epoch and one modulus per column, such as split,epoch,2,3,5, "
            f"but is {','.join(header)[:80]!r}"
        )
    read: dict[str, dict[int, list[float]]] = {split: {} for split in SPLITS}
    for number, row in enumerate(rows, start=2):
        try:
            values = [float(text) for text in row[2:]]
            if len(values) != len(header) - 2 or not all(0 <= value <= 1 for value in values):
                raise ValueError
            read[row[0]][int(row[1])] = values
        except (ValueError, KeyError, IndexError):
            raise MiiiiSearchError(
                f"line {number} of {path} must hold {' or '.join(SPLITS)}, an epoch and {len(header) - 2} accuracies "
                f"between 0 and 1, but is {','.join(row)[:80]!r}"
            ) from None
    if not read["training"] or read["training"].keys() != read["validation"].keys():
        raise MiiiiSearchError(f"{path} must have the same epochs for training and for validation, at least one")
    epochs = sorted(read["training"])
    accuracy = {split: np.asarray([read[split][epoch] for epoch in epochs]) for split in SPLITS}
    floor = float(min(values.min() for values in accuracy.values()))
    return ReferenceCurves(path.stem, tuple(map(int, header[2:])), np.asarray(epochs), accuracy, floor)


def differences_from_reference(
    experiment: Experiment, record: Record, reference: ReferenceCurves
) -> ReferenceDifferences:
    """Compare a run's accuracies with a reference's, at the reference's epochs up to the end of the run.

    Both are clipped below at the reference's floor. Tasks that only one of them has are left out.

    Raises:
        MiiiiSearchError: The two have no task or no epoch in common.
    """
    shared = [q for q in experiment.task_moduli if q in reference.moduli]
    if not shared:
        raise MiiiiSearchError(f"the reference {reference.name} and the run have no modulus in common")
    ours, theirs = ([moduli.index(q) for q in shared] for moduli in (experiment.task_moduli, reference.moduli))
    reached = (reference.epochs >= record.epoch[0]) & (reference.epochs <= record.epoch[-1])
    if not reached.any():
        raise MiiiiSearchError(
            f"the reference {reference.name} has no epoch between {record.epoch[0]:,} and {record.epoch[-1]:,}, "
            "which the run was evaluated at"
        )
    epochs = reference.epochs[reached]
    curves = {"training": record.train_accuracy, "validation": record.validation_accuracy}
    means = {split: _windowed_means(record.epoch, curves[split][:, ours], epochs) for split in SPLITS}
    return ReferenceDifferences(
        epochs,
        {split: reference.accuracy[split][reached][:, theirs].mean(axis=1) for split in SPLITS},
        {split: np.maximum(means[split], reference.floor).mean(axis=1) for split in SPLITS},
    )


def last_crossing_epochs(epochs: NDArray[np.int64], accuracy: MeanAccuracies, threshold: float) -> list[int | None]:
    """Return, for each task, the first epoch from which its accuracy stays at or above a threshold.

    Args:
        epochs: Epochs of the evaluations `[epochs]`.
        accuracy: Accuracies `[epochs, tasks]`.
        threshold: The threshold.

    Returns:
        The epochs `[tasks]`; None for a task that is below the threshold at the end.
    """
    result: list[int | None] = []
    for column in accuracy.T:
        below = np.flatnonzero(column < threshold)
        first = int(below[-1]) + 1 if len(below) else 0
        result.append(int(epochs[first]) if first < len(epochs) else None)
    return result


def _windowed_means(evaluated: NDArray[np.int32], accuracy: Floats, epochs: NDArray[np.int64]) -> MeanAccuracies:
    """Return the mean of the evaluations around each epoch `[epochs, tasks]`."""
    values = []
    for epoch in epochs:
        distance = np.abs(evaluated - epoch)
        near = distance <= WINDOW_SHARE * epoch
        near[distance.argmin()] = True
        values.append(accuracy[near].astype(np.float64).mean(axis=0))
    return np.stack(values)
