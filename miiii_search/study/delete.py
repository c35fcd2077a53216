"""Deleting a study: all of its rows, Optuna's and ours, and nothing of others."""

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
    """What a study has in the database."""

    trials: int
    artifacts: int
    checkpoints: int
    size: int
    """Bytes of artifacts and checkpoints."""
    leases: int
    """Trials that workers train now."""


def read_contents(study: Study) -> StudyContents:
    """What would go with the study."""
    with study.database.engine.connect() as connection:
        return _read_contents(connection, study.study_id)


def delete(study: Study, *, force: bool = False) -> StudyContents:
    """Deletes a study in one transaction; returns what went. Its workers find that it is gone, and end.

    The study's name is remembered, so that only a user creates the study again; see `deleted`.

    Raises `MiiiiSearchError` while a worker trains trials of it, unless `force`; if it was deleted already; and if
    the place of its artifacts is down, before anything is deleted unless `force`.
    """
    if not force:
        try:
            check_store(study.artifact_store_url)
        except MiiiiSearchError as error:
            raise MiiiiSearchError(
                f"{error}; delete the study all the same with --force, and its artifacts stay"
            ) from None
    with study.database.transaction() as connection:
        study.lock(connection)
        found = _read_contents(connection, study.study_id)
        if found.leases and not force:
            raise MiiiiSearchError(
                f"workers train {found.leases} trials of study `{study.name}`: stop or pause them first, "
                "or delete it all the same with --force"
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
    saved = connection.execute(
        sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(sa.func.length(checkpoints.c.data)), 0)).where(
            checkpoints.c.trial_id.in_(ids)
        )
    ).one()
    held = sa.select(sa.func.count()).where(leases.c.study_id == study_id, leases.c.expires_at > schema.now(connection))
    return StudyContents(
        trials=connection.execute(sa.select(sa.func.count()).select_from(ids.subquery())).scalar_one(),
        artifacts=files[0],
        checkpoints=saved[0],
        size=int(files[1]) + int(saved[1]),
        leases=connection.execute(held).scalar_one(),
    )


def _delete(connection: sa.Connection, study_id: int) -> list[str]:
    """Deletes the rows; returns the ids of the artifacts."""
    leases = schema.leases
    # First, and in the order in which they are renewed: whoever is writing about a trial is waited for, and later
    # ones find that they hold nothing. Nobody claims meanwhile, since the study's row is locked.
    connection.execute(
        sa.select(leases.c.trial_id).where(leases.c.study_id == study_id).order_by(leases.c.trial_id).with_for_update()
    )
    connection.execute(sa.delete(leases).where(leases.c.study_id == study_id))
    files = linked_artifact_ids(connection, study_id)
    connection.execute(sa.delete(schema.artifacts).where(schema.artifacts.c.artifact_id.in_(files)))
    ids = sa.select(schema.trials.c.trial_id).where(schema.trials.c.study_id == study_id)
    of_trials: tuple[Any, ...] = (schema.checkpoints, *schema.TRIAL_TABLES, schema.trial_heartbeats)
    for table in of_trials:
        connection.execute(sa.delete(table).where(table.c.trial_id.in_(ids)))
    for table in (schema.device_time, schema.trials, *schema.STUDY_TABLES, schema.studies):
        connection.execute(sa.delete(table).where(table.c.study_id == study_id))
    return files
