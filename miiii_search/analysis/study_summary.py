"""All trials of a study at once: what came of them, and at which values of the hyperparameters.

Knows nothing of databases: it takes plain rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from miiii_search.analysis.importance import Importance, functional_anova
from miiii_search.experiment.text import format_params, format_value

Value = float | int | str

OUTCOMES = ("solved", "not solved", "pruned", "failed", "running", "waiting")
"""`not solved`: trained to the end of its epochs without."""

BINS = 4
"""Of a range: few enough that a study of some dozens of trials has several in each."""


@dataclass(frozen=True)
class SearchDimension:
    """A hyperparameter that is searched over. Its levels are the values of its list, or the bins of its range."""

    name: str
    values: tuple[Value, ...] = ()
    """Of a list: numbers ascend, words stand as they were given. Empty: a range."""
    low: float = math.nan
    high: float = math.nan
    log: bool = False
    """Bins are equal in the logarithm."""

    @classmethod
    def from_values(cls, name: str, values: Sequence[Value]) -> SearchDimension:
        """A dimension of listed values."""
        words = any(isinstance(value, str) for value in values)
        return cls(name, tuple(values) if words else tuple(sorted(values)))

    @property
    def is_range(self) -> bool:
        """Whether its levels are bins."""
        return not self.values

    @property
    def edges(self) -> tuple[float, ...]:
        """Of the bins of a range, ascending."""
        space = np.geomspace if self.log else np.linspace
        return tuple(map(float, space(self.low, self.high, BINS + 1)))

    @property
    def labels(self) -> tuple[str, ...]:
        """Of the levels, in words."""
        if not self.is_range:
            return tuple(format_value(value) for value in self.values)
        return tuple(f"{a:.2g} to {b:.2g}" for a, b in zip(self.edges, self.edges[1:], strict=False))

    def level(self, value: Value | None) -> int | None:
        """The index of the level that a value belongs to; None if it is not in the list, or if there is no value."""
        if value is None:
            return None
        if not self.is_range:
            return self.values.index(value) if value in self.values else None
        return int(np.searchsorted(self.edges[1:-1], float(value), side="right"))


@dataclass(frozen=True)
class TrialSummary:
    """What is known of one trial."""

    number: int
    outcome: str
    """One of `OUTCOMES`."""
    point: Mapping[str, Value]
    """The value of each dimension."""
    value: float | None = None
    """The objective; of a pruned trial the accuracy at which it was given up."""
    epochs_to_solve: int | None = None
    epochs_trained: int | None = None
    curve: Mapping[int, float] = field(default_factory=dict)
    """Validation accuracy (mean over the scored tasks) by epoch, at the rungs and at the end, ascending."""
    replicate: int = 0
    reason: str = ""
    """Why it was pruned or has failed."""

    @property
    def has_ended(self) -> bool:
        """Whether nothing will change about it."""
        return self.outcome not in ("running", "waiting")


@dataclass(frozen=True)
class Marginal:
    """All trials at one level of one dimension, whatever their other values."""

    level: str
    ended: int
    with_value: int
    """Trials behind the two figures of the objective: pruned ones are among them, failed ones are not."""
    value_mean: float | None
    value_median: float | None
    solved: int
    solved_share: float | None
    """Of the trials that ended."""
    epochs_to_solve_mean: float | None
    """Over the solved trials; this and the median say nothing of those that were not solved."""
    epochs_to_solve_median: float | None


@dataclass(frozen=True)
class SeedSpread:
    """One configuration over its seeds."""

    point: Mapping[str, Value]
    seeds: int
    """That it is compared by; those that have not ended, or were never queued, count as not solved."""
    ended: int
    epochs_to_solve: tuple[int, ...]
    """Of the seeds that are solved, ascending."""
    median: int | None
    """Over all seeds; None if not more than half of them are solved."""
    worst: int | None
    """None unless all of them are."""

    @property
    def in_words(self) -> str:
        """The configuration and its figures in a line."""
        point = format_params(self.point)
        figures = [("median", self.median), ("worst", self.worst)]
        epochs = "".join(f", {name} {epoch:,} epochs" for name, epoch in figures if epoch is not None)
        return f"{point}: {len(self.epochs_to_solve)} of {self.seeds} solved{epochs}"


@dataclass(frozen=True)
class StudySummary:
    """A study's trials and what they show together."""

    study: str
    epochs: int
    """That a trial may train for."""
    dimensions: tuple[SearchDimension, ...]
    trials: tuple[TrialSummary, ...]
    counts: dict[str, int]
    marginals: dict[str, tuple[Marginal, ...]]
    """By the name of the dimension."""
    importance: Importance
    seed_spreads: tuple[SeedSpread, ...] = ()
    """The configurations over their seeds, best median first; none where each has one seed."""

    def dimensions_by_importance(self) -> list[SearchDimension]:
        """The dimensions of several levels, those that decide most first; if that is unknown, in the study's order."""
        shares = {term.names[0]: term.share for term in self.importance.terms if len(term.names) == 1}
        varied = [dimension for dimension in self.dimensions if len(dimension.labels) > 1]
        return sorted(varied, key=lambda dimension: -shares.get(dimension.name, 0.0))

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "study": self.study,
            "epochs": self.epochs,
            "counts": self.counts,
            "importance": self.importance.to_json(),
            "marginals": {name: [asdict(m) for m in marginals] for name, marginals in self.marginals.items()},
            "configurations": [asdict(spread) for spread in self.seed_spreads],
            "trials": [asdict(trial) for trial in self.trials],
        }


def summarize_trials(
    study: str, epochs: int, dimensions: Sequence[SearchDimension], trials: Sequence[TrialSummary]
) -> StudySummary:
    """All numbers of a study's trials."""
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
    """Of the trials with an objective, as indices of levels."""
    points, values, outside = list[list[int]](), list[float](), 0
    for trial in trials:
        if trial.value is None or not trial.has_ended:
            continue
        levels = [dimension.level(trial.point.get(dimension.name)) for dimension in dimensions]
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
    )
    counts = Counter(trial.outcome for trial in trials)
    notes = [
        f"pruned trials count with the accuracy at which they were given up ({counts['pruned']})"
        * (counts["pruned"] > 0),
        f"failed trials have no objective and are left out ({counts['failed']})" * (counts["failed"] > 0),
        f"trials at values outside of the lists are left out ({outside})" * (outside > 0),
    ]
    return result.with_notes([note for note in notes if note])
