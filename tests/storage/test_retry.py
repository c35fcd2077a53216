"""Errors that mean that the database is unavailable, and retries."""

from __future__ import annotations

import itertools
import math
import threading
import time

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.errors import AccessRefusedError, StorageUnavailableError
from miiii_search.storage import engines
from miiii_search.storage.database import open_database
from miiii_search.storage.retry import DatabaseRetry, driver_message, is_outage
from miiii_search.study.create import create_study
from miiii_search.testing.postgres import PostgresServer, open_engine
from tests.support import log_lines, make_spec


@pytest.mark.postgres
def test_a_connection_that_is_lost_while_optuna_reads(logged: list[str]) -> None:
    """Optuna 5.0 repeats the query on the lost connection and reports the second error. Found by a soak test."""
    with PostgresServer() as server:
        database = open_database(server.create_database(), create=True)
        study = create_study(database, "lost", make_spec())
        [trial_id] = study.read_trials([study.trials()[0]._trial_id])

        def kill(_c: object, _d: object, statement: str, *_: object) -> None:
            if "FROM trials" in statement:
                server.stop("immediate")

        sa.event.listen(database.optuna.engine, "before_cursor_execute", kill)
        retry = DatabaseRetry()
        with pytest.raises(StorageUnavailableError):
            retry.attempt(lambda: study.read_trials([trial_id]))
        sa.event.remove(database.optuna.engine, "before_cursor_execute", kill)
        assert len(logged) == 1 and "closed the connection" in logged[0] and "\n" not in logged[0]
        server.start()
        again = retry.retry_until(lambda: study.read_trials([trial_id]), threading.Event())
        assert again[trial_id].state == TrialState.WAITING and retry.is_unavailable is False
        database.close()


@pytest.mark.postgres
def test_a_refused_login_is_distinguished_from_an_outage() -> None:
    """Retries end when the login is refused for too long. While a server is down, they never end."""
    with PostgresServer() as server:
        owner = open_engine(server.url).execution_options(isolation_level="AUTOCOMMIT")
        url = sa.make_url(server.url).set(username="guest", password="secret")
        engine = open_engine(url.render_as_string(False))

        def execute(statement: str) -> None:
            with owner.connect() as connection:
                connection.exec_driver_sql(statement)

        def connect() -> None:
            engine.connect().close()

        def ends(refusal_seconds: float) -> type[Exception]:
            with pytest.raises((StorageUnavailableError, AccessRefusedError)) as caught:
                DatabaseRetry(refusal_seconds=refusal_seconds).attempt(connect)
            return caught.type

        assert ends(0) is AccessRefusedError, "no such role"
        execute("CREATE ROLE guest LOGIN PASSWORD 'another'")
        assert (ends(0), ends(60), ends(math.inf)) == (
            AccessRefusedError,
            StorageUnavailableError,
            StorageUnavailableError,
        )
        execute("ALTER ROLE guest NOLOGIN PASSWORD 'secret'")
        assert ends(0) is AccessRefusedError, "not permitted"
        retry = DatabaseRetry(refusal_seconds=60)
        with log_lines() as logged:
            with pytest.raises(StorageUnavailableError):
                retry.attempt(connect)
            execute("ALTER ROLE guest LOGIN")
            retry.retry_until(connect, threading.Event())
        assert "refuses the login" in logged[0] and "for 60 s" in logged[0] and "is back" in logged[1]
        execute("ALTER ROLE guest CONNECTION LIMIT 0")
        assert ends(0) is StorageUnavailableError, "too many connections"
        server.stop()
        assert ends(0) is StorageUnavailableError, "no server"


@pytest.mark.postgres
def test_a_read_only_server_is_an_outage() -> None:
    """A standby is read-only until it takes over."""
    with PostgresServer() as server:
        url = server.create_database()
        database = open_database(url, create=True)
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("SET default_transaction_read_only = on")
            with pytest.raises(sa.exc.DBAPIError) as caught:
                connection.exec_driver_sql("CREATE TABLE t (a int)")
        assert is_outage(caught.value) and "read-only" in driver_message(caught.value)
        database.close()


def test_a_file_that_stays_locked_is_an_outage(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped in the middle of a transaction keeps the lock."""
    monkeypatch.setattr(engines, "SQLITE_LOCK_SECONDS", 0.1)
    database, other = (open_database(f"sqlite:///{tmp_path}/a.db", create=True) for _ in range(2))
    with other.transaction(), pytest.raises(sa.exc.DBAPIError) as caught, database.transaction():
        pass
    assert is_outage(caught.value)
    assert (
        driver_message(caught.value) == "database is locked; is a process that uses it stopped, for example by Ctrl-Z?"
    )
    database.close()
    other.close()


def test_an_error_in_a_statement_is_not_an_outage(tmp_path: object) -> None:
    database = open_database(f"sqlite:///{tmp_path}/a.db", create=True)
    for statement in (
        "SELECT * FROM nothing",
        "SELECT nothing FROM trials",
        "INSERT INTO trials (trial_id) VALUES (1), (1)",
    ):
        with database.engine.connect() as connection, pytest.raises(sa.exc.DBAPIError) as caught:
            connection.exec_driver_sql(statement)
        assert not is_outage(caught.value)
    database.close()


def test_attempts_wait_longer_and_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waits are 0.5, 1, 2, ..., 30 seconds, unless the caller skips one. Nothing is attempted during a wait."""
    now, attempts = 100.0, list[float]()
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def fail() -> None:
        attempts.append(now)
        raise sa.exc.OperationalError("SELECT 1", {}, Exception("server closed the connection unexpectedly"))

    retry = DatabaseRetry()
    while now < 250.0:
        with pytest.raises(StorageUnavailableError):
            retry.attempt(fail)
        now += 0.25
    assert [later - earlier for earlier, later in itertools.pairwise(attempts)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    retry.skip_wait()
    assert retry.attempt(lambda: "back") == "back" and not retry.is_unavailable
