"""Numbers of trials, counted in the database."""

from __future__ import annotations

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.storage import schema


def count_trials(connection: sa.Connection, study_id: int) -> dict[TrialState, int]:
    """Return the number of trials of a study in each state. Every state is a key."""
    trials = schema.trials
    query = sa.select(trials.c.state, sa.func.count().label("n")).where(trials.c.study_id == study_id)
    found = {row.state: row.n for row in connection.execute(query.group_by(trials.c.state))}
    return {state: found.get(state, 0) for state in TrialState}


def count_trials_by_study(connection: sa.Connection) -> dict[int, dict[TrialState, int]]:
    """Return the number of trials in each state, by Optuna's id of the study. Studies without trials are missing."""
    trials = schema.trials
    query = sa.select(trials.c.study_id, trials.c.state, sa.func.count().label("n"))
    counts: dict[int, dict[TrialState, int]] = {}
    for row in connection.execute(query.group_by(trials.c.study_id, trials.c.state)):
        counts.setdefault(row.study_id, dict.fromkeys(TrialState, 0))[row.state] = row.n
    return counts


def count_solved(connection: sa.Connection, study_id: int) -> int:
    """Return the number of COMPLETE trials of a study whose run was solved."""
    trials, attributes = schema.trials, schema.trial_user_attributes
    query = (
        sa.select(sa.func.count())
        .select_from(trials.join(attributes, attributes.c.trial_id == trials.c.trial_id))
        .where(trials.c.study_id == study_id, trials.c.state == TrialState.COMPLETE)
        .where(attributes.c.key == "epochs_to_solve", attributes.c.value_json != "null")
    )
    return int(connection.execute(query).scalar_one())


def count_at_least_as_good(connection: sa.Connection, study_id: int, value: float) -> int:
    """Return the number of COMPLETE trials of a study whose value is finite and at least `value`."""
    trials, values = schema.trials, schema.trial_values
    query = (
        sa.select(sa.func.count())
        .select_from(trials.join(values, values.c.trial_id == trials.c.trial_id))
        .where(trials.c.study_id == study_id, trials.c.state == TrialState.COMPLETE)
        # Optuna stores an infinite value without a number.
        .where(values.c.value >= value)
    )
    return int(connection.execute(query).scalar_one())
