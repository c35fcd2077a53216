"""Removing artifacts and weight snapshots of trials that are not among the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from miiii_search.errors import MiiiiSearchError
from miiii_search.storage.artifact_stores import check_store, remove_artifacts
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
    with study.store.transaction() as tx:
        tx.lock()
        ids = tx.read_finished_ids()[keep_records:]
        found = tx.find_artifacts(ids) if dry_run else tx.delete_artifacts(ids)
    if not dry_run:
        remove_artifacts(study.artifact_store_url, found.artifact_ids)
    return CleanupResult(len(found.trial_ids), len(found.artifact_ids), found.size)


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
    with study.store.reading() as reader:
        numbers = reader.read_numbers(reader.read_finished_ids()[keep:])
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
