"""Fixtures for the tests that need a database, and the markers that sort tests into tiers.

`make test` leaves out the tests with one of `NEEDS_MORE`, and says so at the end. A test is marked by the fixtures
that it uses, by the folder it is in, or by `pytestmark` in its module.
"""

import functools
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
import pytest

from miiii_search import failpoints
from miiii_search.storage.database import Database, open_database
from miiii_search.testing.failpoints import Failpoints
from miiii_search.testing.postgres import DatabaseServer, PostgresServer
from tests.support import all_tables, log_lines

# A busy machine may hold up any example. `make test` uses the profile `fast`.
BUSY: dict[str, Any] = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("thorough", max_examples=100, **BUSY)
hypothesis.settings.register_profile("fast", max_examples=20, **BUSY)
hypothesis.settings.load_profile("thorough")

NEEDS_MORE = ("postgres", "process", "browser", "docker", "slow", "soak", "gpu_compile")
"""Markers of the tests that need a server, real processes, a browser, a container engine, or more than seconds."""

_left_out: Counter[str] = Counter()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of `make test` and of `make test-all`, which runs what `make test` has left."""
    parser.addoption("--fast", action="store_true", help="fewer examples, and programs that are compiled in less time")
    parser.addoption(
        "--rest", action="store_true", help="what --fast leaves out: tests that need more, all examples, real programs"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Name a folder for the compiled programs of all processes of the tests, which later sessions use too."""
    if os.access(config.rootpath, os.W_OK):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.rootpath / ".pytest_cache" / "jax"))
    if config.getoption("--fast"):
        hypothesis.settings.load_profile("fast")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Prepare JAX, if a test imports it. Compiling takes longer than most tests."""
    if "jax" not in sys.modules:
        return
    import jax

    from miiii_search.training import device, lanes, program, trainer_pool

    if session.config.getoption("--fast"):
        with mock.patch.dict(os.environ, XLA_FLAGS="--xla_backend_optimization_level=0"):
            jax.devices()  # XLA reads its flags once; processes that a test starts do not inherit them
        shared = functools.cache(program.Program)  # so no test compiles what another one has compiled
        vars(lanes)["Program"] = vars(trainer_pool)["Program"] = shared
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        device.use_compilation_cache()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark each test by what it uses, and leave out what `make test` has run just as it would run here."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "postgresql" in item.name or {"postgres_server", "postgres_url"} & set(fixtures):
            item.add_marker("postgres")
        if "processes" in fixtures:
            item.add_marker("process")
    if config.getoption("--rest"):
        items[:] = [item for item in items if _differs_without_fast(item)]


def _differs_without_fast(item: pytest.Item) -> bool:
    """Return whether a test needs more than `make test` has, or runs with more examples or other programs here."""
    needs_more = any(item.get_closest_marker(name) for name in NEEDS_MORE)
    has_examples = hypothesis.is_hypothesis_test(getattr(item, "obj", None))
    return needs_more or has_examples or "training" in item.path.parts


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count the tests that `-m` leaves out, each by the first of its markers in `NEEDS_MORE`."""
    for item in items:
        names = [name for name in NEEDS_MORE if name in item.config.option.markexpr]
        _left_out.update(next(([name] for name in names if item.get_closest_marker(name)), []))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let a process of pytest-xdist hand its counts to the process that prints the summary."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = dict(_left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the counts of a process of pytest-xdist. All of them collect the same tests."""
    _left_out.clear()
    _left_out.update(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests did not run, and how to run them."""
    soaks, compilations = _left_out.pop("soak", 0), _left_out.pop("gpu_compile", 0)
    if compilations:
        terminalreporter.write_line(f"left out: {compilations} tests that compile for GPUs: make test-gpu-compile")
    if _left_out:
        parts = ", ".join(f"{name} {_left_out[name]}" for name in NEEDS_MORE if _left_out[name])
        terminalreporter.write_line(f"left out: {_left_out.total()} tests ({parts}); to run them too: make test-all")
    elif soaks:
        terminalreporter.write_line(f"left out: {soaks} soak tests, of an hour; to run them: make test-faults")


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


@pytest.fixture
def failpoints_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Failpoints]:
    """Failpoints of the test's own process."""
    made = Failpoints(tmp_path / "failpoints")
    monkeypatch.setattr(failpoints, "folder", tmp_path / "failpoints")
    yield made
    made.close()
