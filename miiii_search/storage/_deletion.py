"""Counting the rows that a study has, and deleting all of them, in Optuna's tables and in ours."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from miiii_search.storage import schema
from miiii_search.storage.artifacts import linked_artifact_ids
from miiii_search.storage.records import StudyContents


def read_contents(connection: sa.Connection, study_id: int) -> StudyContents:
    """Count what deleting the study would delete."""
    ids = sa.select(schema.trials.c.trial_id).where(schema.trials.c.study_id == study_id)
    artifacts, checkpoints, leases = schema.artifacts, schema.checkpoints, schema.leases
    files = connection.execute(
        sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(sa.func.length(artifacts.c.data)), 0)).where(
            artifacts.c.artifact_id.in_(linked_artifact_ids(connection, study_id))
        )
    ).one()
    stored = connection.execute(
        sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(sa.func.length(checkpoints.c.data)), 0)).where(
            checkpoints.c.trial_id.in_(ids)
        )
    ).one()
    n_leases = sa.select(sa.func.count()).where(
        leases.c.study_id == study_id, leases.c.expires_at > schema.now(connection)
    )
    return StudyContents(
        trials=connection.execute(sa.select(sa.func.count()).select_from(ids.subquery())).scalar_one(),
        artifacts=files[0],
        checkpoints=stored[0],
        size=int(files[1]) + int(stored[1]),
        leases=connection.execute(n_leases).scalar_one(),
    )


def delete_rows(connection: sa.Connection, study_id: int) -> list[str]:
    """Delete the study's rows; return the ids of its artifacts."""
    leases = schema.leases
    # Leases are locked first, in the order in which workers renew them. This waits for a worker that is writing, and
    # later writes fail because their lease is gone. No trial is claimed meanwhile, since the study's row is locked.
    connection.execute(
        sa.select(leases.c.trial_id).where(leases.c.study_id == study_id).order_by(leases.c.trial_id).with_for_update()
    )
    connection.execute(sa.delete(leases).where(leases.c.study_id == study_id))
    files = linked_artifact_ids(connection, study_id)
    connection.execute(sa.delete(schema.artifacts).where(schema.artifacts.c.artifact_id.in_(files)))
    ids = sa.select(schema.trials.c.trial_id).where(schema.trials.c.study_id == study_id)
    trial_tables: tuple[Any, ...] = (schema.checkpoints, *schema.TRIAL_TABLES, schema.trial_heartbeats)
    for table in trial_tables:
        connection.execute(sa.delete(table).where(table.c.trial_id.in_(ids)))
    for table in (schema.device_time, schema.trials, *schema.STUDY_TABLES, schema.studies):
        connection.execute(sa.delete(table).where(table.c.study_id == study_id))
    return files


def delete_empty_rows(connection: sa.Connection, study_id: int) -> None:
    """Delete the rows of a study that has no trials."""
    for table in (*schema.STUDY_TABLES, schema.studies):
        connection.execute(sa.delete(table).where(table.c.study_id == study_id))
