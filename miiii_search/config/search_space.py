"""Search spaces: the dimensions that a study searches over, and points in such a space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from miiii_search.experiment.spec import Spec

Value = float | int | str
Point = dict[str, Value]
"""A point of a search space: the value of each dimension, by its name."""
PointKey = tuple[tuple[str, Value], ...]

SEARCHED_FIELDS = ("train_fraction", "dropout_mask", "grokfast_alpha")
"""Fields of the experiment that can be searched over, besides the hyperparameters. All others change the problem."""


def point_key(point: Mapping[str, Value]) -> PointKey:
    """Return a hashable key. Two points have the same key if and only if they are equal."""
    return tuple(sorted(point.items()))


class Range(Spec):
    """A continuous interval, or a discrete one if both bounds are integers.

    With `log`, samplers draw uniformly in the logarithm.
    """

    low: float | int
    """Lower bound, included."""
    high: float | int
    """Upper bound, included. Must be above `low`."""
    log: bool = False
    """Whether samplers draw uniformly in the logarithm. `low` must then be positive."""

    @model_validator(mode="after")
    def _is_not_empty(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, but low = {self.low} and high = {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be positive where log = true, but low = {self.low}")
        return self


RANGE_TAG, LIST_TAG = "<range>", "<list>"


def _dimension_tag(value: Any) -> str:
    """Return which kind of dimension a value is meant to be. Only that kind's mistakes are then reported."""
    return RANGE_TAG if isinstance(value, Mapping | Range) else LIST_TAG


Dimension = Annotated[
    Annotated[tuple[Value, ...], Field(strict=False, min_length=1), Tag(LIST_TAG)] | Annotated[Range, Tag(RANGE_TAG)],
    Discriminator(_dimension_tag),
]
"""A list of values, or a range."""
