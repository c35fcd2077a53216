"""The runs of a study over subsets of the tasks: when each task generalised, alone and together with others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from miiii_search.analysis.milestones import find_milestones
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment


@dataclass(frozen=True)
class SubsetRun:
    """One run, and the epochs at which the tasks of its subset generalised."""

    trial: int
    subset: str
    """The subset, such as `2,3,5` or `all but 7`."""
    tasks_together: int
    """Number of tasks in the subset."""
    of_tasks: int
    """Number of tasks that a subset can have."""
    generalised: Mapping[int, int | None]
    """By modulus: the epoch at which the task generalised, or None if it did not."""

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return asdict(self)


def subset_run(trial: int, experiment: Experiment, record: Record, solved_epoch: int | None) -> SubsetRun:
    """Return when the tasks of a run generalised.

    Args:
        trial: Number of the run's trial.
        experiment: The run's experiment, which has a subset.
        record: The run's record.
        solved_epoch: The epoch at which the run was solved. A task whose streak the end of the run cuts off has
            generalised then.

    Raises:
        ValueError: The experiment has no subset.
    """
    if experiment.moduli is None:
        raise ValueError("the experiment has no subset of the moduli")
    found = find_milestones(experiment, record).generalised
    scored = [q for q, counts in zip(experiment.task_moduli, experiment.scored, strict=True) if counts]
    generalised = {q: solved_epoch if found[q] is None else found[q] for q in scored}
    all_tasks = sum(experiment.model_copy(update={"moduli": None}).scored)
    return SubsetRun(trial, experiment.moduli, len(scored), all_tasks, generalised)


def median_epochs(runs: Sequence[SubsetRun], modulus: int) -> float | None:
    """Return the median epoch at which a task generalised; None if it did so in at most half of the runs."""
    epochs = [run.generalised[modulus] for run in runs if modulus in run.generalised]
    median = float(np.median([np.inf if epoch is None else epoch for epoch in epochs])) if epochs else np.inf
    return median if np.isfinite(median) else None
