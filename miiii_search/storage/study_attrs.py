"""The attributes of a study in which we keep what workers, coordinators and commands must agree on.

Optuna's system attributes: they need no table of our own, so that a worker's role in the database need not make one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from miiii_search.storage import schema

SPEC_KEY = "miiii:spec"
ID_KEY = "miiii:id"
"""The study's identity: a random id that no other study has, whatever its name and its database are called."""
ORIGINS_KEY = "miiii:origins"
"""Of an imported study: the ids it had before, each with the time of its export; see `snapshots`."""
VERSION_KEY = "miiii:version"
"""The version of this package that created the study."""
PROGRAMS_KEY = "miiii:programs"
"""The numbers of the training programs that may train it; see `experiment.version`."""
CREATED_KEY = "miiii:created_at"
"""When it was created; this and the following in seconds since 1970 by the database's clock."""
STARTED_KEY = "miiii:started_at"
"""When its first trial was claimed, later by as long as it was paused since."""
PAUSED_KEY = "miiii:paused_at"
"""When it was paused; there while it is."""
SELECTED_KEY = "miiii:selected"
"""Which configurations got further replicates, and how many trials there are since; see `selecting`."""
ARTIFACT_STORE_KEY = "miiii:artifacts"
"""The place of its artifacts, if that is not the database; see `places`."""
REVISION_KEY = "miiii:revision"
"""A random text, replaced whenever rows of ended trials are rewritten; see `revisions`."""


def read(connection: sa.Connection, study_id: int, *keys: str) -> dict[str, Any]:
    """Those of the attributes that the study has."""
    table = schema.study_system_attributes
    query = sa.select(table.c.key, table.c.value_json).where(table.c.study_id == study_id, table.c.key.in_(keys))
    return {row.key: json.loads(row.value_json) for row in connection.execute(query)}


def read_from_all_studies(connection: sa.Connection, key: str) -> list[Any]:
    """The attribute's value in each study of the database that has it."""
    table = schema.study_system_attributes
    query = sa.select(table.c.value_json).where(table.c.key == key)
    return [json.loads(value) for value in connection.execute(query).scalars()]


def write(connection: sa.Connection, study_id: int, values: Mapping[str, Any]) -> None:
    """Sets attributes of the study."""
    rows = [{"study_id": study_id, "key": key, "value_json": json.dumps(value)} for key, value in values.items()]
    schema.upsert(connection, schema.study_system_attributes, rows, ("study_id", "key"))


def remove(connection: sa.Connection, study_id: int, keys: Collection[str]) -> None:
    """Removes attributes of the study."""
    table = schema.study_system_attributes
    connection.execute(sa.delete(table).where(table.c.study_id == study_id, table.c.key.in_(keys)))


def now(connection: sa.Connection) -> float:
    """The database's clock."""
    return float(connection.execute(sa.select(schema.now(connection))).scalar_one())
