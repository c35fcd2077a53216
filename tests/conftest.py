"""Fixtures for the tests that need a database."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from miiii_search.storage.database import Database, open_database
from miiii_search.testing.postgres import DatabaseServer, PostgresServer
from tests.support import all_tables, log_lines

# A busy machine may hold up any example.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[DatabaseServer]:
    """The server at TEST_DATABASE_URL, or else one that lives as long as the session."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield DatabaseServer(url)
    else:
        with PostgresServer() as server:
            yield server


@pytest.fixture
def postgres_url(postgres_server: DatabaseServer) -> Iterator[str]:
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def storage_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if request.param == "sqlite":
        opened = open_database(f"sqlite:///{tmp_path_factory.mktemp('shared')}/test.db", create=True)
        yield opened
        opened.close()
        return
    server: DatabaseServer = request.getfixturevalue("postgres_server")
    url = server.create_database()
    opened = open_database(url, create=True)
    yield opened
    opened.close()
    server.drop_database(url)


@pytest.fixture
def database(shared_database: Database) -> Iterator[Database]:
    """Tables as a new database has them."""
    yield shared_database
    with shared_database.transaction() as connection:
        for table in reversed(all_tables()):
            connection.execute(table.delete())


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Lines that the package logs during the test, from the level INFO on."""
    with log_lines() as lines:
        yield lines
