"""The tables of a study's database: Optuna's, through its own models, and ours.

This is the only module that knows Optuna's schema. It relies on Optuna 5.0, to which `pyproject.toml` limits the
version. The contract tests read everything that is written here back through Optuna's public interface.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models
from sqlalchemy.dialects import postgresql, sqlite

studies: Any = models.StudyModel.__table__
study_directions: Any = models.StudyDirectionModel.__table__
study_user_attributes: Any = models.StudyUserAttributeModel.__table__
study_system_attributes: Any = models.StudySystemAttributeModel.__table__
trials: Any = models.TrialModel.__table__
trial_params: Any = models.TrialParamModel.__table__
trial_values: Any = models.TrialValueModel.__table__
trial_user_attributes: Any = models.TrialUserAttributeModel.__table__
trial_system_attributes: Any = models.TrialSystemAttributeModel.__table__
intermediate_values: Any = models.TrialIntermediateValueModel.__table__

trial_heartbeats: Any = models.TrialHeartbeatModel.__table__

ValueType = models.TrialValueModel.TrialValueType
"""Kind of a trial's value: finite or infinite. Optuna stores an infinite value as its kind, without a number."""

to_stored_value = models.TrialValueModel.value_to_stored_repr
"""Convert a trial's value to its number and its kind, as the table holds them."""
from_stored_value = models.TrialValueModel.stored_repr_to_value
"""Convert a number and a kind to a trial's value."""
to_stored_report = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
"""Convert an intermediate value to its number and its kind, as the table holds them."""
from_stored_report = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
"""Convert a number and a kind to an intermediate value."""

STUDY_TABLES = (study_directions, study_user_attributes, study_system_attributes)
"""Optuna's tables with rows for each study, except the trials."""
TRIAL_TABLES = (trial_params, trial_values, trial_user_attributes, trial_system_attributes, intermediate_values)
"""Optuna's tables with rows for each trial."""

METADATA = sa.MetaData()
"""Our own tables."""

leases = sa.Table(
    "miiii_leases",
    METADATA,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    sa.Column("token", sa.String(32), nullable=False, unique=True),
    sa.Column("worker", sa.String(256), nullable=False),
    # Seconds since 1970 by the database's clock, because the clocks of workers differ.
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Column("renewed_at", sa.Double, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False, default=0),
    sa.Column("epochs_per_second", sa.Double, nullable=False, default=0.0),
    sa.Column("saved_epoch", sa.Integer, nullable=False, server_default="0"),
)
"""Leases: which worker trains which running trial, and until when no other worker may."""

artifacts = sa.Table(
    "miiii_artifacts",
    METADATA,
    sa.Column("artifact_id", sa.String(64), primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
"""Bytes of artifacts. Their names and types are in Optuna's attributes."""

checkpoints = sa.Table(
    "miiii_checkpoints",
    METADATA,
    sa.Column("trial_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
"""The newest shared checkpoint of each running trial; see `training.checkpoint`."""

device_time = sa.Table(
    "miiii_device_time",
    METADATA,
    sa.Column("holder", sa.String(32), primary_key=True),
    sa.Column("study_id", sa.Integer, nullable=False, index=True),
    sa.Column("seconds", sa.Double, nullable=False),
)
"""Ledger of the device time that each worker has used or reserved, in seconds times devices; see `budget`."""

deleted_studies = sa.Table(
    "miiii_deleted_studies",
    METADATA,
    sa.Column("study_name", sa.String(512), primary_key=True),
    sa.Column("deleted_at", sa.Double, nullable=False),
)
"""Names of deleted studies, which only a user creates again; see `deleted_studies`."""


def create_tables(engine: sa.Engine) -> None:
    """Create those of our tables, and of the columns that earlier versions did not have, that do not exist yet."""
    with engine.begin() as connection:
        METADATA.create_all(connection)
        if not _has_saved_epoch(connection):
            connection.execute(sa.text(f"ALTER TABLE {leases.name} ADD COLUMN saved_epoch INTEGER NOT NULL DEFAULT 0"))


def inspect_tables(connection: sa.Connection) -> tuple[bool, bool]:
    """Return whether any of our tables exist, and whether all of them exist with all columns."""
    found = sa.inspect(connection).get_table_names()
    has_tables = leases.name in found
    is_complete = has_tables and all(name in found for name in METADATA.tables)
    return has_tables, is_complete and _has_saved_epoch(connection)


def describe_foreign_tables(connection: sa.Connection) -> str | None:
    """Return what is wrong with a database of another program, or None if it is Optuna's, ours or empty.

    The database of a server may hold tables of other programs as well; a file may not.
    """
    inspector = sa.inspect(connection)
    found = set(inspector.get_table_names())
    optunas = found & set(models.BaseModel.metadata.tables)
    for table, keys in ((studies, ("study_id", "study_name")), (trials, ("trial_id", "study_id", "state"))):
        if table.name in optunas and not {column["name"] for column in inspector.get_columns(table.name)} >= set(keys):
            return f"has a table `{table.name}` of another program"
    others = found if connection.dialect.name == "sqlite" else found & {"alembic_version"}
    if others and not optunas:
        return f"is another program's: it has a table `{min(others)}`"
    return None


def _has_saved_epoch(connection: sa.Connection) -> bool:
    return any(
        column["name"] == leases.c.saved_epoch.name for column in sa.inspect(connection).get_columns(leases.name)
    )


def now(connection: sa.Connection) -> sa.ColumnElement[float]:
    """Return the SQL expression for the database's clock, in seconds since 1970."""
    if connection.dialect.name == "sqlite":
        return sa.literal_column("((julianday('now') - 2440587.5) * 86400.0)", sa.Double)
    return sa.literal_column("extract(epoch FROM clock_timestamp())::double precision", sa.Double)


def lock_study(connection: sa.Connection, study_id: int, *, shared: bool = False) -> bool:
    """Lock the row of a study until the transaction ends.

    Transactions that count, add or requeue trials of the study exclude each other this way. Call it before any lease
    is locked, because all transactions must lock in the same order. On SQLite, every transaction for writing excludes
    all others anyway.

    Args:
        connection: The transaction.
        study_id: Optuna's id of the study.
        shared: Take a shared lock. Transactions that only claim or end existing trials do not wait for each other.

    Returns:
        Whether the study exists.
    """
    query = sa.select(studies.c.study_id).where(studies.c.study_id == study_id)
    return connection.execute(query.with_for_update(read=shared, key_share=shared)).first() is not None


def server_start_time(connection: sa.Connection) -> sa.ColumnElement[float]:
    """Return the SQL expression for the time at which the server started, in seconds since 1970; 0 for SQLite."""
    if connection.dialect.name == "sqlite":
        return sa.literal(0.0)
    return sa.literal_column("extract(epoch FROM pg_postmaster_start_time())::double precision", sa.Double)


def upsert(connection: sa.Connection, table: Any, rows: list[dict[str, Any]], key: tuple[str, ...]) -> None:
    """Insert rows, and overwrite those whose key exists. Writing the same rows twice has the effect of writing once.

    Args:
        connection: The transaction.
        table: The table.
        rows: Values by column name, with the same columns in each row.
        key: Columns of a unique key.
    """
    if not rows:
        return
    dialect: Any = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table)
    changed = {name: statement.excluded[name] for name in rows[0] if name not in key}
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=changed), rows)
