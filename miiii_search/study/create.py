"""Creating a study with its queue of trials."""

from __future__ import annotations

from importlib.metadata import version

import optuna
import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.trial import TrialState

from miiii_search.config.overrides import describe_differences
from miiii_search.config.study_spec import StudySpec
from miiii_search.errors import DuplicateStudyError, MiiiiSearchError, StudyDeletedError
from miiii_search.storage import deleted_studies, schema, study_attrs
from miiii_search.storage.database import Database
from miiii_search.storage.revisions import renew_revision
from miiii_search.storage.study_attrs import (
    ARTIFACT_STORE_KEY,
    CREATED_KEY,
    ID_KEY,
    PROGRAMS_KEY,
    SPEC_KEY,
    VERSION_KEY,
)
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
    row = _find_or_insert_row(database, name)
    if row is None:
        return None
    study_id, is_maximized = row
    deletion: StudyDeletedError | None = None
    with database.transaction() as connection:
        # Of two processes that create the study, the second waits for this lock and then finds the specification.
        if not schema.lock_study(connection, study_id):
            return None
        if found := study_attrs.read(connection, study_id, SPEC_KEY):
            return study_id, parse_spec(found[SPEC_KEY])
        if not again:
            deletion = deleted_studies.deletion_error(connection, name)
        if deletion is not None:  # deleted after `check_not_deleted`: remove the row that was just inserted
            for table in (*schema.STUDY_TABLES, schema.studies):
                connection.execute(sa.delete(table).where(table.c.study_id == study_id))
        else:
            if not is_maximized or _has_trials(connection, study_id):
                raise MiiiiSearchError(f"study `{name}` was not created by miiii-search; choose another name")
            _write_attributes(connection, study_id, spec, artifact_store_url)
            queue = spec.queue() if spec.is_grid_search else [(point, 0) for point in spec.first]
            if queue:
                insert_trials(connection, study_id, spec, queue, TrialState.WAITING)
            deleted_studies.clear_deletion(connection, name)
    if deletion is not None:
        raise deletion
    return study_id, spec


def _find_or_insert_row(database: Database, name: str) -> tuple[int, bool] | None:
    """Return the id of Optuna's study, inserted if it is missing, and whether it maximizes a single objective.

    Returns None if the study is deleted meanwhile.
    """
    storage, maximize = database.optuna, [StudyDirection.MAXIMIZE]
    try:
        try:
            study_id = storage.create_new_study(maximize, name)
        except optuna.exceptions.DuplicatedStudyError:
            study_id = storage.get_study_id_from_name(name)
        return study_id, storage.get_study_directions(study_id) == maximize
    except KeyError:
        return None


def _has_trials(connection: sa.Connection, study_id: int) -> bool:
    query = sa.select(schema.trials.c.trial_id).where(schema.trials.c.study_id == study_id).limit(1)
    return connection.execute(query).first() is not None


def _write_attributes(
    connection: sa.Connection, study_id: int, spec: StudySpec, artifact_store_url: str | None
) -> None:
    values = {
        ID_KEY: new_id(),
        VERSION_KEY: version("miiii-search"),
        PROGRAMS_KEY: [TRAINING_PROGRAM],
        CREATED_KEY: study_attrs.now(connection),
        "study:metric_names": [OBJECTIVE_NAME],
        **({ARTIFACT_STORE_KEY: artifact_store_url} if artifact_store_url else {}),
    }
    study_attrs.write(connection, study_id, values)
    renew_revision(connection, study_id)
    write_spec(connection, study_id, spec)
