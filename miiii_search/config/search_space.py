"""Search spaces: the dimensions that a study searches over, and points in such a space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from miiii_search.experiment.spec import Spec
from miiii_search.experiment.subsets import canonical_subset

Value = float | int | str
Point = dict[str, Value]
"""A point of a search space: the value of each dimension, by its name."""
PointKey = tuple[tuple[str, Value], ...]

SEARCHED_FIELDS = ("train_fraction", "dropout_mask", "grokfast_alpha", "moduli")
"""Fields of the experiment that can be searched over, besides the hyperparameters. All others change the problem.

`moduli` does so, too, but is there to be compared: does a task help or hinder the others?
"""


def point_key(point: Mapping[str, Value]) -> PointKey:
    """Return a hashable key. Two points have the same key if and only if they are equal."""
    return tuple(sorted(point.items()))


def _with_subset_as_text(point: Any) -> Any:
    """Return a point whose subset of the moduli is text: `2,3` for `[2, 3]`."""
    if not isinstance(point, Mapping) or "moduli" not in point:
        return point
    return {**point, "moduli": canonical_subset(point["moduli"])}


def _with_subsets_as_text(space: Any) -> Any:
    """Return a space whose subsets of the moduli are text, as in its points."""
    if not isinstance(space, Mapping) or not isinstance(space.get("moduli"), list | tuple):
        return space
    return {**space, "moduli": tuple(map(canonical_subset, space["moduli"]))}


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

Space = Annotated[dict[str, Dimension], BeforeValidator(_with_subsets_as_text)]
"""The dimensions of a search space, by name."""
FirstPoint = Annotated[Point, BeforeValidator(_with_subset_as_text)]
"""A point as a specification has it, whose subset of the moduli may be a list."""
