"""Creating a study with its queue of trials."""

from __future__ import annotations

from importlib.metadata import version

from optuna.trial import TrialState

from miiii_search.config.overrides import describe_differences
from miiii_search.config.study_spec import StudySpec
from miiii_search.errors import DuplicateStudyError, MiiiiSearchError, StudyDeletedError
from miiii_search.storage.database import Database
from miiii_search.storage.records import StudyIdentity
from miiii_search.storage.study_attrs import (
    ARTIFACT_STORE_KEY,
    CREATED_KEY,
    ID_KEY,
    PROGRAMS_KEY,
    SPEC_KEY,
    VERSION_KEY,
)
from miiii_search.storage.study_transaction import StudyTransaction
from miiii_search.study.names import check_name, check_not_deleted
from miiii_search.study.objective import OBJECTIVE_NAME
from miiii_search.study.open import new_id, open_by_id
from miiii_search.study.stored_spec import parse_spec, write_spec
from miiii_search.study.study import Study
from miiii_search.study.trials import insert_trials
from miiii_search.training.version import TRAINING_PROGRAM


def create_study(
    database: Database, name: str, spec: StudySpec, artifact_store_url: str | None = None, *, again: bool = True
) -> Study:
    """Create a study with its queue in one transaction, or open it if it exists with the same specification.

    Args:
        database: The database.
        name: Name of the study.
        spec: Specification of the study.
        artifact_store_url: Artifact store of a new study; see `artifact_stores.parse_store_url`. None stores artifacts
            in the database. A study that exists keeps its own store.
        again: Whether to create a study that was deleted.

    Raises:
        DuplicateStudyError: The study exists with another specification. The message lists every difference.
        StudyDeletedError: The study was deleted, and `again` is false.
        MiiiiSearchError: The name is not allowed, or the study was created by another program.
    """
    check_name(name)
    if not again:
        check_not_deleted(database, name)
    created = None
    while created is None:  # a concurrent deletion makes the first attempt fail
        created = _create_or_find(database, name, spec, artifact_store_url, again)
    study_id, stored = created
    if stored != spec and (differences := describe_differences(stored, spec)):
        raise DuplicateStudyError(
            f"study `{name}` exists with another spec: {'; '.join(differences)}; "
            "choose another --study, or leave the options out to continue the study as it is"
        )
    return open_by_id(database, name, study_id)


def _create_or_find(
    database: Database, name: str, spec: StudySpec, artifact_store_url: str | None, again: bool
) -> tuple[int, StudySpec] | None:
    """Create the study if it does not exist.

    Returns:
        The study's `study_id` and its stored specification. None if the study was deleted concurrently.

    Raises:
        StudyDeletedError: The study was deleted, and `again` is false.
    """
    row = database.studies.find_or_insert(name)
    if row is None:
        return None
    study_id, is_maximized = row
    deletion: StudyDeletedError | None = None
    store = database.studies.store(StudyIdentity(study_id, name))
    with store.transaction() as tx:
        # Of two processes that create the study, the second waits for this lock and then finds the specification.
        if not tx.lock_row():
            return None
        if found := tx.read_attributes(SPEC_KEY):
            return study_id, parse_spec(found[SPEC_KEY])
        if not again:
            deletion = tx.deletion_error()
        if deletion is not None:  # deleted after `check_not_deleted`: remove the row that was just inserted
            tx.delete_empty_study()
        else:
            if not is_maximized or tx.has_trials():
                raise MiiiiSearchError(f"study `{name}` was not created by miiii-search; choose another name")
            _write_attributes(tx, spec, artifact_store_url)
            queue = spec.queue() if spec.is_grid_search else [(point, 0) for point in spec.first]
            if queue:
                insert_trials(tx, spec, queue, TrialState.WAITING)
            tx.clear_deletion()
    if deletion is not None:
        raise deletion
    return study_id, spec


def _write_attributes(tx: StudyTransaction, spec: StudySpec, artifact_store_url: str | None) -> None:
    values = {
        ID_KEY: new_id(),
        VERSION_KEY: version("miiii-search"),
        PROGRAMS_KEY: [TRAINING_PROGRAM],
        CREATED_KEY: tx.now(),
        "study:metric_names": [OBJECTIVE_NAME],
        **({ARTIFACT_STORE_KEY: artifact_store_url} if artifact_store_url else {}),
    }
    tx.write_attributes(values)
    tx.renew_revision()
    write_spec(tx, spec)
