"""Periods: the Fourier basis over the p digits, and what of a matrix or of a grid lies at each frequency.

A frequency k = 1 … (p−1)/2 stands for the pair cos(2πkx/p), sin(2πkx/p).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
import scipy.stats
from numpy.typing import NDArray

from miiii_search.analysis.network import Floats

FAMILYWISE_ERROR = 0.01
"""How often pure noise is to show any frequency at all."""

NOISE_QUANTILE = 0.25
"""Noise is measured on the quietest quarter of the frequencies: up to three quarters may carry something."""


def n_frequencies(p: int) -> int:
    """(p − 1) / 2: those of a real function on p points, without the constant."""
    return (p - 1) // 2


def fourier_basis(p: int) -> NDArray[np.float64]:
    """The orthonormal real basis of functions on p digits (Fig. 22, Nanda et al.): a row a function `[p, p]`.

    The constant first, then cos and sin of frequency 1, 2, …
    """
    x = 2 * np.pi * np.arange(p) / p
    rows = [np.ones(p) / np.sqrt(p)]
    for k in range(1, n_frequencies(p) + 1):
        rows += [np.cos(k * x) * np.sqrt(2 / p), np.sin(k * x) * np.sqrt(2 / p)]
    return np.stack(rows)


def frequency_energies(table: Floats) -> NDArray[np.float64]:
    """The squared norm of what of a table `[p, d]` over the digits lies at each frequency `[(p − 1) / 2]`."""
    components = fourier_basis(len(table))[1:] @ table.astype(np.float64)
    energies: NDArray[np.float64] = (components**2).sum(axis=1).reshape(-1, 2).sum(axis=1)
    return energies


@dataclass(frozen=True)
class Frequencies:
    """Which frequencies of a table carry more than noise would."""

    energies: NDArray[np.float64]  # [(p − 1) / 2]
    threshold: float
    """The energy that white noise of the table's level exceeds at any frequency once in a hundred tables."""

    @property
    def active(self) -> NDArray[np.intp]:
        """The frequencies above the threshold, ascending; the first is 1."""
        return 1 + np.flatnonzero(self.energies > self.threshold)

    @property
    def participation(self) -> float:
        """(Σe)² / Σe²: over how many frequencies the energy is spread, without any threshold."""
        total = self.energies.sum()
        return float(total**2 / (self.energies**2).sum()) if total else 0.0

    def share(self, n: int) -> float:
        """How much of the energy the strongest `n` frequencies hold."""
        total = self.energies.sum()
        return float(np.sort(self.energies)[::-1][:n].sum() / total) if total else 0.0


def find_frequencies(table: Floats) -> Frequencies:
    """The frequencies of a table `[p, d]` over the digits that are above its noise.

    White noise of variance σ² has energies σ²·χ² with 2d degrees of freedom at every frequency. σ² is taken from
    the quietest quarter, the threshold is the quantile of `FAMILYWISE_ERROR` over all frequencies (Bonferroni).
    """
    energies = frequency_energies(table)
    chi2 = scipy.stats.chi2(2 * table.shape[1])
    variance = np.quantile(energies, NOISE_QUANTILE) / chi2.ppf(NOISE_QUANTILE)
    threshold = variance * chi2.isf(FAMILYWISE_ERROR / len(energies))
    # Below this it is rounding, where there is no noise at all.
    floor = energies.max() * np.finfo(np.float32).eps
    return Frequencies(energies, float(max(threshold, floor)))


def grid_power(grids: Floats) -> NDArray[np.float64]:
    """The power of functions on the grid `[..., p, p]` by both digits' frequencies `[..., m, m]`, m = (p + 1) / 2.

    Entry (k, l) holds cos and sin of k in x0 times cos and sin of l in x1: four functions, fewer where k or l is 0.
    All entries sum to the sum of squares over the grid (Parseval); (0, 0) is the constant's.
    """
    p = grids.shape[-1]
    power = np.abs(scipy.fft.rfft2(grids, workers=-1)) ** 2 / p**2
    power[..., 1:] *= 2  # frequencies of x1 that a real function repeats
    m = n_frequencies(p)
    folded: NDArray[Any] = power[..., : m + 1, :].copy()
    folded[..., 1:, :] += power[..., : -m - 1 : -1, :]  # −k beside k
    return folded.astype(np.float64)


def dft_matrix(p: int) -> NDArray[np.complex128]:
    """The discrete Fourier transform as a matrix `[p, p]` (appendix B, Fig. 22)."""
    k = np.arange(p)
    matrix: NDArray[np.complex128] = np.exp(-2j * np.pi * np.outer(k, k) / p)
    return matrix
