"""The names of deleted studies: no restarted coordinator creates such a study again."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

import sqlalchemy as sa

from miiii_search.errors import StudyDeletedError
from miiii_search.storage import schema
from miiii_search.storage.database import Database


def record_deletion(connection: sa.Connection, name: str) -> None:
    """Records that a study was deleted, in the transaction that deletes it."""
    clock = connection.execute(sa.select(schema.now(connection))).scalar_one()
    schema.upsert(
        connection, schema.deleted_studies, [{"study_name": name, "deleted_at": float(clock)}], ("study_name",)
    )


def record_deletion_if_missing(database: Database, name: str) -> None:
    """Records the deletion of a study that another program deleted.

    Does nothing if there is a study of this name, or if its deletion is recorded already.
    """
    with database.transaction() as connection:
        studies = schema.studies
        is_there = connection.execute(sa.select(studies.c.study_id).where(studies.c.study_name == name)).first()
        if is_there is None and deletion_error(connection, name) is None:
            record_deletion(connection, name)


def clear_deletion(connection: sa.Connection, name: str) -> None:
    """Lets a study of this name be created, in the transaction that creates it."""
    table = schema.deleted_studies
    connection.execute(sa.delete(table).where(table.c.study_name == name))


def read_deletions(connection: sa.Connection) -> dict[str, datetime]:
    """When each deleted study was deleted, in UTC, by name."""
    query = sa.select(schema.deleted_studies).order_by("study_name")
    return {row.study_name: datetime.fromtimestamp(row.deleted_at, UTC) for row in connection.execute(query)}


def deletion_error(connection: sa.Connection, name: str) -> StudyDeletedError | None:
    """The error that says when a study was deleted, or None if it was not."""
    table = schema.deleted_studies
    at = connection.execute(sa.select(table.c.deleted_at).where(table.c.study_name == name)).scalar_one_or_none()
    if at is None:
        return None
    moment = datetime.fromtimestamp(at, UTC)
    return StudyDeletedError(
        f"study `{name}` was deleted on {moment:%Y-%m-%d at %H:%M} UTC; "
        f"miiii-search create --study {shlex.quote(name)} creates it again"
    )
