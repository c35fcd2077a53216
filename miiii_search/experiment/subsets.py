"""Subsets of a task's moduli as text, so that a search space can list them: `2,3,5` or `all but 7`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ALL = "all"
_ALL_BUT = f"{ALL} but "


def canonical_subset(value: Any) -> Any:
    """Return the text of a subset, the same for every way to write it.

    Args:
        value: `all`, moduli such as `2,3,5`, the moduli to leave out such as `all but 7`, one integer, or a list.

    Returns:
        The text, with its moduli in ascending order. What is no subset at all is returned as it is.

    Raises:
        ValueError: It is text of another form, or an empty list.
    """
    if isinstance(value, str):
        prefix = _ALL_BUT if value.startswith(_ALL_BUT) else ""
        return ALL if value == ALL else prefix + _text([_integer(q, value) for q in value[len(prefix) :].split(",")])
    moduli = [value] if type(value) is int else value
    if not isinstance(moduli, list | tuple) or not all(type(q) is int for q in moduli):
        return value
    if not moduli:
        raise ValueError("moduli must name at least one modulus, but is []")
    return _text(moduli)


def select(subset: str, moduli: Sequence[int], scored: Sequence[bool]) -> tuple[bool, ...]:
    """Return whether each task is scored and in a subset.

    Args:
        subset: The subset, as `canonical_subset` returns it.
        moduli: The modulus of each task.
        scored: Whether each task is scored without a subset. The subset can name no other.

    Raises:
        ValueError: The subset names another modulus, or leaves none.
    """
    if subset == ALL:
        return tuple(scored)
    leaves_out = subset.startswith(_ALL_BUT)
    named = {int(q) for q in subset.removeprefix(_ALL_BUT).split(",")}
    selectable = [q for q, is_scored in zip(moduli, scored, strict=True) if is_scored]
    if unknown := sorted(named.difference(selectable)):
        raise ValueError(f"moduli names {unknown[0]}, but must name some of {', '.join(map(str, selectable))}")
    chosen = named.symmetric_difference(selectable) if leaves_out else named
    if not chosen:
        raise ValueError(f"moduli = '{subset}' leaves no task; name fewer")
    return tuple(q in chosen for q in moduli)


def _integer(text: str, subset: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f"moduli must be 'all', a list such as [2, 3, 5] or text such as 'all but 7', but is '{subset}'"
        ) from None


def _text(moduli: Sequence[int]) -> str:
    return ",".join(map(str, sorted(set(moduli))))
