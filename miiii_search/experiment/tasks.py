"""The data of an experiment: digits, labels and splits of the p² samples (2, 3.1, 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miiii_search.experiment.spec import Experiment

Ints = NDArray[np.int32]


def digits(p: int) -> Ints:
    """Return the digits (x0, x1) of every n = x0·p⁰ + x1·p¹ (Eq. 2).

    Args:
        p: The base.

    Returns:
        The digits in the order of n, `[p², 2]`.
    """
    n = np.arange(p * p, dtype=np.int32)
    return np.stack([n % p, n // p], axis=1)


def labels(experiment: Experiment) -> Ints:
    """Return the class of every sample in every task (3.1).

    The task `basis` permutes the rows of `miiii`, seeded with `data_seed`. So its labels keep their joint distribution
    and lose only their relation to the digits.

    Args:
        experiment: The experiment; `p`, `task` and `data_seed` decide.

    Returns:
        The labels in the order of n, `[p², tasks]`.
    """
    p = experiment.p
    n = np.arange(p * p, dtype=np.int32)
    if experiment.task == "nanda":
        return ((n % p + n // p) % p)[:, None]
    remainders = n[:, None] % np.asarray(experiment.moduli, dtype=np.int32)
    if experiment.task == "basis":
        remainders = remainders[_generator(experiment, "basis").permutation(p * p)]
    return remainders


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
    # A separate stream for each purpose: the splits of `basis` must be independent of its permutation.
    return np.random.default_rng([experiment.data_seed, {"splits": 0, "basis": 1}[purpose]])
