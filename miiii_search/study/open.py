"""Opening a study that exists."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import sqlalchemy as sa

from miiii_search.config.study_spec import StudySpec
from miiii_search.config.suggestions import suggest
from miiii_search.errors import (
    MiiiiSearchError,
    StudyNotFoundError,
    VersionMismatchError,
)
from miiii_search.storage import schema, study_attrs
from miiii_search.storage.database import Database
from miiii_search.storage.retry import is_read_only
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
from miiii_search.study.hints import hint
from miiii_search.study.names import check_not_deleted, study_names
from miiii_search.study.stored_spec import parse_spec
from miiii_search.study.study import IDENTITY_KEYS, Study, training_programs


def open_study(database: Database, name: str | None) -> Study:
    """Opens a study; without a name, the only one there is.

    Raises `StudyNotFoundError` naming those that exist if there is none, and `MiiiiSearchError` if there are several.
    """
    names = study_names(database)
    if name is None:
        if len(names) != 1:
            error = MiiiiSearchError if names else StudyNotFoundError
            raise error(f"which study? name it with --study: {_listed(names)}")
        name = names[0]
    if name not in names:
        check_not_deleted(database, name)
        create = hint("create", f"--study={name}", database=database)
        close = suggest(name, names) if names else f"; there is none yet, create it with {create}"
        raise StudyNotFoundError(f"there is no study `{name}` in {database}{close}")
    try:
        study_id = database.optuna.get_study_id_from_name(name)
    except KeyError:
        raise StudyNotFoundError(f"there is no study `{name}` in {database}") from None
    return open_by_id(database, name, study_id)


def open_by_id(database: Database, name: str, study_id: int) -> Study:
    keys = (
        *(SPEC_KEY, VERSION_KEY, PROGRAMS_KEY, PAUSED_KEY, ARTIFACT_STORE_KEY, SELECTED_KEY, ORIGINS_KEY),
        *IDENTITY_KEYS,
    )
    with database.engine.connect() as connection:
        found = study_attrs.read(connection, study_id, *keys)
    if SPEC_KEY not in found:  # or it is being created: Optuna writes its row in a transaction of its own
        raise StudyNotFoundError(f"study `{name}` was not created by miiii-search; choose another --study")
    return Study(
        database,
        name,
        study_id,
        _stored_spec(name, found),
        found.get(VERSION_KEY),
        PAUSED_KEY in found,
        found.get(ARTIFACT_STORE_KEY),
        found.get(CREATED_KEY),
        found.get(SELECTED_KEY),
        programs=training_programs(found),
        id=found.get(ID_KEY) or _give_id(database, study_id),
        origins=tuple((str(origin), float(at)) for origin, at in found.get(ORIGINS_KEY, [])),
    )


def _stored_spec(name: str, found: Mapping[str, Any]) -> StudySpec:
    try:
        return parse_spec(found[SPEC_KEY])
    except MiiiiSearchError as error:
        creator = found.get(VERSION_KEY, "of an unknown version")
        raise VersionMismatchError(
            f"study `{name}` was created by miiii-search {creator}, and this is {version('miiii-search')}, which "
            f"cannot read it: {error}"
        ) from None


def new_id() -> str:
    """A random id for a study."""
    return uuid.uuid4().hex


def _give_id(database: Database, study_id: int) -> str | None:
    """Gives a study of an older version its id, once: of several processes at a time, all get the same.

    Returns None if the study is gone, or if the role may not write: reading goes on without an id.
    """
    try:
        with database.transaction() as connection:
            if not schema.lock_study(connection, study_id):
                return None
            found: str | None = study_attrs.read(connection, study_id, ID_KEY).get(ID_KEY)
            if found is None:
                found = new_id()
                study_attrs.write(connection, study_id, {ID_KEY: found})
            return found
    except sa.exc.DBAPIError as error:
        if not is_read_only(error):
            raise
        return None


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) if names else "there is none yet"
