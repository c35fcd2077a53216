"""A study's trials as the plain rows that the analysis of a whole study takes."""

from __future__ import annotations

import math
from dataclasses import replace

from optuna.trial import FrozenTrial, TrialState

from miiii_search.analysis.study_summary import (
    SearchDimension,
    SeedSpread,
    StudySummary,
    TrialSummary,
    summarize_trials,
)
from miiii_search.config.search_space import Range
from miiii_search.experiment.spec import Hyperparameters
from miiii_search.study.finished_trials import finished_trials
from miiii_search.study.replicates import SeedStats, rank_configurations
from miiii_search.study.study import Study
from miiii_search.study.trials import METRICS_KEY, REPLICATE_KEY

FEW = 6
"""Integers in a range that are levels of their own."""

OUTCOMES = {
    TrialState.COMPLETE: "not solved",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def read_study_summary(study: Study) -> StudySummary:
    """All numbers of the study as it is now."""
    study.refresh()
    dimensions = [_dimension(name, dimension) for name, dimension in study.spec.space.items()]
    trials, seeds = study.trials(), study.spec.replicates.count
    seed_spreads = (
        [_spread(standing) for standing in rank_configurations(finished_trials(trials), seeds)] if seeds > 1 else []
    )
    found = summarize_trials(study.name, study.spec.experiment.epochs, dimensions, [_row(trial) for trial in trials])
    return replace(found, seed_spreads=tuple(seed_spreads))


def _dimension(name: str, dimension: object) -> SearchDimension:
    if not isinstance(dimension, Range):
        assert isinstance(dimension, tuple)
        return SearchDimension.from_values(name, dimension)
    field = Hyperparameters.model_fields.get(name)
    if field is not None and field.annotation is int and dimension.high - dimension.low < FEW:
        return SearchDimension.from_values(name, range(int(dimension.low), int(dimension.high) + 1))
    return SearchDimension(name, low=float(dimension.low), high=float(dimension.high), log=dimension.log)


def _spread(standing: SeedStats) -> SeedSpread:
    epochs = [trial.solved_at for trial in standing.trials]
    solved = tuple(epoch for epoch in epochs if epoch is not None)
    return SeedSpread(standing.params, standing.seeds, len(epochs), solved, standing.median, standing.worst)


def _row(trial: FrozenTrial) -> TrialSummary:
    attributes = trial.user_attrs
    solved, trained = attributes.get("epochs_to_solve"), attributes.get("epochs_trained")
    outcome = OUTCOMES[trial.state]
    if trial.state == TrialState.COMPLETE and solved is not None:
        outcome = "solved"
    curve = {epoch: value for epoch, value in trial.intermediate_values.items() if math.isfinite(value)}
    if METRICS_KEY in attributes and trained is not None:
        curve[trained] = attributes[METRICS_KEY]["validation_accuracy_mean"]
    has_value = trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    return TrialSummary(
        trial.number,
        outcome,
        dict(trial.params),
        trial.value if has_value else None,
        solved if outcome == "solved" else None,
        trained,
        dict(sorted(curve.items())),
        int(trial.system_attrs.get(REPLICATE_KEY, 0)),
        str(attributes.get("reason", "")),
    )
