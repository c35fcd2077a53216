"""The points of the search space that trials have, read without the rest of the trials."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

import sqlalchemy as sa
from optuna.distributions import json_to_distribution

from miiii_search.config.search_space import Point, Value
from miiii_search.storage import schema
from miiii_search.storage.trial_attrs import REPLICATE_KEY

BATCH_SIZE = 500
"""Maximum number of trial ids in a statement."""

_decode = lru_cache(json_to_distribution)


def read_points(connection: sa.Connection, study_id: int) -> dict[int, tuple[Point, int]]:
    """Return the point and the replicate of every trial of a study, by trial id."""
    trials, params, attributes = schema.trials, schema.trial_params, schema.trial_system_attributes
    trial_ids = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)
    points: dict[int, Point] = {trial_id: {} for trial_id in connection.execute(trial_ids).scalars()}
    for row in connection.execute(sa.select(params).where(params.c.trial_id.in_(trial_ids))):
        points[row.trial_id][row.param_name] = _value(row)
    query = sa.select(attributes.c.trial_id, attributes.c.value_json).where(
        attributes.c.key == REPLICATE_KEY, attributes.c.trial_id.in_(trial_ids)
    )
    replicates = {row.trial_id: int(row.value_json) for row in connection.execute(query)}
    return {trial_id: (point, replicates.get(trial_id, 0)) for trial_id, point in points.items()}


def read_points_by_id(connection: sa.Connection, trial_ids: Collection[int]) -> dict[int, Point]:
    """Return the points of trials, by trial id. A trial without parameters is missing."""
    params, wanted, points = schema.trial_params, sorted(trial_ids), dict[int, Point]()
    for k in range(0, len(wanted), BATCH_SIZE):
        for row in connection.execute(sa.select(params).where(params.c.trial_id.in_(wanted[k : k + BATCH_SIZE]))):
            points.setdefault(row.trial_id, {})[row.param_name] = _value(row)
    return points


def _value(row: sa.Row[tuple[object, ...]]) -> Value:
    value: Value = _decode(row.distribution_json).to_external_repr(row.param_value)
    return value
