"""Conditional dimensions: hyperparameters that a point has only if its run uses them.

`USED_ONLY_WITH` says on which hyperparameter each depends. In all functions, `fixed` are the hyperparameters of the
study outside of its space. Those that neither the space nor `fixed` has are at their defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from miiii_search.config.search_space import Dimension, Point, Range, Value
from miiii_search.experiment.hyperparameters import USED_ONLY_WITH, is_used


def used_part(point: Mapping[str, Value], fixed: Mapping[str, object]) -> Point:
    """Return a point without the dimensions that its run does not use."""
    values = {**fixed, **point}
    return {name: value for name, value in point.items() if is_used(name, values)}


def enumerate_points(lists: Mapping[str, Sequence[Value]], fixed: Mapping[str, object]) -> list[Point]:
    """Return every combination of values once, in the order of the lists. Each has only the dimensions that it uses.

    Args:
        lists: The values of each dimension.
        fixed: The other hyperparameters.
    """
    points: list[Point] = [{}]
    for name in _conditions_first(lists):
        points = [
            {**point, name: value} if used else point
            for point in points
            for used in [is_used(name, {**fixed, **point})]
            for value in (lists[name] if used else lists[name][:1])
        ]
    return points


def count_points(lists: Mapping[str, Sequence[Value]], fixed: Mapping[str, object]) -> int:
    """Return the number of `enumerate_points`, without listing them."""
    conditions = {name: lists[name] for name in lists if name in _CONDITIONS}
    others = {name: values for name, values in lists.items() if name not in conditions}
    return sum(
        math.prod(len(values) for name, values in others.items() if is_used(name, {**fixed, **chosen}))
        for chosen in enumerate_points(conditions, fixed)
    )


def conditional_dimensions(space: Mapping[str, Dimension]) -> list[str]:
    """Return the dimensions that some points of a space have, and others lack."""
    found = []
    for name in space:
        other, needed = USED_ONLY_WITH.get(name, ("", ()))
        values = space.get(other, ())
        if not isinstance(values, Range) and set(values).difference(needed):
            found.append(name)
    return found


def describe_condition(name: str) -> str:
    """Return the condition of a dimension in words, such as `optimizer = muon`; an empty text if it has none."""
    if name not in USED_ONLY_WITH:
        return ""
    other, needed = USED_ONLY_WITH[name]
    return f"{other} = {' or '.join(needed)}"


def check_conditions(space: Mapping[str, Dimension], fixed: Mapping[str, object]) -> None:
    """Check that some point of a space uses each dimension.

    Raises:
        ValueError: No point uses a dimension.
    """
    for name in space:
        if name not in USED_ONLY_WITH:
            continue
        other, needed = USED_ONLY_WITH[name]
        values = space.get(other)
        if values is None:
            is_possible = is_used(name, fixed)
        else:
            is_possible = not isinstance(values, Range) and not set(needed).isdisjoint(values)
        if not is_possible:
            raise ValueError(
                f"space.{name} is used only with {describe_condition(name)}, which no point has: "
                f"set space.{other} or hyperparameters.{other}, or leave {name} out of the space"
            )


_CONDITIONS = {other for other, _ in USED_ONLY_WITH.values()}


def _conditions_first(names: Mapping[str, object]) -> list[str]:
    """Return the names, with those first on which others depend."""
    return sorted(names, key=lambda name: name not in _CONDITIONS)
