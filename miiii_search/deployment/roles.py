"""Roles of the database: the owner makes tables; a worker reads and writes rows, and can neither drop nor alter."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa
from psycopg2 import sql
from psycopg2.extensions import encrypt_password

from miiii_search.deployment.keys import Keys
from miiii_search.errors import MiiiiSearchError
from miiii_search.storage import schema
from miiii_search.storage.database import Database

WORKERS = "miiii_workers"
"""The group that all workers' roles are in."""

WRITTEN = (
    schema.trials,
    schema.trial_params,
    schema.trial_values,
    schema.trial_user_attributes,
    schema.trial_system_attributes,
    schema.intermediate_values,
    schema.study_system_attributes,  # notes are among them
)
"""Optuna's tables that a worker inserts into and updates."""


def grant_workers(database: Database) -> None:
    """Makes the group of workers, and lets it do what a worker does. Twice is once.

    Reads everything; writes trials; does with our own tables' rows what it likes; deletes nothing of Optuna's but
    attributes of studies.
    """
    ours = sql.SQL(", ").join(sql.Identifier(name) for name in schema.METADATA.tables)
    written = sql.SQL(", ").join(sql.Identifier(table.name) for table in WRITTEN)
    group, owned = sql.Identifier(WORKERS), sql.Identifier(str(database.url.database))
    statements = [
        "GRANT CONNECT ON DATABASE {database} TO {group}",
        "GRANT USAGE ON SCHEMA public TO {group}",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {group}",
        "GRANT INSERT, UPDATE ON {written} TO {group}",
        # To lock a study's row, which takes the right to update something of it.
        "GRANT UPDATE (study_id) ON {studies} TO {group}",
        "GRANT INSERT, UPDATE, DELETE ON {ours} TO {group}",
        # `analyze` replaces what it attached to a trial, which attributes of the study name: it could overwrite them.
        "GRANT DELETE ON {attributes} TO {group}",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {group}",
    ]
    with database.transaction() as connection:
        _take_turns(connection)
        _make_role(connection, WORKERS)
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


def let_workers_in(database: Database, keys: Keys) -> None:
    """Makes the group of workers and the role of this machine's workers, with the password of its file."""
    if database.url.drivername == "sqlite":
        return
    grant_workers(database)
    url = sa.make_url(keys.worker_url.read_text().strip())
    set_worker(database, str(url.username), str(url.password))


def set_worker(database: Database, role: str, password: str) -> bool:
    """Makes a worker's role, or gives it another password; True if it is new.

    Raises `MiiiiSearchError` for a role that is there and is no worker's.
    """
    with database.transaction() as connection:
        _take_turns(connection)
        is_new = _make_role(connection, role)
        if not is_new and role not in _workers(connection):
            raise MiiiiSearchError(f"the database has a role `{role}` that is no worker's; choose another --name")
        # Encrypted here, so that no log of the server holds it.
        driver: Any = connection.connection.driver_connection
        verifier = encrypt_password(password, role, scope=driver, algorithm="scram-sha-256")
        name = sql.Identifier(role)
        _execute(connection, sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(verifier)))
        _execute(connection, sql.SQL("GRANT {} TO {}").format(sql.Identifier(WORKERS), name))
        return is_new


def drop_worker(database: Database, role: str) -> None:
    """Takes a worker's role away and ends its connections. Raises `MiiiiSearchError` if there is none."""
    if database.url.drivername == "sqlite":
        raise MiiiiSearchError(
            "a SQLite file has no roles to take away; name the PostgreSQL of the invitation with --storage"
        )
    with database.transaction() as connection:
        if role not in _workers(connection):
            known = ", ".join(f"`{name}`" for name in _workers(connection)) or "none"
            raise MiiiiSearchError(f"there is no worker's role `{role}`; there are: {known}")
        _execute(connection, sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(role)))
    with database.transaction() as connection:  # whoever came before the first had ended is seen now
        connection.execute(
            sa.text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = :role"),
            {"role": role},
        )
        _execute(connection, sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def role_name(name: str) -> str:
    """The role of the machine of this name. Raises `MiiiiSearchError`."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,40}", name):
        raise MiiiiSearchError(f"--name must be of up to 41 small letters, digits, - and _, but is `{name}`")
    return f"worker_{name.replace('-', '_')}"


def _take_turns(connection: sa.Connection) -> None:
    """Waits for others that make or grant roles; the server refuses two who do so at once."""
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext(:group))"), {"group": WORKERS})


def _make_role(connection: sa.Connection, role: str) -> bool:
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
