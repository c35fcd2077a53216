"""Periods: the Fourier basis over the p digits, and what of a matrix or of a grid lies at each frequency.

A frequency k = 1 … (p−1)/2 stands for the pair cos(2πkx/p), sin(2πkx/p).
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
"""How often pure noise is to show any frequency at all."""

NOISE_QUANTILE = 0.25
"""Noise is measured on the quietest quarter of the frequencies: up to three quarters may carry something."""

SHUFFLES = 1000
"""Orders of the digits that noise is judged by; ten of them exceed the threshold."""


def n_frequencies(p: int) -> int:
    """(p − 1) / 2: those of a real function on p points, without the constant."""
    return (p - 1) // 2


@cache
def fourier_basis(p: int) -> NDArray[np.float64]:
    """The orthonormal real basis of functions on p digits (Fig. 22, Nanda et al.): a row a function `[p, p]`.

    The constant first, then cos and sin of frequency 1, 2, …
    """
    basis = np.concatenate(
        [np.full((1, p), 1 / np.sqrt(p)), *(cosine_and_sine(p, k) for k in range(1, n_frequencies(p) + 1))]
    )
    basis.flags.writeable = False  # one for all callers
    return basis


def cosine_and_sine(p: int, k: int) -> NDArray[np.float64]:
    """cos and sin of frequency `k` over p digits, orthonormal `[2, p]`."""
    # Reduced first: an angle of many turns has fewer digits left for the rest.
    angle = 2 * np.pi / p * (k * np.arange(p) % p)
    pair: NDArray[np.float64] = np.stack([np.cos(angle), np.sin(angle)]) * np.sqrt(2 / p)
    return pair


def in_fourier_basis(table: Floats) -> NDArray[np.float64]:
    """A table `[p, d]` over the digits by the functions of `fourier_basis` `[p, d]` (Fig. 12 to 14)."""
    coefficients: NDArray[np.float64] = fourier_basis(len(table)) @ table.astype(np.float64)
    return coefficients


def frequency_energies(table: Floats) -> NDArray[np.float64]:
    """The squared norm of what of a table `[p, d]` over the digits lies at each frequency `[(p − 1) / 2]`."""
    squares = in_fourier_basis(table)[1:] ** 2
    energies: NDArray[np.float64] = squares.sum(axis=1).reshape(-1, 2).sum(axis=1)
    return energies


@dataclass(frozen=True)
class DetectedFrequencies:
    """Which frequencies of a table carry more than noise would."""

    energies: NDArray[np.float64]  # [(p − 1) / 2]
    threshold: float
    """The energy that any frequency exceeds in one of a hundred tables without periods."""

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


def detect_frequencies(table: Floats) -> DetectedFrequencies:
    """The frequencies of a table `[p, d]` over the digits that carry more than they would in another order of digits.

    Noise is the quietest quarter of the frequencies, and the threshold is as many times that as the largest energy is
    in all but `FAMILYWISE_ERROR` of random orders. χ² would do for white noise, but the columns of a trained embedding
    are correlated. What was found is taken out and the rest shuffled again, since a strong frequency is much of any
    order and hides a weak one.

    Five digits are too few: a sixth of their orders only swaps frequencies, so that none is ever found.
    """
    table = table.astype(np.float64)
    energies, rest, active = frequency_energies(table), table, np.zeros(n_frequencies(len(table)), bool)
    # Below this it is rounding, where there is no noise at all.
    threshold, floor = np.inf, (table**2).sum() * np.finfo(np.float32).eps
    while not active.all():
        threshold = min(threshold, max(floor, _quiet(energies) * _shuffled_ratio(rest)))
        new = (energies > threshold) & ~active
        if not new.any():
            break
        active |= new
        rest = without_frequencies(table, 1 + np.flatnonzero(active))
    return DetectedFrequencies(energies, float(threshold))


def without_frequencies(table: Floats, frequencies: Iterable[int]) -> Floats:
    """A table `[p, d]` over the digits rid of cos and sin of some frequencies, in its precision."""
    rest = table
    for k in frequencies:
        pair = cosine_and_sine(len(table), k).astype(table.dtype)
        rest = rest - pair.T @ (pair @ table)
    return rest


def _shuffled_ratio(table: Floats) -> float:
    """How many times the quiet energy the largest is, in all but `FAMILYWISE_ERROR` of random orders of the digits.

    Always by the same orders.
    """
    random = np.random.default_rng(0)
    energies = np.stack([frequency_energies(random.permutation(table)) for _ in range(SHUFFLES)])
    quiet, largest = _quiet(energies), energies.max(axis=1)
    ratios = np.divide(largest, quiet, out=np.ones(SHUFFLES), where=quiet > 0)
    # A little more, since rounding may put an order that only swaps frequencies on either side of what it repeats.
    return float(np.quantile(ratios, 1 - FAMILYWISE_ERROR, method="higher")) * (1 + 1e-9)


def _quiet(energies: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest energy of the quietest quarter, over the last axis."""
    # Not interpolated: the next one may be of a frequency that carries something.
    quiet: NDArray[np.float64] = np.quantile(energies, NOISE_QUANTILE, axis=-1, method="lower")
    return quiet


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
