"""Question: how long does a batched device wait for the host between two chunks?

    python bench/host_loop.py [--quick] [--json FILE]

A worker trains one trial per lane of a study on SQLite. The device is imitated. The CPU computes each chunk, which
then lasts as long as on a GPU that trains 5,000 epochs per second of all lanes together, 16 per evaluation. The
processor is free meanwhile, as while a GPU computes. The networks are narrow and have few samples, but all 29 tasks.
So the arrays, scalars and rows are as many as those of the paper's runs.

The output has one row per number of lanes. A wait is the time from the end of a chunk to the start of the next:

- `ms per chunk`: the median wait, and therein `ms of CPU` of the trainer's thread, which depends less on other load;
- `ms while drawing`: the median wait while another thread draws the figure of a trial that has ended;
- `ms per call`: the time that the call of a program takes whose lanes have all ended;
- `% of a second`: the wait and the call, as a share of a chunk of one second;
- `s of growth`: the wait before the first chunk of all lanes, for which each of them has been admitted.

A second table has the time per lane of the operations that copy whole states, at the paper's d = 256.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from measuring import make_parser, parse_arguments, print_table, wait_for, write_json

from miiii_search.analysis.figures.curves import learning_curves
from miiii_search.config.study_sections import Pruning
from miiii_search.config.study_spec import StudySpec
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.storage.database import open_database
from miiii_search.study.create import create_study
from miiii_search.training.lane_stores import LANE_WIDTHS, VmappedLanes
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import ProgramKey
from miiii_search.training.trainer_pool import TrainerPool
from miiii_search.worker.worker import Worker

EVALUATIONS_PER_SECOND = 5000 / 16
"""Speed of the imitated device, in evaluations per second of all lanes together: an epoch of a lane takes 0.2 ms."""

EXPERIMENT = Experiment(train_fraction=0.001, validation_samples=12, epochs=10**6, evaluate_every=2)
NARROW = Hyperparameters(d_model=8, n_heads=2, learning_rate=1e-4)

WARM_UP_CHUNKS = 6
"""Chunks of all lanes that are not counted: they become longer, and copying a new number of rows is compiled."""

QUIET_CHUNKS = 8
"""Chunks of all lanes in which nothing else happens. As many follow while figures are drawn."""

COPIES = 8
"""Lanes that are copied per measurement, at d = 256."""


@dataclass(frozen=True)
class Wait:
    """A wait of the device before a chunk."""

    seconds: float
    thread_seconds: float
    """Processor time of the thread that starts the chunk."""
    width: int


@dataclass
class DeviceLog:
    """The waits of the imitated device."""

    waits: list[Wait] = field(default_factory=list)
    idle_since: float = field(default_factory=time.monotonic)
    thread_seconds: float = 0.0

    def of_width(self, width: int) -> list[Wait]:
        """Return the waits before chunks of this width."""
        return [wait for wait in self.waits if wait.width == width]


@dataclass
class ImitatedDevice:
    """A compiled program whose chunks last as long as on a fast device."""

    program: Any
    width: int
    log: DeviceLog

    def __call__(self, states: Any, evaluations: Any, data: Any) -> Any:
        """Compute a chunk, and wait until it would have ended."""
        began, log = time.monotonic(), self.log
        log.waits.append(Wait(began - log.idle_since, time.thread_time() - log.thread_seconds, self.width))
        result = self.program(states, evaluations, data)
        wait_for(result)
        trained = int(np.asarray(result[2]).sum())
        time.sleep(max(0.0, began + trained / EVALUATIONS_PER_SECOND - time.monotonic()))
        log.idle_since, log.thread_seconds = time.monotonic(), time.thread_time()
        return result

    def memory_analysis(self) -> Any:
        """Return the memory of the compiled program."""
        return self.program.memory_analysis()


@contextmanager
def imitated_device() -> Iterator[DeviceLog]:
    """Make batched lanes train on an imitated device."""
    log, compile_width = DeviceLog(), VmappedLanes._compile

    def compile_imitated(store: VmappedLanes, width: int) -> ImitatedDevice:
        return ImitatedDevice(compile_width(store, width), width, log)

    with mock.patch.object(VmappedLanes, "_compile", compile_imitated):
        yield log


def train_study(lanes: int) -> list[Wait]:
    """Train one trial per lane for a while, and return the waits of the device before chunks of all lanes."""
    with tempfile.TemporaryDirectory() as scratch, imitated_device() as log:
        database = open_database(f"sqlite:///{scratch}/study.db", create=True)
        space: dict[str, Any] = {"weight_decay": tuple(k / lanes for k in range(lanes))}
        spec = StudySpec(experiment=EXPERIMENT, hyperparameters=NARROW, space=space, pruning=Pruning(rule="none"))
        study = create_study(database, "host loop", spec)
        stop = threading.Event()
        worker = Worker(study, lanes, trainers=TrainerPool(batched=True))
        thread = threading.Thread(target=worker.run, args=[stop])
        thread.start()
        while len(log.of_width(lanes)) <= WARM_UP_CHUNKS + QUIET_CHUNKS and thread.is_alive():
            time.sleep(0.1)
        while len(log.of_width(lanes)) <= WARM_UP_CHUNKS + 2 * QUIET_CHUNKS and thread.is_alive():
            draw_a_figure()
        stop.set()
        thread.join()
        database.close()
    return log.of_width(lanes)


def draw_a_figure() -> None:
    """Draw the learning curves of a run of 29 tasks, as the thread does that writes results."""
    rows, tasks = 200, len(EXPERIMENT.classes)
    per_task, per_matrix = np.full((rows, tasks), 0.5, np.float32), np.ones((rows, 9), np.float32)
    record = Record(np.arange(1, rows + 1, dtype=np.int32), *[per_task] * 4, *[per_matrix] * 2)
    learning_curves(EXPERIMENT, record, "")


def seconds_of_call(lanes: int) -> float:
    """Return the time of a call of the compiled program whose lanes have all ended, so that nothing is computed."""
    batch = Lanes(ProgramKey.of(EXPERIMENT, NARROW), batched=True)
    lane = batch.admit(EXPERIMENT, NARROW)
    batch.release(lane)
    store = batch._store
    assert isinstance(store, VmappedLanes)
    batch.prepare(lanes)
    program = store.programs[lanes].result()
    state = batch.program.init(EXPERIMENT, NARROW)
    ended = jnp.full(lanes, EXPERIMENT.epochs, jnp.int32)
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * lanes), state)
    states = jax.device_put(type(states)(**{**vars(states), "epoch": ended}), store._axis.sharding)
    seconds = []
    for _ in range(20):
        start = time.monotonic()
        states, _, done = program(states, jnp.int32(1), store._data)
        done.block_until_ready()
        seconds.append(time.monotonic() - start)
    return statistics.median(seconds)


def measure(lanes: int) -> dict[str, Any]:
    """Measure one number of lanes."""
    first, *waits = train_study(lanes)
    warm = waits[WARM_UP_CHUNKS:]
    quiet, drawing = warm[: QUIET_CHUNKS - 1], warm[QUIET_CHUNKS:]
    wait, call = statistics.median(wait.seconds for wait in quiet), seconds_of_call(lanes)
    return {
        "lanes": lanes,
        "seconds_per_chunk": wait,
        "thread_seconds_per_chunk": statistics.median(wait.thread_seconds for wait in quiet),
        "seconds_per_chunk_while_drawing": statistics.median(wait.seconds for wait in drawing),
        "seconds_per_call": call,
        "share_of_a_second": wait + call,
        "seconds_of_growth": first.seconds,
        "thread_seconds_of_growth": first.thread_seconds,
        "waits": [vars(wait) for wait in (first, *waits)],
    }


def measure_copies() -> dict[str, float]:
    """Return the seconds per lane of admitting a run, of copying its state to the host, and of reading its weights."""
    hyperparameters = Hyperparameters()
    batch = Lanes(ProgramKey.of(EXPERIMENT, hyperparameters), batched=True)
    lanes = [batch.admit(EXPERIMENT, hyperparameters) for _ in range(COPIES)]

    def readmit(lane: int) -> None:
        batch.release(lane)
        assert batch.admit(EXPERIMENT, hyperparameters) == lane

    operations: dict[str, Callable[[int], Any]] = {"admit": readmit, "state": batch.state, "weights": batch.weights}
    seconds = {}
    for name, operation in operations.items():
        operation(lanes[0])
        start = time.monotonic()
        for lane in lanes:
            operation(lane)
        seconds[name] = (time.monotonic() - start) / COPIES
    return seconds


def main() -> None:
    arguments = parse_arguments(make_parser(__doc__, "measure 32 lanes only"))
    results = [measure(lanes) for lanes in ((32,) if arguments.quick else (32, 128))]
    assert all(result["lanes"] in LANE_WIDTHS for result in results)
    print_table(
        "The host between two chunks, 29 tasks, a device of 5,000 lane-epochs/s",
        ["lanes", "ms per chunk", "ms of CPU", "ms while drawing", "ms per call", "% of a second", "s of growth"],
        [
            [
                result["lanes"],
                1e3 * result["seconds_per_chunk"],
                1e3 * result["thread_seconds_per_chunk"],
                1e3 * result["seconds_per_chunk_while_drawing"],
                1e3 * result["seconds_per_call"],
                100 * result["share_of_a_second"],
                result["seconds_of_growth"],
            ]
            for result in results
        ],
    )
    copies = measure_copies()
    print_table("Copies of one lane's state, d = 256", ["operation", "ms"], [[k, 1e3 * s] for k, s in copies.items()])
    write_json(arguments.json, {"lanes": results, "seconds_per_copy": copies})


if __name__ == "__main__":
    main()
