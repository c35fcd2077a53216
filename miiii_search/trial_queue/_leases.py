"""Granting, renewing and ending leases, in SQL.

Every transaction that writes about a trial first renews its lease by its token, which locks the row of the lease.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence

import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy.dialects import postgresql

from miiii_search.storage import schema
from miiii_search.storage.database import Database
from miiii_search.storage.schema import leases, trials
from miiii_search.trial_queue.leases import Heartbeat, Lease

PROGRESS_COLUMNS = ("epoch", "epochs_per_second", "saved_epoch")
"""Columns of the table of leases that a heartbeat sets."""


def grant(
    connection: sa.Connection, study_id: int, claimed: Sequence[tuple[int, int]], worker: str, lease_seconds: float
) -> list[Lease]:
    """Lease trials to a worker, in the transaction that has just set them RUNNING.

    It must be called once for each trial: a trial that is leased already raises an error.

    Args:
        connection: The transaction.
        study_id: Optuna's id of the study.
        claimed: (trial id, trial number) of each trial.
        worker: Name of the worker.
        lease_seconds: Duration of the leases, in seconds.

    Returns:
        One new lease per trial, in the same order.

    Raises:
        sqlalchemy.exc.IntegrityError: A trial is leased already.
        sqlalchemy.exc.DBAPIError: The database is unavailable.
    """
    granted = [Lease(trial_id, number, uuid.uuid4().hex) for trial_id, number in claimed]
    clock = schema.now(connection)
    rows = [
        {
            "trial_id": lease.trial_id,
            "study_id": study_id,
            "token": lease.token,
            "worker": worker[:256],
            "expires_at": clock + lease_seconds,
            "renewed_at": clock,
            "epoch": 0,
            "epochs_per_second": 0.0,
        }
        for lease in granted
    ]
    connection.execute(sa.insert(leases).values(rows))
    return granted


def renew(connection: sa.Connection, heartbeats: Iterable[Heartbeat], lease_seconds: float) -> set[Lease]:
    """Renew leases; see `TrialQueue.renew`. The rows stay locked until the transaction ends."""
    by_token = {beat.lease.token: beat for beat in sorted(heartbeats, key=lambda beat: beat.lease.trial_id)}
    if not by_token:
        return set()
    clock = schema.now(connection)
    times = {"expires_at": clock + lease_seconds, "renewed_at": clock}
    if connection.dialect.name == "sqlite":
        tokens = _renew_one_by_one(connection, by_token, times)
    else:
        tokens = _renew_at_once(connection, by_token, times)
    return {by_token[token].lease for token in tokens}


def _is_running() -> sa.ColumnElement[bool]:
    return sa.exists().where(trials.c.trial_id == leases.c.trial_id, trials.c.state == TrialState.RUNNING)


def _renew_one_by_one(
    connection: sa.Connection, by_token: Mapping[str, Heartbeat], times: Mapping[str, sa.ColumnElement[float]]
) -> list[str]:
    """Renew leases on SQLite, which has no JSON record sets. A statement costs little there."""
    return [
        token
        for token, beat in by_token.items()
        if connection.execute(
            sa.update(leases).where(leases.c.token == token, _is_running()).values({**times, **_progress(beat)})
        ).rowcount
    ]


def _renew_at_once(
    connection: sa.Connection, by_token: Mapping[str, Heartbeat], times: Mapping[str, sa.ColumnElement[float]]
) -> list[str]:
    """Renew leases on PostgreSQL in one statement."""
    # The progress is a single JSON parameter. SQLAlchemy would compile a VALUES table anew for each number of rows.
    columns = (sa.column("token", sa.String), *(sa.column(name, leases.c[name].type) for name in PROGRESS_COLUMNS))
    rows = json.dumps([{"token": token, **_progress(beat)} for token, beat in by_token.items()])
    progress = (
        sa.func.json_to_recordset(sa.cast(sa.literal(rows, sa.Text), postgresql.JSON))
        .table_valued(*columns, name="progress")
        .render_derived(with_types=True)
    )
    # All transactions lock the rows in the same order, which prevents deadlocks.
    locked = (
        sa.select(leases.c.token)
        .where(leases.c.token.in_(list(by_token)))
        .order_by(leases.c.trial_id)
        .with_for_update()
        .cte("locked")
    )
    renewed = connection.execute(
        sa.update(leases)
        .where(leases.c.token == locked.c.token, leases.c.token == progress.c.token, _is_running())
        .values({**times, **{name: progress.c[name] for name in PROGRESS_COLUMNS}})
        .returning(leases.c.token)
    )
    return list(renewed.scalars())


def _progress(beat: Heartbeat) -> dict[str, float]:
    return {"epoch": beat.epoch, "epochs_per_second": beat.epochs_per_second, "saved_epoch": beat.saved_epoch}


def release(connection: sa.Connection, lease: Lease) -> None:
    """End a lease, in the transaction that ends its trial.

    Called twice, or for a lost lease, it does nothing.

    Raises:
        sqlalchemy.exc.DBAPIError: The database is unavailable.
    """
    connection.execute(sa.delete(leases).where(leases.c.token == lease.token))


def find_finished(database: Database, trial_ids: Collection[int]) -> set[int]:
    """Return the trials that have ended or no longer exist; see `TrialQueue.find_finished`."""
    if not trial_ids:
        return set()
    query = sa.select(trials.c.trial_id).where(
        trials.c.trial_id.in_(trial_ids), trials.c.state.in_([TrialState.WAITING, TrialState.RUNNING])
    )
    with database.engine.connect() as connection:
        return set(trial_ids) - set(connection.execute(query).scalars())
