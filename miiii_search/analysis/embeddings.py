"""Structure of the embeddings: positions, singular values and frequencies (section 4.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miiii_search.analysis.fourier import DetectedFrequencies, detect_frequencies, frequency_energies
from miiii_search.analysis.network import Weights

VARIANCE_SHARES = (0.5, 0.9)
"""Shares of the sum of the squared singular values that are marked in Fig. 9."""


@dataclass(frozen=True)
class SingularValues:
    """Singular value decomposition of the embedding of the p digits, largest singular value first."""

    values: NDArray[np.float64]  # [min(p, d)]
    vectors: NDArray[np.float64]  # [p, min(p, d)], one singular vector over the digits per column
    rank_by_share: dict[float, int]
    """Number of singular values needed to hold each of `VARIANCE_SHARES`."""

    def frequency(self, index: int) -> tuple[int, float]:
        """Return the dominant frequency of a singular vector, and the share of its variance at that frequency."""
        energies = frequency_energies(self.vectors[:, [index]])
        total = energies.sum()
        return int(energies.argmax()) + 1, float(energies.max() / total) if total else 0.0


@dataclass(frozen=True)
class Embeddings:
    """Figures 8 to 14 in numbers."""

    position_correlation: float
    """Pearson's correlation between the embeddings of the two positions (Fig. 8)."""
    singular: SingularValues
    frequencies: DetectedFrequencies


def analyze_embeddings(weights: Weights) -> Embeddings:
    """Analyze the position embeddings and the token embeddings of the digits, without the token of ŷ."""
    position = weights["position_embedding"].astype(np.float64)
    digits = weights["token_embedding"][:-1].astype(np.float64)  # [p, d]
    return Embeddings(pearson(position[0], position[1]), singular_values(digits), detect_frequencies(digits))


def pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return Pearson's correlation coefficient, or 0 if one of the arrays is constant."""
    # Compare the values, not the deviations: a constant minus its mean leaves rounding errors, which may correlate.
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else 0.0


def singular_values(table: NDArray[np.float64]) -> SingularValues:
    """Decompose a table over the digits `[p, d]`, without centring it."""
    vectors, values, _ = np.linalg.svd(table, full_matrices=False)
    squares = np.cumsum(values**2)
    # The tolerance keeps rounding errors from adding a value if fewer hold the share exactly.
    rank_by_share = {mark: 1 + int(np.count_nonzero(squares < (mark - 1e-9) * squares[-1])) for mark in VARIANCE_SHARES}
    return SingularValues(values, vectors, rank_by_share)
