"""Accuracy and loss of every task from logits, as training measures them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miiii_search.analysis.network import Floats
from miiii_search.experiment.spec import Experiment
from miiii_search.experiment.tasks import labels, make_splits

Labels = NDArray[np.integer[Any]]


def grid_labels(experiment: Experiment) -> Labels:
    """Return the class of every sample of the grid in every task `[tasks, x0, x1]`."""
    p = experiment.p
    # The labels are in the order of n = x0 + x1·p, so x0 changes fastest.
    return labels(experiment).reshape(p, p, -1).transpose(2, 1, 0)


def training_mask(experiment: Experiment) -> NDArray[np.bool_]:
    """Return which samples of the grid `[x0, x1]` are in the training set."""
    mask = np.zeros((experiment.p, experiment.p), bool)
    x = make_splits(experiment).train.x
    mask[x[:, 0], x[:, 1]] = True
    return mask


def task_slices(moduli: Sequence[int]) -> Iterator[slice]:
    """Yield the rows of the logits that belong to each task."""
    start = 0
    for q in moduli:
        yield slice(start, start + q)
        start += q


def accuracies(logits: Floats, y: Labels, moduli: Sequence[int], balanced: bool = False) -> NDArray[np.float64]:
    """Compute the accuracy of each task.

    A sample counts as right if its label's logit is larger than all others; ties and NaN are wrong.

    Args:
        logits: Logits of all tasks `[Σq, n]`.
        y: Labels `[tasks, n]`.
        moduli: The number of classes q of each task.
        balanced: Whether every class counts the same, however rare it is; see `Task.balanced`.

    Returns:
        The accuracies `[tasks]`.
    """
    result = []
    for rows, task_labels in zip(task_slices(moduli), y, strict=True):
        label_logit = np.take_along_axis(logits[rows], task_labels[None], axis=0)[0]
        hits = (logits[rows] < label_logit).sum(axis=0) == rows.stop - rows.start - 1
        parts = [hits[task_labels == one] for one in np.unique(task_labels)] if balanced else [hits]
        result.append(np.mean([np.mean(part) for part in parts]))
    return np.asarray(result, np.float64)


def losses(logits: Floats, y: Labels, moduli: Sequence[int]) -> NDArray[np.float64]:
    """Compute the mean cross-entropy of each task in nats `[tasks]`, in float64.

    Args:
        logits: Logits of all tasks `[Σq, n]`.
        y: Labels `[tasks, n]`.
        moduli: The modulus q of each task.
    """
    result = []
    for rows, task_labels in zip(task_slices(moduli), y, strict=True):
        z = logits[rows].astype(np.float64)
        z -= z.max(axis=0)
        label_logit = np.take_along_axis(z, task_labels[None], axis=0)[0]
        result.append(np.mean(np.log(np.exp(z).sum(axis=0)) - label_logit))
    return np.asarray(result, np.float64)
