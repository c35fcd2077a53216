"""Leases: which worker trains which trial, and until when no other worker may.

A trial is claimed and leased in one transaction, so no trial is ever claimed without a lease. Every transaction that
writes about a trial first renews its lease by its token, which locks the row of the lease. A worker that lost its
lease therefore cannot overwrite anything.

While the database is unavailable, every function raises a subclass of `sqlalchemy.exc.DBAPIError`, for which
`storage.retry.is_outage` is true. The transaction may have been committed before the connection was lost, so callers
repeat the call. `storage.retry.DatabaseRetry` does that and raises `StorageUnavailableError` instead.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy.dialects import postgresql

from miiii_search.storage import schema, study_attrs
from miiii_search.storage.database import Database
from miiii_search.storage.schema import leases, trial_system_attributes, trials
from miiii_search.storage.study_attrs import PAUSED_KEY
from miiii_search.storage.trial_attrs import SHAPE_KEY


@dataclass(frozen=True)
class Lease:
    """The right of one worker to train one trial.

    Attributes:
        trial_id: Optuna's id of the trial.
        number: Number of the trial within its study.
        token: Random text that identifies the lease. A trial that is claimed again gets another token.
    """

    trial_id: int
    number: int
    token: str


@dataclass(frozen=True)
class Heartbeat:
    """The progress of a trial, which a worker sends when it renews the lease.

    Attributes:
        lease: The lease.
        epoch: Number of epochs trained.
        epochs_per_second: Current speed of this trial.
        saved_epoch: Epoch of the last checkpoint; 0 if there is none.
    """

    lease: Lease
    epoch: int
    epochs_per_second: float
    saved_epoch: int = 0


PROGRESS_COLUMNS = ("epoch", "epochs_per_second", "saved_epoch")
"""Columns of the table of leases that a heartbeat sets."""


def utc_now() -> datetime:
    """Return the current time as Optuna 5 stores it: UTC without a time zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def claim(
    database: Database,
    study_id: int,
    worker: str,
    lease_seconds: float,
    *,
    n: int = 1,
    first_ids: Sequence[int] = (),
    preferred_shapes: Collection[str] = (),
    excluded_shapes: Collection[str] = (),
) -> list[Lease]:
    """Claim up to `n` WAITING trials: set them RUNNING and lease them, in one transaction.

    Called twice, it claims further trials. Two workers never get the same trial. If the answer is lost with the
    connection, the trials that it claimed go back to the queue when their leases run out.

    Args:
        database: The database of the study.
        study_id: Optuna's id of the study.
        worker: Name of the worker.
        lease_seconds: Duration of the leases, in seconds.
        n: Maximum number of trials.
        first_ids: Ids of trials that come before all others, in this order.
        preferred_shapes: Shapes (values of `SHAPE_KEY`) whose trials come before the remaining ones.
        excluded_shapes: Shapes whose trials are not claimed.

    Returns:
        The leases; fewer than `n` if the queue holds fewer trials, and none if the study is paused.

    Raises:
        sqlalchemy.exc.DBAPIError: The database is unavailable.
    """
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
        return grant(connection, study_id, [(row.trial_id, row.number) for row in rows], worker, lease_seconds)


def _select_waiting(
    study_id: int,
    n: int,
    first_ids: Sequence[int],
    preferred_shapes: Collection[str],
    excluded_shapes: Collection[str],
) -> sa.Select[tuple[int, int]]:
    """Return the query for the (trial_id, number) of the first `n` WAITING trials, which it locks; see `claim`."""
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
    """Renew leases and store the progress of their trials. The rows stay locked until the transaction ends.

    Called twice, it renews the leases again. A lost lease is not renewed and not returned. A lease that has run out
    is renewed like any other, as long as no coordinator has returned its trial to the queue. A lease is lost as well
    if its trial was ended by another program, such as the dashboard.

    Args:
        connection: A transaction.
        heartbeats: At most one heartbeat per lease.
        lease_seconds: Seconds until the leases run out, from now.

    Returns:
        The leases that are still held.

    Raises:
        sqlalchemy.exc.DBAPIError: The database is unavailable.
    """
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
    """Return those of the trials that have ended or no longer exist.

    It changes nothing. Without trials, it does not access the database.

    Raises:
        sqlalchemy.exc.DBAPIError: The database is unavailable.
    """
    if not trial_ids:
        return set()
    query = sa.select(trials.c.trial_id).where(
        trials.c.trial_id.in_(trial_ids), trials.c.state.in_([TrialState.WAITING, TrialState.RUNNING])
    )
    with database.engine.connect() as connection:
        return set(trial_ids) - set(connection.execute(query).scalars())
