"""Finding out what a database lets this process write, without keeping anything."""

from __future__ import annotations

import os
import uuid

import sqlalchemy as sa

from miiii_search.storage import schema
from miiii_search.storage.database import Database
from miiii_search.storage.retry import INSUFFICIENT_PRIVILEGE

CACHE_PAGES, TEST_BYTES = 4, 2**18
"""Pages of SQLite's cache during the test, and bytes to write, which are far more than the cache holds."""


def try_writing(database: Database) -> bool:
    """Write what a worker writes, and roll it back. May be called again.

    Returns:
        Whether this role may create studies, too.

    Raises:
        sqlalchemy.exc.DBAPIError: The database is unavailable, or refuses to write.
    """
    with database.engine.execution_options(immediate=True).connect() as connection:
        if connection.dialect.name == "sqlite":
            # With a small cache the row is written to the disk before the transaction ends.
            connection.exec_driver_sql(f"PRAGMA cache_size = {CACHE_PAGES}")
        row = {"artifact_id": str(uuid.uuid4()), "data": os.urandom(TEST_BYTES)}
        connection.execute(sa.insert(schema.artifacts), [row])
        try:
            with connection.begin_nested():
                connection.execute(sa.insert(schema.studies).values(study_name=row["artifact_id"]))
            may_create = True
        except sa.exc.DBAPIError as error:
            if getattr(error.orig, "pgcode", None) != INSUFFICIENT_PRIVILEGE:
                raise
            may_create = False
        connection.rollback()
        connection.invalidate()  # its cache is too small for further use
    return may_create
