"""A storage URL as a database that survives a restart: Optuna's storage, our transactions, our artifacts."""

from __future__ import annotations

import hashlib
import re
import select
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import psycopg2.extensions
import sqlalchemy as sa

from miiii_search.errors import AccessRefusedError, MiiiiSearchError
from miiii_search.redaction import hide_passwords
from miiii_search.storage import error_advice, schema, sqlite
from miiii_search.storage.retry import driver_message, is_login_refusal, is_outage

SQLITE_LOCK_SECONDS = 60
"""How long a writer waits for another one of the same SQLite file."""

MAX_ARTIFACT_BYTES = 64 * 2**20
"""Bytes of one artifact in the database; a trial's record and figure are far below 1 MiB."""

CONNECT_TIMEOUT_SECONDS = 5
"""Libpq's default is to wait for minutes."""

RESPONSE_TIMEOUT_SECONDS = 30
"""Longer than any statement of ours takes, waiting for a lock included."""

IDLE_TRANSACTION_SECONDS = 20
"""For which a transaction may stand still before the server ends it; less than whoever waits for its locks waits."""


@dataclass(frozen=True)
class Database:
    """An open storage. Its methods may be called by several threads."""

    url: sa.URL
    engine: sa.Engine
    optuna: optuna.storages.RDBStorage
    read_only: bool = False
    """Whether it is a SQLite file that this process may only read."""

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """A transaction of ours: all of it, or on an exception nothing.

        On SQLite it takes the write lock at once (BEGIN IMMEDIATE), since SELECT … FOR UPDATE is ignored there.
        What only reads uses `engine.connect()`, which waits for nobody.
        """
        with self.engine.execution_options(immediate=True).begin() as connection:
            yield connection

    def instance_id(self) -> str:
        """An id of this database on this machine, the same under every spelling of its URL.

        A copy has another: a file is known by its inode, a database of a server by the cluster's identifier and its
        own number. Not part of a study's identity, since the same file may have another inode in a container.
        """
        if self.url.drivername == "sqlite":
            place = f"sqlite {Path(self.url.database or '').stat().st_ino}"
        else:
            with self.engine.connect() as connection:
                oid = connection.execute(sa.text("SELECT oid FROM pg_database WHERE datname = current_database()"))
                place = f"postgresql {_cluster(self.engine)} {oid.scalar_one()}"
        return hashlib.sha256(place.encode()).hexdigest()[:16]

    def close(self) -> None:
        """Closes the connections."""
        self.optuna.remove_session()
        self.optuna.engine.dispose()
        self.engine.dispose()

    def __str__(self) -> str:
        return redact_url(self.url)


USER_INFORMATION = re.compile(r"[^@:/?#]*(:[^@]*)?")
"""What stands before the host: a user, and perhaps a password."""

PARAMETERS = re.compile(r"[^@:/?#]*/[^@?#]*\?[^@]*")
"""A host, a database and parameters, without user and port."""

PORT = re.compile(r"[^@:/?#]*:(\d+[/?#]|/[^@]*\?[^@]*=)")
"""What begins as a host and a port do."""

SHOWN = frozenset(
    {
        *("host", "hostaddr", "port", "user", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl"),
        *("application_name", "connect_timeout", "target_session_attrs", "channel_binding", "gssencmode", "options"),
    }
)
"""Parameters of a URL whose values may be shown; those of others may be secret."""


def _cluster(engine: sa.Engine) -> str:
    """The identifier that PostgreSQL gives a cluster when it is made; empty if the server does not tell this role."""
    try:
        with engine.connect() as connection:
            return str(connection.execute(sa.text("SELECT system_identifier FROM pg_control_system()")).scalar_one())
    except sa.exc.ProgrammingError:
        return ""


def parse_url(text: str) -> sa.URL:
    """A storage URL with the driver that we use.

    Raises `MiiiiSearchError` for an unknown kind, and, showing nothing of it, for a URL that can be read in two ways.
    """
    _check_user_information(text)
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise MiiiiSearchError(
            "the storage is not a URL; use sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        ) from None
    kind = url.drivername.split("+")[0]
    if kind in ("postgres", "postgresql"):
        # SQLAlchemy 2.1 takes psycopg 3 for a bare postgresql://.
        return url.set(drivername="postgresql+psycopg2")
    if kind == "sqlite" and url.drivername in ("sqlite", "sqlite+pysqlite"):
        if url.host or url.username or url.password or url.port:
            raise MiiiiSearchError("a SQLite storage is a file and has no host: use sqlite:///FILE, with three slashes")
        if not url.database or url.database == ":memory:":
            raise MiiiiSearchError("a storage in memory is lost with the process; use sqlite:///FILE")
        if url.query:
            raise MiiiiSearchError(
                f"a SQLite storage takes no parameters such as `{min(url.query)}`; use sqlite:///FILE"
            )
        return url.set(drivername="sqlite")
    raise MiiiiSearchError(
        f"the storage is of the unknown kind `{url.drivername}`; use sqlite:///FILE or "
        "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    )


def _check_user_information(text: str) -> None:
    """Refuse a URL of a server whose password may not end where it seems to. Raises `MiiiiSearchError`."""
    kind, _, rest = text.partition("://")
    if kind.startswith("sqlite") or "@" not in rest:
        return
    before, _, after = rest.partition("@")
    is_user = USER_INFORMATION.fullmatch(before) and not PORT.match(before)
    if "@" not in after and (is_user or PARAMETERS.fullmatch(before)):
        return
    raise MiiiiSearchError(
        "it is not clear where the password in the storage's URL ends: percent-encode the special characters of user, "
        "password and parameters (%40 for @, %2F for /, %3A for :, %3F for ?, %23 for #, %25 for %), as "
        "urllib.parse.quote(password, safe='') in Python does"
    )


def redact_url(url: sa.URL) -> str:
    """The URL as it may be shown: without its password, and without parameters that may be secret."""
    query = {key: value if key in SHOWN else "***" for key, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True).replace("postgresql+psycopg2", "postgresql")


def open_database(text: str, *, create: bool = False) -> Database:
    """Opens a storage URL; with `create`, makes file and tables where there are none.

    A SQLite file that may only be read is opened for reading, unless `create`.
    Raises `MiiiiSearchError` if the kind is unknown, the server does not answer, the tables are not ours, or there is
    nothing to open; `AccessRefusedError` if the server refuses the login.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # what it tells of every trial, we show
    url = parse_url(text)
    read_only = False
    if url.drivername == "sqlite":
        path = Path(url.database or "")
        if not create and not path.is_file():
            raise MiiiiSearchError(
                f"there is no database {path}; create a study first, or give its place with --storage"
            )
        if not path.parent.is_dir():
            raise MiiiiSearchError(f"the folder {path.parent} of the storage does not exist; create it first")
        read_only = path.is_file() and not sqlite.is_writable(path)
        if read_only and create:
            way_out = error_advice.SQLITE_ADVICE[sqlite3.SQLITE_READONLY]
            raise MiiiiSearchError(f"cannot write to {redact_url(url)}, or to its folder; {way_out}")
    if url.drivername != "sqlite":
        _give_up_on_silence()
    engine = _make_engine(url, read_only)
    try:
        with engine.connect() as connection:
            if problem := schema.find_foreign_tables(connection):
                raise MiiiiSearchError(f"{redact_url(url)} {problem}; choose another --storage")
            # Ours are made last: where they are, Optuna's are complete.
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
        return Database(url, engine, _open_optuna(url, engine, create=not is_complete, read_only=read_only), read_only)
    except MiiiiSearchError:
        engine.dispose()
        raise
    except (sa.exc.DatabaseError, optuna.exceptions.StorageInternalError) as error:
        engine.dispose()
        reason = hide_passwords(_reason(error))
        if advice := error_advice.advice_for(error):
            raise MiiiiSearchError(f"cannot use {redact_url(url)}: {reason}; {advice}") from None
        if not is_outage(error):
            raise MiiiiSearchError(f"cannot use {redact_url(url)}: {reason}") from None
        way_out = "may its file be written?" if url.drivername == "sqlite" else _way_out(reason)
        kind = AccessRefusedError if is_login_refusal(error) else MiiiiSearchError
        raise kind(f"cannot reach {redact_url(url)}: {reason}; {way_out}") from None


def _make_engine(url: sa.URL, read_only: bool) -> sa.Engine:
    """An engine for our own transactions."""
    engine = sa.create_engine(url, **_engine_arguments(url, read_only))
    if url.drivername == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def configure(connection: Any, _record: Any) -> None:
            connection.isolation_level = None  # the driver must not begin transactions; `begin` below does
            if not read_only:
                _use_wal(connection)
                connection.execute("PRAGMA synchronous=NORMAL")

        @sa.event.listens_for(engine, "begin")
        def begin(connection: sa.Connection) -> None:
            immediate = connection.get_execution_options().get("immediate")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _engine_arguments(url: sa.URL, read_only: bool = False) -> dict[str, Any]:
    if read_only:
        path = Path(url.database or "")
        # Every connection anew: whether somebody else writes the file decides how it is read.
        return {"creator": lambda: sqlite.connect_read_only(path, SQLITE_LOCK_SECONDS), "poolclass": sa.NullPool}
    if url.drivername == "sqlite":
        return {"connect_args": {"timeout": SQLITE_LOCK_SECONDS}}
    # Pre-ping finds connections that a restart of the server has cut. A small pool, since workers are many.
    return {
        "poolclass": _Pool,
        "pool_pre_ping": True,
        "pool_size": 2,
        "max_overflow": 4,
        "connect_args": {
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "application_name": "miiii-search",
            # A connection whose other end vanished without a word is given up, not waited for.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 1000 * RESPONSE_TIMEOUT_SECONDS,
        },
    }


class _Pool(sa.QueuePool):
    """Connections whose transactions hold nobody up for long.

    A process that is stopped within a transaction, or whose machine is gone without a word, would keep what it has
    locked for as long as it is stopped, or for the two hours of the server's keepalive: its trials could not be taken
    back. The server ends such a transaction; a process that goes on later finds its connection lost.
    """


@sa.event.listens_for(_Pool, "connect")
def _end_what_stands_still(connection: Any, _record: Any) -> None:
    connection.autocommit = True  # or the setting would be gone with a transaction that is undone
    with connection.cursor() as cursor:
        # Not as a parameter of the connection, which PgBouncer refuses.
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_TRANSACTION_SECONDS}s'")
    connection.autocommit = False


def _give_up_on_silence() -> None:
    """Lets no call wait for ever for a server that keeps the connection and says nothing. For the whole process."""

    def wait(connection: Any) -> None:
        connecting = connection.status == psycopg2.extensions.STATUS_SETUP
        seconds = (
            CONNECT_TIMEOUT_SECONDS if connecting else RESPONSE_TIMEOUT_SECONDS
        )  # libpq's own limit does not hold here
        while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
            reading, writing = ([connection], []) if state == psycopg2.extensions.POLL_READ else ([], [connection])
            if not any(select.select(reading, writing, [], seconds)):
                # psycopg2 closes the connection by itself; to close it here would wait for the server.
                raise psycopg2.OperationalError(f"the server has been silent for {seconds} s")

    psycopg2.extensions.set_wait_callback(wait)


def _open_optuna(url: sa.URL, engine: sa.Engine, *, create: bool, read_only: bool) -> optuna.storages.RDBStorage:
    """Optuna's storage on the same database. Raises `MiiiiSearchError` if another version of Optuna made its tables.

    Two processes may make the tables of a new database at once; the one that comes second finds them half made
    and tries again.
    """
    for attempt in range(10):
        try:
            opened = optuna.storages.RDBStorage(
                url.render_as_string(hide_password=False),
                engine_kwargs=_engine_arguments(url, read_only),
                skip_table_creation=not create,
            )
            if create:
                schema.create_tables(engine.execution_options(immediate=True))
            return opened
        except RuntimeError as error:
            if "table schema" not in str(error):
                raise
            raise MiiiiSearchError(_other_version(url, str(error))) from None
        except (sa.exc.DatabaseError, optuna.exceptions.StorageInternalError):
            if not create or attempt == 9:
                raise
            time.sleep(0.1 * (attempt + 1))
    raise AssertionError("unreachable")


def _other_version(url: sa.URL, words: str) -> str:
    """What to do about tables of another version of Optuna, whose own words are given."""
    if "storage upgrade" in words:
        way_out = f"make a backup, then type: optuna storage upgrade --storage '{redact_url(url)}'"
    else:
        way_out = "use the version of miiii-search that created them"
    made_by = re.search(r"set up by optuna ([^)\s]+)", words)
    made = f", though Optuna {made_by[1]} made them" if made_by else ""
    what = f"its tables are not those that Optuna {optuna.__version__} reads{made}"
    return f"cannot use {redact_url(url)}: {what}; {way_out}"


def _use_wal(connection: sqlite3.Connection) -> None:
    """Readers and a writer beside each other, for good: the file remembers it."""
    deadline = time.monotonic() + SQLITE_LOCK_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            # SQLite does not wait by itself for another process that turns the same new file to WAL.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


CONNECTION_ADVICE = {
    "password authentication failed": "are role and password right, and its special characters percent-encoded? "
    "Was the invitation of this machine revoked, or replaced by another one?",
    "no password supplied": "put it into the URL, postgresql://USER:PASSWORD@HOST/DATABASE",
    "no encryption": "add ?sslmode=verify-full&sslrootcert=FILE to the URL",
    "does not support SSL": "is it the right server? Ours speaks TLS",
    "root certificate file": "copy the CA's certificate there, or name its place with sslrootcert=FILE",
    "certificate verify failed": "is sslrootcert the CA of this server, and are clock and certificates in date?",
    "does not match host name": "use the name that the certificate has",
    "does not exist": "are the names of role and database right?",
    "too many connections": "fewer workers, a larger max_connections, or PgBouncer",
    "too many clients": "fewer workers, a larger max_connections, or PgBouncer",
    "permission denied": "let the role connect to this database",
}
"""What to do, by what libpq and the server say (workers/README.md shows them all); without one, the server is away."""


def _way_out(reason: str) -> str:
    return next((way for words, way in CONNECTION_ADVICE.items() if words in reason), "is the server there?")


def _reason(error: Exception) -> str:
    """The driver's own words in one line, without SQL, without the URL, and without libpq's question."""
    question = "Is the server running on that host and accepting TCP/IP connections?"
    return driver_message(error).removesuffix(question).rstrip(": ")
