"""A whole study as one file: a zip of JSON, artifacts and checkpoints, for any database that we use.

    manifest.json   format, and size and SHA-256 of each of the others
    study.json      Optuna's rows of the study and of its trials, and ours
    files/N         the bytes of artifact or checkpoint N of study.json

Nothing in it is executed, and none of its names becomes a path. Ids of trials are those of the database that it
comes from; they are rewritten where it is imported.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import struct
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.distributions import json_to_distribution
from optuna.trial import TrialState

from miiii_search.errors import MiiiiSearchError
from miiii_search.files import replace_file
from miiii_search.storage import deleted_studies, schema, study_attrs
from miiii_search.storage.artifact_stores import ArtifactStoreUnavailableError, open_store
from miiii_search.storage.artifacts import STUDY_ARTIFACT_PREFIX, TRIAL_ARTIFACT_PREFIX, linked_artifact_ids
from miiii_search.storage.database import MAX_ARTIFACT_BYTES, Database
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
from miiii_search.study.study import Study, check_name, new_id, open_study, parse_spec

FORMAT = 1
MANIFEST, STUDY = "manifest.json", "study.json"

JSON_LIMIT = 2**30
"""Bytes of study.json: 5,000 trials have some 30 MB."""
FILE_LIMIT = max(MAX_ARTIFACT_BYTES, 2**28)
"""Bytes of one artifact or checkpoint; the largest of the paper's has 19 MB."""
MANIFEST_LIMIT = 2**26

_TRIAL_KEY = re.compile(r"(dashboard:(?:artifacts:)?)(\d+)(:.*)", re.DOTALL)
"""Attributes of the study that are about one trial: its note, and artifacts that were attached once it had ended."""


class ArchiveError(Exception):
    """The file is not what `export_study` writes."""


@dataclass(frozen=True)
class Exported:
    """A file that was written."""

    size: int  # bytes
    missing: tuple[str, ...]
    """The ids of artifacts that trials link to but that are nowhere: the file is without them."""


def export_study(study: Study, path: Path) -> Exported:
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
            missing = _write(connection, study, _Writer(archive))
        return Exported(path.stat().st_size, missing)
    except OSError as error:
        raise MiiiiSearchError(f"cannot write {path}: {error.strerror}; choose another file") from None


def import_study(database: Database, path: Path, name: str | None) -> Study:
    """Adds the study in a file to a database, all of it or nothing; under another `name`, if there is one.

    Raises `MiiiiSearchError` if a study of that name is there already, or the file is not what `export_study` wrote.
    """
    try:
        with zipfile.ZipFile(path) as file:
            reader = _Reader(file)
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


@contextmanager
def _snapshot(database: Database) -> Iterator[sa.Connection]:
    """Reads the database as it is at one moment, however long that takes."""
    with database.engine.connect() as connection:
        if connection.dialect.name != "sqlite":  # where every transaction is one
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


@dataclass
class _Writer:
    archive: zipfile.ZipFile
    members: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, data: bytes, compress: int = zipfile.ZIP_STORED) -> None:
        self.archive.writestr(name, data, compress)
        self.members[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def add_file(self, data: bytes) -> str:
        """Under the next name; what is in it is compressed already."""
        name = f"files/{len(self.members)}"
        self.add(name, data)
        return name


def _write(connection: sa.Connection, study: Study, writer: _Writer) -> tuple[str, ...]:
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
    columns = [c for c in table.c if c.name == keep or c in _columns(table)]
    query = sa.select(*columns).where(where).order_by(*table.primary_key)
    return [
        {c.name: _to_json(value) for c, value in zip(columns, row, strict=True)} for row in connection.execute(query)
    ]


def _columns(table: Any) -> list[Any]:
    """What a row says, apart from ids; of our ledger the holder is one."""
    return [c for c in table.c if not c.primary_key and c.name not in ("study_id", "trial_id")]


def _to_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return getattr(value, "name", value)  # of an enumeration


@dataclass
class _Reader:
    archive: zipfile.ZipFile
    members: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        manifest = json.loads(self._read(MANIFEST, MANIFEST_LIMIT))
        if manifest["format"] != FORMAT:
            raise ArchiveError(f"it has format {manifest['format']!r}, this version of miiii-search reads {FORMAT}")
        self.members = dict(manifest["members"])

    def data(self, name: str, limit: int = FILE_LIMIT) -> bytes:
        """A member's bytes, as large as the manifest says and with its checksum."""
        known = self.members[name]
        data = self._read(name, limit)
        if len(data) != known["size"] or hashlib.sha256(data).hexdigest() != known["sha256"]:
            raise ArchiveError(f"{name} has another checksum than when it was written")
        return data

    def tree(self, name: str) -> dict[str, Any]:
        """A member that is JSON."""
        return dict(json.loads(self.data(name, JSON_LIMIT)))

    def _read(self, name: str, limit: int) -> bytes:
        with self.archive.open(name) as member:
            data = member.read(limit + 1)  # whatever size the archive claims
        if len(data) > limit:
            raise ArchiveError(f"{name} has more than {limit:,} bytes")
        return data


def _insert(connection: sa.Connection, name: str, tree: Mapping[str, Any], reader: _Reader) -> None:
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


def _insert_artifacts(connection: sa.Connection, tree: Mapping[str, Any], reader: _Reader) -> dict[str, str]:
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
    values = [{**{c.name: _from_json(c, row[c.name]) for c in _columns(table)}, **ids(row)} for row in rows]
    if values:
        connection.execute(sa.insert(table), values)


def _from_json(column: Any, value: Any) -> Any:
    """A value of the column's type. Raises `ValueError` or another of `_DAMAGES` for any other."""
    if value is None:
        if not column.nullable:
            raise ArchiveError(f"{column} is missing")
        return None
    if column.name == "value_json":
        json.loads(value)
    elif column.name == "distribution_json":
        json_to_distribution(value)
    kind = column.type
    if isinstance(kind, sa.Enum):
        return kind.enum_class[value] if kind.enum_class else str(value)
    if isinstance(kind, sa.DateTime):
        return datetime.fromisoformat(value)
    expected: Any = int if isinstance(kind, sa.Integer) else (int, float) if isinstance(kind, sa.Float) else str
    if not isinstance(value, expected) or isinstance(value, bool):
        raise ArchiveError(f"{column} must not be {str(value)[:50]!r}")
    return value


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
