"""Deleting a study: all of its rows in Optuna's tables and in ours."""

from __future__ import annotations

from miiii_search.errors import MiiiiSearchError
from miiii_search.storage.artifact_stores import check_store, remove_artifacts
from miiii_search.storage.records import StudyContents
from miiii_search.study.study import Study


def read_contents(study: Study) -> StudyContents:
    """Count what deleting the study would delete."""
    return study.store.read_contents()


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
        MiiiiSearchError: Workers train the study, or its artifact store is not available, and `force` is false. With
            `force`, the study was deleted, but artifacts are left in its store.
    """
    if not force:
        try:
            check_store(study.artifact_store_url)
        except MiiiiSearchError as error:
            raise MiiiiSearchError(
                f"{error}; delete the study anyway with --force, which leaves its artifacts behind"
            ) from None
    with study.store.transaction() as tx:
        tx.lock()
        found = tx.read_contents()
        if found.leases and not force:
            raise MiiiiSearchError(
                f"workers train {found.leases} trials of study `{study.name}`: stop or pause them first, "
                "or delete it anyway with --force"
            )
        files = tx.delete_study()
    remove_artifacts(study.artifact_store_url, files)
    return found
