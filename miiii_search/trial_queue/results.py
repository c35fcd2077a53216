"""What a worker writes about its trials: reports at rungs, and everything at a trial's end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.storage import notes, schema
from miiii_search.storage.artifacts import Artifact, store_artifact
from miiii_search.storage.database import Database
from miiii_search.trial_queue import leases
from miiii_search.trial_queue.budget import count_solved
from miiii_search.trial_queue.leases import Heartbeat, Lease

ENDED_BY_KEY = "miiii:ended_by"
"""The trial attribute with the token of the lease that ended it."""

RETRIES_KEY = "retries"
"""The trial attribute that counts how often its run went wrong and was tried again."""


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended."""

    state: TrialState
    value: float | None
    """The objective; for a pruned trial its last report, as `Study.tell` has it."""
    note: str
    """In a sentence, how it ended; the dashboard shows it on the trial's page."""
    attributes: Mapping[str, Any]
    artifacts: Sequence[Artifact]
    """To be stored in the database."""
    is_solved: bool = False
    links: Mapping[str, str] = field(default_factory=dict)
    """Attributes that tell of artifacts that are stored elsewhere already; see `artifacts.artifact_link`."""


class FinishStatus(Enum):
    """What became of writing a trial's end."""

    WRITTEN = "written"
    LEASE_LOST = "lease lost"
    """Its lease was lost; nothing was written."""
    OVER_BUDGET = "over budget"
    """It would have been one more solved trial than the budget asks for: it is in the queue again."""


def report(
    database: Database,
    heartbeats: Sequence[Heartbeat],
    reports: Mapping[Lease, Mapping[int, float]],
    seconds: float,
) -> set[Lease]:
    """Renews the leases and writes the reports (epoch → accuracy) of those still held, in one transaction.

    Returns the leases still held. Called twice, it overwrites what it wrote. Raises nothing for a lost lease:
    its reports are dropped, and it is not among those returned.
    """
    with database.transaction() as connection:
        held = leases.renew(connection, heartbeats, seconds)
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
    database: Database, study_id: int, heartbeat: Heartbeat, outcome: TrialResult, solved_budget: int | None = None
) -> FinishStatus:
    """Writes all that is known of an ended trial, its artifacts included, and its state, in one transaction.

    `solved_budget` is how many solved trials the study may have at most. Called twice, since the first answer was
    lost on its way, it does no more, and returns the same for a trial that has ended.
    """
    lease = heartbeat.lease
    with database.transaction() as connection:
        counts = outcome.is_solved and solved_budget is not None
        # By all: inserting the note locks the study's row, and whoever deletes it locks that first, then the lease.
        schema.lock_study(connection, study_id, shared=not counts)
        # For no time at all: the lease ends with this transaction.
        if not leases.renew(connection, [heartbeat], 0.0):
            return FinishStatus.WRITTEN if _was_ended_by(connection, lease) else FinishStatus.LEASE_LOST
        if counts and count_solved(connection, study_id) >= (solved_budget or 0):
            leases.requeue(connection, lease)
            return FinishStatus.OVER_BUDGET
        ended_by = {ENDED_BY_KEY: lease.token}
        _write_attributes(connection, schema.trial_system_attributes, lease.trial_id, ended_by)
        links = {**outcome.links, **dict(store_artifact(connection, artifact) for artifact in outcome.artifacts)}
        _write_attributes(connection, schema.trial_system_attributes, lease.trial_id, links)
        _write_attributes(connection, schema.trial_user_attributes, lease.trial_id, outcome.attributes)
        note = notes.attributes(outcome.note, lease.trial_id)
        rows = [{"study_id": study_id, "key": key, "value_json": json.dumps(v)} for key, v in note.items()]
        schema.upsert(connection, schema.study_system_attributes, rows, ("study_id", "key"))
        if outcome.value is not None:
            stored, kind = schema.to_stored_value(outcome.value)
            row = {"trial_id": lease.trial_id, "objective": 0, "value": stored, "value_type": kind}
            schema.upsert(connection, schema.trial_values, [row], ("trial_id", "objective"))
        connection.execute(
            sa.update(schema.trials)
            .where(schema.trials.c.trial_id == lease.trial_id)
            .values(state=outcome.state, datetime_complete=leases.utc_now())
        )
        connection.execute(sa.delete(schema.checkpoints).where(schema.checkpoints.c.trial_id == lease.trial_id))
        leases.release(connection, lease)
    return FinishStatus.WRITTEN


def requeue_for_retry(database: Database, heartbeat: Heartbeat, retries: int, note: str) -> bool:
    """Puts a trial whose run went wrong back into the queue; `retries` is how often that has happened now.

    Returns False, and writes nothing, if the lease was lost.
    """
    lease = heartbeat.lease
    with database.transaction() as connection:
        if not leases.renew(connection, [heartbeat], 0.0):
            return False
        attributes = {RETRIES_KEY: retries, "last_failure": note}
        _write_attributes(connection, schema.trial_user_attributes, lease.trial_id, attributes)
        leases.requeue(connection, lease)
    return True


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
