"""Preference of the attention heads for one of the digits (section 4.5, Fig. 19)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miiii_search.analysis.network import Floats


@dataclass(frozen=True)
class DigitPreference:
    """Preference of each head for one of the digits.

    It is computed from (a0 − a1) / (a0 + a1) over the grid, where a0 and a1 are the attention from ŷ to x0 and to x1. A
    head that only reads x0 has mean 1 and variation 0; one that only reads x1 has mean −1 and variation 0. A head that
    switches between the digits depending on their values has a mean near 0 and a variation of up to 1.
    """

    mean: NDArray[np.float64]  # [heads]
    variation: NDArray[np.float64]  # [heads], the standard deviation over the grid

    @property
    def strength(self) -> float:
        """Mean over the heads of the absolute preference, from 0 to 1."""
        return float(np.abs(self.mean).mean())


def digit_preference(attention: Floats) -> DigitPreference:
    """Compute the preference of each head.

    Attention from ŷ to itself is ignored. A head that only attends to ŷ has no preference.

    Args:
        attention: Attention from ŷ to x0, x1 and ŷ over the grid `[heads, 3, n]`.
    """
    to_x0, to_x1 = attention[:, 0].astype(np.float64), attention[:, 1].astype(np.float64)
    both = to_x0 + to_x1
    preference = np.where(both > 0, to_x0 - to_x1, 0) / np.where(both > 0, both, 1)
    return DigitPreference(preference.mean(axis=1), preference.std(axis=1))
