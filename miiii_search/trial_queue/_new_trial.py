"""Adding a trial that is leased from its beginning, in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from miiii_search.storage import schema, study_attrs
from miiii_search.storage.database import Database
from miiii_search.storage.new_trials import insert_trials
from miiii_search.storage.records import NewTrial
from miiii_search.storage.schema import trials
from miiii_search.storage.study_attrs import PAUSED_KEY
from miiii_search.storage.trial_counts import count_trials
from miiii_search.trial_queue.leases import Lease, grant, utc_now


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
        [lease] = grant(connection, study_id, [(new.trial_id, new.number)], worker, lease_seconds)
        return lease
