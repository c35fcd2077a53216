"""Reading a study from an archive into a database."""

from __future__ import annotations

import json
import re
import uuid
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from miiii_search.damaged_files import DAMAGED_FILE_ERRORS
from miiii_search.errors import DuplicateStudyError, MiiiiSearchError
from miiii_search.storage.archive_rows import (
    DEVICE_TIME,
    STUDY_ATTRIBUTES,
    STUDY_TABLES,
    TRIAL_TABLES,
    ArchiveError,
    InconsistentRowsError,
)
from miiii_search.storage.artifacts import MAX_ARTIFACT_BYTES, STUDY_ARTIFACT_PREFIX, TRIAL_ARTIFACT_PREFIX
from miiii_search.storage.database import Database
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
from miiii_search.storage.study_transaction import StudyTransaction
from miiii_search.study.archive import ArchiveReader
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
        DuplicateStudyError: There is a study of this name.
        MiiiiSearchError: The file cannot be read or is not valid.
    """
    try:
        with zipfile.ZipFile(path) as file:
            reader = ArchiveReader(file)
            tree = reader.read_study()
            new_name = str(tree["name"]) if name is None else name
            check_name(new_name)
            with database.studies.insert(new_name) as tx:
                _insert_study(tx, tree, reader)
    except DuplicateStudyError as error:
        raise DuplicateStudyError(f"{error}; import it under another name with --study") from None
    except OSError as error:
        raise MiiiiSearchError(f"cannot read {path}: {error.strerror}; give a file that export-study wrote") from None
    except InconsistentRowsError as error:
        raise MiiiiSearchError(f"the contents of {path} are inconsistent: {error}; nothing was imported") from None
    except (*DAMAGED_FILE_ERRORS, ArchiveError) as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise MiiiiSearchError(
            f"{path} is damaged, or not a file of export-study: {message}; nothing was imported"
        ) from None
    return open_study(database, new_name)


def _insert_study(tx: StudyTransaction, tree: Mapping[str, Any], reader: ArchiveReader) -> None:
    """Insert all rows of a study.

    Raises:
        ArchiveError: The contents of the archive are not valid. Other `DAMAGED_FILE_ERRORS` are possible too.
    """
    trial_ids = tx.insert_archived_trials(tree["trials"])
    artifact_ids = _insert_artifacts(tx, tree, reader)
    for table in STUDY_TABLES:
        # The new study has its artifacts in the database, and another identity: the exported study may still exist.
        dropped = (ARTIFACT_STORE_KEY, ID_KEY, ORIGINS_KEY)
        kept = [row for row in tree["study"][table] if row.get("key") not in dropped]
        rows = [_with_new_ids(row, trial_ids, artifact_ids) for row in kept]
        tx.insert_archived_rows(table, rows, trial_ids)
    for table in TRIAL_TABLES:
        rows = [
            {**_with_new_ids(row, {}, artifact_ids), "trial_id": row["trial_id"]} for row in tree["of_trials"][table]
        ]
        tx.insert_archived_rows(table, rows, trial_ids)
    tx.insert_archived_rows(DEVICE_TIME, tree["study"][DEVICE_TIME], trial_ids)
    for row in tree["checkpoints"]:
        data = reader.read_file(row["file"])
        tx.insert_checkpoint(trial_ids[row["trial_id"]], int(row["epoch"]), data)
    exported_at = float(tree["exported_at"])
    tx.write_attributes({ID_KEY: new_id(), ORIGINS_KEY: _origins(tree, exported_at)})
    _check_attributes(tx)
    _shift_times(tx, exported_at)
    tx.renew_revision()


def _insert_artifacts(tx: StudyTransaction, tree: Mapping[str, Any], reader: ArchiveReader) -> dict[str, str]:
    """Store the artifacts. An id that the database has already is replaced, since the exported study may use it.

    Returns:
        The new ids of the artifacts whose id was replaced, by their ids in the archive.
    """
    replaced = dict[str, str]()
    for row in tree["artifacts"]:
        artifact_id, data = str(uuid.UUID(row["artifact_id"])), reader.read_file(row["file"], MAX_ARTIFACT_BYTES)
        if tx.has_artifact(artifact_id):
            replaced[artifact_id] = str(uuid.uuid4())
        tx.write_artifact(replaced.get(artifact_id, artifact_id), data)
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


def _origins(tree: Mapping[str, Any], exported_at: float) -> list[tuple[str, float]]:
    """Return the study's earlier identities, newest first, each with the time at which it was exported."""
    rows = tree["study"][STUDY_ATTRIBUTES]
    known = {row["key"]: json.loads(row["value_json"]) for row in rows if row["key"] in (ID_KEY, ORIGINS_KEY)}
    origins = [(known[ID_KEY], exported_at)] if ID_KEY in known else []
    origins += [(origin, float(at)) for origin, at in known.get(ORIGINS_KEY, [])]
    if not all(re.fullmatch("[0-9a-f]{32}", origin) for origin, _ in origins):
        raise ArchiveError("the study's ids must have 32 hexadecimal digits")
    return origins


def _check_attributes(tx: StudyTransaction) -> None:
    """Check that this version can read the specification, the selection and the times of an imported study."""
    found = tx.read_attributes(SPEC_KEY, STARTED_KEY, PAUSED_KEY, CREATED_KEY, SELECTED_KEY)
    if SELECTED_KEY in found and type(found[SELECTED_KEY]["n_trials"]) is not int:
        raise ArchiveError(f"{SELECTED_KEY} must have a whole number of trials")
    for key in found.keys() - {SPEC_KEY, SELECTED_KEY}:
        datetime.fromtimestamp(found[key], UTC)  # raises one of `DAMAGED_FILE_ERRORS` if it is not a time
    try:
        parse_spec(found[SPEC_KEY])
    except MiiiiSearchError as error:
        raise ArchiveError(str(error)) from None


def _shift_times(tx: StudyTransaction, exported_at: float) -> None:
    """Move the study's start and pause by the time since the export, which its budget of wall time does not count."""
    found = tx.read_attributes(STARTED_KEY, PAUSED_KEY)
    seconds = max(tx.now() - exported_at, 0.0)
    tx.write_attributes({key: float(value) + seconds for key, value in found.items()})
