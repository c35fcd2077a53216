"""An open study database: Optuna's storage and our own transactions on the same SQLite file or PostgreSQL database."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import sqlalchemy as sa

from miiii_search.errors import AccessRefusedError, MiiiiSearchError, StorageUnavailableError
from miiii_search.redaction import hide_passwords
from miiii_search.storage import error_advice, schema, sqlite
from miiii_search.storage.engines import engine_arguments, limit_response_time, make_engine
from miiii_search.storage.retry import driver_message, is_login_refusal, is_outage
from miiii_search.storage.urls import parse_url, redact_url

if TYPE_CHECKING:
    from miiii_search.storage.study_catalog import StudyCatalog

CREATE_ATTEMPTS = 10
"""Attempts at creating the tables of a new database, which another process may be creating at the same time."""


@dataclass(frozen=True)
class Database:
    """An open study database. Its methods may be called by several threads.

    Attributes:
        url: The URL, with its password.
        engine: The engine for our own transactions.
        optuna: Optuna's storage on the same database.
        read_only: Whether this is a SQLite file that the process may only read.
    """

    url: sa.URL
    engine: sa.Engine
    optuna: optuna.storages.RDBStorage
    read_only: bool = False

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Open a transaction for writing. It is rolled back if the block raises an exception.

        On SQLite it takes the write lock at once (BEGIN IMMEDIATE), because SQLite ignores SELECT … FOR UPDATE.
        Code that only reads uses `engine.connect()`, which waits for no other process.
        """
        with self.engine.execution_options(immediate=True).begin() as connection:
            yield connection

    @property
    def studies(self) -> StudyCatalog:
        """The studies of this database."""
        from miiii_search.storage.study_catalog import StudyCatalog

        return StudyCatalog(self)

    def instance_id(self) -> str:
        """Return an id of this database on this machine, which does not depend on the spelling of its URL.

        A copy of a database has a different id. A file is identified by its inode, a database of a server by the
        cluster's identifier and the number of the database. The id is not part of a study's identity, because the same
        file may have another inode in a container.
        """
        if self.url.drivername == "sqlite":
            identity = f"sqlite {Path(self.url.database or '').stat().st_ino}"
        else:
            with self.engine.connect() as connection:
                oid = connection.execute(sa.text("SELECT oid FROM pg_database WHERE datname = current_database()"))
                identity = f"postgresql {_cluster_id(self.engine)} {oid.scalar_one()}"
        return hashlib.sha256(identity.encode()).hexdigest()[:16]

    def close(self) -> None:
        """Close all connections."""
        self.optuna.remove_session()
        self.optuna.engine.dispose()
        self.engine.dispose()

    def __str__(self) -> str:
        return redact_url(self.url)


def open_database(text: str, *, create: bool = False) -> Database:
    """Open the database of a storage URL.

    A SQLite file that this process may not write is opened for reading, unless `create` is set.

    Args:
        text: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`.
        create: Create the SQLite file and the tables if they do not exist yet.

    Raises:
        StorageUnavailableError: The server does not answer.
        AccessRefusedError: The server refuses the login.
        MiiiiSearchError: The URL is of an unknown kind, or there is nothing to open. The same is raised for a database
            of another program or version, and for any other error of the database.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # we report trials ourselves
    url = parse_url(text)
    read_only = False
    if url.drivername == "sqlite":
        read_only = _check_file(url, create=create)
    else:
        limit_response_time()
    engine = make_engine(url, read_only=read_only)
    try:
        is_complete = _check_tables(url, engine, create=create, read_only=read_only)
        return Database(url, engine, _open_optuna(url, engine, create=not is_complete, read_only=read_only), read_only)
    except MiiiiSearchError:
        engine.dispose()
        raise
    except (sa.exc.DatabaseError, optuna.exceptions.StorageInternalError) as error:
        engine.dispose()
        raise _opening_error(url, error) from None


def _check_file(url: sa.URL, *, create: bool) -> bool:
    """Return whether a SQLite file may only be read. Raise `MiiiiSearchError` if it cannot be opened or created."""
    path = Path(url.database or "")
    if not create and not path.is_file():
        raise MiiiiSearchError(f"there is no database {path}; create a study first, or give its path with --storage")
    if not path.parent.is_dir():
        raise MiiiiSearchError(f"the folder {path.parent} of the storage does not exist; create it first")
    read_only = path.is_file() and not sqlite.is_writable(path)
    if read_only and create:
        advice = error_advice.SQLITE_ADVICE[sqlite3.SQLITE_READONLY]
        raise MiiiiSearchError(f"cannot write to {redact_url(url)}, or to its folder; {advice}")
    return read_only


def _check_tables(url: sa.URL, engine: sa.Engine, *, create: bool, read_only: bool) -> bool:
    """Return whether all our tables exist. Raise `MiiiiSearchError` if the database cannot be used as it is."""
    with engine.connect() as connection:
        if problem := schema.describe_foreign_tables(connection):
            raise MiiiiSearchError(f"{redact_url(url)} {problem}; choose another --storage")
        # Our tables are created last. If they exist, Optuna's are complete.
        has_tables, is_complete = schema.inspect_tables(connection)
    if not has_tables and not create:
        raise MiiiiSearchError(
            f"{redact_url(url)} holds no studies; create one with miiii-search create or miiii-search up"
        )
    if read_only and not is_complete:
        raise MiiiiSearchError(
            f"{redact_url(url)} may only be read, and an older version of miiii-search created its tables; open it "
            "once where it may be written, with miiii-search list"
        )
    return is_complete


def _open_optuna(url: sa.URL, engine: sa.Engine, *, create: bool, read_only: bool) -> optuna.storages.RDBStorage:
    """Open Optuna's storage on the same database, and create all tables if `create` is set.

    Two processes may create the tables of a new database at once. The second finds them incomplete and tries again.

    Raises:
        MiiiiSearchError: Another version of Optuna created the tables.
    """
    for attempt in range(CREATE_ATTEMPTS):
        try:
            opened = optuna.storages.RDBStorage(
                url.render_as_string(hide_password=False),
                engine_kwargs=engine_arguments(url, read_only=read_only),
                skip_table_creation=not create,
            )
            if create:
                schema.create_tables(engine.execution_options(immediate=True))
            return opened
        except RuntimeError as error:
            if "table schema" not in str(error):
                raise
            raise MiiiiSearchError(_other_optuna_message(url, str(error))) from None
        except (sa.exc.DatabaseError, optuna.exceptions.StorageInternalError):
            if not create or attempt == CREATE_ATTEMPTS - 1:
                raise
            time.sleep(0.1 * (attempt + 1))
    raise AssertionError("unreachable")


def _other_optuna_message(url: sa.URL, optuna_message: str) -> str:
    """Return the message for tables that another version of Optuna created, given Optuna's own message."""
    if "storage upgrade" in optuna_message:
        advice = f"make a backup, then type: optuna storage upgrade --storage '{redact_url(url)}'"
    else:
        advice = "use the version of miiii-search that created them"
    version = re.search(r"set up by optuna ([^)\s]+)", optuna_message)
    creator = f"; Optuna {version[1]} created them" if version else ""
    return f"cannot use {redact_url(url)}: Optuna {optuna.__version__} cannot read its tables{creator}; {advice}"


def _opening_error(url: sa.URL, error: Exception) -> MiiiiSearchError:
    """Return the exception for an error of the database that occurred while it was opened."""
    message = hide_passwords(error_advice.without_question(driver_message(error)))
    if advice := error_advice.advice_for(error):
        return MiiiiSearchError(f"cannot use {redact_url(url)}: {message}; {advice}")
    if not is_outage(error):
        return MiiiiSearchError(f"cannot use {redact_url(url)}: {message}")
    is_file = url.drivername == "sqlite"
    advice = "may its file be written?" if is_file else error_advice.connection_advice(message)
    kind = AccessRefusedError if is_login_refusal(error) else StorageUnavailableError
    return kind(f"cannot reach {redact_url(url)}: {message}; {advice}")


def _cluster_id(engine: sa.Engine) -> str:
    """Return the identifier of a PostgreSQL cluster, or an empty text if the server does not show it to this role."""
    try:
        with engine.connect() as connection:
            return str(connection.execute(sa.text("SELECT system_identifier FROM pg_control_system()")).scalar_one())
    except sa.exc.ProgrammingError:
        return ""
