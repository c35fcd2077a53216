"""Fourier analysis over the p digits: the basis, and the energy of matrices and grids at each frequency.

A frequency k = 1 … (p − 1) / 2 stands for the pair of functions cos(2πkx/p) and sin(2πkx/p).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from miiii_search.analysis.network import Floats

FAMILYWISE_ERROR = 0.01
"""Probability that at least one frequency of pure noise is detected."""

NOISE_QUANTILE = 0.25
"""The noise level is the energy at this quantile of the frequencies, so up to three quarters may carry a signal."""

SHUFFLES = 1000
"""Number of random orders of the digits for the noise threshold. Ten of them exceed it."""


def n_frequencies(p: int) -> int:
    """Return (p − 1) / 2, the number of frequencies of a real function on p points without the constant."""
    return (p - 1) // 2


@cache
def fourier_basis(p: int) -> NDArray[np.float64]:
    """Return the orthonormal real Fourier basis over p digits, one function per row `[p, p]` (Fig. 22, Nanda et al.).

    The rows are the constant, then cos and sin of frequency 1, 2, …
    """
    basis = np.concatenate(
        [np.full((1, p), 1 / np.sqrt(p)), *(cosine_and_sine(p, k) for k in range(1, n_frequencies(p) + 1))]
    )
    basis.flags.writeable = False  # all callers share it
    return basis


def cosine_and_sine(p: int, k: int) -> NDArray[np.float64]:
    """Return cos and sin of frequency `k` over p digits, normalized to unit length `[2, p]`."""
    # Reduced modulo p first, since large angles lose precision.
    angle = 2 * np.pi / p * (k * np.arange(p) % p)
    pair: NDArray[np.float64] = np.stack([np.cos(angle), np.sin(angle)]) * np.sqrt(2 / p)
    return pair


def in_fourier_basis(table: Floats) -> NDArray[np.float64]:
    """Transform a table over the digits `[p, d]` to the Fourier basis `[p, d]` (Fig. 12 to 14)."""
    coefficients: NDArray[np.float64] = fourier_basis(len(table)) @ table.astype(np.float64)
    return coefficients


def frequency_energies(table: Floats) -> NDArray[np.float64]:
    """Return the energy (squared norm) of a table over the digits `[p, d]` at each frequency `[(p − 1) / 2]`."""
    squares = in_fourier_basis(table)[1:] ** 2
    energies: NDArray[np.float64] = squares.sum(axis=1).reshape(-1, 2).sum(axis=1)
    return energies


@dataclass(frozen=True)
class DetectedFrequencies:
    """The energy of a table at each frequency, and the threshold above which it is not noise."""

    energies: NDArray[np.float64]  # [(p − 1) / 2]
    threshold: float
    """Energy that any frequency exceeds in one of a hundred tables without periodic structure."""

    @property
    def active(self) -> NDArray[np.intp]:
        """The frequencies above the threshold, ascending; the first possible one is 1."""
        return 1 + np.flatnonzero(self.energies > self.threshold)

    @property
    def participation(self) -> float:
        """Participation ratio (Σe)² / Σe²: the effective number of frequencies, independent of the threshold."""
        total = self.energies.sum()
        return float(total**2 / (self.energies**2).sum()) if total else 0.0

    def energy_share(self, n: int) -> float:
        """Return the share of the energy at the `n` strongest frequencies."""
        total = self.energies.sum()
        return float(np.sort(self.energies)[::-1][:n].sum() / total) if total else 0.0


def detect_frequencies(table: Floats) -> DetectedFrequencies:
    """Detect the frequencies of a table that have more energy than in random orders of the digits.

    The noise level is the energy at the `NOISE_QUANTILE` of the frequencies. The threshold is a multiple of it: the
    ratio of the largest energy to the noise level, which random orders exceed with probability `FAMILYWISE_ERROR`. A χ²
    test would do for white noise, but the columns of a trained embedding are correlated.

    Detected frequencies are removed and the rest is shuffled again. A strong frequency raises the energies of every
    random order, and would hide a weak one.

    For p = 5 no frequency is ever detected, since a sixth of the random orders only exchanges the two frequencies.

    Args:
        table: A table over the digits `[p, d]`.
    """
    table = table.astype(np.float64)
    energies, rest, active = frequency_energies(table), table, np.zeros(n_frequencies(len(table)), bool)
    # Energies below the floor are rounding errors, if the table contains no noise at all.
    threshold, floor = np.inf, (table**2).sum() * np.finfo(np.float32).eps
    while not active.all():
        threshold = min(threshold, max(floor, _noise_level(energies) * _shuffled_ratio(rest)))
        new = (energies > threshold) & ~active
        if not new.any():
            break
        active |= new
        rest = without_frequencies(table, 1 + np.flatnonzero(active))
    return DetectedFrequencies(energies, float(threshold))


def without_frequencies(table: Floats, frequencies: Iterable[int]) -> Floats:
    """Return a table over the digits `[p, d]` without cos and sin of some frequencies, in its precision."""
    rest = table
    for k in frequencies:
        pair = cosine_and_sine(len(table), k).astype(table.dtype)
        rest = rest - pair.T @ (pair @ table)
    return rest


def _shuffled_ratio(table: Floats) -> float:
    """Return the ratio of the largest energy to the noise level that random orders exceed with `FAMILYWISE_ERROR`.

    The random orders are the same in every call.
    """
    random = np.random.default_rng(0)
    energies = np.stack([frequency_energies(random.permutation(table)) for _ in range(SHUFFLES)])
    quiet, largest = _noise_level(energies), energies.max(axis=1)
    ratios = np.divide(largest, quiet, out=np.ones(SHUFFLES), where=quiet > 0)
    # The tolerance covers rounding errors of orders that only exchange frequencies and so reach the same ratio.
    return float(np.quantile(ratios, 1 - FAMILYWISE_ERROR, method="higher")) * (1 + 1e-9)


def _noise_level(energies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the noise level of energies: their `NOISE_QUANTILE` over the last axis."""
    # Not interpolated, since the next energy may belong to a frequency that carries a signal.
    quiet: NDArray[np.float64] = np.quantile(energies, NOISE_QUANTILE, axis=-1, method="lower")
    return quiet


def grid_power(grids: Floats) -> NDArray[np.float64]:
    """Compute the power of functions on the grid at each pair of frequencies.

    Entry (k, l) is the power of the products of cos and sin of k in x0 with cos and sin of l in x1: four functions,
    fewer if k or l is 0. Entry (0, 0) is the constant. All entries sum to the sum of squares over the grid (Parseval).

    Args:
        grids: Functions on the grid `[..., p, p]`.

    Returns:
        The power `[..., m, m]` with m = (p + 1) / 2.
    """
    p = grids.shape[-1]
    power = np.abs(scipy.fft.rfft2(grids, workers=-1)) ** 2 / p**2
    power[..., 1:] *= 2  # the redundant half of x1's frequencies
    m = n_frequencies(p)
    folded: NDArray[Any] = power[..., : m + 1, :].copy()
    folded[..., 1:, :] += power[..., : -m - 1 : -1, :]  # add −k to k
    return folded.astype(np.float64)


def dft_matrix(p: int) -> NDArray[np.complex128]:
    """Return the discrete Fourier transform as a matrix `[p, p]` (appendix B, Fig. 22)."""
    k = np.arange(p)
    matrix: NDArray[np.complex128] = np.exp(-2j * np.pi * np.outer(k, k) / p)
    return matrix
