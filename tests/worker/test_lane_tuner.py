"""The lane tuner holds one run back while it measures, and gives it to the pool afterwards unless it was withdrawn."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.study.study import Study
from miiii_search.study.trials import shape_of
from miiii_search.testing.trainer_pool import FakeTrainerPool
from miiii_search.training.lane_state import RunProgress
from miiii_search.training.program import Program, ProgramKey
from miiii_search.training.trainer_messages import RunRequest, RunsOutOfMemory
from miiii_search.trial_queue.leases import Lease
from miiii_search.worker import lane_tuner
from miiii_search.worker.active_trial import ActiveTrial
from miiii_search.worker.lane_tuner import LaneTuner
from tests.support import TINY, wait_until
from tests.worker.support import active


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


def trial(study: Study, lanes: int, epoch: int = 0, begun_at: int = 0) -> ActiveTrial:
    """A trial that was claimed with a number of lanes, and trained from one epoch to another."""
    made = active(study, Lease(1, 1, "token"), lanes_at_claim=lanes)
    made.history.progress = RunProgress(epoch, None, None, ended=False)
    made.history.origin = {"epoch": begun_at} if begun_at else {}
    return made


@pytest.mark.parametrize(
    ("lanes", "at_claim", "n_hit", "n_training", "expected"),
    [
        (16, 16, 16, 16, 12),  # the next lower width of a program
        (8, 8, 5, 8, 7),  # three go on, and four of the five fit
        (4, 4, 1, 4, 3),
        (4, 4, 4, 4, 3),
        (2, 2, 2, 2, 1),
        (None, 8, 8, 8, 6),  # measured meanwhile
        (4, 8, 8, 8, 4),  # lowered already, by an earlier message
    ],
)
def test_fewer_lanes_after_the_memory_was_too_small(
    study: Study, logged: list[str], lanes: int | None, at_claim: int, n_hit: int, n_training: int, expected: int
) -> None:
    tuner = LaneTuner(lanes, Pool(), {})
    hit = [trial(study, at_claim)] * n_hit
    tuner.shrink(RunsOutOfMemory(tuple(range(n_hit)), None, "full"), hit, n_training)
    assert tuner.lanes == expected and not tuner.unfit
    if lanes != expected:
        assert logged == [
            f"out of memory with {at_claim} lanes (full): at most {expected} from now on; {n_hit} go back to the queue"
        ]
    else:
        assert logged == []
    tuner.shrink(RunsOutOfMemory((99,), None, "full"), [], 0)  # of trials that the worker has no more
    assert tuner.lanes == expected


def test_a_shape_does_not_fit_after_two_failures_of_a_lone_lane_without_progress(
    study: Study, logged: list[str]
) -> None:
    tuner, shape = LaneTuner(1, Pool(), {}), shape_of(16, 2)
    event = RunsOutOfMemory((1,), 3 * 2**20, "full")
    tuner.shrink(event, [trial(study, 1)], 1)
    assert tuner.unfit == {}
    tuner.shrink(event, [trial(study, 1, epoch=4)], 1)  # it made progress, so one failure is counted
    tuner.shrink(RunsOutOfMemory((1,), None, "full"), [trial(study, 1, epoch=4, begun_at=4)], 1)
    assert tuner.unfit == {shape: "does not fit (full)"} and tuner.lanes == 1
    tuner.shrink(event, [trial(study, 1)], 1)
    assert tuner.unfit == {shape: "needs 3 MiB per lane (full)"}
    assert logged[0] == (
        f"out of memory with 1 lane: trial 1 goes back to the queue, {shape} needs 3 MiB per lane (full)"
    )


@pytest.mark.parametrize("error", [MemoryError("no memory"), ZeroDivisionError()])
def test_a_measurement_that_fails(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Without memory, one lane is tried. Any other error ends the worker."""

    def fail(*_: object) -> tuple[int, str]:
        raise error

    monkeypatch.setattr(lane_tuner, "choose_lanes", fail)
    monkeypatch.setattr(lane_tuner, "is_out_of_memory", lambda error: isinstance(error, MemoryError))
    pool = Pool()
    tuner = LaneTuner(None, pool, {})
    tuner.admit([])
    tuner.admit(requests([1]))
    if isinstance(error, MemoryError):
        wait_until(lambda: not tuner.is_measuring())
        assert tuner.lanes == 1 and pool.numbers == [1]
    else:
        with pytest.raises(ZeroDivisionError):
            wait_until(lambda: not tuner.is_measuring())
