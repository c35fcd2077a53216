"""How configurations do over their seeds: by the median epochs to solve, and by the worst case.

A seed that was not solved within its budget of epochs, pruned and failed ones among them, counts as solved after all
others; and so does one that has not ended, or was never queued. So a figure can only become better as the study goes
on, and no configuration leads because fewer of its seeds are known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from optuna.trial import TrialState

from miiii_search.config.search_space import PointKey, point_key
from miiii_search.study.finished_trials import FinishedTrial

MEDIAN, WORST = "median", "worst"


@dataclass(frozen=True)
class SeedStats:
    """One configuration over its seeds."""

    params: dict[str, Any]
    seeds: int
    """That it is compared by: as many as the study gives a configuration, whether it got them or not."""
    trials: tuple[FinishedTrial, ...]
    """Those that have ended, the solved ones first, by their epochs to solve, then by number."""

    @property
    def solved(self) -> int:
        """How many seeds are solved."""
        return sum(trial.solved_at is not None for trial in self.trials)

    @property
    def median_trial(self) -> FinishedTrial | None:
        """Of an even number of seeds the later of the two in the middle, so that it is a run that there is."""
        return self._solved_trial(self.seeds // 2)

    @property
    def worst_trial(self) -> FinishedTrial | None:
        """The last one to be solved, if all seeds are."""
        return self._solved_trial(self.seeds - 1)

    @property
    def median(self) -> int | None:
        """Epochs within which more than half of the seeds are solved; None if no more are."""
        return self.median_trial.solved_at if self.median_trial else None

    @property
    def worst(self) -> int | None:
        """Epochs within which all seeds are solved; None unless they are."""
        return self.worst_trial.solved_at if self.worst_trial else None

    @property
    def value(self) -> float:
        """The mean objective of the seeds that have ended; a failed one counts as 0."""
        values = [0.0 if trial.state == TrialState.FAIL else trial.value or 0.0 for trial in self.trials]
        return sum(values) / len(values)

    def to_json(self) -> dict[str, Any]:
        """As `status --json` and the provenance of `best` have it."""
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
    """Every configuration of which a trial has ended, best first: by `median` or by `worst`.

    Ties go by the other of the two, then by the mean objective, then by the number of the first trial.
    """
    by_point: dict[PointKey, list[FinishedTrial]] = {}
    for trial in trials:
        by_point.setdefault(point_key(trial.params), []).append(trial)
    found = [
        SeedStats(dict(runs[0].params), max(seeds, len(runs)), tuple(sorted(runs, key=_by_epochs)))
        for runs in by_point.values()
    ]
    return sorted(found, key=lambda standing: _rank(standing, by))


def _by_epochs(trial: FinishedTrial) -> tuple[float, int]:
    epochs = trial.solved_at
    return (math.inf if epochs is None else epochs, trial.number)


def _rank(standing: SeedStats, by: str) -> tuple[float, float, float, int]:
    median, worst = (math.inf if x is None else x for x in (standing.median, standing.worst))
    first, second = (median, worst) if by == MEDIAN else (worst, median)
    return (first, second, -standing.value, min(trial.number for trial in standing.trials))
