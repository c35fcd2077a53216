"""Which digit the attention heads read (4.5, Fig. 19)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miiii_search.analysis.network import Floats


@dataclass(frozen=True)
class DigitPreference:
    """Of each head, from (a0 − a1) / (a0 + a1) over the grid, a0 and a1 being the attention from ŷ to x0 and to x1.

    A head that reads x0 throughout has a mean of 1 and varies by 0, one that reads x1 throughout has −1 and 0. One
    that reads now this digit and now that, as they change, has a mean near 0 and varies by up to 1.
    """

    mean: NDArray[np.float64]  # [heads]
    variation: NDArray[np.float64]  # [heads], the standard deviation over the grid

    @property
    def strength(self) -> float:
        """How strongly a head prefers one digit, whichever it is: the mean over the heads."""
        return float(np.abs(self.mean).mean())


def digit_preference(attention: Floats) -> DigitPreference:
    """Of attention from ŷ to x0, x1, ŷ over the grid `[heads, 3, n]`.

    What a head gives to ŷ itself does not enter; where it gives all to ŷ, it prefers neither digit.
    """
    to_x0, to_x1 = attention[:, 0].astype(np.float64), attention[:, 1].astype(np.float64)
    both = to_x0 + to_x1
    preference = np.where(both > 0, to_x0 - to_x1, 0) / np.where(both > 0, both, 1)
    return DigitPreference(preference.mean(axis=1), preference.std(axis=1))
