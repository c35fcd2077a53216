"""Aggregates of all studies of a database, from a fixed number of SQL statements for any number of trials."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.storage import schema
from miiii_search.storage.records import StudyRow
from miiii_search.storage.trial_counts import count_trials_by_study


def read_rows(connection: sa.Connection, keys: Collection[str]) -> list[StudyRow]:
    """Return all studies, sorted by name, each with those of the attributes that it has."""
    studies = connection.execute(sa.select(schema.studies).order_by("study_name")).all()
    attributes, counts = _read_attributes(connection, keys), count_trials_by_study(connection)
    best, started, trained = _read_best(connection), _read_first_starts(connection), _read_trained(connection)
    return [
        StudyRow(
            row.study_id,
            row.study_name,
            attributes.get(row.study_id, {}),
            counts.get(row.study_id, dict.fromkeys(TrialState, 0)),
            best.get(row.study_id),
            started.get(row.study_id),
            row.study_id in trained,
        )
        for row in studies
    ]


def _read_attributes(connection: sa.Connection, keys: Collection[str]) -> dict[int, dict[str, Any]]:
    """Return those of the attributes that each study has, by study and key."""
    table = schema.study_system_attributes
    query = sa.select(table.c.study_id, table.c.key, table.c.value_json).where(table.c.key.in_(keys))
    found: dict[int, dict[str, Any]] = {}
    for row in connection.execute(query):
        found.setdefault(row.study_id, {})[row.key] = json.loads(row.value_json)
    return found


def _read_best(connection: sa.Connection) -> dict[int, float]:
    """Return the highest objective of the complete trials of each study that maximizes a single objective."""
    trials, values, directions = schema.trials, schema.trial_values, schema.study_directions
    single = sa.select(directions.c.study_id).group_by("study_id").having(sa.func.count() == 1)
    query = (
        sa.select(trials.c.study_id, sa.func.max(values.c.value).label("best"))
        .join(values, values.c.trial_id == trials.c.trial_id)
        .join(directions, (directions.c.study_id == trials.c.study_id) & (directions.c.direction == "MAXIMIZE"))
        .where(trials.c.state == TrialState.COMPLETE, trials.c.study_id.in_(single))
        .group_by(trials.c.study_id)
    )
    return {row.study_id: row.best for row in connection.execute(query) if row.best is not None}


def _read_first_starts(connection: sa.Connection) -> dict[int, datetime]:
    """Return when the first trial of each study was started, for studies that do not store when they were created."""
    trials = schema.trials
    query = sa.select(trials.c.study_id, sa.func.min(trials.c.datetime_start).label("at")).group_by(trials.c.study_id)
    return {row.study_id: row.at.replace(tzinfo=UTC) for row in connection.execute(query) if row.at is not None}


def _read_trained(connection: sa.Connection) -> set[int]:
    """Return the ids of the studies with a valid lease."""
    leases = schema.leases
    query = sa.select(leases.c.study_id).where(leases.c.expires_at > schema.now(connection)).distinct()
    return set(connection.execute(query).scalars())
