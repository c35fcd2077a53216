"""A database of each kind that many tests share, since making one takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from miiii_search.search.storage import Database, open_database
from tests.postgres import DatabaseServer
from tests.search.support import all_tables


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
