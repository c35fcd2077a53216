"""Deleting a study: all of its rows in Optuna's tables and in ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from miiii_search.errors import MiiiiSearchError
from miiii_search.storage import deleted_studies, schema
from miiii_search.storage.artifact_stores import check_store, remove_artifacts
from miiii_search.storage.artifacts import linked_artifact_ids
from miiii_search.study.study import Study


@dataclass(frozen=True)
class StudyContents:
    """Numbers of what a study stores in the database."""

    trials: int
    artifacts: int
    checkpoints: int
    size: int
    """Size in bytes of the artifacts and checkpoints."""
    leases: int
    """Number of trials that workers train at the moment."""


def read_contents(study: Study) -> StudyContents:
    """Count what deleting the study would delete."""
    with study.database.engine.connect() as connection:
        return _read_contents(connection, study.study_id)


def delete(study: Study, *, force: bool = False) -> StudyContents:
    """Delete a study in one transaction. Its workers notice that it is deleted, and stop.

    The study's name is recorded as deleted, so that coordinators do not create the study again; see `deleted_studies`.

    Args:
        study: The study.
        force: Whether to delete the study even if workers train it or its artifact store is not available.

    Returns:
        What was deleted.

    Raises:
        StudyDeletedError: The study was deleted already.
        MiiiiSearchError: Workers train the study, or its artifact store is not available, and `force` is false.
    """
    if not force:
        try:
            check_store(study.artifact_store_url)
        except MiiiiSearchError as error:
            raise MiiiiSearchError(
                f"{error}; delete the study anyway with --force, which leaves its artifacts behind"
            ) from None
    with study.database.transaction() as connection:
        study.lock(connection)
        found = _read_contents(connection, study.study_id)
        if found.leases and not force:
            raise MiiiiSearchError(
                f"workers train {found.leases} trials of study `{study.name}`: stop or pause them first, "
                "or delete it anyway with --force"
            )
        files = _delete(connection, study.study_id)
        deleted_studies.record_deletion(connection, study.name)
    remove_artifacts(study.artifact_store_url, files)
    return found


def _read_contents(connection: sa.Connection, study_id: int) -> StudyContents:
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


def _delete(connection: sa.Connection, study_id: int) -> list[str]:
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
