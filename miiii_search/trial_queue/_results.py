"""Writing reports, results and failures, in SQL. Each renews the trial's lease in the transaction that writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from miiii_search import failpoints
from miiii_search.storage import notes, schema, study_attrs
from miiii_search.storage.artifacts import store_artifact
from miiii_search.storage.database import Database
from miiii_search.storage.trial_attrs import ENDED_BY_KEY, RETRIES_KEY
from miiii_search.storage.trial_counts import count_solved
from miiii_search.trial_queue import _leases
from miiii_search.trial_queue._requeue import requeue
from miiii_search.trial_queue.leases import Heartbeat, Lease, utc_now
from miiii_search.trial_queue.results import FinishStatus, TrialResult


def report(
    database: Database,
    heartbeats: Sequence[Heartbeat],
    reports: Mapping[Lease, Mapping[int, float]],
    lease_seconds: float,
) -> set[Lease]:
    """Write reports; see `TrialQueue.report`."""
    with database.transaction() as connection:
        held = _leases.renew(connection, heartbeats, lease_seconds)
        rows = []
        for lease in held:
            for epoch, value in reports.get(lease, {}).items():
                stored, kind = schema.to_stored_report(value)
                rows.append(
                    {
                        "trial_id": lease.trial_id,
                        "step": epoch,
                        "intermediate_value": stored,
                        "intermediate_value_type": kind,
                    }
                )
        schema.upsert(connection, schema.intermediate_values, rows, ("trial_id", "step"))
    return held


def finish(
    database: Database, study_id: int, heartbeat: Heartbeat, result: TrialResult, solved_budget: int | None
) -> FinishStatus:
    """End a trial; see `TrialQueue.finish`."""
    lease = heartbeat.lease
    with database.transaction() as connection:
        limit = solved_budget if result.is_solved else None
        # Writing the note locks the row of the study. Deleting the study locks that row first and the lease second,
        # so this transaction does the same. Only solved trials, which must be counted, exclude each other.
        schema.lock_study(connection, study_id, shared=limit is None)
        # Renewed for 0 seconds, because the lease ends with this transaction.
        if not _leases.renew(connection, [heartbeat], 0.0):
            return FinishStatus.WRITTEN if _was_ended_by(connection, lease) else FinishStatus.LEASE_LOST
        if limit is not None and count_solved(connection, study_id) >= limit:
            requeue(connection, lease)
            return FinishStatus.OVER_BUDGET
        _write_result(connection, study_id, lease, result)
        connection.execute(
            sa.update(schema.trials)
            .where(schema.trials.c.trial_id == lease.trial_id)
            .values(state=result.state, datetime_complete=utc_now())
        )
        connection.execute(sa.delete(schema.checkpoints).where(schema.checkpoints.c.trial_id == lease.trial_id))
        _leases.release(connection, lease)
        failpoints.reach("result-written")
    failpoints.reach("result-committed")
    return FinishStatus.WRITTEN


def requeue_for_retry(database: Database, heartbeat: Heartbeat, retries: int, note: str) -> bool:
    """Return a trial whose run failed to the queue; see `TrialQueue.requeue_for_retry`."""
    lease = heartbeat.lease
    with database.transaction() as connection:
        if not _leases.renew(connection, [heartbeat], 0.0):
            return False
        attributes = {RETRIES_KEY: retries, "last_failure": note}
        _write_attributes(connection, schema.trial_user_attributes, lease.trial_id, attributes)
        requeue(connection, lease)
    return True


def _write_result(connection: sa.Connection, study_id: int, lease: Lease, result: TrialResult) -> None:
    """Write everything of a result except the state of the trial."""
    links = {**result.links, **dict(store_artifact(connection, artifact) for artifact in result.artifacts)}
    system_attributes = {ENDED_BY_KEY: lease.token, **links}
    _write_attributes(connection, schema.trial_system_attributes, lease.trial_id, system_attributes)
    _write_attributes(connection, schema.trial_user_attributes, lease.trial_id, result.attributes)
    study_attrs.write(connection, study_id, notes.attributes(result.note, lease.trial_id))
    if result.value is not None:
        stored, kind = schema.to_stored_value(result.value)
        row = {"trial_id": lease.trial_id, "objective": 0, "value": stored, "value_type": kind}
        schema.upsert(connection, schema.trial_values, [row], ("trial_id", "objective"))


def _was_ended_by(connection: sa.Connection, lease: Lease) -> bool:
    attributes = schema.trial_system_attributes
    token = connection.execute(
        sa.select(attributes.c.value_json).where(
            attributes.c.trial_id == lease.trial_id, attributes.c.key == ENDED_BY_KEY
        )
    ).scalar_one_or_none()
    return token == json.dumps(lease.token)


def _write_attributes(connection: sa.Connection, table: Any, trial_id: int, attributes: Mapping[str, Any]) -> None:
    rows = [{"trial_id": trial_id, "key": key, "value_json": json.dumps(v)} for key, v in attributes.items()]
    schema.upsert(connection, table, rows, ("trial_id", "key"))
