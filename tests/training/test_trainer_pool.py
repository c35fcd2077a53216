"""The trainer pool: the events of runs that start, end, are stopped and are dropped in parallel."""

import io
import json
import math
import queue
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miiii_search.experiment.record import Record, next_snapshot_epoch
from miiii_search.experiment.spec import Annealing, Experiment, LinearDecay
from miiii_search.testing.processes import LIMIT_SECONDS
from miiii_search.training import autotune, run
from miiii_search.training.autotune import choose_lanes
from miiii_search.training.checkpoint import FORMAT, Checkpoint, CheckpointError
from miiii_search.training.device import count_cores
from miiii_search.training.lane_state import Arrays
from miiii_search.training.lanes import Lanes
from miiii_search.training.program import Program, ProgramKey
from miiii_search.training.trainer import Trainer
from miiii_search.training.trainer_messages import ChunkTiming, RunRequest, RunSaved, RunUpdate
from miiii_search.training.trainer_pool import TrainerPool
from tests.training.small import EXPLODING, NARROW, SMALL, with_seed

LONG = SMALL.model_copy(update={"epochs": 600})  # an evaluation every 12; snapshots at 264 and 516, and at the end
ENDLESS = SMALL.model_copy(update={"epochs": 10**7})
SECONDS = LIMIT_SECONDS


@pytest.fixture(params=[False, True], ids=["sequential", "batched"])
def trainers(request: pytest.FixtureRequest) -> Iterator[TrainerPool]:
    trainers = TrainerPool(batched=request.param, on_chunk=chunks.append)
    chunks.clear()
    yield trainers
    trainers.close(SECONDS)


chunks: list[ChunkTiming] = []


def next_of(trainers: TrainerPool) -> RunUpdate:
    posted = trainers.events.get(timeout=SECONDS)
    if isinstance(posted, BaseException):
        raise posted
    assert isinstance(posted, RunUpdate)
    return posted


def until_ended(trainers: TrainerPool, numbers: set[int]) -> dict[int, list[RunUpdate]]:
    """Return all updates of these runs, up to their ends."""
    updates: dict[int, list[RunUpdate]] = {number: [] for number in numbers}
    while any(not of_run or of_run[-1].final_state is None for of_run in updates.values()):
        update = next_of(trainers)
        if update.run in updates:
            updates[update.run].append(update)
    return updates


def weights_of(updates: list[RunUpdate]) -> Arrays:
    end = updates[-1].final_state
    assert end is not None
    return end.weights


@pytest.mark.slow
def test_runs_of_two_programs(trainers: TrainerPool) -> None:
    slow = NARROW.model_copy(update={"learning_rate": 1e-5})
    two_heads = slow.model_copy(update={"n_heads": 2})
    runs = [
        RunRequest(0, LONG, slow),
        RunRequest(1, with_seed(1, LONG), two_heads),
        RunRequest(2, with_seed(2, LONG), slow),
    ]
    trainers.admit(runs[:2])
    first = next_of(trainers)
    trainers.admit(runs[2:])  # while others train
    updates = until_ended(trainers, {0, 1, 2})
    updates[first.run].insert(0, first)
    assert {(key.d_model, key.n_heads) for key in trainers.keys} == {(32, 4), (32, 2)}
    for each in runs:
        of_run = updates[each.number]
        record = Record.concatenate([update.record() for update in of_run])
        assert record.epoch.tolist() == list(range(12, 601, 12))
        assert [update.weight_snapshot.epoch for update in of_run if update.weight_snapshot] == [264, 516, 600]
        assert all(update.epochs_per_second > 0 for update in of_run)
        alone = run.train(each.experiment, each.hyperparameters)
        for name, array in alone.weights.items():
            np.testing.assert_allclose(weights_of(of_run)[name], array, rtol=1e-2, atol=1e-5)
        np.testing.assert_allclose(record.validation_loss, alone.record.validation_loss, rtol=1e-3)
        last = of_run[-1].weight_snapshot
        assert last is not None and (last.weights["query"] == weights_of(of_run)["query"]).all()
    assert all(chunk.end > chunk.start and 1 <= chunk.lanes <= 2 for chunk in chunks)


def test_sequential_runs_are_identical_to_those_alone() -> None:
    trainers = TrainerPool(batched=False)
    trainers.admit([RunRequest(seed, with_seed(seed), NARROW) for seed in range(3)])
    updates = until_ended(trainers, {0, 1, 2})
    for seed in range(3):
        expected = run.train(with_seed(seed), NARROW).weights
        for name, array in weights_of(updates[seed]).items():
            np.testing.assert_array_equal(array, expected[name])
    trainers.close(SECONDS)


@pytest.mark.slow
def test_a_stopped_run_ends_where_it_stands(trainers: TrainerPool) -> None:
    trainers.admit([RunRequest(7, ENDLESS, NARROW), RunRequest(8, with_seed(1, ENDLESS), NARROW)])
    next_of(trainers)
    trainers.stop(7)
    [*_, last] = until_ended(trainers, {7})[7]
    assert last.final_state is not None and not last.progress.ended
    assert 0 < last.progress.epoch < ENDLESS.epochs
    assert last.record().epoch[-1] == last.progress.epoch
    assert last.final_state.final_metrics["test_accuracy"].shape == (len(ENDLESS.task_moduli),)
    # The other run continues.
    assert [next_of(trainers).run for _ in range(3)] == [8, 8, 8]


@pytest.mark.slow
def test_a_dropped_run_is_silent(trainers: TrainerPool) -> None:
    trainers.admit([RunRequest(1, ENDLESS, NARROW), RunRequest(2, with_seed(1, ENDLESS), NARROW)])
    next_of(trainers)
    trainers.drop(1)
    trainers.drop(99)  # unknown, as one that ended long ago
    trainers.admit([RunRequest(3, with_seed(2), NARROW)])
    until_ended(trainers, {3})
    assert {next_of(trainers).run for _ in range(4)} == {2}


@pytest.mark.slow
def test_a_run_that_explodes(trainers: TrainerPool) -> None:
    trainers.admit([RunRequest(1, SMALL, EXPLODING), RunRequest(2, with_seed(1), NARROW)])
    updates = until_ended(trainers, {1, 2})
    assert updates[1][-1].progress.failed_epoch == 2
    assert updates[2][-1].progress.epoch == 200


def test_waiting_for_news_ends_whenever_a_signal_comes() -> None:
    """A signal may arrive just as the wait ends. A SimpleQueue of the standard library then waits forever."""
    posted, heard = TrainerPool().events, 0

    def on_signal(_number: int, _frame: Any) -> None:
        nonlocal heard
        heard += 1
        assert heard < 2, "still waiting two seconds later"

    before = signal.signal(signal.SIGALRM, on_signal)
    chance, until = random.Random(0), time.monotonic() + 5
    try:
        while time.monotonic() < until:
            signal.setitimer(signal.ITIMER_REAL, 0)
            heard = 0
            signal.setitimer(signal.ITIMER_REAL, 0.001 + chance.uniform(0, 2e-4), 2)
            with pytest.raises(queue.Empty):
                posted.get(timeout=0.001)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_what_ends_a_trainer_is_posted() -> None:
    posted: queue.SimpleQueue[object] = queue.SimpleQueue()
    trainer = Trainer(Lanes(ProgramKey.of(SMALL, NARROW), batched=False), posted.put)
    trainer.admit([RunRequest(1, SMALL, NARROW.model_copy(update={"n_heads": 2}))])
    error = posted.get(timeout=SECONDS)
    assert isinstance(error, ValueError) and "another program" in str(error)


@pytest.mark.parametrize(
    ("epochs", "evaluate_every", "expected"),
    [
        (65536, 16, [256, 512, 1024, 2048, 4096, 8192, 16384, 32768]),
        (600, 12, [264, 516]),  # the first evaluations at or after 256 and 512
        (256, 16, []),  # there is a snapshot at the end anyway
        (10_000, 1000, [1000, 2000, 3000, 5000, 9000]),
    ],
)
def test_snapshots_are_at_powers_of_two(epochs: int, evaluate_every: int, expected: list[int]) -> None:
    experiment = Experiment(epochs=epochs, evaluate_every=evaluate_every)
    looks, at = [], next_snapshot_epoch(experiment, 0)
    while at < math.inf:
        looks.append(at)
        at = next_snapshot_epoch(experiment, int(at))
    assert looks == expected


@pytest.mark.slow
def test_a_run_goes_on_from_what_was_saved(tmp_path: Path) -> None:
    """A run that is saved, written to a file, read and continued by another pool equals one without interruption."""
    for batched in (False, True):
        trainers = TrainerPool(batched=batched, save_seconds=0.05)
        trainers.admit([RunRequest(1, LONG, NARROW)])
        records, saved = list[Record](), list[RunSaved]()
        while not saved:
            posted = trainers.events.get(timeout=SECONDS)
            if isinstance(posted, RunSaved):
                saved.append(posted)
            else:
                assert isinstance(posted, RunUpdate)
                records.append(posted.record())
        trainers.close(SECONDS)
        before = Record.concatenate(records)
        assert before.epoch[-1] == saved[0].epoch
        checkpoint = Checkpoint(LONG, NARROW, saved[0].epoch, saved[0].state, before, {}, {"device": "this"})
        (tmp_path / "file").write_bytes(checkpoint.to_bytes())

        read = Checkpoint.from_bytes((tmp_path / "file").read_bytes())
        assert read.is_of(LONG, NARROW) and not read.is_of(LONG, EXPLODING)
        assert (read.epoch, read.origin) == (checkpoint.epoch, checkpoint.origin)
        trainers = TrainerPool(batched=batched)
        trainers.admit([RunRequest(2, LONG, NARROW, read.state)])
        updates = until_ended(trainers, {2})[2]
        trainers.close(SECONDS)
        whole = Record.concatenate([read.record, *(update.record() for update in updates)])
        unbroken = TrainerPool(batched=batched)
        unbroken.admit([RunRequest(3, LONG, NARROW)])
        expected = until_ended(unbroken, {3})[3]
        unbroken.close(SECONDS)
        for name, array in weights_of(updates).items():
            np.testing.assert_array_equal(array, weights_of(expected)[name])
        for f in fields(Record):
            together = getattr(Record.concatenate([update.record() for update in expected]), f.name)
            np.testing.assert_array_equal(getattr(whole, f.name), together)


def test_a_closing_pool_saves_all_runs() -> None:
    trainers = TrainerPool(batched=False, save_seconds=3600)
    trainers.admit([RunRequest(k, with_seed(k, ENDLESS), NARROW) for k in range(3)])
    begun = dict[int, int]()
    while len(begun) < 3:
        update = next_of(trainers)
        begun[update.run] = update.progress.epoch
    trainers.close(SECONDS)
    saved = dict[int, int]()
    while not trainers.events.empty():
        posted = trainers.events.get()
        if isinstance(posted, RunUpdate):
            begun[posted.run] = posted.progress.epoch
        elif isinstance(posted, RunSaved):
            saved[posted.run] = posted.epoch
    assert saved == begun


def test_a_damaged_checkpoint_is_noticed() -> None:
    record = Record(np.zeros(1, np.int32), *[np.zeros((1, 2), np.float32)] * 6)
    data = Checkpoint(SMALL, NARROW, 12, {"weights.query": np.ones(3)}, record, {}, {}).to_bytes()
    assert Checkpoint.from_bytes(data).epoch == 12
    damaged = [b"", b"PK" + data, data + b"\0", *(data[:k] for k in range(0, len(data), 97))]
    damaged += [data[:k] + bytes([data[k] ^ 1]) + data[k + 1 :] for k in range(0, len(data), 3)]
    for bad in damaged:
        with pytest.raises(CheckpointError):
            Checkpoint.from_bytes(bad)


def test_checkpoints_have_the_names_that_older_workers_read() -> None:
    """In a mixed installation, old and new workers continue each other's trials."""
    decay = LinearDecay(start=1, end=9, end_factor=0.25)
    experiment = SMALL.model_copy(update={"annealing": Annealing(dropout=decay)})
    record = Record(np.zeros(1, np.int32), *[np.zeros((1, 2), np.float32)] * 6)
    data = Checkpoint(experiment, NARROW, 12, {}, record, {}, {}).to_bytes()
    archive = data[len(FORMAT) :].partition(b"\n")[2]
    with np.load(io.BytesIO(archive)) as arrays:
        about = json.loads(arrays["about"].tobytes())
    assert about["experiment"]["annealing"]["dropout"] == {"start": 1, "end": 9, "share": 0.25}
    assert Checkpoint.from_bytes(data).is_of(experiment, NARROW)


def test_closing_does_not_wait_for_lanes_in_line() -> None:
    trainers, lanes = TrainerPool(batched=False, on_chunk=chunks.append), 6 * count_cores()
    chunks.clear()
    trainers.admit([RunRequest(k, with_seed(k, ENDLESS), NARROW) for k in range(lanes)])
    begun = set[int]()
    while len(begun) < lanes:
        begun.add(next_of(trainers).run)
    for trainer in list(trainers._trainer_of_run.values()):
        trainer.close()
    at = time.monotonic()  # all have been told
    trainers.close(SECONDS)
    # A chunk may start at this very moment, but no waiting trainer starts another.
    assert sum(chunk.start > at for chunk in chunks) <= count_cores()


def test_the_best_number_of_lanes_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, measure = list[set[str]](), autotune._measure_parallel

    def spy(program: Program, *arguments: Any) -> autotune.LaneMeasurement:
        compiled.append(set(vars(program)))
        return measure(program, *arguments)

    monkeypatch.setattr(autotune, "_measure_parallel", spy)
    lanes, why = choose_lanes(Program(ProgramKey.of(SMALL, NARROW)), SMALL, NARROW)
    assert {"_train", "_final_metrics", "_spectrum"} <= compiled[
        0
    ]  # else the speed of one lane would be that of compiling
    assert lanes >= 1
    assert f"{lanes} train " in why and why.startswith("1 train ") and "epochs/s" in why


@pytest.mark.slow
def test_batched_lanes_are_measured(sequential: Lanes) -> None:
    one, four = (autotune._measure_batched(sequential.program, SMALL, NARROW, lanes) for lanes in (1, 4))
    assert (one.lanes, four.lanes) == (1, 4)
    assert one.epochs_per_second > 0 and four.epochs_per_second > 0
    # At least the weights, two moments and an average in float32. Four lanes do not need more memory per lane.
    weights = sum(array.size for array in sequential.program.abstract_state.weights.values())
    assert one.bytes_per_lane is not None and four.bytes_per_lane is not None
    assert one.bytes_per_lane > 4 * 4 * weights
    assert 0.5 < four.bytes_per_lane / one.bytes_per_lane < 1.5
