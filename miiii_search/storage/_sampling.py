"""The trials that samplers and pruners compare, read with a few statements for any number of trials."""

from __future__ import annotations

import json
from collections.abc import Collection

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.storage import schema
from miiii_search.storage.records import KnownTrials, PeerReports, WaitingTrial
from miiii_search.storage.trial_attrs import REPLICATE_KEY, SHAPE_KEY

BATCH_SIZE = 500
"""Trials per statement."""


def read_known_trials(
    connection: sa.Connection, study_id: int, max_waiting: int, excluded_shapes: Collection[str]
) -> KnownTrials:
    """Read the trials that have a shape. A trial that Optuna's `enqueue_trial` made has neither shape nor point."""
    trials, values, known = schema.trials, schema.trial_values, schema.trial_system_attributes
    shape, replicate = known.alias("shape"), known.alias("replicate")
    has_shape = sa.and_(shape.c.trial_id == trials.c.trial_id, shape.c.key == SHAPE_KEY)
    started = (
        sa.select(trials.c.trial_id, trials.c.state, values.c.value, values.c.value_type)
        .join(shape, has_shape)
        .outerjoin(values, values.c.trial_id == trials.c.trial_id)
        .where(trials.c.study_id == study_id, trials.c.state != TrialState.WAITING)
        .order_by(sa.func.coalesce(trials.c.datetime_complete, trials.c.datetime_start), trials.c.number)
    )
    found = KnownTrials()
    for row in connection.execute(started):
        if row.state == TrialState.RUNNING:
            found.running.append(row.trial_id)
        else:
            failed = row.state == TrialState.FAIL or row.value_type is None
            value = None if failed else schema.from_stored_value(row.value, row.value_type)
            found.finished[row.trial_id] = value
    excluded = [json.dumps(one) for one in excluded_shapes]
    waiting = (
        sa.select(
            trials.c.trial_id,
            trials.c.datetime_start,
            shape.c.value_json.label("shape"),
            replicate.c.value_json.label("replicate"),
        )
        .join(shape, has_shape)
        .outerjoin(replicate, sa.and_(replicate.c.trial_id == trials.c.trial_id, replicate.c.key == REPLICATE_KEY))
        .where(trials.c.study_id == study_id, trials.c.state == TrialState.WAITING)
        .where(shape.c.value_json.not_in(excluded))
        .order_by(trials.c.number)
        .limit(max_waiting)
    )
    found.waiting = [
        WaitingTrial(row.trial_id, int(row.replicate or 0), json.loads(row.shape), row.datetime_start is not None)
        for row in connection.execute(waiting)
    ]
    return found


def read_peer_reports(
    connection: sa.Connection, study_id: int, epochs: Collection[int], known: Collection[int]
) -> PeerReports:
    """Read the reports that a pruner compares.

    Args:
        connection: A connection to the database.
        study_id: The study.
        epochs: Epochs at which all reports are read.
        known: Ids of finished trials whose last report is not read again.
    """
    trials, values = schema.trials, schema.intermediate_values
    of_study = sa.select(trials.c.trial_id, trials.c.state).where(trials.c.study_id == study_id)
    finished = of_study.where(trials.c.state.not_in([TrialState.WAITING, TrialState.RUNNING]))
    states: dict[int, TrialState] = {row.trial_id: row.state for row in connection.execute(finished)}
    new = [trial_id for trial_id in states if trial_id not in known]
    last: dict[int, dict[int, float]] = {}
    for k in range(0, len(new), BATCH_SIZE):
        last |= _read_last_reports(connection, new[k : k + BATCH_SIZE])
    at_epochs = of_study.add_columns(values).join(values, trials.c.trial_id == values.c.trial_id)
    reports = [
        (row.trial_id, row.state, row.step, _decode(row))
        for row in connection.execute(at_epochs.where(values.c.step.in_(epochs)))
    ]
    return PeerReports(states, last, reports)


def _read_last_reports(connection: sa.Connection, trial_ids: list[int]) -> dict[int, dict[int, float]]:
    values = schema.intermediate_values
    last = (
        sa.select(values.c.trial_id, sa.func.max(values.c.step).label("step"))
        .where(values.c.trial_id.in_(trial_ids))
        .group_by(values.c.trial_id)
        .subquery()
    )
    at_last = (values.c.trial_id == last.c.trial_id) & (values.c.step == last.c.step)
    found: dict[int, dict[int, float]] = {trial_id: {} for trial_id in trial_ids}
    for row in connection.execute(sa.select(values).join(last, at_last)):
        found[row.trial_id] = {row.step: _decode(row)}
    return found


def _decode(row: sa.Row[tuple[object, ...]]) -> float:
    return float(schema.from_stored_report(row.intermediate_value, row.intermediate_value_type))
