"""Messages about a storage that cannot be opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from miiii_search.errors import AccessRefusedError, MiiiiSearchError, StorageUnavailableError
from miiii_search.storage.database import open_database
from miiii_search.storage.error_advice import explain
from miiii_search.study.create import create_study
from miiii_search.testing.postgres import DatabaseServer, PostgresServer, open_engine
from tests.support import make_spec


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"password": "wrong"}, AccessRefusedError, "are role and password right"),
        ({"database": "nothing"}, AccessRefusedError, "are the names of role and database right"),
        ({"query": {"sslmode": "verify-full", "sslrootcert": "/none.crt"}}, StorageUnavailableError, "Ours uses TLS"),
        ({"port": 1}, StorageUnavailableError, "is the server there"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_refused_connection_comes_with_advice(
    postgres_url: str, change: dict[str, Any], kind: type[MiiiiSearchError], words: str
) -> None:
    url = sa.make_url(postgres_url).set(**change).render_as_string(hide_password=False)
    with pytest.raises(kind, match=words):
        open_database(url)


@pytest.mark.postgres
def test_a_server_that_stops_while_it_is_opened_is_unreachable() -> None:
    """It stops after our first access and before Optuna's."""
    with PostgresServer() as server:
        url = server.create_database()
        open_database(url, create=True).close()

        def leave(_c: object, _d: object, statement: str, *_: object) -> None:
            if "FROM version_info" in statement:
                server.stop("immediate")

        sa.event.listen(sa.Engine, "before_cursor_execute", leave)
        try:
            with pytest.raises(StorageUnavailableError, match=r"cannot reach .*; is the server there"):
                open_database(url)
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", leave)


def test_a_role_without_rights_gets_an_error(postgres_server: DatabaseServer, postgres_url: str) -> None:
    open_database(postgres_url, create=True).close()
    role = f"{sa.make_url(postgres_url).database}_guest"
    with open_engine(postgres_server.url).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'guest'")
        try:
            url = sa.make_url(postgres_url).set(username=role, password="guest")
            with pytest.raises(MiiiiSearchError, match="permission denied for table"):
                open_database(url.render_as_string(hide_password=False))
        finally:
            connection.exec_driver_sql(f"DROP ROLE {role}")


@pytest.mark.parametrize("create", [False, True], ids=["to read", "to create"])
@pytest.mark.parametrize(
    ("revision", "words"),
    [("v3.0.0.d", "make a backup, then type: optuna storage upgrade --storage"), ("v9.0.0", "use the version of")],
    ids=["older", "newer"],
)
def test_tables_of_another_optuna(storage_url: str, revision: str, words: str, create: bool) -> None:
    opened = open_database(storage_url, create=True)
    create_study(opened, "s", make_spec())
    opened.close()
    with open_engine(storage_url).begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    with pytest.raises(MiiiiSearchError, match=words) as refused:
        open_database(storage_url, create=create)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("create", [False, True], ids=["to read", "to create"])
@pytest.mark.parametrize(
    "table", ["studies (id INTEGER, title TEXT)", "alembic_version (version_num TEXT)", "trials (id INTEGER)"]
)
def test_a_database_of_another_program_is_left_alone(storage_url: str, table: str, create: bool) -> None:
    engine = open_engine(storage_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {table}")
    with pytest.raises(MiiiiSearchError, match=r"another program.*; choose another --storage"):
        open_database(storage_url, create=create)
    assert sa.inspect(engine).get_table_names() == [table.split(maxsplit=1)[0]]


def test_a_server_may_hold_tables_of_others(postgres_url: str, tmp_path: Path) -> None:
    """A file may not, because it was most likely named by mistake."""
    file = f"sqlite:///{tmp_path}/photos.db"
    for url in (postgres_url, file):
        with open_engine(url).begin() as connection:
            connection.exec_driver_sql("CREATE TABLE photos (id INTEGER)")
    open_database(postgres_url, create=True).close()
    with pytest.raises(MiiiiSearchError, match="another program's: it has a table `photos`"):
        open_database(file, create=True)


def sqlite_error(file: Path, script: str, url: str = "") -> sa.exc.DBAPIError:
    """Return the error that SQLite itself raises for the last statement of a script."""
    engine = sa.create_engine(url or f"sqlite:///{file}", poolclass=sa.NullPool)
    with engine.connect() as connection, pytest.raises(sa.exc.DBAPIError) as raised:
        for statement in script.split(";"):
            connection.exec_driver_sql(statement)
    return raised.value


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("PRAGMA max_page_count = 1; CREATE TABLE a (x); CREATE TABLE b (x); CREATE TABLE c (x)", "free space there"),
        ("PRAGMA query_only = 1; CREATE TABLE a (x)", "write"),
        ("SELECT * FROM a", "not those of this version"),
        ("CREATE TABLE a (x UNIQUE); INSERT INTO a VALUES (1); INSERT INTO a VALUES (1)", None),
    ],
    ids=["full", "read-only", "no table", "a bug of this package"],
)
def test_errors_of_sqlite_are_one_line(tmp_path: Path, script: str, words: str | None) -> None:
    line = explain(sqlite_error(tmp_path / "a.db", script), "sqlite:///a.db")
    assert (line is None) == (words is None)
    if line is not None and words is not None:
        assert line.startswith("cannot use sqlite:///a.db: ") and words in line and "\n" not in line


def test_a_text_file_is_no_database(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but longer than the header of one " * 10)
    line = explain(sqlite_error(file, "SELECT * FROM sqlite_master"), str(file))
    assert line is not None and "restore a backup" in line and "SELECT" not in line


def test_errors_of_postgresql_are_one_line(postgres_url: str) -> None:
    """A right that is missing, and a connection that the server ends while it is used."""
    with open_engine(postgres_url).connect() as connection:
        connection.exec_driver_sql("CREATE ROLE reader_of_none")
        connection.exec_driver_sql("CREATE TABLE a (x int)")
        connection.exec_driver_sql("SET LOCAL ROLE reader_of_none")
        with pytest.raises(sa.exc.DBAPIError) as refused:
            connection.exec_driver_sql("SELECT * FROM a")
        connection.rollback()  # which takes back the role too
    with open_engine(postgres_url).connect() as connection, pytest.raises(sa.exc.DBAPIError) as ended:
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
    for error, words in ((refused.value, "permission denied for table a"), (ended.value, "once it is back")):
        line = explain(error, "postgresql://db")
        assert line is not None and words in line and "\n" not in line
    assert explain(ValueError("not of a database"), "postgresql://db") is None
