"""The digits of the samples, which are the numbers below p² (2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def digits(p: int) -> NDArray[np.int32]:
    """Return the digits (x0, x1) of every n = x0·p⁰ + x1·p¹ (Eq. 2).

    Args:
        p: The base.

    Returns:
        The digits in the order of n, `[p², 2]`.
    """
    n = np.arange(p * p, dtype=np.int32)
    return np.stack([n % p, n // p], axis=1)
