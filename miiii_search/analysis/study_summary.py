"""Summary of a study: the outcomes of its trials, and their dependence on the hyperparameters.

It is computed from plain data, without a database.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from miiii_search.analysis.importance import UNUSED, Importance, functional_anova
from miiii_search.analysis.subset_runs import SubsetRun
from miiii_search.config.conditional import count_points
from miiii_search.experiment.text import format_params, format_value

Value = float | int | str

OUTCOMES = ("solved", "not solved", "pruned", "failed", "running", "waiting")
"""Possible outcomes of a trial. `not solved` means that it was trained for all epochs without solving its tasks."""

BINS = 4
"""Number of bins of a range, small enough that in a study of dozens of trials each bin has several."""


@dataclass(frozen=True)
class SearchDimension:
    """A hyperparameter over which the study searches.

    Its levels are the values of its list, or the bins of its range.
    """

    name: str
    values: tuple[Value, ...] = ()
    """Values of a list, with numbers in ascending order; empty for a range."""
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    """Whether the bins have equal widths on a logarithmic scale."""

    @classmethod
    def from_values(cls, name: str, values: Sequence[Value]) -> SearchDimension:
        """Return the dimension of a list of values."""
        is_text = any(isinstance(value, str) for value in values)
        return cls(name, tuple(values) if is_text else tuple(sorted(values)))

    @property
    def is_range(self) -> bool:
        """Whether the levels are bins."""
        return not self.values

    @property
    def edges(self) -> tuple[float, ...]:
        """Edges of the bins of a range, ascending."""
        space = np.geomspace if self.log else np.linspace
        return tuple(map(float, space(self.low, self.high, BINS + 1)))

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the levels."""
        if not self.is_range:
            return tuple(format_value(value) for value in self.values)
        return tuple(f"{a:.2g} to {b:.2g}" for a, b in zip(self.edges, self.edges[1:], strict=False))

    def level(self, value: Value | None) -> int | None:
        """Return the index of the level to which a value belongs, or None if it belongs to none."""
        if value is None:
            return None
        if not self.is_range:
            return self.values.index(value) if value in self.values else None
        return int(np.searchsorted(self.edges[1:-1], float(value), side="right"))


@dataclass(frozen=True)
class TrialSummary:
    """Data about one trial."""

    number: int
    outcome: str
    """One of `OUTCOMES`."""
    point: Mapping[str, Value]
    """Value of each hyperparameter, by name."""
    value: float | None = None
    """The objective. For a pruned trial it is the accuracy at which it was pruned."""
    epochs_to_solve: int | None = None
    epochs_trained: int | None = None
    curve: Mapping[int, float] = field(default_factory=dict)
    """Mean validation accuracy over the scored tasks by epoch, at the rungs and at the end, ascending."""
    replicate: int = 0
    reason: str = ""
    """Reason why it was pruned or failed."""

    @property
    def has_ended(self) -> bool:
        """Whether the trial will not change any more."""
        return self.outcome not in ("running", "waiting")


@dataclass(frozen=True)
class Marginal:
    """All trials at one level of one dimension, whatever their other values."""

    level: str
    ended: int
    """Number of trials that have ended."""
    with_value: int
    """Number of trials with an objective, among them pruned trials but not failed ones."""
    value_mean: float | None
    value_median: float | None
    solved: int
    solved_share: float | None
    """Share of the ended trials."""
    epochs_to_solve_mean: float | None
    """Mean over the solved trials. Like the median, it does not depend on the trials that were not solved."""
    epochs_to_solve_median: float | None


@dataclass(frozen=True)
class SeedSpread:
    """Results of one configuration over its seeds."""

    point: Mapping[str, Value]
    seeds: int
    """Number of seeds of the comparison. Seeds that have not ended or were never queued count as not solved."""
    ended: int
    """Number of seeds that have ended."""
    epochs_to_solve: tuple[int, ...]
    """Epochs to solve of the solved seeds, ascending."""
    median: int | None
    """Median of the epochs to solve over all seeds; None if at most half of them are solved."""
    worst: int | None
    """Largest epochs to solve; None unless all seeds are solved."""

    @property
    def in_words(self) -> str:
        """The configuration and its results in one line."""
        point = format_params(self.point)
        figures = [("median", self.median), ("worst", self.worst)]
        epochs = "".join(f", {name} {epoch:,} epochs" for name, epoch in figures if epoch is not None)
        return f"{point}: {len(self.epochs_to_solve)} of {self.seeds} solved{epochs}"


@dataclass(frozen=True)
class StudySummary:
    """The trials of a study, and statistics over them."""

    study: str
    epochs: int
    """Largest number of epochs that a trial may train for."""
    dimensions: tuple[SearchDimension, ...]
    trials: tuple[TrialSummary, ...]
    counts: dict[str, int]
    """Number of trials by outcome."""
    marginals: dict[str, tuple[Marginal, ...]]
    """By the name of the dimension, one entry per level."""
    importance: Importance
    seed_spreads: tuple[SeedSpread, ...] = ()
    """Configurations over their seeds, best median first. Empty if each configuration has one seed."""
    subset_runs: tuple[SubsetRun, ...] = ()
    """The runs that have ended. Empty if the study does not search over subsets of the tasks."""

    def dimensions_by_importance(self) -> list[SearchDimension]:
        """Return the dimensions with several levels, most important first.

        If the importance is unknown, they are in the order of the study.
        """
        shares = {term.names[0]: term.share for term in self.importance.terms if len(term.names) == 1}
        varied = [dimension for dimension in self.dimensions if len(dimension.labels) > 1]
        return sorted(varied, key=lambda dimension: -shares.get(dimension.name, 0.0))

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        subsets = {"subsets": [run.to_json() for run in self.subset_runs]} if self.subset_runs else {}
        return {
            "study": self.study,
            "epochs": self.epochs,
            "counts": self.counts,
            "importance": self.importance.to_json(),
            "marginals": {name: [asdict(m) for m in marginals] for name, marginals in self.marginals.items()},
            "configurations": [asdict(spread) for spread in self.seed_spreads],
            "trials": [asdict(trial) for trial in self.trials],
            **subsets,
        }


def summarize_trials(
    study: str, epochs: int, dimensions: Sequence[SearchDimension], trials: Sequence[TrialSummary]
) -> StudySummary:
    """Summarize the trials of a study. Spreads over seeds are not computed here.

    Args:
        study: Name of the study.
        epochs: Largest number of epochs that a trial may train for.
        dimensions: Dimensions of the search space.
        trials: All trials.
    """
    counts = Counter(trial.outcome for trial in trials)
    return StudySummary(
        study,
        epochs,
        tuple(dimensions),
        tuple(trials),
        {outcome: counts[outcome] for outcome in OUTCOMES},
        {dimension.name: _marginals(dimension, trials) for dimension in dimensions},
        _importance(dimensions, trials),
    )


def _marginals(dimension: SearchDimension, trials: Sequence[TrialSummary]) -> tuple[Marginal, ...]:
    """Return the statistics of each level of a dimension."""
    found = []
    for level, label in enumerate(dimension.labels):
        ended = [t for t in trials if t.has_ended and dimension.level(t.point.get(dimension.name)) == level]
        values = [t.value for t in ended if t.value is not None]
        epochs = [t.epochs_to_solve for t in ended if t.epochs_to_solve is not None]
        found.append(
            Marginal(
                label,
                len(ended),
                len(values),
                float(np.mean(values)) if values else None,
                float(np.median(values)) if values else None,
                len(epochs),
                len(epochs) / len(ended) if ended else None,
                float(np.mean(epochs)) if epochs else None,
                float(np.median(epochs)) if epochs else None,
            )
        )
    return tuple(found)


def _importance(dimensions: Sequence[SearchDimension], trials: Sequence[TrialSummary]) -> Importance:
    """Compute the importance of the dimensions from the trials with an objective."""
    points, values, outside = list[list[int]](), list[float](), 0
    for trial in trials:
        if trial.value is None or not trial.has_ended:
            continue
        levels = [
            dimension.level(trial.point[dimension.name]) if dimension.name in trial.point else UNUSED
            for dimension in dimensions
        ]
        if None in levels:
            outside += 1
            continue
        points.append([level for level in levels if level is not None])
        values.append(trial.value)
    result = functional_anova(
        [dimension.name for dimension in dimensions],
        [len(dimension.labels) for dimension in dimensions],
        np.array(points, int).reshape(len(points), len(dimensions)),
        np.array(values, float),
        is_grid=not any(dimension.is_range for dimension in dimensions),
        cells=count_points({dimension.name: dimension.values for dimension in dimensions}, {}),
    )
    counts = Counter(trial.outcome for trial in trials)
    notes = [
        f"pruned trials count with the accuracy at which they were pruned ({counts['pruned']})"
        * (counts["pruned"] > 0),
        f"failed trials have no objective and are left out ({counts['failed']})" * (counts["failed"] > 0),
        f"trials at values outside of the lists are left out ({outside})" * (outside > 0),
    ]
    return result.with_notes([note for note in notes if note])
