"""Tasks as a user of the package writes them, right and wrong, for test_task_registry.py."""

from __future__ import annotations

from typing import cast

import numpy as np

from miiii_search.experiment.builtin_tasks import Miiii
from miiii_search.experiment.task import Ints, Task


class Parity(Task):
    """Whether x0 + x1 is even, and whether it is a multiple of 3, with one of them scored."""

    def moduli(self, p: int) -> tuple[int, ...]:
        """Return 2 and 3."""
        return (2, 3)

    def classes(self, p: int) -> tuple[int, ...]:
        """Return two classes each."""
        return (2, 2)

    def scored(self, p: int) -> tuple[bool, ...]:
        """Return that the second is not scored."""
        return (True, False)

    def labels(self, x: Ints, p: int, generator: np.random.Generator) -> Ints:
        """Return 1 where the sum is a multiple."""
        return cast(Ints, (x.sum(axis=1)[:, None] % np.asarray([2, 3]) == 0).astype(np.int8))


instance = Parity()
number = 7


class Failing(Parity):
    """A task that cannot be computed."""

    def labels(self, x: Ints, p: int, generator: np.random.Generator) -> Ints:
        """Fail."""
        raise RuntimeError(f"no labels for {p}")


class WrongShape(Parity):
    """Labels of one task for two."""

    def labels(self, x: Ints, p: int, generator: np.random.Generator) -> Ints:
        """Return one column."""
        return super().labels(x, p, generator)[:, :1]


class Fractions(Parity):
    """Labels that are no integers."""

    def labels(self, x: Ints, p: int, generator: np.random.Generator) -> Ints:
        """Return floats."""
        return cast(Ints, super().labels(x, p, generator) / 2)


class TooLarge(Parity):
    """A label beyond the classes."""

    def labels(self, x: Ints, p: int, generator: np.random.Generator) -> Ints:
        """Return 2 in the second task."""
        return cast(Ints, super().labels(x, p, generator) + np.asarray([0, 1]))


class Negative(Parity):
    """A label below 0."""

    def labels(self, x: Ints, p: int, generator: np.random.Generator) -> Ints:
        """Return −1 in the first task."""
        return cast(Ints, super().labels(x, p, generator) - np.asarray([1, 0]))


class EqualModuli(Parity):
    """Two tasks with one modulus."""

    def moduli(self, p: int) -> tuple[int, ...]:
        """Return 2 twice."""
        return (2, 2)


class OneClass(Parity):
    """A task with nothing to decide."""

    def classes(self, p: int) -> tuple[int, ...]:
        """Return one class."""
        return (2, 1)


class TooFewClasses(Parity):
    """Classes of one task for two."""

    def classes(self, p: int) -> tuple[int, ...]:
        """Return one number."""
        return (2,)


class NothingScored(Parity):
    """No task that counts."""

    def scored(self, p: int) -> tuple[bool, ...]:
        """Return False."""
        return (False, False)


class TooFewScored(Parity):
    """Scored of one task for two."""

    def scored(self, p: int) -> tuple[bool, ...]:
        """Return one boolean."""
        return (True,)


class OnlySeven(Parity):
    """A task for one base."""

    def check(self, p: int) -> None:
        """Refuse others."""
        if p != 7:
            raise ValueError(f"task OnlySeven needs p = 7, but p = {p}")


class FiveAlone(Miiii):
    """The paper's remainders with q = 5 alone in the score."""

    def scored(self, p: int) -> tuple[bool, ...]:
        """Return whether each q is 5."""
        return tuple(q == 5 for q in self.moduli(p))
