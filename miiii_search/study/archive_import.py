"""Reading a study from an archive into a database."""

from __future__ import annotations

import json
import re
import uuid
import zipfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from miiii_search.damaged_files import DAMAGED_FILE_ERRORS
from miiii_search.errors import MiiiiSearchError
from miiii_search.storage import deleted_studies, schema, study_attrs
from miiii_search.storage.artifacts import MAX_ARTIFACT_BYTES, STUDY_ARTIFACT_PREFIX, TRIAL_ARTIFACT_PREFIX
from miiii_search.storage.database import Database
from miiii_search.storage.revisions import renew_revision
from miiii_search.storage.study_attrs import (
    ARTIFACT_STORE_KEY,
    CREATED_KEY,
    ID_KEY,
    ORIGINS_KEY,
    PAUSED_KEY,
    SELECTED_KEY,
    SPEC_KEY,
    STARTED_KEY,
)
from miiii_search.study.archive import (
    ArchiveError,
    ArchiveReader,
    content_columns,
    from_json,
)
from miiii_search.study.names import check_name
from miiii_search.study.open import new_id, open_study
from miiii_search.study.stored_spec import parse_spec
from miiii_search.study.study import Study

_TRIAL_KEY = re.compile(r"(dashboard:(?:artifacts:)?)(\d+)(:.*)", re.DOTALL)
"""Key of a study's attribute about one trial: the trial's note, or an artifact attached after the trial's end."""


def import_study(database: Database, path: Path, name: str | None) -> Study:
    """Add the study in an archive to a database, in one transaction.

    Args:
        database: The database.
        path: A file that `export_study` wrote.
        name: Name of the new study; None keeps its name.

    Raises:
        MiiiiSearchError: The file cannot be read or is not valid, or there is a study of this name.
    """
    try:
        with zipfile.ZipFile(path) as file:
            reader = ArchiveReader(file)
            tree = reader.read_study()
            new_name = str(tree["name"]) if name is None else name
            check_name(new_name)
            with database.transaction() as connection:
                _insert_study(connection, new_name, tree, reader)
    except OSError as error:
        raise MiiiiSearchError(f"cannot read {path}: {error.strerror}; give a file that export-study wrote") from None
    except (sa.exc.IntegrityError, sa.exc.DataError) as error:
        message = str(error.orig).splitlines()[0]
        raise MiiiiSearchError(f"the contents of {path} are inconsistent: {message}; nothing was imported") from None
    except (*DAMAGED_FILE_ERRORS, ArchiveError) as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise MiiiiSearchError(
            f"{path} is damaged, or not a file of export-study: {message}; nothing was imported"
        ) from None
    return open_study(database, new_name)


def _insert_study(connection: sa.Connection, name: str, tree: Mapping[str, Any], reader: ArchiveReader) -> None:
    """Insert all rows of a study.

    Raises:
        MiiiiSearchError: There is a study of this name.
        ArchiveError: The contents of the archive are not valid. Other `DAMAGED_FILE_ERRORS` are possible too.
    """
    studies = schema.studies
    if connection.execute(sa.select(studies.c.study_id).where(studies.c.study_name == name)).first():
        raise MiiiiSearchError(f"there is a study `{name}` already; import it under another name with --study")
    deleted_studies.clear_deletion(connection, name)
    inserted = sa.insert(studies).values(study_name=name).returning(studies.c.study_id)
    study_id = connection.execute(inserted).scalar_one()
    trial_ids = _insert_trials(connection, study_id, tree)
    artifact_ids = _insert_artifacts(connection, tree, reader)
    for table in schema.STUDY_TABLES:
        # The new study has its artifacts in the database, and another identity: the exported study may still exist.
        dropped = (ARTIFACT_STORE_KEY, ID_KEY, ORIGINS_KEY)
        kept = [row for row in tree["study"][table.name] if row.get("key") not in dropped]
        rows = [_with_new_ids(row, trial_ids, artifact_ids) for row in kept]
        _insert_rows(connection, table, rows, lambda row: {"study_id": study_id})
    for table in schema.TRIAL_TABLES:
        rows = [
            {**_with_new_ids(row, {}, artifact_ids), "trial_id": row["trial_id"]}
            for row in tree["of_trials"][table.name]
        ]
        _insert_rows(connection, table, rows, lambda row: {"trial_id": trial_ids[row["trial_id"]]})
    ledger = tree["study"][schema.device_time.name]
    _insert_rows(connection, schema.device_time, ledger, lambda row: {"study_id": study_id, "holder": uuid.uuid4().hex})
    for row in tree["checkpoints"]:
        data = reader.read_file(row["file"])
        values = {"trial_id": trial_ids[row["trial_id"]], "epoch": int(row["epoch"]), "data": data}
        connection.execute(sa.insert(schema.checkpoints).values(values))
    exported_at = float(tree["exported_at"])
    study_attrs.write(connection, study_id, {ID_KEY: new_id(), ORIGINS_KEY: _origins(tree, exported_at)})
    _check_attributes(connection, study_id)
    _shift_times(connection, study_id, exported_at)
    renew_revision(connection, study_id)


def _insert_trials(connection: sa.Connection, study_id: int, tree: Mapping[str, Any]) -> dict[int, int]:
    """Insert the trials' rows; return the new trial ids by the ids in the archive."""
    trials = schema.trials
    numbers = {int(row["trial_id"]): int(row["number"]) for row in tree["trials"]}
    if sorted(numbers.values()) != list(range(len(tree["trials"]))):
        raise ArchiveError("its trials are not numbered consecutively from 0")
    _insert_rows(connection, trials, tree["trials"], lambda row: {"study_id": study_id})
    query = sa.select(trials.c.number, trials.c.trial_id).where(trials.c.study_id == study_id)
    by_number = {row.number: row.trial_id for row in connection.execute(query)}
    return {old: by_number[number] for old, number in numbers.items()}


def _insert_artifacts(connection: sa.Connection, tree: Mapping[str, Any], reader: ArchiveReader) -> dict[str, str]:
    """Store the artifacts. An id that the database has already is replaced, since the exported study may use it.

    Returns:
        The new ids of the artifacts whose id was replaced, by their ids in the archive.
    """
    table, replaced = schema.artifacts, dict[str, str]()
    for row in tree["artifacts"]:
        artifact_id, data = str(uuid.UUID(row["artifact_id"])), reader.read_file(row["file"], MAX_ARTIFACT_BYTES)
        if connection.execute(sa.select(table.c.artifact_id).where(table.c.artifact_id == artifact_id)).first():
            replaced[artifact_id] = str(uuid.uuid4())
        values = {"artifact_id": replaced.get(artifact_id, artifact_id), "data": data}
        connection.execute(sa.insert(table).values(values))
    return replaced


def _with_new_ids(
    row: Mapping[str, Any], trial_ids: Mapping[int, int], artifact_ids: Mapping[str, str]
) -> dict[str, Any]:
    """Return an attribute's row with the ids of this database in its key and value; return other rows unchanged."""
    if "key" not in row:
        return dict(row)
    key, value = str(row["key"]), str(row["value_json"])
    if (match := _TRIAL_KEY.fullmatch(key)) and int(match[2]) in trial_ids:
        key = f"{match[1]}{trial_ids[int(match[2])]}{match[3]}"
    artifact_id = key.rpartition(":")[2]
    if key.startswith((TRIAL_ARTIFACT_PREFIX, STUDY_ARTIFACT_PREFIX)) and artifact_id in artifact_ids:
        key = key.replace(artifact_id, artifact_ids[artifact_id])
        value = value.replace(artifact_id, artifact_ids[artifact_id])
    return {"key": key, "value_json": value}


def _insert_rows(
    connection: sa.Connection,
    table: Any,
    rows: list[dict[str, Any]],
    new_ids: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """Insert rows of an archive with the ids that `new_ids` returns for each."""
    columns = content_columns(table)
    values = [
        {**{column.name: from_json(column, row[column.name]) for column in columns}, **new_ids(row)} for row in rows
    ]
    if values:
        connection.execute(sa.insert(table), values)


def _origins(tree: Mapping[str, Any], exported_at: float) -> list[tuple[str, float]]:
    """Return the study's earlier identities, newest first, each with the time at which it was exported."""
    rows = tree["study"][schema.study_system_attributes.name]
    known = {row["key"]: json.loads(row["value_json"]) for row in rows if row["key"] in (ID_KEY, ORIGINS_KEY)}
    origins = [(known[ID_KEY], exported_at)] if ID_KEY in known else []
    origins += [(origin, float(at)) for origin, at in known.get(ORIGINS_KEY, [])]
    if not all(re.fullmatch("[0-9a-f]{32}", origin) for origin, _ in origins):
        raise ArchiveError("the study's ids must have 32 hexadecimal digits")
    return origins


def _check_attributes(connection: sa.Connection, study_id: int) -> None:
    """Check that this version can read the specification, the selection and the times of an imported study."""
    found = study_attrs.read(connection, study_id, SPEC_KEY, STARTED_KEY, PAUSED_KEY, CREATED_KEY, SELECTED_KEY)
    if SELECTED_KEY in found and type(found[SELECTED_KEY]["n_trials"]) is not int:
        raise ArchiveError(f"{SELECTED_KEY} must have a whole number of trials")
    for key in found.keys() - {SPEC_KEY, SELECTED_KEY}:
        datetime.fromtimestamp(found[key], UTC)  # raises one of `DAMAGED_FILE_ERRORS` if it is not a time
    try:
        parse_spec(found[SPEC_KEY])
    except MiiiiSearchError as error:
        raise ArchiveError(str(error)) from None


def _shift_times(connection: sa.Connection, study_id: int, exported_at: float) -> None:
    """Move the study's start and pause by the time since the export, which its budget of wall time does not count."""
    found = study_attrs.read(connection, study_id, STARTED_KEY, PAUSED_KEY)
    seconds = max(study_attrs.now(connection) - exported_at, 0.0)
    study_attrs.write(connection, study_id, {key: float(value) + seconds for key, value in found.items()})
