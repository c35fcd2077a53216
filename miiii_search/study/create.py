"""Creating a study with its queue."""

from __future__ import annotations

from importlib.metadata import version

import optuna
import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.config.overrides import describe_differences
from miiii_search.config.study_spec import StudySpec
from miiii_search.errors import (
    DuplicateStudyError,
    MiiiiSearchError,
)
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
from miiii_search.study.trials import (
    insert_trials,
)
from miiii_search.training.version import TRAINING_PROGRAM


def create_study(
    database: Database, name: str, spec: StudySpec, artifact_store_url: str | None = None, *, again: bool = True
) -> Study:
    """Creates the study and its queue in one transaction; with the same spec, the second time does nothing.

    `artifact_store_url` says where a new study keeps its artifacts; see `artifact_stores.parse_store_url`. An
    existing study keeps its own.
    With `again` a study that was deleted is created again.

    Raises `MiiiiSearchError` if a study of this name has another spec (naming every difference), or is not ours, and
    `StudyDeletedError` if it was deleted and `again` is false.
    """
    check_name(name)
    if not again:
        check_not_deleted(database, name)
    while (created := _create_study(database, name, spec, artifact_store_url, again)) is None:
        pass  # somebody deleted it between two of our transactions
    study_id, stored = created
    if stored != spec and (differences := describe_differences(stored, spec)):
        raise DuplicateStudyError(
            f"study `{name}` exists with another spec: {'; '.join(differences)}; "
            "choose another --study, or leave the options out to go on with what it has"
        )
    return open_by_id(database, name, study_id)


def _create_study(
    database: Database, name: str, spec: StudySpec, artifact_store_url: str | None, again: bool
) -> tuple[int, StudySpec] | None:
    """The study's id and its spec; None if somebody deleted it meanwhile."""
    storage = database.optuna
    try:
        study_id = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], name)
    except optuna.exceptions.DuplicatedStudyError:
        try:
            study_id = storage.get_study_id_from_name(name)
        except KeyError:
            return None
    try:
        maximised = storage.get_study_directions(study_id) == [optuna.study.StudyDirection.MAXIMIZE]
    except KeyError:
        return None
    with database.transaction() as connection:
        # The study's row is the lock: of two coordinators at once, the second finds the first one's work.
        if not schema.lock_study(connection, study_id):
            return None
        found = study_attrs.read(connection, study_id, SPEC_KEY)
        deletion = None if again or found else deleted_studies.deletion_error(connection, name)
        if found:
            stored = parse_spec(found[SPEC_KEY])
        elif deletion is not None:  # it was deleted since we looked: take back the row that we made
            for table in (*schema.STUDY_TABLES, schema.studies):
                connection.execute(sa.delete(table).where(table.c.study_id == study_id))
            stored = spec
        else:
            if (
                not maximised
                or connection.execute(
                    sa.select(schema.trials.c.trial_id).where(schema.trials.c.study_id == study_id).limit(1)
                ).first()
            ):
                raise MiiiiSearchError(f"study `{name}` was not created by miiii-search; choose another name")
            _describe_study(connection, study_id, spec, artifact_store_url)
            queue = spec.queue() if spec.is_grid_search else [(point, 0) for point in spec.first]
            if queue:
                insert_trials(connection, study_id, spec, queue, TrialState.WAITING)
            deleted_studies.clear_deletion(connection, name)
            stored = spec
    if deletion is not None:
        raise deletion
    return study_id, stored


def _describe_study(connection: sa.Connection, study_id: int, spec: StudySpec, artifact_store_url: str | None) -> None:
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
