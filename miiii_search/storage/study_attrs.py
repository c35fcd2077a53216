"""Attributes of a study on which workers, coordinators and commands must agree.

They are Optuna's system attributes. These need no table of our own, which a worker's role may not create.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from miiii_search.storage import schema

SPEC_KEY = "miiii:spec"
"""The specification of the study."""
ID_KEY = "miiii:id"
"""A random id of the study. No other study has it, whatever the study and its database are named."""
ORIGINS_KEY = "miiii:origins"
"""The ids that an imported study had before, each with the time of its export; see `study.snapshots`."""
VERSION_KEY = "miiii:version"
"""The version of this package that created the study."""
PROGRAMS_KEY = "miiii:programs"
"""The numbers of the training programs that may train the study; see `training.version`."""
CREATED_KEY = "miiii:created_at"
"""Time at which the study was created. This and the following times are seconds since 1970 by the database's clock."""
STARTED_KEY = "miiii:started_at"
"""Time at which the first trial was claimed, plus the duration of all pauses since."""
PAUSED_KEY = "miiii:paused_at"
"""Time at which the study was paused. The attribute exists only while it is paused."""
SELECTED_KEY = "miiii:selected"
"""The configurations that got further replicates, and the number of trials since then; see `study.promote`."""
ARTIFACT_STORE_KEY = "miiii:artifacts"
"""URL of the study's artifact store, unless the database holds the artifacts; see `artifact_stores`."""
REVISION_KEY = "miiii:revision"
"""A random text that changes whenever rows of ended trials are rewritten; see `revisions`."""


def read(connection: sa.Connection, study_id: int, *keys: str) -> dict[str, Any]:
    """Return those of the attributes that the study has, by key."""
    table = schema.study_system_attributes
    query = sa.select(table.c.key, table.c.value_json).where(table.c.study_id == study_id, table.c.key.in_(keys))
    return {row.key: json.loads(row.value_json) for row in connection.execute(query)}


def read_from_all_studies(connection: sa.Connection, key: str) -> list[Any]:
    """Return the values of an attribute, one per study of the database that has it."""
    table = schema.study_system_attributes
    query = sa.select(table.c.value_json).where(table.c.key == key)
    return [json.loads(value) for value in connection.execute(query).scalars()]


def write(connection: sa.Connection, study_id: int, values: Mapping[str, Any]) -> None:
    """Set attributes of the study, and overwrite those that exist."""
    rows = [{"study_id": study_id, "key": key, "value_json": json.dumps(value)} for key, value in values.items()]
    schema.upsert(connection, schema.study_system_attributes, rows, ("study_id", "key"))


def remove(connection: sa.Connection, study_id: int, keys: Collection[str]) -> None:
    """Remove attributes of the study. Those that it does not have are skipped."""
    table = schema.study_system_attributes
    connection.execute(sa.delete(table).where(table.c.study_id == study_id, table.c.key.in_(keys)))


def now(connection: sa.Connection) -> float:
    """Return the time of the database's clock, in seconds since 1970."""
    return float(connection.execute(sa.select(schema.now(connection))).scalar_one())
