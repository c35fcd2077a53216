"""Returning trials to the queue, in SQL: by the worker that holds them, or by a coordinator."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search import failpoints
from miiii_search.storage import schema
from miiii_search.storage.database import Database
from miiii_search.storage.schema import leases, trials
from miiii_search.trial_queue._leases import release
from miiii_search.trial_queue.leases import Lease


def requeue(connection: sa.Connection, lease: Lease) -> None:
    """Return a trial to the queue and end its lease, in a transaction that has renewed the lease.

    Called twice in the same transaction, it does nothing more. A caller that has lost the lease must not call it:
    another worker may be training the trial.

    Raises:
        sqlalchemy.exc.DBAPIError: The database is unavailable.
    """
    _set_waiting(connection, [lease.trial_id])
    release(connection, lease)


def requeue_leases(database: Database, held: Collection[Lease]) -> list[int]:
    """Return trials to the queue; see `TrialQueue.requeue`."""
    with database.transaction() as connection:
        # The heartbeat thread of the same worker locks the rows in the same order.
        query = sa.select(leases.c.trial_id).where(leases.c.token.in_([lease.token for lease in held]))
        trial_ids = list(connection.execute(query.order_by(leases.c.trial_id).with_for_update()).scalars())
        connection.execute(sa.delete(leases).where(leases.c.trial_id.in_(trial_ids)))
        numbers = _set_waiting(connection, trial_ids)
        failpoints.reach("hand-back-written")
        return numbers


def requeue_overdue(database: Database, study_id: int) -> list[int]:
    """Return overdue trials to the queue; see `TrialQueue.requeue_overdue`."""
    with database.transaction() as connection:
        # Coordinators take turns. Otherwise a second one's list of trials without a lease could be out of date.
        schema.lock_study(connection, study_id)
        clock = schema.now(connection)
        period = leases.c.expires_at - leases.c.renewed_at
        overdue = (
            sa.select(leases.c.trial_id)
            .where(leases.c.study_id == study_id, leases.c.expires_at < clock)
            # No worker could renew while the server was down. After a restart, each gets a whole period.
            .where(schema.server_start_time(connection) + period < clock)
            # A locked row is being renewed or deleted. Waiting for it could be a deadlock.
            .with_for_update(skip_locked=True)
        )
        expired = list(connection.execute(overdue).scalars())
        connection.execute(sa.delete(leases).where(leases.c.trial_id.in_(expired)))
        without_lease = connection.execute(
            sa.select(trials.c.trial_id).where(
                trials.c.study_id == study_id,
                trials.c.state == TrialState.RUNNING,
                ~sa.exists().where(leases.c.trial_id == trials.c.trial_id),
            )
        )
        return _set_waiting(connection, {*expired, *without_lease.scalars()})


def _set_waiting(connection: sa.Connection, trial_ids: Collection[int]) -> list[int]:
    """Set the RUNNING ones of these trials WAITING, and return their numbers, sorted."""
    changed = connection.execute(
        sa.update(trials)
        .where(trials.c.trial_id.in_(trial_ids), trials.c.state == TrialState.RUNNING)
        .values(state=TrialState.WAITING)
        .returning(trials.c.number)
    )
    return sorted(changed.scalars())
