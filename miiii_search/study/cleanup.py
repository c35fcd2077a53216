"""Removing artifacts and weight snapshots of trials that are not among the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from miiii_search.errors import MiiiiSearchError
from miiii_search.storage import schema
from miiii_search.storage.artifact_stores import check_store, remove_artifacts
from miiii_search.storage.artifacts import TRIAL_ARTIFACT_PREFIX, delete_attachments, find_attachments
from miiii_search.storage.revisions import renew_revision
from miiii_search.study.best_trials import select_best_first
from miiii_search.study.snapshots import check_database, trial_folder
from miiii_search.study.study import Study


@dataclass(frozen=True)
class CleanupResult:
    """Numbers of what was removed, or would be removed without `dry_run`."""

    trials: int
    artifacts: int
    size: int
    """Size in bytes of the artifacts that the database stores."""


def cleanup(study: Study, keep_records: int, *, dry_run: bool = False) -> CleanupResult:
    """Remove the artifacts of all finished trials except the best ones.

    Artifacts that were attached to a finished trial are removed too. Metrics, intermediate values and notes stay. Links
    and bytes are removed in one transaction, so that no link points to a missing artifact.

    Args:
        study: The study.
        keep_records: Number of trials that keep their artifacts, the best ones.
        dry_run: Whether to remove nothing, and only count.

    Raises:
        StudyDeletedError: The study was deleted.
        MiiiiSearchError: The artifact store is not available.
    """
    check_store(study.artifact_store_url)
    with study.database.transaction() as connection:
        study.lock(connection)
        attributes, artifacts = schema.trial_system_attributes, schema.artifacts
        ids = _read_finished(connection, study.study_id)[keep_records:]
        is_link = attributes.c.trial_id.in_(ids) & attributes.c.key.like(f"{TRIAL_ARTIFACT_PREFIX}%")
        links = connection.execute(sa.select(attributes.c.trial_id, attributes.c.key).where(is_link)).all()
        attachments = find_attachments(connection, study.study_id, ids)
        artifact_ids = [
            *(row.key.removeprefix(TRIAL_ARTIFACT_PREFIX) for row in links),
            *(file.artifact_id for file in attachments),
        ]
        is_removed = artifacts.c.artifact_id.in_(artifact_ids)
        size = sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(artifacts.c.data)), 0)).where(is_removed)
        trials = {row.trial_id for row in links} | {file.trial_id for file in attachments}
        removed = CleanupResult(len(trials), len(artifact_ids), int(connection.execute(size).scalar_one()))
        if not dry_run:
            delete_attachments(connection, study.study_id, attachments)
            connection.execute(sa.delete(attributes).where(is_link))
            connection.execute(sa.delete(artifacts).where(is_removed))
            if artifact_ids:
                renew_revision(connection, study.study_id)
    if not dry_run:
        remove_artifacts(study.artifact_store_url, artifact_ids)
    return removed


def old_snapshots(study: Study, folder: Path, keep: int) -> list[Path]:
    """Return the weight snapshots of all finished trials except the best ones.

    Args:
        study: The study.
        folder: The folder for snapshots, as `work --snapshots` got it.
        keep: Number of trials that keep their snapshots, the best ones.

    Raises:
        MiiiiSearchError: The snapshots belong to another database.
    """
    check_database(folder, study)
    with study.database.engine.connect() as connection:
        ids = _read_finished(connection, study.study_id)[keep:]
        query = sa.select(schema.trials.c.number).where(schema.trials.c.trial_id.in_(ids))
        numbers = sorted(connection.execute(query).scalars())
    folders = [trial_folder(folder, study, number) for number in numbers]
    return [path for trial in folders if not trial.is_symlink() for path in sorted(trial.glob("epoch-*.npz"))]


def remove_snapshots(paths: Sequence[Path]) -> None:
    """Remove snapshots, and the folders of trials that are empty afterwards.

    Raises:
        MiiiiSearchError: A file cannot be removed.
    """
    try:
        for path in paths:
            path.unlink(missing_ok=True)
        for trial in {path.parent for path in paths}:
            if not any(trial.iterdir()):
                trial.rmdir()
    except OSError as error:
        raise MiiiiSearchError(f"cannot remove {error.filename}: {error.strerror}") from None


def _read_finished(connection: sa.Connection, study_id: int) -> list[int]:
    """Return the ids of the finished trials, best first."""
    return list(connection.execute(select_best_first(study_id, schema.trials.c.trial_id)).scalars())
