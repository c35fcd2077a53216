"""The databases on which the contract of the queue is tested."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from miiii_search.storage.database import Database, open_database
from miiii_search.testing.postgres import DatabaseServer
from tests.backends import Backend, MemoryBackend, SqlBackend
from tests.support import all_tables


@pytest.fixture(scope="module", params=["memory", "sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database | None]:
    """Open a database for all tests of a module; None stands for the fake."""
    if request.param == "memory":
        yield None
        return
    server: DatabaseServer | None = None
    url = f"sqlite:///{tmp_path_factory.mktemp('contract')}/test.db"
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
        url = server.create_database()
    database = open_database(url, create=True)
    yield database
    database.close()
    if server is not None:
        server.drop_database(url)


@pytest.fixture
def backend(opened: Database | None) -> Iterator[Backend]:
    """An empty database with a clock that the test sets."""
    if opened is None:
        yield MemoryBackend()
        return
    one = SqlBackend(opened)
    with one.clock():
        yield one
    with opened.transaction() as connection:
        for table in reversed(all_tables()):
            connection.execute(table.delete())
