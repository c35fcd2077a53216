"""Digits, labels and splits of the p² samples (2, 3.1, 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miiii_search.experiment.spec import Experiment

Ints = NDArray[np.int32]


def digits(p: int) -> Ints:
    """The digits (x0, x1) of every n = x0·p⁰ + x1·p¹, in the order of n (Eq. 2). `[p², 2]`."""
    n = np.arange(p * p, dtype=np.int32)
    return np.stack([n % p, n // p], axis=1)


def labels(experiment: Experiment) -> Ints:
    """The class of every sample in every task, in the order of n (3.1). `[p², tasks]`.

    `basis` permutes the samples of `miiii` by `data_seed` and keeps rows whole, so that the labels keep
    their joint distribution and lose only their relation to the digits.
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
    """Samples of one split: `n` in the order of the permutation, `x` `[n, 2]`, `y` `[n, tasks]`."""

    n: Ints
    x: Ints
    y: Ints


@dataclass(frozen=True)
class Splits:
    """The three splits of one experiment: disjoint, together all p² samples."""

    train: Split
    validation: Split
    test: Split


def make_splits(experiment: Experiment) -> Splits:
    """A permutation of all p² samples by `data_seed`, cut in three (3.4)."""
    x, y = digits(experiment.p), labels(experiment)
    order = _generator(experiment, "splits").permutation(experiment.p**2).astype(np.int32)
    cuts = [experiment.n_train, experiment.n_train + experiment.n_validation]
    train, validation, test = (Split(n, x[n], y[n]) for n in np.split(order, cuts))
    return Splits(train, validation, test)


def _generator(experiment: Experiment, purpose: str) -> np.random.Generator:
    # A stream of its own for each purpose: the splits of `basis` must not follow from its permutation.
    return np.random.default_rng([experiment.data_seed, {"splits": 0, "basis": 1}[purpose]])
