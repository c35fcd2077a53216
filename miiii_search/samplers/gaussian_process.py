"""A Gaussian process over the points of a grid, and the expected improvement of runs that have not been trained.

Nothing is tuned. Expected improvement is averaged over random kernel settings, each weighted by its marginal
likelihood. A study has few points, so this takes milliseconds and needs no library. The formulas are in sections 2.2
and 5.2 of Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006.
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

N_SETTINGS = 32
"""Number of kernel settings. With half as many, or four times as many, a search spends about the same epochs."""

LENGTH_SCALE_BOUNDS = (0.3, 10.0)
"""Bounds of a length scale, in units of a coordinate's range. At 0.3 neighbours are almost independent; at 10 the
coordinate makes no difference."""

NOISE_BOUNDS = (0.01, 1.0)
"""Bounds of the variance between seeds, in units of the variance of the process."""


def to_coordinates(points: Sequence[Point]) -> Floats:
    """Return the points as an array [point, coordinate] with coordinates from 0 to 1, dimensions sorted by name.

    A number becomes its rank among the values of its dimension. The values of a grid are chosen so that neighbours are
    about equally different, whether they are 0, 1/10, 1/2 or 3e-4, 1e-3. A string becomes one coordinate per value.

    A point that lacks a dimension, because its run does not use it, is in the middle of that dimension. So all such
    points share a place, about as far from every value, and the dimension on which it depends tells them apart.
    """
    columns: list[list[float]] = []
    for name in sorted(set().union(*points)):
        values = [point.get(name) for point in points]
        if any(isinstance(value, str) for value in values):
            words = sorted({str(value) for value in values if value is not None})
            columns += [[float(str(value) == word) for value in values] for word in words]
        else:
            columns.append(_relative_ranks(values))
    return np.array(columns, np.float64).reshape(len(columns), len(points)).T


def _relative_ranks(values: Sequence[Value | None]) -> list[float]:
    known = {value for value in values if value is not None}
    ranks = {value: rank for rank, value in enumerate(sorted(known, key=float))}
    return [0.5 if value is None else ranks[value] / max(len(ranks) - 1, 1) for value in values]


def rank_by_expected_improvement(
    x: Floats,
    finished: Mapping[int, float | None],
    running: Collection[int],
    waiting: Sequence[int],
    n: int = 1,
    factors: Mapping[int, float] | None = None,
) -> list[int]:
    """Sort waiting runs by their expected improvement on the best result. Ties keep their order.

    Runs are identified by their rows of `x`. Each of the first `n` is chosen as if those before it were running.

    Args:
        x: Coordinates of all runs, [run, coordinate].
        finished: Results of finished runs. A failed run has None, and counts with the worst result.
        running: Runs in training. They count with the mean, so that their neighbours are neither sought nor avoided.
        waiting: Runs to sort.
        n: Number of runs that will be started together.
        factors: Factors for the expected improvement of some waiting runs. Others have 1.

    Returns:
        The waiting runs. An empty list if there are not more results than coordinates, or if all results are equal.

    Raises:
        ArithmeticError: If the process cannot be computed.
    """
    results = [value for value in finished.values() if value is not None]
    if not np.all(np.isfinite(results)):
        raise ArithmeticError("a value is not finite")
    if not waiting or len(results) <= x.shape[1] or len(set(results)) == 1:
        return []
    known = np.array([min(results) if value is None else value for value in finished.values()])
    known = (known - known.mean()) / known.std()
    observed = x[[*finished, *running]]
    values = np.concatenate([known, np.zeros(len(running))])
    factor_of = factors or {}
    waiting_factors = np.array([factor_of.get(k, 1.0) for k in waiting])
    # Several BLAS threads would busy-wait for each other on cores that train.
    with threadpool_limits(limits=1, user_api="blas"):
        process = GaussianProcess(observed, values, x[list(waiting)])
        order = _choose_in_turn(process, float(known.max()), waiting_factors, n)
    return [waiting[k] for k in order]


def _choose_in_turn(process: GaussianProcess, best: float, factors: Floats, n: int) -> list[int]:
    """Return all candidates, of which each of the first `n` is chosen as if those before it were running."""
    chosen = list[int]()
    while True:
        gains = factors * process.expected_improvement(best)
        if not np.all(np.isfinite(gains)):
            raise ArithmeticError("an expected improvement is not finite")
        gains[chosen] = -1
        order = [int(k) for k in np.argsort(-gains, kind="stable")]
        chosen.append(order[0])
        if len(chosen) >= min(n, len(factors)):
            return [*chosen, *(k for k in order if k not in chosen)]
        process.fantasize(order[0])


class GaussianProcess:
    """A Gaussian process conditioned on observed points, evaluated at candidate points under each kernel setting.

    Args:
        observed: Observed points, [observed, coordinate].
        values: Values at the observed points, scaled to a mean near 0 and a variance near 1.
        candidates: Points to evaluate, [candidate, coordinate].

    Raises:
        ArithmeticError: If a covariance matrix is singular, because points are too close for the smallest noise.
    """

    def __init__(self, observed: Floats, values: Floats, candidates: Floats) -> None:
        # A fixed seed, so that the same results lead to the same order.
        generator = np.random.default_rng(0)
        self._lengths = _log_uniform(generator, LENGTH_SCALE_BOUNDS, (N_SETTINGS, observed.shape[1]))
        self._noise = _log_uniform(generator, NOISE_BOUNDS, (N_SETTINGS,))
        self._candidates = candidates
        covariance = rbf_kernel(observed, observed, self._lengths) + self._noise[:, None, None] * np.eye(len(observed))
        try:
            root = np.linalg.cholesky(covariance)  # L of Rasmussen and Williams' algorithm 2.1
        except np.linalg.LinAlgError as error:
            raise ArithmeticError(str(error)) from None
        cross = rbf_kernel(observed, candidates, self._lengths)
        solved = np.linalg.solve(root, np.concatenate([cross, np.tile(values[:, None], (N_SETTINGS, 1, 1))], 2))
        self._cross = solved[:, :, :-1]  # L⁻¹k [setting, observed, candidate]
        self._values = solved[:, :, -1]  # L⁻¹y [setting, observed]
        self._log_root = np.log(np.einsum("sii->si", root)).sum(1)  # log det L [setting]

    def expected_improvement(self, best: float) -> Floats:
        """Return the expected improvement of a run at each candidate on `best`, including the run's own noise."""
        mean = np.einsum("sk,ska->sa", self._values, self._cross)
        deviation = np.sqrt(np.maximum(1 - (self._cross**2).sum(1), 0) + self._noise[:, None])
        z = (mean - best) / deviation
        improvement = (mean - best) * ndtr(z) + deviation * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        log_likelihood = -(self._values**2).sum(1) / 2 - self._log_root
        weight = np.exp(log_likelihood - log_likelihood.max())
        result: Floats = weight @ improvement / weight.sum()
        return result

    def fantasize(self, k: int) -> None:
        """Condition on candidate `k` with the mean as its value, which appends one row to L."""
        row = self._cross[:, :, k]
        corner = np.sqrt(np.maximum(1 - (row**2).sum(1), 0) + self._noise)
        cross = rbf_kernel(self._candidates[k : k + 1], self._candidates, self._lengths)[:, 0]
        cross = (cross - np.einsum("sk,ska->sa", row, self._cross)) / corner[:, None]
        value = -(row * self._values).sum(1) / corner
        self._cross = np.concatenate([self._cross, cross[:, None]], 1)
        self._values = np.concatenate([self._values, value[:, None]], 1)
        self._log_root = self._log_root + np.log(corner)


def rbf_kernel(x: Floats, y: Floats, lengths: Floats) -> Floats:
    """Return the covariances exp(-d²/2) between points, [setting, x, y].

    Args:
        x: Points, [x, coordinate].
        y: Points, [y, coordinate].
        lengths: Length scales, [setting, coordinate], by which distances d are divided.
    """
    a, b = x / lengths[:, None, :], y / lengths[:, None, :]
    distance = (a**2).sum(-1)[:, :, None] + (b**2).sum(-1)[:, None, :] - 2 * a @ b.transpose(0, 2, 1)
    result: Floats = np.exp(-np.maximum(distance, 0) / 2)
    return result


def _log_uniform(generator: np.random.Generator, bounds: tuple[float, float], shape: tuple[int, ...]) -> Floats:
    return np.exp(generator.uniform(math.log(bounds[0]), math.log(bounds[1]), shape))
