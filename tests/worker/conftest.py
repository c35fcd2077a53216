"""Studies on SQLite for the parts of a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from miiii_search.storage.database import Database, open_database
from miiii_search.study.create import create_study
from miiii_search.study.study import Study
from tests.support import all_tables, make_spec


@pytest.fixture(scope="module")
def file_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A SQLite database for all tests of a module."""
    opened = open_database(f"sqlite:///{tmp_path_factory.mktemp('worker')}/test.db", create=True)
    yield opened
    opened.close()


@pytest.fixture
def study(file_database: Database) -> Iterator[Study]:
    """A study of 24 trials that nobody has claimed."""
    yield create_study(file_database, "study", make_spec())
    with file_database.transaction() as connection:
        for table in reversed(all_tables()):
            connection.execute(table.delete())
