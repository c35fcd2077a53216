"""Results that a worker writes about its trials: reports at rungs, the final result, and failed runs.

Each function renews the trial's lease in the transaction that writes, so a worker that has lost the lease writes
nothing. While the database is unavailable, every function raises a subclass of `sqlalchemy.exc.DBAPIError`, for which
`storage.retry.is_outage` is true. The transaction may have been committed all the same, so callers repeat the call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search import failpoints
from miiii_search.storage import notes, schema, study_attrs
from miiii_search.storage.artifacts import Artifact, store_artifact
from miiii_search.storage.database import Database
from miiii_search.storage.trial_attrs import ENDED_BY_KEY, RETRIES_KEY
from miiii_search.storage.trial_counts import count_solved
from miiii_search.trial_queue import leases
from miiii_search.trial_queue.leases import Heartbeat, Lease
from miiii_search.trial_queue.requeue import requeue


@dataclass(frozen=True)
class TrialResult:
    """The final result of a trial.

    Attributes:
        state: COMPLETE, PRUNED or FAIL.
        value: The objective. For a pruned trial, its last report, as in Optuna's `Study.tell`. None if there is none.
        note: One sentence on how the trial ended, which the dashboard shows on the trial's page.
        attributes: User attributes of the trial, by name.
        artifacts: Files that are stored in the database.
        is_solved: Whether the run was solved.
        links: Trial attributes that link artifacts which are stored elsewhere already; see `artifacts.artifact_link`.
    """

    state: TrialState
    value: float | None
    note: str
    attributes: Mapping[str, Any]
    artifacts: Sequence[Artifact]
    is_solved: bool = False
    links: Mapping[str, str] = field(default_factory=dict)


class FinishStatus(Enum):
    """The outcome of `finish`."""

    WRITTEN = "written"
    """The trial has ended with this lease."""
    LEASE_LOST = "lease lost"
    """The lease was lost. Nothing was written."""
    OVER_BUDGET = "over budget"
    """The study has as many solved trials as its budget allows. The trial is in the queue again."""


def report(
    database: Database,
    heartbeats: Sequence[Heartbeat],
    reports: Mapping[Lease, Mapping[int, float]],
    lease_seconds: float,
) -> set[Lease]:
    """Renew leases and write the reports of those that are still held, in one transaction.

    Called twice, it overwrites what it wrote. The reports of a lost lease are dropped, without an error.

    Args:
        database: The database of the study.
        heartbeats: One heartbeat per lease.
        reports: For each lease, the validation accuracy by epoch.
        lease_seconds: Seconds until the leases run out, from now.

    Returns:
        The leases that are still held.

    Raises:
        sqlalchemy.exc.DBAPIError: The database is unavailable.
    """
    with database.transaction() as connection:
        held = leases.renew(connection, heartbeats, lease_seconds)
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
    database: Database, study_id: int, heartbeat: Heartbeat, result: TrialResult, solved_budget: int | None = None
) -> FinishStatus:
    """End a trial: write its result with all artifacts, and its final state, in one transaction.

    Called twice, because the first answer was lost, it writes nothing more. It returns WRITTEN again, or LEASE_LOST if
    the trial went back to the queue. A worker that has lost the lease writes nothing.

    Args:
        database: The database of the study.
        study_id: Optuna's id of the study.
        heartbeat: The lease and the final progress of the trial.
        result: The result to be written.
        solved_budget: Maximum number of solved trials of the study; None for no limit.

    Raises:
        sqlalchemy.exc.DBAPIError: The database is unavailable. The trial may have ended already.
        ValueError: An artifact is larger than `MAX_ARTIFACT_BYTES`. Nothing was written.
    """
    lease = heartbeat.lease
    with database.transaction() as connection:
        counts_as_solved = result.is_solved and solved_budget is not None
        # Writing the note locks the row of the study. Deleting the study locks that row first and the lease second,
        # so this transaction does the same. Only solved trials, which must be counted, exclude each other.
        schema.lock_study(connection, study_id, shared=not counts_as_solved)
        # Renewed for 0 seconds, because the lease ends with this transaction.
        if not leases.renew(connection, [heartbeat], 0.0):
            return FinishStatus.WRITTEN if _was_ended_by(connection, lease) else FinishStatus.LEASE_LOST
        if counts_as_solved and count_solved(connection, study_id) >= (solved_budget or 0):
            requeue(connection, lease)
            return FinishStatus.OVER_BUDGET
        _write_result(connection, study_id, lease, result)
        connection.execute(
            sa.update(schema.trials)
            .where(schema.trials.c.trial_id == lease.trial_id)
            .values(state=result.state, datetime_complete=leases.utc_now())
        )
        connection.execute(sa.delete(schema.checkpoints).where(schema.checkpoints.c.trial_id == lease.trial_id))
        leases.release(connection, lease)
        failpoints.reach("result-written")
    failpoints.reach("result-committed")
    return FinishStatus.WRITTEN


def requeue_for_retry(database: Database, heartbeat: Heartbeat, retries: int, note: str) -> bool:
    """Return a trial whose run failed to the queue, so that it is trained again.

    Called twice, it returns False the second time, because the first call ended the lease. A worker that has lost
    the lease writes nothing.

    Args:
        database: The database of the study.
        heartbeat: The lease and the progress of the trial.
        retries: How often the trial's run has failed, this time included.
        note: One sentence on the failure.

    Returns:
        Whether the trial went back to the queue; False if the lease was lost.

    Raises:
        sqlalchemy.exc.DBAPIError: The database is unavailable. The trial may have gone back to the queue already.
    """
    lease = heartbeat.lease
    with database.transaction() as connection:
        if not leases.renew(connection, [heartbeat], 0.0):
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
