"""Frequencies to which the neurons respond (section 4.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miiii_search.analysis.fourier import grid_power
from miiii_search.analysis.network import Floats

BLOCK_SIZE = 128
"""Number of neurons transformed at once, which takes a few dozen megabytes."""

DEAD_SHARE = 1e-6
"""A neuron is dead if its variance is at most this share of the largest variance."""


@dataclass(frozen=True)
class Neurons:
    """Properties of each neuron, in the order of the weights."""

    variance: NDArray[np.float64]  # [neurons], over the grid
    frequency: NDArray[np.intp]  # [neurons, 2], dominant one of x0 and of x1
    explained: NDArray[np.float64]  # [neurons]
    """Share of the variance at the dominant frequencies, of each digit alone and of both together."""
    single: NDArray[np.intp]  # [neurons]
    """The frequency that explains most if it is used for both digits, as in the solution of `nanda`."""
    single_explained: NDArray[np.float64]  # [neurons]
    dominance: NDArray[np.float64]  # [neurons, 2]
    """Share of the variance that depends on x0, or on x1, at the dominant frequency of that digit."""

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Whether each neuron varies at all `[neurons]`."""
        alive: NDArray[np.bool_] = self.variance > DEAD_SHARE * self.variance.max(initial=0)
        return alive

    def median(self, values: NDArray[np.float64]) -> float:
        """Return the median of `values` `[neurons]` over the neurons that are alive; 0 if there is none."""
        return float(np.median(values[self.alive])) if self.alive.any() else 0.0


def analyze_neurons(neurons: Floats, p: int) -> Neurons:
    """Analyze the neurons' activations.

    Args:
        neurons: Activations over the whole grid `[neurons, p²]`, in the order of `network.grid`.
        p: Number of digits.
    """
    found = [_analyze(neurons[at : at + BLOCK_SIZE].reshape(-1, p, p)) for at in range(0, len(neurons), BLOCK_SIZE)]
    return Neurons(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _analyze(grids: Floats) -> tuple[NDArray[Any], ...]:
    """Return the fields of `Neurons` for some neurons `[n, p, p]`."""
    power = grid_power(grids)  # [n, m, m]
    power[:, 0, 0] = 0
    total = power.sum(axis=(1, 2))
    divisor = np.where(total > 0, total, 1)
    rows = np.arange(len(power))
    by_x0, by_x1 = power.sum(axis=2)[:, 1:], power.sum(axis=1)[:, 1:]
    k0, k1 = 1 + by_x0.argmax(axis=1), 1 + by_x1.argmax(axis=1)
    explained = (power[rows, k0, 0] + power[rows, 0, k1] + power[rows, k0, k1]) / divisor
    diagonal = np.einsum("nkk->nk", power)
    same = (power[:, :, 0] + power[:, 0, :] + diagonal)[:, 1:]
    single = same.argmax(axis=1)
    dominance = [
        by[rows, k - 1] / np.where(by.sum(axis=1) > 0, by.sum(axis=1), 1) for by, k in ((by_x0, k0), (by_x1, k1))
    ]
    variance = total / grids.shape[-1] ** 2
    return variance, np.stack([k0, k1], 1), explained, single + 1, same[rows, single] / divisor, np.stack(dominance, 1)
