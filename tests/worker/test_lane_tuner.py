"""The lane tuner holds one run back while it measures, and gives it to the pool afterwards unless it was withdrawn."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.testing.trainer_pool import FakeTrainerPool
from miiii_search.training.program import Program, ProgramKey
from miiii_search.training.trainer_messages import RunRequest
from miiii_search.worker import lane_tuner
from miiii_search.worker.lane_tuner import LaneTuner
from tests.support import TINY, wait_until


class Pool(FakeTrainerPool[RunRequest]):
    """A pool that remembers which runs it was given."""

    def start_run(self, run: RunRequest) -> None:
        self._lanes[run.number] = run

    def program(self, key: ProgramKey) -> Program:
        """Return a program that is never compiled."""
        return Program(key)

    @property
    def numbers(self) -> list[int]:
        return sorted(self._lanes)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Return the event that ends the measurement, which finds that four lanes train fastest."""
    end = threading.Event()

    def choose(program: Program, experiment: Experiment, hyperparameters: Hyperparameters) -> tuple[int, str]:
        assert end.wait(600)
        return 4, "measured by a test"

    monkeypatch.setattr(lane_tuner, "choose_lanes", choose)
    return end


def requests(numbers: Sequence[int]) -> list[RunRequest]:
    return [RunRequest(number, TINY, Hyperparameters(d_model=16, n_heads=2)) for number in numbers]


@pytest.mark.parametrize("withdrawn", [False, True])
def test_a_run_waits_for_the_measurement_unless_it_is_withdrawn(measured: threading.Event, withdrawn: bool) -> None:
    """A trial whose lease is lost during the measurement must not be trained afterwards."""
    pool = Pool()
    tuner = LaneTuner(None, pool, {})
    tuner.admit(requests([1]))
    assert tuner.is_measuring() and tuner.lanes == 1 and pool.numbers == []
    tuner.withdraw(2)  # another run
    if withdrawn:
        tuner.withdraw(1)
    measured.set()
    wait_until(lambda: not tuner.is_measuring())
    assert tuner.lanes == 4
    assert pool.numbers == ([] if withdrawn else [1])
    tuner.admit(requests([3, 4]))
    assert pool.numbers[-2:] == [3, 4]
