"""Programs that several test files share, since compiling one takes longer than most tests."""

from collections.abc import Iterator

import pytest

from miiii_search.training.lanes import Lanes
from miiii_search.training.program import ProgramKey
from tests.training.small import NARROW, SMALL


@pytest.fixture(scope="session")
def compiled_once() -> dict[bool, Lanes]:
    """Sequential (False) and batched (True) lanes for runs of the shape of `SMALL` and `NARROW`."""
    return {batched: Lanes(ProgramKey.of(SMALL, NARROW), batched) for batched in (False, True)}


def _emptied(lanes: Lanes) -> Iterator[Lanes]:
    assert len(lanes) == 0
    yield lanes
    for lane in sorted(lanes._progress):
        lanes.release(lane)


@pytest.fixture
def sequential(compiled_once: dict[bool, Lanes]) -> Iterator[Lanes]:
    yield from _emptied(compiled_once[False])


@pytest.fixture
def batched(compiled_once: dict[bool, Lanes]) -> Iterator[Lanes]:
    yield from _emptied(compiled_once[True])


@pytest.fixture(params=[False, True], ids=["sequential", "batched"])
def lanes(compiled_once: dict[bool, Lanes], request: pytest.FixtureRequest) -> Iterator[Lanes]:
    yield from _emptied(compiled_once[request.param])
