"""The trials of a study in its database: how they are added and counted, and which attributes they have."""

from __future__ import annotations

import json

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
from miiii_search.trial_queue.leases import SHAPE_KEY

REPLICATE_KEY = "miiii:replicate"


METRICS_KEY = "metrics"
"""The trial attribute that holds `Metrics`."""


def shape_of(d_model: int, n_heads: int) -> str:
    """What a trial's program is compiled for, as far as hyperparameters change it; see `leases.claim`."""
    return f"d_model={d_model} n_heads={n_heads}"


def distributions(spec: StudySpec) -> dict[str, BaseDistribution]:
    """The space in Optuna's terms: a list is categorical, a range is continuous or, for integers, discrete."""
    return {name: _distribution(spec, name) for name in spec.space}


def count_trials(connection: sa.Connection, study_id: int) -> int:
    """How many trials a study has, in any state."""
    query = sa.select(sa.func.count()).select_from(schema.trials).where(schema.trials.c.study_id == study_id)
    return int(connection.execute(query).scalar_one())


def insert_trials(
    connection: sa.Connection,
    study_id: int,
    spec: StudySpec,
    points: list[tuple[Point, int]],
    state: TrialState,
) -> list[tuple[int, int]]:
    """Adds trials at (point, replicate); returns (trial id, number) of each.

    To be called with the study's row locked, since numbers continue from those that are there.
    """
    first = count_trials(connection, study_id)
    space = distributions(spec)
    rows = [
        {
            "study_id": study_id,
            "number": first + k,
            "state": state,
            "datetime_start": None,
            "datetime_complete": None,
        }
        for k in range(len(points))
    ]
    connection.execute(sa.insert(schema.trials), rows)
    ids: dict[int, int] = {
        number: trial_id
        for trial_id, number in connection.execute(
            sa.select(schema.trials.c.trial_id, schema.trials.c.number).where(
                schema.trials.c.study_id == study_id, schema.trials.c.number >= first
            )
        )
    }
    parameters, trial_attributes = [], []
    for k, (point, replicate) in enumerate(points):
        trial_id = ids[first + k]
        for name, value in point.items():
            parameters.append(
                {
                    "trial_id": trial_id,
                    "param_name": name,
                    "param_value": space[name].to_internal_repr(value),
                    "distribution_json": distribution_to_json(space[name]),
                }
            )
        hyperparameters = spec.run(point, replicate)[1]
        shape = shape_of(hyperparameters.d_model, hyperparameters.n_heads)
        for key, attribute in [(SHAPE_KEY, shape), (REPLICATE_KEY, replicate)]:
            trial_attributes.append({"trial_id": trial_id, "key": key, "value_json": json.dumps(attribute)})
    if parameters:  # a space of seeds alone has none
        connection.execute(sa.insert(schema.trial_params), parameters)
    connection.execute(sa.insert(schema.trial_system_attributes), trial_attributes)
    return [(ids[first + k], first + k) for k in range(len(points))]


def _distribution(spec: StudySpec, name: str) -> BaseDistribution:
    dimension = spec.space[name]
    if isinstance(dimension, Range):
        low, high = dimension.low, dimension.high
        field = Hyperparameters.model_fields.get(name)
        if field is not None and field.annotation is int:
            return IntDistribution(int(low), int(high), log=dimension.log)
        return FloatDistribution(float(low), float(high), log=dimension.log)
    values: list[Value] = list(dimension)
    # Points of `first` may lie outside of the lists, as Table 2 does; Optuna wants one distribution for all.
    values += [point[name] for point in spec.first if point[name] not in values]
    return CategoricalDistribution(values)
