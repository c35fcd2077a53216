"""Finished trials, with only the fields that comparisons and tables need."""

from __future__ import annotations

import json
from collections.abc import Mapping

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.storage import _points, schema
from miiii_search.storage.records import FINISHED_STATES, FinishedTrial, PrunedTrial

BATCH_SIZE = 500
"""Maximum number of trial ids in a statement."""


def read_finished_trials(
    connection: sa.Connection, study_id: int, known: Mapping[int, FinishedTrial]
) -> dict[int, FinishedTrial]:
    """Read the finished trials of a study.

    Args:
        connection: A connection to the database.
        study_id: The study.
        known: Finished trials by id that were read before. They do not change, so they are not read again.

    Returns:
        All finished trials by id.
    """
    trials, values, attributes = schema.trials, schema.trial_values, schema.trial_user_attributes
    is_finished = sa.and_(trials.c.study_id == study_id, trials.c.state.in_(FINISHED_STATES))
    existing = set(connection.execute(sa.select(trials.c.trial_id).where(is_finished)).scalars())
    kept = {trial_id: trial for trial_id, trial in known.items() if trial_id in existing}
    new = existing - known.keys()
    if not new:
        return kept
    query = (
        sa.select(
            trials.c.trial_id,
            trials.c.number,
            trials.c.state,
            values.c.value,
            values.c.value_type,
            attributes.c.value_json,
        )
        .outerjoin(values, sa.and_(values.c.trial_id == trials.c.trial_id, values.c.objective == 0))
        .outerjoin(
            attributes,
            sa.and_(attributes.c.trial_id == trials.c.trial_id, attributes.c.key == "epochs_to_solve"),
        )
        .where(is_finished)
    )
    if len(new) <= BATCH_SIZE:  # otherwise, such as at the first read, all finished trials are read at once
        query = query.where(trials.c.trial_id.in_(new))
    rows = [row for row in connection.execute(query) if row.trial_id in new]
    points = _points.read_points_by_id(connection, [row.trial_id for row in rows])
    read = {
        row.trial_id: FinishedTrial(
            row.trial_id,
            row.number,
            row.state,
            None if row.value_type is None else schema.from_stored_value(row.value, row.value_type),
            points.get(row.trial_id, {}),
            json.loads(row.value_json or "null"),
        )
        for row in rows
    }
    return {**kept, **read}


def read_pruned_trials(connection: sa.Connection, study_id: int, last: int | None = None) -> list[PrunedTrial]:
    """Read the pruned trials in the order in which they were pruned.

    Args:
        connection: A connection to the database.
        study_id: The study.
        last: Number of trials to read, the last ones; None reads all.
    """
    trials, attributes = schema.trials, schema.trial_user_attributes
    epoch, reason = attributes.alias("epoch"), attributes.alias("reason")
    query = (
        sa.select(trials.c.number, epoch.c.value_json.label("epoch"), reason.c.value_json.label("reason"))
        .outerjoin(epoch, sa.and_(epoch.c.trial_id == trials.c.trial_id, epoch.c.key == "epochs_trained"))
        .outerjoin(reason, sa.and_(reason.c.trial_id == trials.c.trial_id, reason.c.key == "reason"))
        .where(trials.c.study_id == study_id, trials.c.state == TrialState.PRUNED)
        .order_by(
            trials.c.datetime_complete.is_(None).desc(), trials.c.datetime_complete.desc(), trials.c.number.desc()
        )
        .limit(last)
    )
    rows = connection.execute(query).all()
    return [PrunedTrial(row.number, json.loads(row.epoch or "null"), json.loads(row.reason or "null")) for row in rows][
        ::-1
    ]


def count_parameter_values(connection: sa.Connection, study_id: int) -> dict[str, int]:
    """Return the number of different values of each parameter among the finished trials.

    A trial without the parameter counts as one more value.
    """
    trials, params = schema.trials, schema.trial_params
    finished = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id, trials.c.state.in_(FINISHED_STATES))
    query = (
        sa.select(
            params.c.param_name,
            sa.func.count(sa.distinct(params.c.param_value)).label("values"),
            sa.func.count().label("trials"),
        )
        .where(params.c.trial_id.in_(finished))
        .group_by(params.c.param_name)
    )
    n = connection.execute(sa.select(sa.func.count()).select_from(finished.subquery())).scalar_one()
    return {row.param_name: row.values + (row.trials < n) for row in connection.execute(query)}


def mean_epochs_trained(connection: sa.Connection, study_id: int) -> float | None:
    """Return the mean number of epochs that trials were trained for; None if no trial has recorded it."""
    trials, attributes = schema.trials, schema.trial_user_attributes
    epochs = sa.cast(attributes.c.value_json, sa.Float)
    query = (
        sa.select(sa.func.sum(epochs).label("sum"), sa.func.count().label("n"))
        .select_from(trials.join(attributes, attributes.c.trial_id == trials.c.trial_id))
        .where(trials.c.study_id == study_id, attributes.c.key == "epochs_trained", attributes.c.value_json != "null")
    )
    row = connection.execute(query).one()
    return row.sum / row.n if row.n else None
