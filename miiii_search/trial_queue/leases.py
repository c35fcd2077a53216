"""Leases: which worker trains which trial, and how trials leave the queue and come back to it.

A trial is claimed and leased in one transaction, so there is no moment with a claim and no lease. Whatever a
worker writes about a trial happens in a transaction that has first renewed the lease by its token (`renew`),
which locks the lease's row: a worker that lost its lease can overwrite nothing.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from optuna.trial import TrialState
from sqlalchemy.dialects import postgresql

from miiii_search.storage import schema, study_attrs
from miiii_search.storage.database import Database
from miiii_search.storage.schema import leases, trial_system_attributes, trials
from miiii_search.storage.study_attrs import PAUSED_KEY

SHAPE_KEY = "miiii:shape"
"""The trial attribute that names what its program is compiled for."""

NAMED = 5
"""Trials and workers that a message names."""

TAKEN_BACK_SECONDS = 10.0
"""A coordinator that runs takes an overdue trial back sooner than this: it looks every two seconds."""


@dataclass(frozen=True)
class Lease:
    """The right to train one trial."""

    trial_id: int
    number: int
    token: str


@dataclass(frozen=True)
class Heartbeat:
    """What a worker tells when it renews."""

    lease: Lease
    epoch: int
    epochs_per_second: float
    saved_epoch: int = 0
    """Of its last checkpoint."""


@dataclass(frozen=True)
class AbandonedTrial:
    """A running trial whose worker is gone, and that no coordinator has taken back yet."""

    study_id: int
    number: int
    worker: str | None
    """None if it has no lease: a program other than ours began it."""
    silent_seconds: float
    """Since its lease was last renewed."""


def utc_now() -> datetime:
    """As Optuna 5 stores times: UTC without a time zone."""
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

    Called twice, it claims further trials. Two workers never get the same trial. If the connection is lost on the
    way, trials may have been claimed without an answer; they return to the queue when their leases expire.

    Args:
        database: The database of the study.
        study_id: Optuna's id of the study.
        worker: Name of the worker.
        lease_seconds: Duration of the leases.
        n: Maximum number of trials.
        first_ids: Ids of trials that come before all others, in this order.
        preferred_shapes: Shapes (values of `SHAPE_KEY`) whose trials come before the remaining ones.
        excluded_shapes: Shapes whose trials are not claimed.

    Returns:
        The leases, in the order of the queue. Fewer than `n` if the queue holds fewer; none if the study is paused.

    Raises:
        sqlalchemy.exc.DBAPIError: The database is unavailable; see `storage.retry.is_outage`.
    """
    preferred = [json.dumps(shape) for shape in preferred_shapes]
    excluded = [json.dumps(shape) for shape in excluded_shapes]
    preference = sa.case((trial_system_attributes.c.value_json.in_(preferred), 0), else_=1)
    ranks = {trial_id: rank for rank, trial_id in enumerate(first_ids)}
    rank = [sa.case(ranks, value=trials.c.trial_id, else_=len(ranks))] if ranks else []
    first_waiting = (
        sa.select(trials.c.trial_id, trials.c.number)
        .outerjoin(
            trial_system_attributes,
            (trial_system_attributes.c.trial_id == trials.c.trial_id) & (trial_system_attributes.c.key == SHAPE_KEY),
        )
        .where(trials.c.study_id == study_id, trials.c.state == TrialState.WAITING)
        # A trial that Optuna's enqueue_trial created has no shape.
        .where(sa.func.coalesce(trial_system_attributes.c.value_json, "").not_in(excluded))
        .order_by(*rank, preference, trials.c.number)
        .limit(n)
        .with_for_update(skip_locked=True, of=trials)
    )
    with database.transaction() as connection:
        # Pausing or deleting the study waits for claims in progress; later claims see the change.
        schema.lock_study(connection, study_id, shared=True)
        if study_attrs.read(connection, study_id, PAUSED_KEY):
            return []
        rows = connection.execute(first_waiting).all()
        if not rows:
            return []
        connection.execute(
            sa.update(trials)
            .where(trials.c.trial_id.in_([row.trial_id for row in rows]))
            .values(state=TrialState.RUNNING, datetime_start=utc_now())
        )
        return grant(connection, study_id, [(row.trial_id, row.number) for row in rows], worker, lease_seconds)


def grant(
    connection: sa.Connection, study_id: int, claimed: Sequence[tuple[int, int]], worker: str, seconds: float
) -> list[Lease]:
    """Leases trials (trial id, number) that this transaction has just set RUNNING."""
    granted = [Lease(trial_id, number, uuid.uuid4().hex) for trial_id, number in claimed]
    clock = schema.now(connection)
    connection.execute(
        sa.insert(leases).values(
            [
                {
                    "trial_id": lease.trial_id,
                    "study_id": study_id,
                    "token": lease.token,
                    "worker": worker[:256],
                    "expires_at": clock + seconds,
                    "renewed_at": clock,
                    "epoch": 0,
                    "epochs_per_second": 0.0,
                }
                for lease in granted
            ]
        )
    )
    return granted


def renew(connection: sa.Connection, heartbeats: Iterable[Heartbeat], seconds: float) -> set[Lease]:
    """Renews leases and returns those still held; their rows stay locked until the transaction ends.

    A lease that is overdue but that nobody has taken back is renewed like any other. One whose trial someone
    else has ended (by the dashboard) is not held.
    """
    beats = {beat.lease.token: beat for beat in sorted(heartbeats, key=lambda beat: beat.lease.trial_id)}
    if not beats:
        return set()
    clock = schema.now(connection)
    times = {"expires_at": clock + seconds, "renewed_at": clock}
    still_running = sa.exists().where(trials.c.trial_id == leases.c.trial_id, trials.c.state == TrialState.RUNNING)
    if connection.dialect.name == "sqlite":  # which has no table of values with names, and where a statement is cheap
        return {
            beat.lease
            for token, beat in beats.items()
            if connection.execute(
                sa.update(leases).where(leases.c.token == token, still_running).values(times | _told(beat))
            ).rowcount
        }
    # As one parameter: a table of values would be compiled anew for each number of lanes.
    columns = (sa.column("token", sa.String), *(sa.column(name, leases.c[name].type) for name in TOLD))
    rows = json.dumps([{"token": token, **_told(beat)} for token, beat in beats.items()])
    told = (
        sa.func.json_to_recordset(sa.cast(sa.literal(rows, sa.Text), postgresql.JSON))
        .table_valued(*columns, name="told")
        .render_derived(with_types=True)
    )
    # All rows are locked in one order, whoever else renews some of them: no deadlock.
    locked = (
        sa.select(leases.c.token)
        .where(leases.c.token.in_(list(beats)))
        .order_by(leases.c.trial_id)
        .with_for_update()
        .cte("locked")
    )
    renewed = connection.execute(
        sa.update(leases)
        .where(leases.c.token == locked.c.token, leases.c.token == told.c.token, still_running)
        .values(times | {name: told.c[name] for name in TOLD})
        .returning(leases.c.token)
    )
    return {beats[token].lease for token in renewed.scalars()}


TOLD = ("epoch", "epochs_per_second", "saved_epoch")


def _told(beat: Heartbeat) -> dict[str, float]:
    return {"epoch": beat.epoch, "epochs_per_second": beat.epochs_per_second, "saved_epoch": beat.saved_epoch}


def requeue(connection: sa.Connection, lease: Lease) -> None:
    """Puts a trial back into the queue and ends its lease, in a transaction that has renewed it."""
    _requeue(connection, [lease.trial_id])
    release(connection, lease)


def release(connection: sa.Connection, lease: Lease) -> None:
    """Ends a lease, in the transaction that ends its trial."""
    connection.execute(sa.delete(leases).where(leases.c.token == lease.token))


def requeue_leases(database: Database, held: Collection[Lease]) -> list[int]:
    """Puts trials back into the queue, as themselves; returns the numbers of those that were still held."""
    with database.transaction() as connection:
        # In the order in which the thread beside this one renews them.
        query = sa.select(leases.c.trial_id).where(leases.c.token.in_([lease.token for lease in held]))
        trial_ids = list(connection.execute(query.order_by(leases.c.trial_id).with_for_update()).scalars())
        connection.execute(sa.delete(leases).where(leases.c.trial_id.in_(trial_ids)))
        return _requeue(connection, trial_ids)


def find_finished(database: Database, trial_ids: Collection[int]) -> set[int]:
    """Those of the trials that have ended, or are gone; asks nothing for none."""
    if not trial_ids:
        return set()
    query = sa.select(trials.c.trial_id).where(
        trials.c.trial_id.in_(trial_ids), trials.c.state.in_([TrialState.WAITING, TrialState.RUNNING])
    )
    with database.engine.connect() as connection:
        return set(trial_ids) - set(connection.execute(query).scalars())


def requeue_overdue(database: Database, study_id: int) -> list[int]:
    """Puts RUNNING trials whose lease is overdue, or that have none, back into the queue; returns their numbers.

    A trial keeps its number, parameters and reports. Called twice, or by two coordinators, it does no more.
    """
    with database.transaction() as connection:
        # Coordinators take turns: the second would find its list of ownerless trials claimed anew.
        schema.lock_study(connection, study_id)
        # A lease whose row is locked is being renewed or ended: waiting for it here could be a deadlock.
        overdue = (
            sa.select(leases.c.trial_id)
            .where(leases.c.study_id == study_id, leases.c.expires_at < schema.now(connection))
            # While the database was down nobody could renew: workers get a whole period to come back.
            .where(
                schema.server_start_time(connection) + (leases.c.expires_at - leases.c.renewed_at)
                < schema.now(connection)
            )
            .with_for_update(skip_locked=True)
        )
        expired = list(connection.execute(overdue).scalars())
        connection.execute(sa.delete(leases).where(leases.c.trial_id.in_(expired)))
        ownerless = connection.execute(
            sa.select(trials.c.trial_id).where(
                trials.c.study_id == study_id,
                trials.c.state == TrialState.RUNNING,
                ~sa.exists().where(leases.c.trial_id == trials.c.trial_id),
            )
        )
        return _requeue(connection, [*expired, *ownerless.scalars()])


def find_abandoned(connection: sa.Connection, study_id: int | None = None) -> list[AbandonedTrial]:
    """Returns the trials that a coordinator, if one ran, would have taken back by now; by study and number.

    Of one study, or of all. They are those of `requeue_overdue`, once their leases have been overdue for
    `TAKEN_BACK_SECONDS`.
    """
    clock = schema.now(connection)
    period = leases.c.expires_at - leases.c.renewed_at
    is_overdue = sa.and_(
        leases.c.expires_at + TAKEN_BACK_SECONDS < clock,
        schema.server_start_time(connection) + period + TAKEN_BACK_SECONDS < clock,
    )
    query = (
        sa.select(trials.c.study_id, trials.c.number, leases.c.worker, (clock - leases.c.renewed_at).label("silent"))
        .outerjoin(leases, leases.c.trial_id == trials.c.trial_id)
        .where(trials.c.state == TrialState.RUNNING, sa.or_(leases.c.trial_id.is_(None), is_overdue))
        .order_by(trials.c.study_id, trials.c.number)
    )
    if study_id is not None:
        query = query.where(trials.c.study_id == study_id)
    return [
        AbandonedTrial(row.study_id, row.number, row.worker, row.silent or 0.0) for row in connection.execute(query)
    ]


def describe_abandoned(found: Sequence[AbandonedTrial]) -> str:
    """Returns which trials wait for a coordinator, and whose they were, as a part of a sentence."""
    numbers = ", ".join(str(trial.number) for trial in found[:NAMED]) + " and others" * (len(found) > NAMED)
    silent = max(trial.silent_seconds for trial in found)
    workers = sorted({trial.worker for trial in found if trial.worker is not None})
    who = f"worker {', '.join(workers[:NAMED])} has been silent for {silent:.0f} s" if workers else "no worker has it"
    if len(workers) > 1:
        who = f"workers {', '.join(workers[:NAMED])} have been silent for up to {silent:.0f} s"
    many = len(found) > 1
    return (
        f"trial{'s' * many} {numbers} {'are' if many else 'is'} overdue ({who}), "
        f"and no coordinator has taken {'them' if many else 'it'} back"
    )


def find_studies_with_overdue(connection: sa.Connection) -> list[tuple[int, str, float]]:
    """(id, name, seconds of a lease) of the studies of ours with RUNNING trials whose lease is overdue or missing."""
    is_held = sa.exists().where(leases.c.trial_id == trials.c.trial_id, leases.c.expires_at >= schema.now(connection))
    known, studies = schema.study_system_attributes, schema.studies
    query = (
        sa.select(studies.c.study_id, studies.c.study_name, known.c.value_json)
        .join(known, sa.and_(known.c.study_id == studies.c.study_id, known.c.key == study_attrs.SPEC_KEY))
        .where(
            sa.exists().where(trials.c.study_id == studies.c.study_id, trials.c.state == TrialState.RUNNING, ~is_held)
        )
        .order_by(studies.c.study_id)
    )
    return [(row[0], row[1], float(json.loads(row[2]).get("lease_seconds", 60.0))) for row in connection.execute(query)]


def _requeue(connection: sa.Connection, trial_ids: list[int]) -> list[int]:
    changed = connection.execute(
        sa.update(trials)
        .where(trials.c.trial_id.in_(trial_ids), trials.c.state == TrialState.RUNNING)
        .values(state=TrialState.WAITING)
        .returning(trials.c.number)
    )
    return sorted(changed.scalars())
