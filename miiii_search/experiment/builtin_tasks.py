"""The tasks of this package: those of the paper, and operations that are known from other work on grokking."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from miiii_search.experiment.primes import primes_below
from miiii_search.experiment.task import Ints, Task

MASKED_MODULI = (2, 3, 5, 7)
"""Moduli that the task `masked` leaves out of the loss and of the score (appendix A)."""


class Miiii(Task):
    """The remainders n mod q of n = x0 + x1·p for every prime q < p (3.1)."""

    def moduli(self, p: int) -> tuple[int, ...]:
        """Return every prime q < p."""
        return primes_below(p)

    def labels(self, x: Ints, p: int, generator: np.random.Generator) -> Ints:
        """Return n mod q, `[p², tasks]`."""
        remainders: Ints = _numbers(x, p)[:, None] % np.asarray(self.moduli(p))
        return remainders


class Basis(Miiii):
    """The remainders of `Miiii` with the samples permuted: a control that cannot be generalised (3.1).

    Rows are kept whole. So the labels keep their joint distribution, and lose only their relation to the digits.
    """

    def labels(self, x: Ints, p: int, generator: np.random.Generator) -> Ints:
        """Return the rows of `Miiii` in random order, `[p², tasks]`."""
        return super().labels(x, p, generator)[generator.permutation(p * p)]


class Masked(Miiii):
    """The remainders of `Miiii`, without q = 2, 3, 5 and 7 in the loss and in the score (appendix A)."""

    def check(self, p: int) -> None:
        """Check that a task is left.

        Raises:
            ValueError: There is none.
        """
        if p <= 11:
            raise ValueError(f"task masked leaves out q = 2, 3, 5, 7 and needs p > 11, but p = {p}; use p = 13 or more")

    def scored(self, p: int) -> tuple[bool, ...]:
        """Return whether each q is none of 2, 3, 5 and 7."""
        return tuple(q not in MASKED_MODULI for q in self.moduli(p))


class MiiiiAndNanda(Miiii):
    """The remainders of `Miiii`, and (x0 + x1) mod p as one more task beside them."""

    def moduli(self, p: int) -> tuple[int, ...]:
        """Return every prime q ≤ p, where p stands for the sum."""
        return primes_below(p + 1)

    def labels(self, x: Ints, p: int, generator: np.random.Generator) -> Ints:
        """Return n mod q for q < p, and the sum modulo p, `[p², tasks]`."""
        remainders = super().labels(x, p, generator)
        return np.column_stack([remainders[:, :-1], x.sum(axis=1) % p])


class Divisible(Miiii):
    """Whether q divides n = x0 + x1·p, for every prime q < p: binary tasks, of which most answers are no (5)."""

    balanced = True

    def classes(self, p: int) -> tuple[int, ...]:
        """Return two classes for each q."""
        return (2,) * len(self.moduli(p))

    def labels(self, x: Ints, p: int, generator: np.random.Generator) -> Ints:
        """Return 1 where q divides n, `[p², tasks]`."""
        divides: Ints = (super().labels(x, p, generator) == 0).astype(np.int64)
        return divides


class Operation(Task):
    """The result of one operation on both digits, modulo p.

    Args:
        operation: The operation on (x0, x1, p). Its result may be any integer.
    """

    def __init__(self, operation: Callable[[Ints, Ints, int], Ints]) -> None:
        self._operation = operation

    def moduli(self, p: int) -> tuple[int, ...]:
        """Return p alone."""
        return (p,)

    def labels(self, x: Ints, p: int, generator: np.random.Generator) -> Ints:
        """Return the result modulo p, `[p², 1]`."""
        return (self._operation(x[:, 0], x[:, 1], p) % p)[:, None]


def divide(x0: Ints, x1: Ints, p: int) -> Ints:
    """Return x0 / x1 modulo p, and 0 where x1 = 0.

    By Fermat's little theorem, 1/y is y^(p−2). At y = 0 this power is 0.
    """
    inverses = np.asarray([pow(y, p - 2, p) for y in range(p)], np.int64)
    return x0 * inverses[x1]


BUILTIN_TASKS: dict[str, Task] = {
    "miiii": Miiii(),
    "nanda": Operation(lambda x0, x1, p: x0 + x1),
    "basis": Basis(),
    "masked": Masked(),
    "miiii+nanda": MiiiiAndNanda(),
    "divisible": Divisible(),
    "subtraction": Operation(lambda x0, x1, p: x0 - x1),
    "multiplication": Operation(lambda x0, x1, p: x0 * x1),
    "division": Operation(divide),
    "sum-of-squares": Operation(lambda x0, x1, p: x0**2 + x1**2),
    "cubic": Operation(lambda x0, x1, p: x0**3 + x0 * x1),
}
"""The tasks by name, as `experiment.task` has it."""


def _numbers(x: Ints, p: int) -> Ints:
    """Return n = x0 + x1·p (Eq. 2), `[p²]`."""
    return x[:, 0] + x[:, 1] * p
