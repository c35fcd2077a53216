"""Opening a study that exists."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from miiii_search.config.study_spec import StudySpec
from miiii_search.config.suggestions import suggest
from miiii_search.errors import MiiiiSearchError, StudyNotFoundError, VersionMismatchError
from miiii_search.storage.database import Database
from miiii_search.storage.hints import hint
from miiii_search.storage.records import StudyIdentity
from miiii_search.storage.study_attrs import (
    ARTIFACT_STORE_KEY,
    CREATED_KEY,
    ID_KEY,
    ORIGINS_KEY,
    PAUSED_KEY,
    PROGRAMS_KEY,
    SELECTED_KEY,
    SPEC_KEY,
    VERSION_KEY,
)
from miiii_search.study.names import check_not_deleted, study_names
from miiii_search.study.stored_spec import parse_spec
from miiii_search.study.study import IDENTITY_KEYS, Study, training_programs


def open_study(database: Database, name: str | None) -> Study:
    """Open a study.

    Args:
        database: The database that holds the study.
        name: Name of the study. Optional if the database holds only one study.

    Raises:
        StudyNotFoundError: There is no such study.
        StudyDeletedError: The study was deleted.
        VersionMismatchError: This version cannot read the study's specification.
        MiiiiSearchError: No name is given, and the database holds several studies.
    """
    names = study_names(database)
    if name is None:
        if len(names) != 1:
            error = MiiiiSearchError if names else StudyNotFoundError
            known = ", ".join(f"`{known}`" for known in names) if names else "there is none yet"
            raise error(f"which study? name it with --study: {known}")
        name = names[0]
    if name not in names:
        check_not_deleted(database, name)
        create = hint("create", f"--study={name}", database=database)
        advice = suggest(name, names) if names else f"; there is none yet, create it with {create}"
        raise StudyNotFoundError(f"there is no study `{name}` in {database}{advice}")
    study_id = database.studies.find(name)
    if study_id is None:
        raise StudyNotFoundError(f"there is no study `{name}` in {database}")
    return open_by_id(database, name, study_id)


def open_by_id(database: Database, name: str, study_id: int) -> Study:
    """Open the study with a `study_id`, whose name the caller knows.

    Raises:
        StudyNotFoundError: The study was not created by this program.
        VersionMismatchError: This version cannot read the study's specification.
    """
    keys = (SPEC_KEY, VERSION_KEY, PROGRAMS_KEY, PAUSED_KEY, ARTIFACT_STORE_KEY, SELECTED_KEY, ORIGINS_KEY)
    store = database.studies.store(StudyIdentity(study_id, name))
    found = store.read_attributes(*keys, *IDENTITY_KEYS)
    if SPEC_KEY not in found:  # or its creation has not been committed yet: Optuna's row has a transaction of its own
        raise StudyNotFoundError(f"study `{name}` was not created by miiii-search; choose another --study")
    return Study(
        database,
        name,
        study_id,
        _read_spec(name, found),
        found.get(VERSION_KEY),
        PAUSED_KEY in found,
        found.get(ARTIFACT_STORE_KEY),
        found.get(CREATED_KEY),
        found.get(SELECTED_KEY),
        programs=training_programs(found),
        id=found.get(ID_KEY) or store.ensure_id(new_id()),
        origins=tuple((str(origin), float(at)) for origin, at in found.get(ORIGINS_KEY, [])),
    )


def new_id() -> str:
    """Return a random identity for a study: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def _read_spec(name: str, attributes: Mapping[str, Any]) -> StudySpec:
    try:
        return parse_spec(attributes[SPEC_KEY])
    except VersionMismatchError as error:
        creator = attributes.get(VERSION_KEY, "of an unknown version")
        raise VersionMismatchError(
            f"study `{name}` was created by miiii-search {creator}, and this is {version('miiii-search')}, which "
            f"cannot read it: {error}"
        ) from None
