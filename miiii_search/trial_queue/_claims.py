"""Claiming trials, in SQL. A trial is claimed and leased in one transaction, never claimed without a lease."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from miiii_search.storage import schema, study_attrs
from miiii_search.storage.database import Database
from miiii_search.storage.new_trials import insert_trials
from miiii_search.storage.records import NewTrial
from miiii_search.storage.schema import trial_system_attributes, trials
from miiii_search.storage.study_attrs import PAUSED_KEY
from miiii_search.storage.trial_attrs import SHAPE_KEY
from miiii_search.storage.trial_counts import count_trials
from miiii_search.trial_queue import _leases
from miiii_search.trial_queue.leases import Lease, utc_now


def claim(
    database: Database,
    study_id: int,
    worker: str,
    lease_seconds: float,
    *,
    n: int,
    first_ids: Sequence[int],
    preferred_shapes: Collection[str],
    excluded_shapes: Collection[str],
) -> list[Lease]:
    """Claim waiting trials; see `TrialQueue.claim`."""
    query = _select_waiting(study_id, n, first_ids, preferred_shapes, excluded_shapes)
    with database.transaction() as connection:
        # Pausing or deleting the study waits for claims in progress. Later claims see the change.
        schema.lock_study(connection, study_id, shared=True)
        if study_attrs.read(connection, study_id, PAUSED_KEY):
            return []
        rows = connection.execute(query).all()
        if not rows:
            return []
        connection.execute(
            sa.update(trials)
            .where(trials.c.trial_id.in_([row.trial_id for row in rows]))
            .values(state=TrialState.RUNNING, datetime_start=utc_now())
        )
        return _leases.grant(connection, study_id, [(row.trial_id, row.number) for row in rows], worker, lease_seconds)


def claim_new_trial(
    database: Database,
    study_id: int,
    trial: NewTrial,
    space: Mapping[str, BaseDistribution],
    worker: str,
    lease_seconds: float,
    *,
    n_trials: int,
    attributes: Mapping[str, Any],
) -> Lease | None:
    """Add a trial that is RUNNING and leased; see `TrialQueue.claim_new_trial`."""
    with database.transaction() as connection:
        if not schema.lock_study(connection, study_id):
            return None
        found = study_attrs.read(connection, study_id, PAUSED_KEY, *attributes)
        if PAUSED_KEY in found or any(found.get(key) != value for key, value in attributes.items()):
            return None
        if sum(count_trials(connection, study_id).values()) != n_trials:
            return None
        [new] = insert_trials(connection, study_id, [trial], space, TrialState.RUNNING)
        connection.execute(sa.update(trials).where(trials.c.trial_id == new.trial_id).values(datetime_start=utc_now()))
        [lease] = _leases.grant(connection, study_id, [(new.trial_id, new.number)], worker, lease_seconds)
        return lease


def _select_waiting(
    study_id: int,
    n: int,
    first_ids: Sequence[int],
    preferred_shapes: Collection[str],
    excluded_shapes: Collection[str],
) -> sa.Select[tuple[int, int]]:
    """Return the query for the (trial_id, number) of the first `n` WAITING trials, which it locks."""
    preferred = [json.dumps(shape) for shape in preferred_shapes]
    excluded = [json.dumps(shape) for shape in excluded_shapes]
    ranks = {trial_id: rank for rank, trial_id in enumerate(first_ids)}
    by_rank = [sa.case(ranks, value=trials.c.trial_id, else_=len(ranks))] if ranks else []
    by_shape = sa.case((trial_system_attributes.c.value_json.in_(preferred), 0), else_=1)
    return (
        sa.select(trials.c.trial_id, trials.c.number)
        .outerjoin(
            trial_system_attributes,
            (trial_system_attributes.c.trial_id == trials.c.trial_id) & (trial_system_attributes.c.key == SHAPE_KEY),
        )
        .where(trials.c.study_id == study_id, trials.c.state == TrialState.WAITING)
        # A trial that Optuna's own enqueue_trial created has no shape.
        .where(sa.func.coalesce(trial_system_attributes.c.value_json, "").not_in(excluded))
        .order_by(*by_rank, by_shape, trials.c.number)
        .limit(n)
        .with_for_update(skip_locked=True, of=trials)
    )
