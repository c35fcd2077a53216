"""The trials of a study in its database: adding them, counting them, and the attributes that they carry."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import TrialState

from miiii_search.config.search_space import Point, Range, Value
from miiii_search.config.study_spec import StudySpec
from miiii_search.experiment.spec import Hyperparameters
from miiii_search.storage import schema
from miiii_search.storage.records import NewTrial
from miiii_search.storage.trial_attrs import REPLICATE_KEY, SHAPE_KEY
from miiii_search.storage.trial_counts import count_trials

STATES = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
"""States in the order in which they are shown."""
STATE_NAMES = tuple(state.name.lower() for state in STATES)
"""Names of the states as users see them, in the same order."""


def counts_by_name(counts: Mapping[TrialState, int]) -> dict[str, int]:
    """Return counts by the states' names, in the order of `STATE_NAMES`."""
    return {name: counts[state] for name, state in zip(STATE_NAMES, STATES, strict=True)}


def shape_of(d_model: int, n_heads: int) -> str:
    """Return the part of the hyperparameters that a compiled program depends on, as text; see `leases.claim`."""
    return f"d_model={d_model} n_heads={n_heads}"


def distributions(spec: StudySpec) -> dict[str, BaseDistribution]:
    """Return the search space as Optuna's distributions.

    A list becomes a categorical distribution. A range becomes an integer or a float distribution, depending on the
    type of the hyperparameter.
    """
    return {name: _distribution(spec, name) for name in spec.space}


def new_trial(spec: StudySpec, point: Point, replicate: int) -> NewTrial:
    """Return the trial at a point of the search space, to be added to a study."""
    hyperparameters = spec.run_at(point, replicate)[1]
    shape = shape_of(hyperparameters.d_model, hyperparameters.n_heads)
    return NewTrial(point, {SHAPE_KEY: shape, REPLICATE_KEY: replicate})


def insert_trials(
    connection: sa.Connection, study_id: int, spec: StudySpec, points: Sequence[tuple[Point, int]], state: TrialState
) -> list[tuple[int, int]]:
    """Add trials to a study, numbered after those that it has.

    The caller must hold the lock on the study's row, or two callers would assign the same numbers.

    Args:
        connection: A connection in a transaction.
        study_id: The study.
        spec: The study's specification.
        points: Point of the search space and replicate of each trial.
        state: State of the new trials.

    Returns:
        Trial id and number of each new trial, in the order of `points`.
    """
    first = sum(count_trials(connection, study_id).values())
    ids = _insert_rows(connection, study_id, first, len(points), state)
    space = distributions(spec)
    parameters = [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": space[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(space[name]),
        }
        for trial_id, (point, _) in zip(ids, points, strict=True)
        for name, value in point.items()
    ]
    attributes = []
    for trial_id, (point, replicate) in zip(ids, points, strict=True):
        hyperparameters = spec.run_at(point, replicate)[1]
        values = {SHAPE_KEY: shape_of(hyperparameters.d_model, hyperparameters.n_heads), REPLICATE_KEY: replicate}
        for key, value in values.items():
            attributes.append({"trial_id": trial_id, "key": key, "value_json": json.dumps(value)})
    if parameters:  # a study that varies nothing but the seed has none
        connection.execute(sa.insert(schema.trial_params), parameters)
    connection.execute(sa.insert(schema.trial_system_attributes), attributes)
    return [(trial_id, first + k) for k, trial_id in enumerate(ids)]


def _insert_rows(connection: sa.Connection, study_id: int, first: int, n: int, state: TrialState) -> list[int]:
    """Insert `n` trials with the numbers from `first` on; return their ids by number."""
    trials = schema.trials
    times = {"datetime_start": None, "datetime_complete": None}
    rows = [{"study_id": study_id, "number": first + k, "state": state, **times} for k in range(n)]
    connection.execute(sa.insert(trials), rows)
    query = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id, trials.c.number >= first)
    return list(connection.execute(query.order_by(trials.c.number)).scalars())


def _distribution(spec: StudySpec, name: str) -> BaseDistribution:
    dimension = spec.space[name]
    if isinstance(dimension, Range):
        low, high = dimension.low, dimension.high
        field = Hyperparameters.model_fields.get(name)
        if field is not None and field.annotation is int:
            return IntDistribution(int(low), int(high), log=dimension.log)
        return FloatDistribution(float(low), float(high), log=dimension.log)
    values: list[Value] = list(dimension)
    # Points of `first`, such as Table 2, may lie outside of the lists. Optuna needs one distribution for all trials.
    values += [point[name] for point in spec.first if point[name] not in values]
    return CategoricalDistribution(values)
