"""Which frequencies the neurons use, through training (4.4, Fig. 17, 21, Table 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from miiii_search.analysis.network import Floats

SIGMAS = 2.0
"""The paper's threshold: active is ω > μ + 2σ."""

SPIKE = 1.5
"""The paper's wall has 18 frequencies, and 10 are left."""

LEAST_SPIKE = 4
"""Of few active frequencies one more or less is luck."""

SMOOTHING = 1.0
"""In looks, which lie evenly on the logarithmic axis. The public code smoothed so before it counted above one σ."""


@dataclass(frozen=True)
class FrequencyActivity:
    """The neurons' mean frequency activation at every look."""

    epochs: NDArray[np.intp]  # [looks], ascending
    activation: NDArray[np.float64]  # [looks, 2, (p − 1) / 2], of x0 and of x1, each digit's of a look sums to 1

    def threshold(self, sigmas: float = SIGMAS) -> NDArray[np.float64]:
        """μ + so many σ of each digit over all frequencies of all looks `[2]`."""
        limit: NDArray[np.float64] = self.activation.mean(axis=(0, 2)) + sigmas * self.activation.std(axis=(0, 2))
        return limit

    def counts(self, sigmas: float = SIGMAS) -> NDArray[np.intp]:
        """How many frequencies of each digit are active at each look `[looks, 2]`."""
        active: NDArray[np.bool_] = self.activation > self.threshold(sigmas)[None, :, None]
        return np.asarray(np.count_nonzero(active, axis=2))

    def phases(self) -> list[int]:
        """Which of the paper's four phases each look is in (Fig. 17), by the active frequencies of both digits.

        1: none has been active yet. 2: some are. 3: a wall of frequencies, at least `SPIKE` times as many as at the
        end, and `LEAST_SPIKE` more. 4: after the last look at a wall. Without a wall no look is in 3 or 4.
        """
        counts = self.counts().sum(axis=1)
        wall = np.flatnonzero((counts >= SPIKE * counts[-1]) & (counts >= counts[-1] + LEAST_SPIKE))
        last = wall[-1] if len(wall) else len(counts)
        return [
            3 if look in wall else 4 if look > last else 2 if counts[: look + 1].any() else 1
            for look in range(len(counts))
        ]

    def smoothed(self) -> FrequencyActivity:
        """Smoothed over the looks, as the public code does before it counts."""
        return FrequencyActivity(self.epochs, scipy.ndimage.gaussian_filter1d(self.activation, SMOOTHING, axis=0))


def analyze_activity(spectra: Mapping[int, Floats]) -> FrequencyActivity | None:
    """Of the spectra `[p, p // 2 + 1]` that training recorded, by epoch; None if there are none.

    A spectrum is the magnitude of each neuron's 2-d Fourier transform over the grid, mean over the neurons, the half
    of x1's frequencies that a real function does not repeat. Without the constant's row and column it is summed over
    one digit's frequencies to one value a frequency of the other, and normalised.
    """
    if not spectra:
        return None
    epochs = sorted(spectra)
    return FrequencyActivity(np.asarray(epochs), np.stack([_by_digit(spectra[epoch]) for epoch in epochs]))


def _by_digit(spectrum: Floats) -> NDArray[np.float64]:
    """`[2, (p − 1) / 2]`, each summing to 1; uniform where nothing is active at all."""
    half = spectrum.astype(np.float64)[1:, 1:]  # [p − 1, m]: k = 1 … p − 1 of x0, l = 1 … m of x1
    m = half.shape[1]
    # |F(−k, −l)| = |F(k, l)|, so the half that is left out adds the same again to every sum.
    of_x0 = half.sum(axis=1)
    of_x0 = of_x0[:m] + of_x0[: m - 1 : -1]
    activation = np.stack([of_x0, half.sum(axis=0)])
    total = activation.sum(axis=1, keepdims=True)
    return np.where(total > 0, activation / np.where(total > 0, total, 1), 1 / m)
