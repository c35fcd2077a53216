"""The rows of a study as JSON, as an archive stores them: reading them, and inserting them into another database."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from optuna.distributions import json_to_distribution
from optuna.trial import TrialState

from miiii_search.storage import schema, study_attrs
from miiii_search.storage.records import StoredCheckpoint

Row = Mapping[str, Any]
"""A row by column, as JSON."""

STUDY_TABLES = tuple(table.name for table in schema.STUDY_TABLES)
"""Names of the tables with rows of the study itself: directions, user attributes and system attributes."""

STUDY_ATTRIBUTES = schema.study_system_attributes.name
"""Name of the table of the study's system attributes."""

TRIAL_TABLES = tuple(table.name for table in schema.TRIAL_TABLES)
"""Names of the tables with rows of trials."""

DEVICE_TIME = schema.device_time.name
"""Name of the ledger of device time."""


class ArchiveError(Exception):
    """The file is not an archive that `export_study` writes."""


class InconsistentRowsError(Exception):
    """The database refused rows of an archive, because they contradict each other."""


def read_rows(connection: sa.Connection, study_id: int) -> dict[str, Any]:
    """Return the rows of a study and its trials. Running trials are returned as waiting.

    Returns:
        `exported_at`, the time of the database's clock. `study` and `of_trials`, the rows by the name of their table.
        `trials`, the rows of the trials themselves.
    """
    trials = schema.trials
    trial_ids = _trial_ids(study_id)
    tree: dict[str, Any] = {
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
    return tree


def read_checkpoints(connection: sa.Connection, study_id: int) -> list[StoredCheckpoint]:
    """Return the checkpoints of the study's trials, without their bytes."""
    checkpoints = schema.checkpoints
    stored = sa.select(checkpoints.c.trial_id, checkpoints.c.epoch).where(
        checkpoints.c.trial_id.in_(_trial_ids(study_id))
    )
    return [StoredCheckpoint(row.trial_id, row.epoch) for row in connection.execute(stored)]


def read_checkpoint_data(connection: sa.Connection, trial_id: int) -> bytes:
    """Return the bytes of a trial's checkpoint."""
    checkpoints = schema.checkpoints
    query = sa.select(checkpoints.c.data).where(checkpoints.c.trial_id == trial_id)
    return bytes(connection.execute(query).scalar_one())


def insert_trials(connection: sa.Connection, study_id: int, rows: Sequence[Row]) -> dict[int, int]:
    """Insert the rows of trials.

    Returns:
        The new trial ids by the ids in the archive.

    Raises:
        ArchiveError: The trials are not numbered consecutively, or a value has another type than its column.
        ValueError: A value cannot be parsed.
    """
    trials = schema.trials
    numbers = {int(row["trial_id"]): int(row["number"]) for row in rows}
    if sorted(numbers.values()) != list(range(len(rows))):
        raise ArchiveError("its trials are not numbered consecutively from 0")
    _insert_rows(connection, trials, rows, lambda row: {"study_id": study_id})
    query = sa.select(trials.c.number, trials.c.trial_id).where(trials.c.study_id == study_id)
    by_number = {row.number: row.trial_id for row in connection.execute(query)}
    return {old: by_number[number] for old, number in numbers.items()}


def insert_rows(
    connection: sa.Connection, study_id: int, table: str, rows: Sequence[Row], trial_ids: Mapping[int, int]
) -> None:
    """Insert rows of a table. `trial_ids` are the new trial ids by the ids in the archive.

    Raises:
        ArchiveError: A value has another type than its column, or is missing.
        ValueError: A value cannot be parsed.
    """
    if table == DEVICE_TIME:
        new_holder = lambda row: {"study_id": study_id, "holder": uuid.uuid4().hex}  # noqa: E731
        _insert_rows(connection, schema.device_time, rows, new_holder)
    elif table in STUDY_TABLES:
        _insert_rows(connection, table_named(table), rows, lambda row: {"study_id": study_id})
    else:
        _insert_rows(connection, table_named(table), rows, lambda row: {"trial_id": trial_ids[row["trial_id"]]})


def insert_checkpoint(connection: sa.Connection, trial_id: int, epoch: int, data: bytes) -> None:
    """Insert a checkpoint of a trial that has none."""
    values = {"trial_id": trial_id, "epoch": epoch, "data": data}
    connection.execute(sa.insert(schema.checkpoints).values(values))


def table_named(name: str) -> Any:
    """Return the table with a name: one of `STUDY_TABLES` or `TRIAL_TABLES`, or `DEVICE_TIME`."""
    tables = (*schema.STUDY_TABLES, *schema.TRIAL_TABLES, schema.device_time)
    return next(table for table in tables if table.name == name)


def content_of(table: Any, row: Row) -> dict[str, Any]:
    """Return the values of an archive's row by column, with the types of the columns; see `from_json`."""
    return {column.name: from_json(column, row[column.name]) for column in _content_columns(table)}


def _trial_ids(study_id: int) -> sa.Select[tuple[int]]:
    query: sa.Select[tuple[int]] = sa.select(schema.trials.c.trial_id).where(schema.trials.c.study_id == study_id)
    return query


def _rows(connection: sa.Connection, table: Any, where: Any, keep: str = "") -> list[dict[str, Any]]:
    """Return the rows of a table as JSON, without the ids that the database assigned except the column `keep`."""
    contents = _content_columns(table)
    columns = [column for column in table.c if column.name == keep or column in contents]
    query = sa.select(*columns).where(where).order_by(*table.primary_key)
    return [
        {column.name: to_json(value) for column, value in zip(columns, row, strict=True)}
        for row in connection.execute(query)
    ]


def _insert_rows(
    connection: sa.Connection, table: Any, rows: Sequence[Row], new_ids: Callable[[Row], dict[str, Any]]
) -> None:
    """Insert rows of an archive with the ids that `new_ids` returns for each."""
    values = [{**content_of(table, row), **new_ids(row)} for row in rows]
    if values:
        connection.execute(sa.insert(table), values)


def _content_columns(table: Any) -> list[Any]:
    """Return the columns of a table that an archive stores: all except ids, which the importing database assigns."""
    return [column for column in table.c if not column.primary_key and column.name not in ("study_id", "trial_id")]


def to_json(value: Any) -> Any:
    """Return a value of a row as JSON: times in ISO format, members of an enumeration by name."""
    if isinstance(value, datetime):
        return value.isoformat()
    return getattr(value, "name", value)


def from_json(column: Any, value: Any) -> Any:
    """Return a value of an archive with the type of its column.

    Raises:
        ArchiveError: The value has another type, or is missing.
        ValueError: The value cannot be parsed.
    """
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
