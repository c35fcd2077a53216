"""The PostgreSQL server that the other tests rely on."""

from collections.abc import Iterator
from typing import Literal

import pytest
import sqlalchemy as sa

from miiii_search.testing.postgres import DatabaseServer, PostgresServer, open_engine


@pytest.fixture(scope="module")
def private_server() -> Iterator[PostgresServer]:
    """A server that a test may stop, which the one at TEST_DATABASE_URL is not."""
    with PostgresServer() as server:
        yield server


def test_storage_url_answers(storage_url: str) -> None:
    with open_engine(storage_url).connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1


def test_databases_are_separate(postgres_server: DatabaseServer, postgres_url: str) -> None:
    other_url = postgres_server.create_database()
    with open_engine(postgres_url).begin() as connection:
        connection.execute(sa.text("CREATE TABLE item (id INTEGER)"))
    with open_engine(other_url).connect() as connection:
        assert not sa.inspect(connection).has_table("item")
        postgres_server.drop_database(other_url)
        with pytest.raises(sa.exc.OperationalError):
            connection.execute(sa.text("SELECT 1"))


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_data_outlive_a_stop(private_server: PostgresServer, mode: Literal["fast", "immediate"]) -> None:
    url = private_server.create_database()
    with open_engine(url).begin() as connection:
        connection.execute(sa.text("CREATE TABLE item AS SELECT 7 AS id"))
    private_server.stop(mode)
    with pytest.raises(sa.exc.OperationalError, match="refused"):
        open_engine(url).connect()
    private_server.start()
    with open_engine(url).connect() as connection:
        assert connection.scalar(sa.text("SELECT id FROM item")) == 7


def test_wrong_password_is_refused(private_server: PostgresServer) -> None:
    url = sa.make_url(private_server.url).set(password="wrong").render_as_string(hide_password=False)
    with pytest.raises(sa.exc.OperationalError, match="password authentication failed"):
        open_engine(url).connect()
