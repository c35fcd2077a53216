"""The trials that have ended, as far as comparisons and tables need them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from miiii_search.storage import schema
from miiii_search.study.points import points_of
from miiii_search.study.study import Study

BATCH_SIZE = 500
"""Trials asked for in one statement."""


@dataclass(frozen=True)
class FinishedTrial:
    """A trial that has ended, as far as configurations are compared by it."""

    trial_id: int
    number: int
    state: TrialState
    value: float | None
    params: dict[str, Any]
    epochs_to_solve: int | None
    """As the trial's attributes have it."""

    @property
    def solved_at(self) -> int | None:
        """The epochs to solve of a completed trial, if its run was solved."""
        return self.epochs_to_solve if self.state == TrialState.COMPLETE else None


def finished_trials(trials: Iterable[FrozenTrial]) -> list[FinishedTrial]:
    """Returns those of the trials that have ended."""
    return [
        FinishedTrial(t._trial_id, t.number, t.state, t.value, t.params, t.user_attrs.get("epochs_to_solve"))
        for t in trials
        if t.state.is_finished()
    ]


@dataclass(frozen=True)
class PrunedTrial:
    """A trial that was given up."""

    number: int
    epoch: int | None
    reason: str | None


def read_varied_parameters(study: Study) -> list[str]:
    """Reads which names of the space have more than one value in the trials that have ended."""
    trials, params = schema.trials, schema.trial_params
    ended = sa.select(trials.c.trial_id).where(
        trials.c.study_id == study.study_id,
        trials.c.state.in_([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]),
    )
    query = (
        sa.select(
            params.c.param_name,
            sa.func.count(sa.distinct(params.c.param_value)).label("values"),
            sa.func.count().label("trials"),
        )
        .where(params.c.trial_id.in_(ended))
        .group_by(params.c.param_name)
    )
    with study.database.engine.connect() as connection:
        n = connection.execute(sa.select(sa.func.count()).select_from(ended.subquery())).scalar_one()
        found = {row.param_name: row.values + (row.trials < n) for row in connection.execute(query)}
    return [name for name in study.spec.space if found.get(name, 0) > 1]


def read_pruned_trials(connection: sa.Connection, study_id: int, last: int | None = None) -> list[PrunedTrial]:
    """Reads the trials that were given up, in the order in which they were: all of them, or the `last` ones."""
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
    return [
        PrunedTrial(row.number, json.loads(row.epoch or "null"), json.loads(row.reason or "null")) for row in rows[::-1]
    ]


def read_finished_trials(
    connection: sa.Connection, study_id: int, known: dict[int, FinishedTrial]
) -> dict[int, FinishedTrial]:
    """Reads the ended trials as they are compared, by their ids; takes from `known` those that it holds."""
    trials, values, attributes = schema.trials, schema.trial_values, schema.trial_user_attributes
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
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
        .where(trials.c.study_id == study_id, trials.c.state.in_(states))
    )
    ids = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id, trials.c.state.in_(states))
    there = set(connection.execute(ids).scalars())
    new = there - known.keys()
    kept = {trial_id: trial for trial_id, trial in known.items() if trial_id in there}
    if not new:
        return kept
    # All at once when many are new, as at the first look; otherwise a few of them.
    chosen = query if len(new) > BATCH_SIZE else query.where(trials.c.trial_id.in_(new))
    rows = [row for row in connection.execute(chosen) if row.trial_id in new]
    points = points_of(connection, [row.trial_id for row in rows])
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


def mean_epochs_trained(connection: sa.Connection, study_id: int) -> float | None:
    """The mean of the epochs that trials were trained for, of those that tell."""
    trials, attributes = schema.trials, schema.trial_user_attributes
    epochs = sa.cast(attributes.c.value_json, sa.Float)
    query = (
        sa.select(sa.func.sum(epochs).label("sum"), sa.func.count().label("n"))
        .select_from(trials.join(attributes, attributes.c.trial_id == trials.c.trial_id))
        .where(trials.c.study_id == study_id, attributes.c.key == "epochs_trained", attributes.c.value_json != "null")
    )
    row = connection.execute(query).one()
    return row.sum / row.n if row.n else None
