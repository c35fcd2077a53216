"""The base class of tasks: what a network learns from the digits of a number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]


class Task(ABC):
    """Classification tasks on the p² pairs of digits, which a network learns at once.

    A subclass defines `moduli` and `labels`. The other methods have defaults. All of them depend on nothing but their
    arguments, since every machine of a study calls them by itself.
    """

    balanced: ClassVar[bool] = False
    """Whether every class counts the same, however rare it is.

    The loss is then adjusted to the shares of the classes, and the accuracy is the mean over the classes.
    """

    def check(self, p: int) -> None:
        """Check that the task exists for a base.

        Args:
            p: A prime of at least 5.

        Raises:
            ValueError: It does not. The message says which p does.
        """
        return

    @abstractmethod
    def moduli(self, p: int) -> tuple[int, ...]:
        """Return the number by which each task is known, usually its modulus. No two are equal."""

    def classes(self, p: int) -> tuple[int, ...]:
        """Return the number of classes of each task, at least 2. By default its modulus."""
        return self.moduli(p)

    def scored(self, p: int) -> tuple[bool, ...]:
        """Return whether each task counts in the loss and in the score. By default all do."""
        return (True,) * len(self.moduli(p))

    @abstractmethod
    def labels(self, x: Ints, p: int, generator: np.random.Generator) -> Ints:
        """Return the class of every sample in every task.

        Args:
            x: The digits (x0, x1) of every n below p², in the order of n, int64 `[p², 2]`.
            p: The base, a prime.
            generator: A source of random numbers, the same for the same `data_seed`.

        Returns:
            Integers from 0 to below the number of classes, `[p², tasks]`.
        """
