"""The order of the best trials is the same in Python and in SQL, on both databases."""

from __future__ import annotations

import math

import optuna
from optuna.trial import TrialState

from miiii_search.storage.database import Database
from miiii_search.study.best_trials import best_trial, read_best_trials, sort_best_first
from miiii_search.study.create import create_study
from tests.support import make_spec

COMPLETE = [0.5, math.inf, 0.75, -math.inf, 0.0, 0.75, -0.25]
"""Values of complete trials, by number."""
ORDER = [1, 2, 5, 0, 4, 6, 3]
"""Their numbers from best to worst. Of the two equal values, the lower number comes first."""


def test_infinite_values_are_in_the_order(database: Database) -> None:
    study = create_study(database, "demo", make_spec())
    plain = database.optuna.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "plain")
    for value in COMPLETE:
        trial = optuna.trial.create_trial(state=TrialState.COMPLETE, value=value)
        database.optuna.create_new_trial(plain, trial)
    pruned = optuna.trial.create_trial(state=TrialState.PRUNED, intermediate_values={1: 9.0}, value=9.0)
    database.optuna.create_new_trial(plain, pruned)
    database.optuna.create_new_trial(plain, optuna.trial.create_trial(state=TrialState.FAIL))
    database.optuna.create_new_trial(plain)  # running
    study.study_id = plain
    trials = database.optuna.get_all_trials(plain)
    expected = [*ORDER, 7, 8]
    assert [trial.number for trial in sort_best_first(trials)] == expected
    assert [trial.number for trial in read_best_trials(study, 100)] == expected
    assert [trial.number for trial in read_best_trials(study, 3, complete=True)] == ORDER[:3]
    found = best_trial(trials)
    assert found is not None and found.number == 1
    assert optuna.load_study(study_name="plain", storage=database.optuna).best_trial.value == found.value
