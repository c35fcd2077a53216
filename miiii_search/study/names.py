"""The names of a database's studies."""

from __future__ import annotations

import sqlalchemy as sa

from miiii_search.errors import (
    MiiiiSearchError,
)
from miiii_search.storage import deleted_studies, schema
from miiii_search.storage.database import Database


def check_not_deleted(database: Database, name: str) -> None:
    """Raises `StudyDeletedError` if a study of this name was deleted and not created again."""
    with database.engine.connect() as connection:
        is_there = sa.select(schema.studies.c.study_id).where(schema.studies.c.study_name == name)
        if connection.execute(is_there).first() is None and (error := deleted_studies.deletion_error(connection, name)):
            raise error


def check_name(name: str) -> None:
    """Raises `MiiiiSearchError` for what is no name of a study of ours: a terminal shows it, and a line holds it."""
    if not name or len(name) > 200 or not name.isprintable():
        raise MiiiiSearchError(
            f"a study's name must have 1 to 200 characters and no control characters, but is {name[:250]!r}; "
            "choose another one with --study"
        )


def study_names(database: Database) -> list[str]:
    """All studies in the database, by name."""
    with database.engine.connect() as connection:
        return list(connection.execute(sa.select(schema.studies.c.study_name).order_by("study_name")).scalars())
