""""""

from __future__ import annotations

import json
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
    FORMAT,
    MANIFEST,
    STUDY,
    ArchiveWriter,
    content_columns,
    to_json,
)
from miiii_search.study.study import Study


@dataclass(frozen=True)
class ExportResult:
    """A file that was written."""

    size: int  # bytes
    missing: tuple[str, ...]
    """The ids of artifacts that trials link to but that are nowhere: the file is without them."""


def export_study(study: Study, path: Path) -> ExportResult:
    """Writes the study as it is at one moment. A file that is there is replaced.

    Trials that run are written as waiting, with their newest checkpoint in the database. Raises `MiiiiSearchError` if
    the file cannot be written.
    """
    try:
        with (
            replace_file(path) as file,
            _snapshot(study.database) as connection,
            zipfile.ZipFile(file, "w") as archive,
        ):
            missing = _write(connection, study, ArchiveWriter(archive))
        return ExportResult(path.stat().st_size, missing)
    except OSError as error:
        raise MiiiiSearchError(f"cannot write {path}: {error.strerror}; choose another file") from None


@contextmanager
def _snapshot(database: Database) -> Iterator[sa.Connection]:
    """Reads the database as it is at one moment, however long that takes."""
    with database.engine.connect() as connection:
        if connection.dialect.name != "sqlite":  # where every transaction is one
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


def _write(connection: sa.Connection, study: Study, writer: ArchiveWriter) -> tuple[str, ...]:
    """Writes the members of the archive; returns the ids of artifacts that are nowhere."""
    study_id, trials = study.study_id, schema.trials
    ids = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)
    tree: dict[str, Any] = {
        "name": study.name,
        "exported_at": study_attrs.now(connection),
        "study": {
            t.name: _rows(connection, t, t.c.study_id == study_id) for t in (*schema.STUDY_TABLES, schema.device_time)
        },
        "trials": _rows(connection, trials, trials.c.study_id == study_id, keep="trial_id"),
        "of_trials": {
            t.name: _rows(connection, t, t.c.trial_id.in_(ids), keep="trial_id") for t in schema.TRIAL_TABLES
        },
    }
    for row in tree["trials"]:
        if row["state"] == TrialState.RUNNING.name:
            row["state"] = TrialState.WAITING.name
    tree["artifacts"], tree["checkpoints"], missing = [], [], list[str]()
    artifacts, checkpoints = schema.artifacts, schema.checkpoints
    for artifact_id in linked_artifact_ids(connection, study_id):
        query = sa.select(artifacts.c.data).where(artifacts.c.artifact_id == artifact_id)
        data = connection.execute(query).scalar_one_or_none()
        if data is None and study.artifact_store_url is not None:
            data = _read_from(study.artifact_store_url, artifact_id)
        if data is not None:
            tree["artifacts"].append({"artifact_id": artifact_id, "file": writer.add_file(data)})
        else:
            missing.append(artifact_id)
    saved = connection.execute(
        sa.select(checkpoints.c.trial_id, checkpoints.c.epoch).where(checkpoints.c.trial_id.in_(ids))
    ).all()
    for row in saved:  # one at a time: together they may be larger than the memory
        query = sa.select(checkpoints.c.data).where(checkpoints.c.trial_id == row.trial_id)
        file = writer.add_file(connection.execute(query).scalar_one())
        tree["checkpoints"].append({"trial_id": row.trial_id, "epoch": row.epoch, "file": file})
    text = json.dumps(tree, allow_nan=False).encode()
    writer.add(STUDY, text, zipfile.ZIP_DEFLATED)
    manifest = {"format": FORMAT, "members": writer.members}
    writer.add(MANIFEST, json.dumps(manifest).encode(), zipfile.ZIP_DEFLATED)
    return tuple(missing)


def _read_from(store_url: str, artifact_id: str) -> bytes | None:
    """An artifact outside of the database; None if nobody has it. Raises `MiiiiSearchError` if the place is down."""
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
    """The rows as JSON holds them, without the ids that the database gave."""
    columns = [c for c in table.c if c.name == keep or c in content_columns(table)]
    query = sa.select(*columns).where(where).order_by(*table.primary_key)
    return [
        {c.name: to_json(value) for c, value in zip(columns, row, strict=True)} for row in connection.execute(query)
    ]
