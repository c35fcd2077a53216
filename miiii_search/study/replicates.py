"""Ranking configurations over their seeds, by the median or by the worst number of epochs to solve.

A seed that was not solved within its epoch budget counts as solved after all others. This includes pruned and failed
trials, trials that are not finished, and trials that were never queued. So the statistics of a configuration can only
improve while the study runs, and no configuration leads because fewer of its seeds are known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState

from miiii_search.config.search_space import PointKey, point_key
from miiii_search.storage.records import FinishedTrial

MEDIAN, WORST = "median", "worst"


@dataclass(frozen=True)
class SeedStats:
    """Statistics of one configuration over its seeds."""

    params: dict[str, Any]
    seeds: int
    """Number of seeds that the study gives a configuration, including seeds that were not queued."""
    trials: tuple[FinishedTrial, ...]
    """Finished trials: solved ones first, by their epochs to solve, then by number."""

    @property
    def solved(self) -> int:
        """Number of seeds that are solved."""
        return sum(trial.solved_at is not None for trial in self.trials)

    @property
    def median_trial(self) -> FinishedTrial | None:
        """Trial of the median seed; of an even number of seeds, the later one of the middle two."""
        return self._solved_trial(self.seeds // 2)

    @property
    def worst_trial(self) -> FinishedTrial | None:
        """Trial that took the most epochs to solve; None unless all seeds are solved."""
        return self._solved_trial(self.seeds - 1)

    @property
    def median(self) -> int | None:
        """Epochs within which more than half of the seeds are solved; None if they are not."""
        return self.median_trial.solved_at if self.median_trial else None

    @property
    def worst(self) -> int | None:
        """Epochs within which all seeds are solved; None if they are not."""
        return self.worst_trial.solved_at if self.worst_trial else None

    @property
    def value(self) -> float:
        """Mean objective of the finished trials; a failed trial counts as 0."""
        values = [0.0 if trial.state == TrialState.FAIL else trial.value or 0.0 for trial in self.trials]
        return sum(values) / len(values)

    def to_json(self) -> dict[str, Any]:
        """Return the statistics as `status --json` and the provenance of `best` contain them."""
        return {
            "params": self.params,
            "seeds": self.seeds,
            "ended": len(self.trials),
            "solved": self.solved,
            "median": self.median,
            "worst": self.worst,
            "trials": sorted(trial.number for trial in self.trials),
        }

    def _solved_trial(self, k: int) -> FinishedTrial | None:
        return self.trials[k] if k < self.solved else None


def rank_configurations(trials: Iterable[FinishedTrial], seeds: int, by: str = MEDIAN) -> list[SeedStats]:
    """Return the configurations that have a finished trial, best first.

    Args:
        trials: Finished trials of a study.
        seeds: Number of seeds that the study gives a configuration.
        by: `MEDIAN` or `WORST`. Ties are broken by the other one, then by the mean objective, then by the lowest
            number of a trial.
    """
    by_point: dict[PointKey, list[FinishedTrial]] = {}
    for trial in trials:
        by_point.setdefault(point_key(trial.params), []).append(trial)
    configurations = [
        SeedStats(dict(runs[0].params), max(seeds, len(runs)), tuple(sorted(runs, key=_epochs_key)))
        for runs in by_point.values()
    ]
    return sorted(configurations, key=lambda configuration: _rank_key(configuration, by))


def _epochs_key(trial: FinishedTrial) -> tuple[float, int]:
    epochs = trial.solved_at
    return (math.inf if epochs is None else epochs, trial.number)


def _rank_key(configuration: SeedStats, by: str) -> tuple[float, float, float, int]:
    median, worst = (math.inf if x is None else x for x in (configuration.median, configuration.worst))
    first, second = (median, worst) if by == MEDIAN else (worst, median)
    return (first, second, -configuration.value, min(trial.number for trial in configuration.trials))
