"""Numbers of trials, compared with what Optuna's public interface shows."""

from __future__ import annotations

from collections import Counter

from optuna.study import StudyDirection
from optuna.trial import TrialState

from miiii_search.config.study_sections import Budget
from miiii_search.storage.database import Database
from miiii_search.storage.trial_counts import count_solved, count_trials, count_trials_by_study
from miiii_search.study.create import create_study
from tests.support import claim, end, make_spec, read_back


def test_counts_equal_optunas(database: Database) -> None:
    one = create_study(database, "one", make_spec())
    two = create_study(database, "two", make_spec(budget=Budget(trials=2)))
    empty = database.optuna.create_new_study([StudyDirection.MAXIMIZE], "empty")
    end(one, claim(one), value=1.5, epochs_to_solve=8)
    end(one, claim(one), value=0.5, epochs_to_solve=None)
    end(one, claim(one), TrialState.PRUNED, 0.25, epochs_to_solve=8)
    claim(one)
    with database.engine.connect() as connection:
        by_study = count_trials_by_study(connection)
        for study in (one, two):
            expected = Counter(trial.state for trial in read_back(study).trials)
            counts = count_trials(connection, study.study_id)
            assert counts == by_study[study.study_id] == {state: expected[state] for state in TrialState}
        assert set(count_trials(connection, empty).values()) == {0} and empty not in by_study
        assert (count_solved(connection, one.study_id), count_solved(connection, two.study_id)) == (1, 0)
