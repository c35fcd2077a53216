"""Names of deleted studies. A coordinator that is restarted does not create such a study again."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime

import sqlalchemy as sa

from miiii_search.errors import StudyDeletedError
from miiii_search.storage import schema, study_attrs
from miiii_search.storage.database import Database


def record_deletion(connection: sa.Connection, name: str) -> None:
    """Record that a study was deleted, in the transaction that deletes it."""
    row = {"study_name": name, "deleted_at": study_attrs.now(connection)}
    schema.upsert(connection, schema.deleted_studies, [row], ("study_name",))


def record_deletion_if_missing(database: Database, name: str) -> None:
    """Record the deletion of a study that another program deleted.

    Do nothing if there is a study of this name, or if its deletion is recorded already.
    """
    with database.transaction() as connection:
        studies = schema.studies
        study = connection.execute(sa.select(studies.c.study_id).where(studies.c.study_name == name)).first()
        if study is None and deletion_error(connection, name) is None:
            record_deletion(connection, name)


def clear_deletion(connection: sa.Connection, name: str) -> None:
    """Delete the record of a deletion, in the transaction that creates a study of this name."""
    table = schema.deleted_studies
    connection.execute(sa.delete(table).where(table.c.study_name == name))


def read_deletions(connection: sa.Connection) -> dict[str, datetime]:
    """Return the time in UTC at which each deleted study was deleted, by name."""
    query = sa.select(schema.deleted_studies).order_by("study_name")
    return {row.study_name: datetime.fromtimestamp(row.deleted_at, UTC) for row in connection.execute(query)}


def deletion_error(connection: sa.Connection, name: str) -> StudyDeletedError | None:
    """Return the exception that says when a study was deleted, or None if no deletion is recorded."""
    table = schema.deleted_studies
    at = connection.execute(sa.select(table.c.deleted_at).where(table.c.study_name == name)).scalar_one_or_none()
    if at is None:
        return None
    return deleted_at(name, at)


def deleted_at(name: str, at: float) -> StudyDeletedError:
    """Return the exception that says that a study was deleted at a time, in seconds since 1970."""
    moment = datetime.fromtimestamp(at, UTC)
    return StudyDeletedError(
        f"study `{name}` was deleted on {moment:%Y-%m-%d at %H:%M} UTC; "
        f"miiii-search create --study {shlex.quote(name)} creates it again"
    )
