"""A trainer on lanes that compute nothing: which run is saved, suspended or dropped, and what is posted."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import jax
import numpy as np
import pytest

from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training import autotune, device
from miiii_search.training.autotune import LaneMeasurement, choose_lanes
from miiii_search.training.lane_state import RunProgress
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import Program, ProgramKey
from miiii_search.training.trainer import Trainer
from miiii_search.training.trainer_messages import RunRequest, RunSaved, RunsOutOfMemory, RunSuspended, RunUpdate
from miiii_search.training.trainer_pool import TrainerPool

EXPERIMENT = Experiment(p=7, task="nanda", train_fraction=0.5, epochs=1_000_000, evaluate_every=4)
HYPERPARAMETERS = Hyperparameters(d_model=16, n_heads=2)
FULL = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory\nwhile allocating")


class PlainLanes:
    """Lanes that only count epochs. Each chunk waits for `go`, and raises `error` if there is one."""

    def __init__(self) -> None:
        self.epochs: dict[int, int] = {}
        self.state_epoch: dict[int, int] = {}
        self.computing = threading.Semaphore(0)
        self.go: queue.Queue[BaseException | None] = queue.Queue()
        self.width = 8
        self.is_ready = True
        self.failed: set[int] = set()

    def prepare(self, lanes: int, wait: bool) -> bool:
        return self.is_ready or wait

    def needs_wider_program(self, lanes: int) -> bool:
        return lanes > self.width

    def admit(self, experiment: Experiment, hyperparameters: Hyperparameters, state: Any) -> int:
        lane = len(self.epochs)
        if lane >= self.width:
            raise MemoryError
        self.epochs[lane] = int(state["epoch"]) if state else 0
        return lane

    def train_async(self, evaluations: int) -> Any:
        self.computing.release()
        error = self.go.get(timeout=600)
        for lane in self.epochs:
            self.epochs[lane] += 4
        if error is not None:
            raise error
        return SimpleNamespace(evaluations=lambda lane: 1)

    def progress(self, lane: int) -> RunProgress:
        failed = 2 if lane in self.failed else None
        return RunProgress(self.epochs[lane], None, failed, ended=failed is not None)

    def state(self, lane: int) -> dict[str, Any]:
        if self.state_epoch.get(lane) == -1:
            raise RuntimeError("the array has been deleted")
        return {"epoch": np.asarray(self.state_epoch.get(lane, self.epochs[lane]))}

    def spectrum(self, lane: int) -> Any:
        return np.ones((2, 2), np.float32)

    def weights(self, lane: int) -> dict[str, Any]:
        return {}

    def final_metrics(self, lane: int) -> dict[str, Any]:
        return {}

    def bytes_per_lane(self) -> int:
        return 42

    def release(self, lane: int) -> None:
        del self.epochs[lane]

    def clear(self) -> None:
        self.epochs.clear()


class Case:
    """A trainer, and the events that it posts."""

    def __init__(self, save_seconds: float = math.inf) -> None:
        self.lanes, self.events = PlainLanes(), queue.Queue[Any]()
        self.trainer = Trainer(cast(Lanes, self.lanes), self.events.put, save_seconds=save_seconds)
        self.is_computing = False

    def admit(self, *numbers: int, epoch: int = 0) -> None:
        state = {"epoch": np.asarray(epoch)} if epoch else None
        self.trainer.admit([RunRequest(number, EXPERIMENT, HYPERPARAMETERS, state) for number in numbers])

    def next(self) -> Any:
        return self.events.get(timeout=600)

    def compute(self, error: BaseException | None = None) -> None:
        """Let a chunk end."""
        self.wait_for_chunk()
        self.is_computing = False
        self.lanes.go.put(error)

    def wait_for_chunk(self) -> None:
        """Wait until a chunk is being computed. What the trainer is told from then on concerns the next one."""
        if not self.is_computing:
            assert self.lanes.computing.acquire(timeout=600)
            self.is_computing = True

    def train(self, *runs: int) -> None:
        """Let a chunk end that updates these runs, and wait for the next one."""
        self.compute()
        assert {self.next().run for _ in runs} == set(runs)
        self.wait_for_chunk()

    def close(self) -> None:
        self.trainer.close()
        self.lanes.go.put(None)
        self.trainer.join(600)


@pytest.fixture
def case() -> Iterator[Case]:
    made = Case(save_seconds=1e9)
    yield made
    made.close()


def test_runs_that_do_not_fit_are_saved_if_their_state_is_still_there(case: Case) -> None:
    case.admit(1, 2, 3, 4)
    case.train(1, 2, 3, 4)
    case.lanes.state_epoch = {0: 4, 1: 8, 2: -1, 3: 4}  # the second is beyond its update, the third is gone
    case.compute(FULL)
    events = [case.next() for _ in range(3)]
    assert [(event.run, event.epoch) for event in events[:2]] == [(1, 4), (4, 4)]
    assert isinstance(events[0], RunSaved)
    assert events[2] == RunsOutOfMemory((1, 2, 3, 4), 42, "RESOURCE_EXHAUSTED: out of memory")
    case.admit(5)  # it goes on with other runs
    case.train(5)


def test_before_a_wider_program_is_used_all_runs_are_saved(case: Case) -> None:
    case.admit(1)
    case.train(1)
    case.lanes.width = 1
    case.admit(2)
    case.compute()
    events = [case.next() for _ in range(4)]
    assert [type(event) for event in events] == [RunUpdate, RunSaved, RunSaved, RunsOutOfMemory]
    assert events[-1] == RunsOutOfMemory((1, 2), 42, "the host is out of memory")


def test_runs_wait_while_a_wider_program_is_compiled(case: Case) -> None:
    case.admit(1)
    case.train(1)
    case.lanes.is_ready = False
    case.admit(2, 3, 4)
    case.trainer.drop(2)
    case.trainer.suspend(3)
    case.compute()
    assert isinstance(case.next(), RunUpdate)
    assert case.next() == RunSuspended(3)  # it had not begun, so there is nothing to save
    case.wait_for_chunk()
    case.lanes.is_ready = True
    case.train(1)
    case.train(1, 4)


def test_a_run_is_suspended_stopped_and_dropped(case: Case) -> None:
    case.admit(1, 2, 3)
    case.train(1, 2, 3)
    case.trainer.suspend(1)
    case.trainer.stop(2)
    case.trainer.drop(3)
    case.compute()
    [*first] = [case.next() for _ in range(3)]
    assert {event.run for event in first} == {1, 2, 3}  # of the chunk that was being computed
    saved, suspended = case.next(), case.next()
    assert (saved.run, saved.epoch, suspended) == (1, 8, RunSuspended(1))
    case.compute()
    stopped = case.next()
    assert stopped.run == 2 and stopped.final_state is not None and not stopped.progress.ended


def test_without_an_interval_nothing_is_saved() -> None:
    case = Case()
    case.admit(1, 2)
    case.train(1, 2)
    case.trainer.suspend(1)
    case.train(1, 2)
    assert case.next() == RunSuspended(1)
    case.compute(FULL)
    assert case.next() == RunsOutOfMemory((2,), 42, "RESOURCE_EXHAUSTED: out of memory")
    case.close()
    assert case.events.empty()


def test_runs_are_saved_at_intervals_unless_they_have_failed() -> None:
    case = Case(save_seconds=0.0)
    case.admit(1, epoch=40)
    case.compute()
    update, saved = case.next(), case.next()
    assert (update.progress.epoch, saved.epoch) == (44, 44)
    case.lanes.failed.add(0)
    case.compute()
    failed = case.next()
    assert failed.final_state is not None and failed.final_state.weights == {} and failed.weight_snapshot is None
    case.close()
    assert case.events.empty()


def test_another_error_ends_the_trainer() -> None:
    case = Case()
    case.admit(1)
    error = ZeroDivisionError()
    case.compute(error)
    assert case.next() is error
    case.trainer.join(600)


def test_a_trainer_that_waits_for_its_turn_ends_at_once() -> None:
    lanes, events, turn = PlainLanes(), queue.Queue[Any](), threading.Lock()
    asks = threading.Event()

    class Turn:
        def __enter__(self) -> None:
            asks.set()
            turn.acquire()

        def __exit__(self, *_: object) -> None:
            turn.release()

    turn.acquire()
    trainer = Trainer(cast(Lanes, lanes), events.put, Turn())
    trainer.admit([RunRequest(1, EXPERIMENT, HYPERPARAMETERS)])
    assert asks.wait(600)
    trainer.close()
    turn.release()
    trainer.join(600)
    assert events.empty() and lanes.epochs == {0: 0}


def test_a_pool_that_knows_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = TrainerPool(batched=True)
    pool.stop(1)
    pool.drop(1)
    assert not pool.suspend(1) and pool.devices == jax.device_count() and pool.keys == []
    pool.close(0)


# The device


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SimpleNamespace(update=lambda *_: None)
    monkeypatch.setattr(jax, "config", config)
    with pytest.raises(MiiiiSearchError, match="must be auto, cpu or cuda, but is `tpu`"):
        device.choose_device("tpu")
    device.choose_device("auto")
    device.choose_device("cpu")
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    with pytest.raises(MiiiiSearchError, match="this worker is for CUDA, but sees no GPU"):
        device.choose_device("cuda")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    device.choose_device("cuda")

    def fail() -> Any:
        raise RuntimeError("no plugin")

    monkeypatch.setattr(jax, "default_backend", fail)
    with pytest.raises(MiiiiSearchError, match="sees no GPU"):
        device.choose_device("cuda")
    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    with pytest.raises(MiiiiSearchError, match=r"JAX finds no device \(no plugin\); JAX_PLATFORMS=cpu"):
        device.describe_device()
    monkeypatch.setenv("JAX_PLATFORMS", "rocm")
    with pytest.raises(MiiiiSearchError, match="JAX finds no device of the kind `rocm`"):
        device.describe_device()
    gpu = SimpleNamespace(platform="gpu", device_kind="A", memory_stats=lambda: {"bytes_limit": 100})
    monkeypatch.setattr(jax, "devices", lambda: [gpu])
    assert device.describe_device() == "gpu (A)" and autotune.device_memory() == 100
    cpu = SimpleNamespace(platform="cpu", memory_stats=lambda: None)
    monkeypatch.setattr(jax, "devices", lambda: [gpu, cpu])
    assert autotune.device_memory() is None


@pytest.mark.parametrize(
    ("speeds", "size", "error", "lanes", "why"),
    [
        ({1: 10, 2: 19, 4: 35}, None, None, 4, "1 train 10 epochs/s, 2 train 19 epochs/s, 4 train 35 epochs/s"),
        ({1: 10, 2: 10, 4: 10}, None, None, 1, "1 train 10 epochs/s, 2 train 10 epochs/s, 4 train 10 epochs/s"),
        ({1: 10, 2: 10, 4: 10, 8: 99}, None, None, 1, "1 train 10 epochs/s, 2 train 10 epochs/s, 4 train 10 epochs/s"),
        ({1: 10, 2: 19, 4: 35}, 2**20, None, 2, "2 train 19 epochs/s; a lane takes 1 of the device's 4 MiB"),
        ({1: 10, 2: 19}, None, FULL, 2, "1 train 10 epochs/s, 2 train 19 epochs/s; more do not fit"),
    ],
)
def test_how_many_lanes_are_chosen(
    monkeypatch: pytest.MonkeyPatch,
    speeds: dict[int, float],
    size: int | None,
    error: Exception | None,
    lanes: int,
    why: str,
) -> None:
    def measure(*_: object) -> Iterator[LaneMeasurement]:
        yield from (LaneMeasurement(number, speed, size) for number, speed in speeds.items())
        if error is not None:
            raise error

    monkeypatch.setattr(autotune, "measure_lanes", measure)
    monkeypatch.setattr(autotune, "device_memory", lambda: 4 * 2**20)
    program = Program(ProgramKey.of(EXPERIMENT, HYPERPARAMETERS))
    chosen, words = choose_lanes(program, EXPERIMENT, HYPERPARAMETERS)
    assert chosen == lanes and words.endswith(why)


def test_a_measurement_that_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*_: object) -> Iterator[LaneMeasurement]:
        raise FULL
        yield

    monkeypatch.setattr(autotune, "measure_lanes", measure)
    with pytest.raises(jax.errors.JaxRuntimeError):
        choose_lanes(Program(ProgramKey.of(EXPERIMENT, HYPERPARAMETERS)), EXPERIMENT, HYPERPARAMETERS)
