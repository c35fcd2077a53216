"""Database roles in PostgreSQL.

The owner creates tables. A worker's role reads and writes rows, and can neither drop nor alter anything.
"""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa
from psycopg2 import sql
from psycopg2.extensions import encrypt_password

from miiii_search.errors import MiiiiSearchError
from miiii_search.storage import schema
from miiii_search.storage.database import Database

WORKERS = "miiii_workers"
"""Name of the group role of all workers."""

WRITTEN = (
    schema.trials,
    schema.trial_params,
    schema.trial_values,
    schema.trial_user_attributes,
    schema.trial_system_attributes,
    schema.intermediate_values,
    schema.study_system_attributes,  # notes are among them
)
"""Tables of Optuna that a worker inserts into and updates."""


def grant_workers(database: Database) -> None:
    """Create the workers' group role and grant it what a worker needs. May be called again.

    A worker reads everything, writes trials, and changes rows of our own tables freely. Of Optuna's tables it may
    delete attributes of studies only.
    """
    ours = sql.SQL(", ").join(sql.Identifier(name) for name in schema.METADATA.tables)
    written = sql.SQL(", ").join(sql.Identifier(table.name) for table in WRITTEN)
    group, owned = sql.Identifier(WORKERS), sql.Identifier(str(database.url.database))
    statements = [
        "GRANT CONNECT ON DATABASE {database} TO {group}",
        "GRANT USAGE ON SCHEMA public TO {group}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {group}",
        "GRANT INSERT, UPDATE ON {written} TO {group}",
        # Locking a study's row takes the right to update a column of it.
        "GRANT UPDATE (study_id) ON {studies} TO {group}",
        "GRANT INSERT, UPDATE, DELETE ON {ours} TO {group}",
        # `analyze` replaces the artifacts of a trial, which are listed in attributes of the study.
        "GRANT DELETE ON {attributes} TO {group}",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {group}",
    ]
    with database.transaction() as connection:
        _lock_roles(connection)
        _create_role(connection, WORKERS)
        for statement in statements:
            _execute(
                connection,
                sql.SQL(statement).format(
                    database=owned,
                    group=group,
                    written=written,
                    ours=ours,
                    studies=sql.Identifier(schema.studies.name),
                    attributes=sql.Identifier(schema.study_system_attributes.name),
                ),
            )


def create_or_update_worker(database: Database, role: str, password: str) -> bool:
    """Create a worker's role, or set its password if it exists.

    Returns:
        True if the role is new.

    Raises:
        MiiiiSearchError: A role of this name exists and is not a worker's.
    """
    with database.transaction() as connection:
        _lock_roles(connection)
        is_new = _create_role(connection, role)
        if not is_new and role not in _workers(connection):
            raise MiiiiSearchError(
                f"the database already has a role `{role}`, which is not a worker's; choose another --name"
            )
        # Hashed here, so that the server's log never contains the password.
        driver: Any = connection.connection.driver_connection
        verifier = encrypt_password(password, role, scope=driver, algorithm="scram-sha-256")
        name = sql.Identifier(role)
        _execute(connection, sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(verifier)))
        _execute(connection, sql.SQL("GRANT {} TO {}").format(sql.Identifier(WORKERS), name))
        return is_new


def drop_worker(database: Database, role: str) -> None:
    """Drop a worker's role and end its connections.

    Raises:
        MiiiiSearchError: There is no such role, or the database is SQLite.
    """
    if database.url.drivername == "sqlite":
        raise MiiiiSearchError(
            "a SQLite file has no roles to revoke; name the PostgreSQL database of the invitation with --storage"
        )
    with database.transaction() as connection:
        if role not in _workers(connection):
            known = ", ".join(f"`{name}`" for name in _workers(connection)) or "none"
            raise MiiiiSearchError(f"there is no worker's role `{role}`; the workers' roles are: {known}")
        _execute(connection, sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(role)))
    with database.transaction() as connection:  # a new transaction: it sees sessions that began meanwhile
        connection.execute(
            sa.text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = :role"),
            {"role": role},
        )
        _execute(connection, sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def role_name(name: str) -> str:
    """Return the database role of a machine.

    Raises:
        MiiiiSearchError: The name has other characters than small letters, digits, - and _, or is too long.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,40}", name):
        raise MiiiiSearchError(
            f"--name must be 1 to 41 small letters, digits, - or _, and start with a letter or digit, but is `{name}`"
        )
    return f"worker_{name.replace('-', '_')}"


def _lock_roles(connection: sa.Connection) -> None:
    """Wait for other transactions that create or grant roles. The server refuses two at once."""
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext(:group))"), {"group": WORKERS})


def _create_role(connection: sa.Connection, role: str) -> bool:
    exists = connection.execute(sa.text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}).first()
    if not exists:
        _execute(connection, sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
    return not exists


def _workers(connection: sa.Connection) -> list[str]:
    query = sa.text(
        "SELECT member.rolname FROM pg_auth_members JOIN pg_roles AS member ON member.oid = pg_auth_members.member "
        "JOIN pg_roles AS groups ON groups.oid = pg_auth_members.roleid WHERE groups.rolname = :group ORDER BY 1"
    )
    return list(connection.execute(query, {"group": WORKERS}).scalars())


def _execute(connection: sa.Connection, statement: sql.Composable) -> None:
    driver: Any = connection.connection.driver_connection
    connection.exec_driver_sql(statement.as_string(driver).replace("%", "%%"))
