"""The data of an experiment: labels and splits of the p² samples (3.1, 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from miiii_search.experiment.digits import digits
from miiii_search.experiment.spec import Experiment
from miiii_search.experiment.task_registry import get_task

Ints = NDArray[np.int32]


def labels(experiment: Experiment) -> Ints:
    """Return the class of every sample in every task (3.1).

    Args:
        experiment: The experiment; `p`, `task` and `data_seed` decide.

    Returns:
        The labels in the order of n, `[p², tasks]`.
    """
    p = experiment.p
    x, generator = digits(p).astype(np.int64), _generator(experiment, "labels")
    return get_task(experiment.task).labels(x, p, generator).astype(np.int32)


def class_shares(experiment: Experiment) -> tuple[tuple[float, ...], ...]:
    """Return the share of each class among all p² samples, for each task; 1/K for K classes unless it is balanced."""
    classes = experiment.classes
    if not experiment.balanced:
        return tuple((1 / count,) * count for count in classes)
    return _counted_shares(experiment.model_copy(update={"seed": 0, "moduli": None}))


def guessing_losses(experiment: Experiment) -> NDArray[np.float64]:
    """Return the cross-entropy of each task for a network that knows only how often each class occurs, `[tasks]`.

    It is the entropy of the classes' shares in nats, which is ln q for q classes that occur equally often.
    """
    if not experiment.balanced:
        return np.log(np.asarray(experiment.classes, np.float64))
    return np.asarray([-sum(share * np.log(share) for share in shares if share) for shares in class_shares(experiment)])


@cache
def _counted_shares(experiment: Experiment) -> tuple[tuple[float, ...], ...]:
    y = labels(experiment)
    return tuple(
        tuple((np.bincount(column, minlength=count) / len(y)).tolist())
        for column, count in zip(y.T, experiment.classes, strict=True)
    )


@dataclass(frozen=True)
class Split:
    """The samples of one split, in the order of the permutation."""

    n: Ints  # [samples]
    x: Ints  # [samples, 2], digits
    y: Ints  # [samples, tasks], labels


@dataclass(frozen=True)
class Splits:
    """The three splits of an experiment. They are disjoint and together hold all p² samples."""

    train: Split
    validation: Split
    test: Split


def make_splits(experiment: Experiment) -> Splits:
    """Permute all p² samples, seeded with `data_seed`, and cut them into three splits (3.4)."""
    x, y = digits(experiment.p), labels(experiment)
    order = _generator(experiment, "splits").permutation(experiment.p**2).astype(np.int32)
    cuts = [experiment.n_train, experiment.n_train + experiment.n_validation]
    train, validation, test = (Split(n, x[n], y[n]) for n in np.split(order, cuts))
    return Splits(train, validation, test)


def _generator(experiment: Experiment, purpose: str) -> np.random.Generator:
    # A separate stream for each purpose: the splits must be independent of random labels, such as those of `basis`.
    return np.random.default_rng([experiment.data_seed, {"splits": 0, "labels": 1}[purpose]])
