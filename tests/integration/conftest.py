from collections.abc import Iterator
from pathlib import Path

import pytest

from miiii_search.testing.failpoints import Failpoints
from miiii_search.testing.processes import Processes

MARKED_BY_THEMSELVES = ("test_browser.py", "test_compose.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder: nearly all of them start processes."""
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name not in MARKED_BY_THEMSELVES:
            item.add_marker("process")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path)
    yield processes
    processes.close()


@pytest.fixture
def failpoints(processes: Processes, tmp_path: Path) -> Failpoints:
    """Failpoints of all processes that the test starts."""
    made = Failpoints(tmp_path / "failpoints")
    processes.environment |= made.environment
    return made
