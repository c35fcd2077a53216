"""What the embeddings hold (4.3): positions, singular values, periods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miiii_search.analysis.fourier import DetectedFrequencies, detect_frequencies, frequency_energies
from miiii_search.analysis.network import Weights

VARIANCE_SHARES = (0.5, 0.9)
"""Shares of the squared singular values at which Fig. 9 has its ticks."""


@dataclass(frozen=True)
class SingularValues:
    """Of the embedding of the p digits, largest first."""

    values: NDArray[np.float64]  # [min(p, d)]
    vectors: NDArray[np.float64]  # [p, min(p, d)], a column a singular vector over the digits
    rank_by_share: dict[float, int]
    """How many values it takes to come to each of `VARIANCE_SHARES`."""

    def frequency(self, index: int) -> tuple[int, float]:
        """The dominant frequency of one singular vector, and the share that it has of the vector's variance."""
        energies = frequency_energies(self.vectors[:, [index]])
        total = energies.sum()
        return int(energies.argmax()) + 1, float(energies.max() / total) if total else 0.0


@dataclass(frozen=True)
class Embeddings:
    """Figures 8 to 14 in numbers."""

    position_correlation: float
    """Pearson's, between the positions of x0 and x1 (Fig. 8)."""
    singular: SingularValues
    frequencies: DetectedFrequencies


def analyze_embeddings(weights: Weights) -> Embeddings:
    """Of the digits' tokens; that of ŷ is not among them."""
    position = weights["position_embedding"].astype(np.float64)
    digits = weights["token_embedding"][:-1].astype(np.float64)  # [p, d]
    return Embeddings(pearson(position[0], position[1]), singular_values(digits), detect_frequencies(digits))


def pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The correlation coefficient; 0 where one of them does not vary."""
    # Asked of the values: what rounding leaves of a constant less its mean would correlate.
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else 0.0


def singular_values(table: NDArray[np.float64]) -> SingularValues:
    """Of a table over the digits `[p, d]`, as it is: not centred."""
    vectors, values, _ = np.linalg.svd(table, full_matrices=False)
    squares = np.cumsum(values**2)
    # A little less, so that rounding asks for no further value where so many hold a share exactly.
    rank_by_share = {mark: 1 + int(np.count_nonzero(squares < (mark - 1e-9) * squares[-1])) for mark in VARIANCE_SHARES}
    return SingularValues(values, vectors, rank_by_share)
