"""Frequencies that the neurons use, through training (section 4.4, Fig. 17, 21, Table 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from miiii_search.analysis.network import Floats

SIGMAS = 2.0
"""Threshold of the paper: a frequency is active if ω > μ + 2σ."""

WALL_RATIO = 1.5
"""Number of active frequencies that counts as a wall, relative to the end. In the paper it is 18 of 10."""

MIN_WALL_EXCESS = 4
"""Number of active frequencies that a wall must have more than the end. Smaller differences are chance."""

SMOOTHING_SIGMA = 1.0
"""Standard deviation of the smoothing in `smoothed`, in recorded epochs, which are evenly spaced on the logarithmic
axis.

The public code smooths by this much before it counts frequencies above one σ.
"""


@dataclass(frozen=True)
class FrequencyActivity:
    """Mean activation of each frequency by the neurons, at each recorded epoch."""

    epochs: NDArray[np.intp]  # [epochs], ascending
    activation: NDArray[np.float64]  # [epochs, 2, (p − 1) / 2], of x0 and of x1; sums to 1 over the last axis

    def threshold(self, sigmas: float = SIGMAS) -> NDArray[np.float64]:
        """Return μ + `sigmas`·σ of each digit `[2]`, taken over all frequencies at all epochs."""
        limit: NDArray[np.float64] = self.activation.mean(axis=(0, 2)) + sigmas * self.activation.std(axis=(0, 2))
        return limit

    def counts(self, sigmas: float = SIGMAS) -> NDArray[np.intp]:
        """Return the number of active frequencies of each digit at each epoch `[epochs, 2]`."""
        active: NDArray[np.bool_] = self.activation > self.threshold(sigmas)[None, :, None]
        return np.asarray(np.count_nonzero(active, axis=2))

    def phases(self) -> list[int]:
        """Return the phase of training of each epoch, by the number of active frequencies of both digits (Fig. 17).

        Phase 1: no frequency has been active yet. Phase 2: some have been. Phase 3: a wall of frequencies, which has at
        least `WALL_RATIO` times as many as the end and `MIN_WALL_EXCESS` more. Phase 4: all epochs after the last wall.
        Without a wall no epoch is in phase 3 or 4.
        """
        counts = self.counts().sum(axis=1)
        wall = np.flatnonzero((counts >= WALL_RATIO * counts[-1]) & (counts >= counts[-1] + MIN_WALL_EXCESS))
        last = wall[-1] if len(wall) else len(counts)
        return [
            3 if index in wall else 4 if index > last else 2 if counts[: index + 1].any() else 1
            for index in range(len(counts))
        ]

    def smoothed(self) -> FrequencyActivity:
        """Return the activations smoothed over the epochs, as the public code does before it counts."""
        return FrequencyActivity(self.epochs, scipy.ndimage.gaussian_filter1d(self.activation, SMOOTHING_SIGMA, axis=0))


def analyze_activity(spectra: Mapping[int, Floats]) -> FrequencyActivity | None:
    """Compute the mean activation of each digit's frequencies.

    A spectrum is the magnitude of each neuron's 2-d Fourier transform over the grid, averaged over the neurons. It
    contains the half of x1's frequencies that is not redundant for a real function. The constant's row and column are
    left out. The rest is summed to one value per frequency of each digit and normalised.

    Args:
        spectra: Spectra `[p, p // 2 + 1]` recorded in training, by epoch.

    Returns:
        The activations, or None if no spectrum was recorded.
    """
    if not spectra:
        return None
    epochs = sorted(spectra)
    return FrequencyActivity(np.asarray(epochs), np.stack([_by_digit(spectra[epoch]) for epoch in epochs]))


def _by_digit(spectrum: Floats) -> NDArray[np.float64]:
    """Return the activations `[2, (p − 1) / 2]` of one spectrum.

    Each row sums to 1. It is uniform if the spectrum is zero.
    """
    half = spectrum.astype(np.float64)[1:, 1:]  # [p − 1, m]: k = 1 … p − 1 of x0, l = 1 … m of x1
    m = half.shape[1]
    # |F(−k, −l)| = |F(k, l)|: the redundant half would double every sum, so it can be left out.
    x0_activation = half.sum(axis=1)
    x0_activation = x0_activation[:m] + x0_activation[: m - 1 : -1]
    activation = np.stack([x0_activation, half.sum(axis=0)])
    total = activation.sum(axis=1, keepdims=True)
    return np.where(total > 0, activation / np.where(total > 0, total, 1), 1 / m)
