"""Finds tasks by name: those of this package, those that other packages register, and objects in any module."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from miiii_search.errors import reason
from miiii_search.experiment.builtin_tasks import BUILTIN_TASKS
from miiii_search.experiment.digits import digits
from miiii_search.experiment.task import Task

ENTRY_POINTS = "miiii_search.tasks"
"""The group of entry points in which another package registers its tasks, each as `NAME = "MODULE:OBJECT"`."""


def get_task(name: str) -> Task:
    """Return a task.

    Args:
        name: The name of a task of this package, else the name of an entry point, or `MODULE:OBJECT`. The object is a
            `Task`, or a subclass that needs no arguments.

    Raises:
        ValueError: There is no such task, or its module cannot be imported.
    """
    return BUILTIN_TASKS[name] if name in BUILTIN_TASKS else _load(name)


def task_names() -> list[str]:
    """Return the names of the tasks of this package and of the entry points."""
    return [*BUILTIN_TASKS, *sorted(entry_points(group=ENTRY_POINTS).names - BUILTIN_TASKS.keys())]


@cache
def check_task(name: str, p: int) -> None:
    """Check that there is a task, that it exists for a base, and that its sizes and labels fit each other.

    Only tasks of other packages compute their labels for this.

    Args:
        name: The name of the task; see `get_task`.
        p: A prime of at least 5.

    Raises:
        ValueError: Something does not fit. The message names the task and what must be changed.
    """
    task = get_task(name)
    task.check(p)
    if name in BUILTIN_TASKS:
        return
    try:
        moduli, classes, scored = task.moduli(p), task.classes(p), task.scored(p)
        y = task.labels(digits(p).astype(np.int64), p, np.random.default_rng(0))
    except Exception as error:
        raise ValueError(f"task {name} fails at p = {p}: {reason(error)}") from error
    _check_sizes(name, moduli, classes, scored)
    _check_labels(name, y, p, classes)


def _check_sizes(name: str, moduli: Any, classes: Any, scored: Any) -> None:
    for what, values in (("moduli", moduli), ("classes", classes)):
        if not isinstance(values, tuple) or not values or not all(type(q) is int and q >= 2 for q in values):
            raise ValueError(f"task {name}: {what} must be a tuple of integers of at least 2, but is {values!r}")
    if len(set(moduli)) < len(moduli):
        raise ValueError(f"task {name}: moduli must differ from each other, but are {moduli!r}")
    if len(classes) != len(moduli):
        raise ValueError(f"task {name}: classes must have {len(moduli)} numbers, one per modulus, but is {classes!r}")
    if not isinstance(scored, tuple) or len(scored) != len(moduli) or not all(type(s) is bool for s in scored):
        raise ValueError(f"task {name}: scored must have {len(moduli)} booleans, one per modulus, but is {scored!r}")
    if not any(scored):
        raise ValueError(f"task {name}: scored must be true for a task, but is {scored!r}")


def _check_labels(name: str, y: Any, p: int, classes: tuple[int, ...]) -> None:
    shape = [p * p, len(classes)]
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "iu" or list(y.shape) != shape:
        found = f"{y.dtype} {list(y.shape)}" if isinstance(y, np.ndarray) else type(y).__name__
        raise ValueError(f"task {name}: labels must be an array of integers {shape} at p = {p}, but is {found}")
    for column, count in enumerate(classes):
        low, high = int(y[:, column].min()), int(y[:, column].max())
        if low < 0 or high >= count:
            wrong = low if low < 0 else high
            raise ValueError(
                f"task {name}: labels of its task {column} must be from 0 to {count - 1} at p = {p}, but one is {wrong}"
            )


@cache
def _load(name: str) -> Task:
    target = name
    if ":" not in name:
        found = tuple(entry_points(group=ENTRY_POINTS, name=name))
        if not found:
            raise ValueError(
                f"there is no task `{name}`; one of {', '.join(task_names())}, or module:object for a task of your own"
            )
        target = found[0].value
    module, _, attribute = target.partition(":")
    try:
        value: Any = importlib.import_module(module)
        for part in attribute.split("."):
            value = getattr(value, part)
        task = value() if isinstance(value, type) and issubclass(value, Task) else value
    except Exception as error:
        raise ValueError(f"task {name} cannot be loaded: {reason(error)}") from error
    if not isinstance(task, Task):
        raise ValueError(f"task {name} must be a miiii_search.Task, but is of type {type(task).__name__}")
    return task
