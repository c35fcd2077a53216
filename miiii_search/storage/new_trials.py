"""Adding trials to a study, and replacing the distributions of those that it has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, CategoricalDistribution, distribution_to_json
from optuna.trial import TrialState

from miiii_search.storage import schema
from miiii_search.storage.records import NewTrial, TrialRef
from miiii_search.storage.trial_counts import count_trials


def insert_trials(
    connection: sa.Connection,
    study_id: int,
    trials: Sequence[NewTrial],
    space: Mapping[str, BaseDistribution],
    state: TrialState,
) -> list[TrialRef]:
    """Add trials to a study, numbered after those that it has.

    The caller must hold the lock on the study's row, or two callers would assign the same numbers.

    Args:
        connection: A connection in a transaction.
        study_id: The study.
        trials: The new trials.
        space: Distribution of each parameter.
        state: State of the new trials.

    Returns:
        The new trials, in the order of `trials`.
    """
    first = sum(count_trials(connection, study_id).values())
    ids = _insert_rows(connection, study_id, first, len(trials), state)
    parameters = [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": space[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(space[name]),
        }
        for trial_id, trial in zip(ids, trials, strict=True)
        for name, value in trial.params.items()
    ]
    attributes = [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for trial_id, trial in zip(ids, trials, strict=True)
        for key, value in trial.system_attributes.items()
    ]
    if parameters:  # a study that varies nothing but the seed has none
        connection.execute(sa.insert(schema.trial_params), parameters)
    if attributes:
        connection.execute(sa.insert(schema.trial_system_attributes), attributes)
    return [TrialRef(trial_id, first + k) for k, trial_id in enumerate(ids)]


def rewrite_distribution(
    connection: sa.Connection, study_id: int, name: str, old: BaseDistribution, new: BaseDistribution
) -> None:
    """Replace the distribution of a parameter in all trials of a study. Their values stay the same."""
    trials, params = schema.trials, schema.trial_params
    of_study = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)
    connection.execute(
        sa.update(params)
        .where(params.c.trial_id.in_(of_study), params.c.param_name == name)
        .where(params.c.distribution_json == distribution_to_json(old))
        .values(distribution_json=distribution_to_json(new), param_value=_new_param_value(params, old, new))
    )


def _insert_rows(connection: sa.Connection, study_id: int, first: int, n: int, state: TrialState) -> list[int]:
    """Insert `n` trials with the numbers from `first` on; return their ids by number."""
    trials = schema.trials
    times = {"datetime_start": None, "datetime_complete": None}
    rows = [{"study_id": study_id, "number": first + k, "state": state, **times} for k in range(n)]
    connection.execute(sa.insert(trials), rows)
    query = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id, trials.c.number >= first)
    return list(connection.execute(query.order_by(trials.c.number)).scalars())


def _new_param_value(params: Any, old: BaseDistribution, new: BaseDistribution) -> Any:
    """Return what Optuna stores for the same value: the index of a categorical choice, otherwise the value itself."""
    if not isinstance(old, CategoricalDistribution) or not isinstance(new, CategoricalDistribution):
        return params.c.param_value
    new_indices = {float(index): float(new.choices.index(value)) for index, value in enumerate(old.choices)}
    return sa.case(new_indices, value=params.c.param_value, else_=params.c.param_value)
