"""What a study need not keep: records, figures and snapshots of trials that are not among the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.errors import MiiiiSearchError
from miiii_search.storage import schema
from miiii_search.storage.artifact_stores import check_store, remove_artifacts
from miiii_search.storage.artifacts import TRIAL_ARTIFACT_PREFIX, delete_attachments, find_attachments
from miiii_search.storage.revisions import renew_revision
from miiii_search.study.snapshots import check_database, trial_folder
from miiii_search.study.study import Study


@dataclass(frozen=True)
class CleanupResult:
    """What was removed, or would be."""

    trials: int
    artifacts: int
    size: int
    """Bytes of those in the database."""


def cleanup(study: Study, keep_records: int, *, dry_run: bool = False) -> CleanupResult:
    """Removes the artifacts of all ended trials but the best so many; metrics, reports and notes stay.

    What was attached to a trial after its end goes with the others.
    In one transaction, links and bytes together, so that nothing points to what is gone. Called twice, it does no more.
    Raises `MiiiiSearchError` if the study was deleted, or the place of its artifacts is down.
    """
    check_store(study.artifact_store_url)
    with study.database.transaction() as connection:
        study.lock(connection)
        attributes, artifacts = schema.trial_system_attributes, schema.artifacts
        ids = _ended(connection, study.study_id)[keep_records:]
        of_rest = attributes.c.trial_id.in_(ids) & attributes.c.key.like(f"{TRIAL_ARTIFACT_PREFIX}%")
        links = connection.execute(sa.select(attributes.c.trial_id, attributes.c.key).where(of_rest)).all()
        later = find_attachments(connection, study.study_id, ids)
        names = [*(row.key.removeprefix(TRIAL_ARTIFACT_PREFIX) for row in links), *(file.artifact_id for file in later)]
        files = artifacts.c.artifact_id.in_(names)
        size = sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(artifacts.c.data)), 0)).where(files)
        trials = {row.trial_id for row in links} | {file.trial_id for file in later}
        removed = CleanupResult(len(trials), len(names), int(connection.execute(size).scalar_one()))
        if not dry_run:
            delete_attachments(connection, study.study_id, later)
            connection.execute(sa.delete(attributes).where(of_rest))
            connection.execute(sa.delete(artifacts).where(files))
            if names:
                renew_revision(connection, study.study_id)
    if not dry_run:
        remove_artifacts(study.artifact_store_url, names)
    return removed


def old_snapshots(study: Study, folder: Path, keep: int) -> list[Path]:
    """The weights that workers of this study have left in `folder`, of all ended trials but the best so many.

    Raises `MiiiiSearchError` if they are of another database.
    """
    check_database(folder, study)
    with study.database.engine.connect() as connection:
        ids = _ended(connection, study.study_id)[keep:]
        query = sa.select(schema.trials.c.number).where(schema.trials.c.trial_id.in_(ids))
        numbers = sorted(connection.execute(query).scalars())
    folders = [trial_folder(folder, study, number) for number in numbers]
    return [path for trial in folders if not trial.is_symlink() for path in sorted(trial.glob("epoch-*.npz"))]


def remove_snapshots(paths: Sequence[Path]) -> None:
    """Removes them, and the folders of trials that are empty then. Raises `MiiiiSearchError` if that may not be."""
    try:
        for path in paths:
            path.unlink(missing_ok=True)
        for trial in {path.parent for path in paths}:
            if not any(trial.iterdir()):
                trial.rmdir()
    except OSError as error:
        raise MiiiiSearchError(f"cannot remove {error.filename}: {error.strerror}") from None


def _ended(connection: sa.Connection, study_id: int) -> list[int]:
    """The ids of the ended trials, best first, as `status.ranked` has them."""
    trials, values = schema.trials, schema.trial_values
    order = sa.case((trials.c.state == TrialState.COMPLETE, 0), (trials.c.state == TrialState.PRUNED, 1), else_=2)
    query = (
        sa.select(trials.c.trial_id)
        .outerjoin(values, values.c.trial_id == trials.c.trial_id)
        .where(trials.c.study_id == study_id)
        .where(trials.c.state.in_([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]))
        .order_by(order, sa.func.coalesce(values.c.value, 0.0).desc(), trials.c.number)
    )
    return list(connection.execute(query).scalars())
