"""A Gaussian process over the points of a grid: what a run that has not been trained may still improve.

Nothing in it is tuned: how far a coordinate carries and how much is noise is averaged over, each setting weighted by
how well it explains what is known (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, sections 2.2
and 5.2). The points of a study are few, so this takes milliseconds and needs no library.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from threadpoolctl import threadpool_limits

from miiii_search.config.search_space import Point, Value

Floats = NDArray[np.float64]

SETTINGS = 32
"""That are averaged over. With a half of them, or four times as many, orders spend much the same."""

LENGTHS = (0.3, 10.0)
"""Of a coordinate, whose range is 1: from neighbours that hardly know of each other to one that makes no difference."""

NOISE = (0.01, 1.0)
"""The variance between seeds, in that of the process."""


def coordinates(points: Sequence[Point]) -> Floats:
    """Where points lie [point, coordinate], each coordinate from 0 to 1; dimensions by their names.

    A number becomes its rank among the values that its dimension has, since lists are chosen so that neighbours differ
    about alike, be they 0, 1/10, 1/2 or 3e-4, 1e-3; a word becomes a coordinate for each value.
    """
    columns: list[list[float]] = []
    for name in sorted(points[0]):
        values = [point[name] for point in points]
        if any(isinstance(value, str) for value in values):
            columns += [[float(str(value) == word) for value in values] for word in sorted(set(map(str, values)))]
        else:
            columns.append(_ranks(values))
    return np.array(columns, np.float64).reshape(len(columns), len(points)).T


def _ranks(values: Sequence[Value]) -> list[float]:
    ranks = {value: rank for rank, value in enumerate(sorted(set(values), key=float))}
    return [ranks[value] / max(len(ranks) - 1, 1) for value in values]


def rank(
    x: Floats,
    ended: Mapping[int, float | None],
    running: Collection[int],
    waiting: Sequence[int],
    n: int = 1,
    favour: Mapping[int, float] | None = None,
) -> list[int]:
    """Those that wait, the `n` that are expected to improve most on the best one first; of equals the first.

    Runs are known by their rows of `x` [run, coordinate]. A run that has ended enters with its value, one that failed
    (None) with the worst value there is, and one that is running with the mean, so that its neighbours are neither
    sought nor shunned for it. `favour` says by how much a run's expected improvement is to be multiplied, where that is
    not 1. Returns nothing until there are more values than coordinates, or while all are the same.

    Raises `ArithmeticError` if the process cannot be computed.
    """
    values = [value for value in ended.values() if value is not None]
    if not np.all(np.isfinite(values)):
        raise ArithmeticError("a value is not finite")
    if not waiting or len(values) <= x.shape[1] or len(set(values)) == 1:
        return []
    known = np.array([min(values) if value is None else value for value in ended.values()])
    known = (known - known.mean()) / known.std()
    seen, values_seen = x[[*ended, *running]], np.concatenate([known, np.zeros(len(running))])
    factors = np.array([(favour or {}).get(k, 1.0) for k in waiting])
    # More threads than one would wait for each other by spinning, on cores that train.
    with threadpool_limits(limits=1, user_api="blas"):
        order = _one_after_the_other(
            GaussianProcess(seen, values_seen, x[list(waiting)]), float(known.max()), factors, n
        )
    return [waiting[k] for k in order]


def _one_after_the_other(process: GaussianProcess, best: float, factors: Floats, n: int) -> list[int]:
    """The points asked about, the first `n` chosen each with those before it under way."""
    taken = list[int]()
    while True:
        gains = factors * process.expected_improvement(best)
        if not np.all(np.isfinite(gains)):
            raise ArithmeticError("an expected improvement is not finite")
        gains[taken] = -1
        order = [int(k) for k in np.argsort(-gains, kind="stable")]
        taken.append(order[0])
        if len(taken) >= min(n, len(factors)):
            return [*taken, *(k for k in order if k not in taken)]
        process.fantasize(order[0])


class GaussianProcess:
    """The process at points that are asked about, as far as it is known at others, under each of the settings.

    Points are [point, coordinate]. `values` are those at the points `seen`, in units in which they have a mean near 0
    and a variance near 1. Raises `ArithmeticError` if the points are too close together for what is left of the noise.
    """

    def __init__(self, seen: Floats, values: Floats, asked: Floats) -> None:
        # The same settings at all times, so that the same results lead to the same order.
        generator = np.random.default_rng(0)
        self._lengths = _log_uniform(generator, LENGTHS, (SETTINGS, seen.shape[1]))
        self._noise = _log_uniform(generator, NOISE, (SETTINGS,))
        self._asked = asked
        known = covariance(seen, seen, self._lengths) + self._noise[:, None, None] * np.eye(len(seen))
        try:
            root = np.linalg.cholesky(known)  # L of Rasmussen and Williams' algorithm 2.1
        except np.linalg.LinAlgError as error:
            raise ArithmeticError(str(error)) from None
        both = np.concatenate([covariance(seen, asked, self._lengths), np.tile(values[:, None], (SETTINGS, 1, 1))], 2)
        solved = np.linalg.solve(root, both)
        self._across, self._values = solved[:, :, :-1], solved[:, :, -1]  # L⁻¹k [setting, seen, asked], L⁻¹y
        self._log_root = np.log(np.einsum("sii->si", root)).sum(1)

    def expected_improvement(self, best: float) -> Floats:
        """By how much a run at each point asked about is expected to exceed `best`, its own noise included."""
        mean = np.einsum("sk,ska->sa", self._values, self._across)
        deviation = np.sqrt(np.maximum(1 - (self._across**2).sum(1), 0) + self._noise[:, None])
        z = (mean - best) / deviation
        improvement = (mean - best) * ndtr(z) + deviation * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        evidence = -(self._values**2).sum(1) / 2 - self._log_root
        share = np.exp(evidence - evidence.max())
        result: Floats = share @ improvement / share.sum()
        return result

    def fantasize(self, k: int) -> None:
        """Goes on as if the k-th point asked about had been seen with the mean: one more row of L."""
        row = self._across[:, :, k]
        corner = np.sqrt(np.maximum(1 - (row**2).sum(1), 0) + self._noise)
        across = covariance(self._asked[k : k + 1], self._asked, self._lengths)[:, 0]
        across = (across - np.einsum("sk,ska->sa", row, self._across)) / corner[:, None]
        value = -(row * self._values).sum(1) / corner
        self._across = np.concatenate([self._across, across[:, None]], 1)
        self._values = np.concatenate([self._values, value[:, None]], 1)
        self._log_root = self._log_root + np.log(corner)


def covariance(x: Floats, y: Floats, lengths: Floats) -> Floats:
    """Of the process between points [setting, x, y]; `lengths` are [setting, coordinate]."""
    a, b = x / lengths[:, None, :], y / lengths[:, None, :]
    distance = (a**2).sum(-1)[:, :, None] + (b**2).sum(-1)[:, None, :] - 2 * a @ b.transpose(0, 2, 1)
    result: Floats = np.exp(-np.maximum(distance, 0) / 2)
    return result


def _log_uniform(generator: np.random.Generator, bounds: tuple[float, float], shape: tuple[int, ...]) -> Floats:
    return np.exp(generator.uniform(math.log(bounds[0]), math.log(bounds[1]), shape))
