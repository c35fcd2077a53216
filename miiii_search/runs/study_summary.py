"""The summary of a study, from its database."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from optuna.trial import FrozenTrial, TrialState

from miiii_search.analysis.study_summary import (
    SearchDimension,
    SeedSpread,
    StudySummary,
    TrialSummary,
    summarize_trials,
)
from miiii_search.analysis.subset_runs import SubsetRun, subset_run
from miiii_search.config.search_space import Range
from miiii_search.experiment.spec import Hyperparameters
from miiii_search.runs.trial_runs import read_trial_run
from miiii_search.storage.trial_attrs import METRICS_KEY, REPLICATE_KEY
from miiii_search.study.finished_trials import finished_trials
from miiii_search.study.replicates import SeedStats, rank_configurations
from miiii_search.study.study import Study

MAX_SEPARATE_INTEGERS = 6
"""Largest number of integers in a range up to which each is a level of its own, not a bin."""

OUTCOMES = {
    TrialState.COMPLETE: "not solved",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
"""Outcome of a trial by its state. A completed trial with epochs to solve is `solved` instead."""


def read_study_summary(study: Study) -> StudySummary:
    """Read the study's trials from the database and summarize them.

    A study over subsets of the tasks also reads the records of its trials.

    Raises:
        MiiiiSearchError: The store of these records cannot be reached.
    """
    study.refresh()
    dimensions = [_dimension(name, dimension) for name, dimension in study.spec.space.items()]
    trials, seeds = study.trials(), study.spec.replicates.count
    rows = [_trial_summary(trial) for trial in trials]
    summary = summarize_trials(study.name, study.spec.experiment.epochs, dimensions, rows)
    if "moduli" in study.spec.space:
        summary = replace(summary, subset_runs=tuple(_subset_runs(study, trials)))
    if seeds == 1:
        return summary
    configurations = rank_configurations(finished_trials(trials), seeds)
    return replace(summary, seed_spreads=tuple(_seed_spread(stats) for stats in configurations))


def _subset_runs(study: Study, trials: Sequence[FrozenTrial]) -> Iterator[SubsetRun]:
    """Yield the runs of the trials that have ended with a record, which are read from the study's artifacts."""
    for trial in trials:
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            continue
        run, _ = read_trial_run(study, trial)
        if run.record is not None and len(run.record):
            yield subset_run(trial.number, run.experiment, run.record, trial.user_attrs.get("epochs_to_solve"))


def _dimension(name: str, dimension: object) -> SearchDimension:
    """Return a dimension of the search space for the summary."""
    if not isinstance(dimension, Range):
        assert isinstance(dimension, tuple)
        return SearchDimension.from_values(name, dimension)
    field = Hyperparameters.model_fields.get(name)
    if field is not None and field.annotation is int and dimension.high - dimension.low < MAX_SEPARATE_INTEGERS:
        return SearchDimension.from_values(name, range(int(dimension.low), int(dimension.high) + 1))
    return SearchDimension(name, low=float(dimension.low), high=float(dimension.high), log=dimension.log)


def _seed_spread(stats: SeedStats) -> SeedSpread:
    """Return the results of a configuration over its seeds."""
    epochs = [trial.solved_at for trial in stats.trials]
    solved = tuple(epoch for epoch in epochs if epoch is not None)
    return SeedSpread(stats.params, stats.seeds, len(epochs), solved, stats.median, stats.worst)


def _trial_summary(trial: FrozenTrial) -> TrialSummary:
    """Return the data about one trial."""
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
