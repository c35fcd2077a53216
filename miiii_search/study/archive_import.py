""""""

from __future__ import annotations

import json
import lzma
import re
import struct
import uuid
import zipfile
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

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
    STUDY,
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
"""Attributes of the study that are about one trial: its note, and artifacts that were attached once it had ended."""


def import_study(database: Database, path: Path, name: str | None) -> Study:
    """Adds the study in a file to a database, all of it or nothing; under another `name`, if there is one.

    Raises `MiiiiSearchError` if a study of that name is there already, or the file is not what `export_study` wrote.
    """
    try:
        with zipfile.ZipFile(path) as file:
            reader = ArchiveReader(file)
            tree = reader.tree(STUDY)
            chosen = str(tree["name"]) if name is None else name
            check_name(chosen)
            with database.transaction() as connection:
                _insert(connection, chosen, tree, reader)
    except OSError as error:
        raise MiiiiSearchError(f"cannot read {path}: {error.strerror}; give a file that export-study wrote") from None
    except (sa.exc.IntegrityError, sa.exc.DataError) as error:
        words = str(error.orig).splitlines()[0]
        raise MiiiiSearchError(f"{path} does not fit together: {words}; nothing was imported") from None
    except _DAMAGES as error:
        words = f"{path} is damaged, or not a file of export-study: {_words(error)}"
        raise MiiiiSearchError(f"{words}; nothing was imported") from None
    return open_study(database, chosen)


_DAMAGES = (
    ArchiveError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
    lzma.LZMAError,
)
"""What reading a file that somebody else wrote may raise."""


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _insert(connection: sa.Connection, name: str, tree: Mapping[str, Any], reader: ArchiveReader) -> None:
    studies, trials = schema.studies, schema.trials
    if connection.execute(sa.select(studies.c.study_id).where(studies.c.study_name == name)).first():
        raise MiiiiSearchError(f"there is a study `{name}` already; import it under another name with --study")
    deleted_studies.clear_deletion(connection, name)
    inserted = sa.insert(studies).values(study_name=name).returning(studies.c.study_id)
    study_id = connection.execute(inserted).scalar_one()
    numbers = {int(row["trial_id"]): int(row["number"]) for row in tree["trials"]}
    if sorted(numbers.values()) != list(range(len(tree["trials"]))):
        raise ArchiveError("its trials are not numbered one after the other")
    _insert_rows(connection, trials, tree["trials"], lambda row: {"study_id": study_id})
    query = sa.select(trials.c.number, trials.c.trial_id).where(trials.c.study_id == study_id)
    found = {row.number: row.trial_id for row in connection.execute(query)}
    ids = {old: found[number] for old, number in numbers.items()}
    renamed = _insert_artifacts(connection, tree, reader)
    for table in schema.STUDY_TABLES:
        # Artifacts are in the database now; and the study that was exported, which has the id, may still be there.
        kept = [
            row for row in tree["study"][table.name] if row.get("key") not in (ARTIFACT_STORE_KEY, ID_KEY, ORIGINS_KEY)
        ]
        rows = [_rewritten(row, ids, renamed) for row in kept]
        _insert_rows(connection, table, rows, lambda row: {"study_id": study_id})
    for table in schema.TRIAL_TABLES:
        rows = [{**_rewritten(row, {}, renamed), "trial_id": row["trial_id"]} for row in tree["of_trials"][table.name]]
        _insert_rows(connection, table, rows, lambda row: {"trial_id": ids[row["trial_id"]]})
    ledger = tree["study"][schema.device_time.name]
    _insert_rows(connection, schema.device_time, ledger, lambda row: {"study_id": study_id, "holder": uuid.uuid4().hex})
    for row in tree["checkpoints"]:
        values = {"trial_id": ids[row["trial_id"]], "epoch": int(row["epoch"]), "data": reader.data(row["file"])}
        connection.execute(sa.insert(schema.checkpoints).values(values))
    exported_at = float(tree["exported_at"])
    study_attrs.write(connection, study_id, {ID_KEY: new_id(), ORIGINS_KEY: _origins(tree, exported_at)})
    _let_time_stand(connection, study_id, exported_at)
    renew_revision(connection, study_id)


def _origins(tree: Mapping[str, Any], exported_at: float) -> list[tuple[str, float]]:
    """The ids that the study has had, newest first, each with the time at which it was exported under it."""
    rows = tree["study"][schema.study_system_attributes.name]
    known = {row["key"]: json.loads(row["value_json"]) for row in rows if row["key"] in (ID_KEY, ORIGINS_KEY)}
    origins = [(known[ID_KEY], exported_at)] if ID_KEY in known else []
    origins += [(origin, float(at)) for origin, at in known.get(ORIGINS_KEY, [])]
    if not all(re.fullmatch("[0-9a-f]{32}", origin) for origin, _ in origins):
        raise ArchiveError("the study's ids must be of 32 hexadecimal digits")
    return origins


def _insert_artifacts(connection: sa.Connection, tree: Mapping[str, Any], reader: ArchiveReader) -> dict[str, str]:
    """Stores the artifacts; returns the new ids of those whose own is taken: the study is there under another name."""
    table, renamed = schema.artifacts, {}
    for row in tree["artifacts"]:
        artifact_id, data = str(uuid.UUID(row["artifact_id"])), reader.data(row["file"], MAX_ARTIFACT_BYTES)
        if connection.execute(sa.select(table.c.artifact_id).where(table.c.artifact_id == artifact_id)).first():
            renamed[artifact_id] = str(uuid.uuid4())
        values = {"artifact_id": renamed.get(artifact_id, artifact_id), "data": data}
        connection.execute(sa.insert(table).values(values))
    return renamed


def _rewritten(row: Mapping[str, Any], ids: Mapping[int, int], renamed: Mapping[str, str]) -> dict[str, Any]:
    """An attribute with the trial ids and artifact ids of this database; other rows as they are."""
    if "key" not in row:
        return dict(row)
    key, value = str(row["key"]), str(row["value_json"])
    if (of_trial := _TRIAL_KEY.fullmatch(key)) and int(of_trial[2]) in ids:
        key = f"{of_trial[1]}{ids[int(of_trial[2])]}{of_trial[3]}"
    artifact_id = key.rpartition(":")[2]
    if key.startswith((TRIAL_ARTIFACT_PREFIX, STUDY_ARTIFACT_PREFIX)) and artifact_id in renamed:
        key = key.replace(artifact_id, renamed[artifact_id])
        value = value.replace(artifact_id, renamed[artifact_id])
    return {"key": key, "value_json": value}


def _insert_rows(
    connection: sa.Connection, table: Any, rows: list[dict[str, Any]], ids: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    values = [{**{c.name: from_json(c, row[c.name]) for c in content_columns(table)}, **ids(row)} for row in rows]
    if values:
        connection.execute(sa.insert(table), values)


def _let_time_stand(connection: sa.Connection, study_id: int, exported_at: float) -> None:
    """While a study lies in a file, its wall time stands. Makes sure, too, that it has spec and times that we read."""
    found = study_attrs.read(connection, study_id, SPEC_KEY, STARTED_KEY, PAUSED_KEY, CREATED_KEY, SELECTED_KEY)
    if SELECTED_KEY in found and type(found[SELECTED_KEY]["n_trials"]) is not int:
        raise ArchiveError(f"{SELECTED_KEY} must have a whole number of trials")
    for key in found.keys() - {SPEC_KEY, SELECTED_KEY}:
        datetime.fromtimestamp(found[key], UTC)  # or raises one of `_DAMAGES`
    try:
        parse_spec(found[SPEC_KEY])
    except MiiiiSearchError as error:
        raise ArchiveError(str(error)) from None
    stood = max(study_attrs.now(connection) - exported_at, 0.0)
    times = {key: float(found[key]) + stood for key in (STARTED_KEY, PAUSED_KEY) if key in found}
    study_attrs.write(connection, study_id, times)
