"""What the neurons react to (4.4): the frequencies of both digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miiii_search.analysis.fourier import grid_power
from miiii_search.analysis.network import Floats

BLOCK = 128
"""Neurons transformed at once: a few dozen megabytes."""

DEAD = 1e-6
"""A neuron that varies less than this share of the most active one has no frequency."""


@dataclass(frozen=True)
class Neurons:
    """A row a neuron, in the order of the weights."""

    variance: NDArray[np.float64]  # [neurons], over the grid
    frequency: NDArray[np.intp]  # [neurons, 2], dominant one of x0 and of x1
    explained: NDArray[np.float64]  # [neurons]
    """The share of the variance at the dominant frequencies: of each digit alone, and of both together."""
    single: NDArray[np.intp]  # [neurons]
    """The one frequency that, taken for both digits, explains most: how `nanda` is solved."""
    single_explained: NDArray[np.float64]  # [neurons]
    dominance: NDArray[np.float64]  # [neurons, 2]
    """The share that the dominant frequency has of all that varies with x0, and with x1."""

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Those that vary at all."""
        alive: NDArray[np.bool_] = self.variance > DEAD * self.variance.max(initial=0)
        return alive

    def median(self, values: NDArray[np.float64]) -> float:
        """Of what is given for each neuron, over those that are alive; 0 if none is."""
        return float(np.median(values[self.alive])) if self.alive.any() else 0.0


def analyze_neurons(neurons: Floats, p: int) -> Neurons:
    """Of activations over the whole grid `[neurons, p²]`, x0 the slower."""
    found = [_analyze(neurons[at : at + BLOCK].reshape(-1, p, p)) for at in range(0, len(neurons), BLOCK)]
    return Neurons(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _analyze(grids: Floats) -> tuple[NDArray[Any], ...]:
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
