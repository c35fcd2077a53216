"""Which points of the space trials stand for, read without all else that is known of them."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

import sqlalchemy as sa
from optuna.distributions import json_to_distribution

from miiii_search.config.search_space import Point, Value, point_key
from miiii_search.storage import schema
from miiii_search.study.trials import REPLICATE_KEY

BATCH_SIZE = 500
"""Trials asked for in one statement."""

_decode = lru_cache(json_to_distribution)


def read_points(connection: sa.Connection, study_id: int) -> dict[int, tuple[Point, int]]:
    """The point and the replicate of every trial of a study, by its id."""
    trials, params, known = schema.trials, schema.trial_params, schema.trial_system_attributes
    of_study = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)
    points: dict[int, Point] = {trial_id: {} for trial_id in connection.execute(of_study).scalars()}
    for row in connection.execute(sa.select(params).where(params.c.trial_id.in_(of_study))):
        points[row.trial_id][row.param_name] = _value(row)
    query = sa.select(known.c.trial_id, known.c.value_json).where(
        known.c.key == REPLICATE_KEY, known.c.trial_id.in_(of_study)
    )
    replicates = {row.trial_id: int(row.value_json) for row in connection.execute(query)}
    return {trial_id: (point, replicates.get(trial_id, 0)) for trial_id, point in points.items()}


def points_of(connection: sa.Connection, trial_ids: Collection[int]) -> dict[int, Point]:
    """The points of some trials, by their ids; nothing of one whose point is not known yet."""
    params, asked, points = schema.trial_params, sorted(trial_ids), dict[int, Point]()
    for k in range(0, len(asked), BATCH_SIZE):
        for row in connection.execute(sa.select(params).where(params.c.trial_id.in_(asked[k : k + BATCH_SIZE]))):
            points.setdefault(row.trial_id, {})[row.param_name] = _value(row)
    return points


def _value(row: sa.Row[tuple[object, ...]]) -> Value:
    value: Value = _decode(row.distribution_json).to_external_repr(row.param_value)
    return value


def without_known(wanted: list[tuple[Point, int]], known: dict[int, tuple[Point, int]]) -> list[tuple[Point, int]]:
    """What is wanted and no trial has, in its order."""
    visited = {(point_key(point), replicate) for point, replicate in known.values()}
    return [(point, replicate) for point, replicate in wanted if (point_key(point), replicate) not in visited]
