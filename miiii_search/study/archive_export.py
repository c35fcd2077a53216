"""Writing a study into an archive."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import TrialState

from miiii_search.errors import MiiiiSearchError
from miiii_search.files import replace_file
from miiii_search.storage import schema, study_attrs
from miiii_search.storage.artifact_stores import ArtifactStoreUnavailableError, open_store
from miiii_search.storage.artifacts import linked_artifact_ids
from miiii_search.storage.database import Database
from miiii_search.study.archive import (
    ArchiveWriter,
    content_columns,
    to_json,
)
from miiii_search.study.study import Study


@dataclass(frozen=True)
class ExportResult:
    """An archive that was written."""

    size: int
    """Size in bytes."""
    missing: tuple[str, ...]
    """Ids of artifacts that trials link to but that no store has. The archive lacks them."""


def export_study(study: Study, path: Path) -> ExportResult:
    """Write a study into a file, as it is at one moment.

    Running trials are written as waiting, with their newest checkpoint in the database.

    Args:
        study: The study.
        path: The file. An existing file is replaced.

    Raises:
        MiiiiSearchError: The file cannot be written, or the artifact store is not available.
    """
    try:
        with (
            replace_file(path) as file,
            _repeatable_read(study.database) as connection,
            zipfile.ZipFile(file, "w") as archive,
        ):
            missing = _write(connection, study, ArchiveWriter(archive))
        return ExportResult(path.stat().st_size, missing)
    except OSError as error:
        raise MiiiiSearchError(f"cannot write {path}: {error.strerror}; choose another file") from None


@contextmanager
def _repeatable_read(database: Database) -> Iterator[sa.Connection]:
    """Yield a connection that shows the database as it is at one moment, however long reading takes."""
    with database.engine.connect() as connection:
        if connection.dialect.name != "sqlite":  # SQLite's transactions are all like this
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


def _write(connection: sa.Connection, study: Study, writer: ArchiveWriter) -> tuple[str, ...]:
    """Write all members of the archive; return the ids of missing artifacts."""
    study_id, trials = study.study_id, schema.trials
    trial_ids = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)
    tree: dict[str, Any] = {
        "name": study.name,
        "exported_at": study_attrs.now(connection),
        "study": {
            table.name: _rows(connection, table, table.c.study_id == study_id)
            for table in (*schema.STUDY_TABLES, schema.device_time)
        },
        "trials": _rows(connection, trials, trials.c.study_id == study_id, keep="trial_id"),
        "of_trials": {
            table.name: _rows(connection, table, table.c.trial_id.in_(trial_ids), keep="trial_id")
            for table in schema.TRIAL_TABLES
        },
    }
    for row in tree["trials"]:
        if row["state"] == TrialState.RUNNING.name:
            row["state"] = TrialState.WAITING.name
    tree["artifacts"], missing = _write_artifacts(connection, study, writer)
    tree["checkpoints"] = _write_checkpoints(connection, trial_ids, writer)
    writer.add_study(tree)
    writer.write_manifest()
    return tuple(missing)


def _write_artifacts(
    connection: sa.Connection, study: Study, writer: ArchiveWriter
) -> tuple[list[dict[str, str]], list[str]]:
    """Write the study's artifacts; return their entries in study.json, and the ids of those that no store has."""
    artifacts, entries, missing = schema.artifacts, list[dict[str, str]](), list[str]()
    for artifact_id in linked_artifact_ids(connection, study.study_id):
        query = sa.select(artifacts.c.data).where(artifacts.c.artifact_id == artifact_id)
        data = connection.execute(query).scalar_one_or_none()
        if data is None and study.artifact_store_url is not None:
            data = _read_from_store(study.artifact_store_url, artifact_id)
        if data is None:
            missing.append(artifact_id)
        else:
            entries.append({"artifact_id": artifact_id, "file": writer.add_file(data)})
    return entries, missing


def _write_checkpoints(connection: sa.Connection, trial_ids: Any, writer: ArchiveWriter) -> list[dict[str, Any]]:
    """Write the trials' checkpoints; return their entries in study.json."""
    checkpoints, entries = schema.checkpoints, list[dict[str, Any]]()
    stored = sa.select(checkpoints.c.trial_id, checkpoints.c.epoch).where(checkpoints.c.trial_id.in_(trial_ids))
    for row in connection.execute(stored).all():  # one at a time, since memory may not hold all of them
        query = sa.select(checkpoints.c.data).where(checkpoints.c.trial_id == row.trial_id)
        file = writer.add_file(connection.execute(query).scalar_one())
        entries.append({"trial_id": row.trial_id, "epoch": row.epoch, "file": file})
    return entries


def _read_from_store(store_url: str, artifact_id: str) -> bytes | None:
    """Return an artifact from a store outside of the database; None if the store does not have it.

    Raises:
        MiiiiSearchError: The store is not available.
    """
    try:
        with open_store(store_url).open_reader(artifact_id) as reader:
            return bytes(reader.read())
    except ArtifactNotFound:
        return None
    except ArtifactStoreUnavailableError as error:
        raise MiiiiSearchError(
            f"cannot read artifacts of the study from {store_url}: {error}; is it reachable?"
        ) from None


def _rows(connection: sa.Connection, table: Any, where: Any, keep: str = "") -> list[dict[str, Any]]:
    """Return the rows of a table as JSON, without the ids that the database assigned except the column `keep`."""
    contents = content_columns(table)
    columns = [column for column in table.c if column.name == keep or column in contents]
    query = sa.select(*columns).where(where).order_by(*table.primary_key)
    return [
        {column.name: to_json(value) for column, value in zip(columns, row, strict=True)}
        for row in connection.execute(query)
    ]
