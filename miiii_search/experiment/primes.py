"""Prime numbers, the moduli of the paper's tasks."""

from __future__ import annotations

from functools import cache
from math import isqrt


@cache
def primes_below(limit: int) -> tuple[int, ...]:
    """Return the primes smaller than `limit`, in ascending order."""
    return tuple(n for n in range(2, limit) if all(n % k for k in range(2, isqrt(n) + 1)))
