"""Limits of memory, disks and budgets, with real workers and real limits of the operating system."""

from __future__ import annotations

import re
import resource
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.config.study_spec import StudySpec
from miiii_search.storage.database import open_database
from miiii_search.study.create import create_study
from miiii_search.study.open import open_study
from miiii_search.testing.postgres import open_engine
from miiii_search.testing.processes import LIMIT_SECONDS, Processes, read_trials, trials_with_checkpoint, wait_for
from miiii_search.training.device import use_compilation_cache
from miiii_search.training.trainer_messages import ChunkTiming
from miiii_search.worker.worker import Worker
from tests.support import claim, make_spec

GRID = (
    *("--set", "space.dropout=[0.0]", "--set", "space.weight_decay=[1.0]", "--set", "space.grokfast_lambda=[0.0]"),
    *("--set", "pruning.rule=none", "--set", "lease_seconds=5"),
)

SMALL = (
    *("--set", "experiment.p=13", "--set", "experiment.validation_samples=20", "--set", "hyperparameters.d_model=16"),
    *("--set", "experiment.evaluate_every=50"),
)
"""Thousands of epochs a second."""

LARGE = (
    *("--set", "experiment.p=113", "--set", "experiment.validation_samples=1000", "--set", "experiment.epochs=32"),
    *("--set", "hyperparameters.d_model=256", "--set", "experiment.evaluate_every=4"),
)
LARGE_STUDY = ("create", "--study", "limits", "--preset", "demo", *GRID, *LARGE, "--set", "replicates=2")

LANE = 178 * 2**20
"""Memory that a lane takes while it computes, and returns between two chunks."""


def usual_memory(process: subprocess.Popen[str]) -> int:
    """The address space that a process has had for most of two seconds, in bytes: all its lanes were computing."""
    pages = []
    for _ in range(200):
        pages.append(int(Path(f"/proc/{process.pid}/statm").read_text().split()[0]))
        time.sleep(0.01)
    return int(statistics.median(pages)) * resource.getpagesize()


def limit_memory(process: subprocess.Popen[str], size: int) -> None:
    resource.prlimit(process.pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def running(storage: str) -> list[int]:
    """The epochs of the running trials, as their leases tell them."""
    with open_engine(storage).connect() as connection:
        return list(connection.execute(sa.text("SELECT epoch FROM miiii_leases")).scalars())


def weights(storage: str) -> dict[int, str]:
    trials = read_trials(storage, "limits")
    return {t.user_attrs["seed"]: t.user_attrs["metrics"]["weights_sha256"] for t in trials}


@pytest.fixture
def large(processes: Processes, tmp_path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A study of two trials, the second of which comes into the queue when told to.

    The limit must be set while the process is below it: one that is above it dies of the next small allocation.
    """
    processes.environment["MALLOC_ARENA_MAX"] = "1"  # else every thread reserves addresses that count
    storage = f"sqlite:///{tmp_path}/study.db"
    processes.run(*LARGE_STUDY, storage=storage)
    database = open_database(storage)
    study = open_study(database, "limits")
    first, second = claim(study, 3600), claim(study, 3600)
    study.queue.requeue([first])
    yield storage, lambda: assert_equal(study.queue.requeue([second]), [1])
    database.close()


def assert_equal(one: object, other: object) -> None:
    assert one == other


def test_out_of_memory_shrinks_the_lanes(
    processes: Processes, tmp_path: Path, large: tuple[str, Callable[[], None]]
) -> None:
    """Two lanes do not fit: one goes on, the other comes after it, and both come to what they come to without."""
    storage, enqueue_second = large
    worker = processes.start("work", "--study", "limits", "--lanes", "2", "--checkpoint-every", "1", storage=storage)
    wait_for(lambda: max(running(storage), default=0) >= 8)
    limit_memory(worker, usual_memory(worker) + 2 * LANE // 3)
    enqueue_second()
    wait_for(partial(processes.has_logged, worker, "out of memory with 2 lanes"))
    # Under the limit any small allocation of the C++ libraries may fail next, which ends the process.
    limit_memory(worker, resource.RLIM_INFINITY)
    assert worker.wait(LIMIT_SECONDS) == 0, processes.log(worker)
    said = processes.log(worker)
    assert "at most 1 from now on" in said and "Traceback" not in said and "was taken" not in said
    assert [t.state for t in read_trials(storage, "limits")] == [TrialState.COMPLETE] * 2
    unbroken = f"sqlite:///{tmp_path}/unbroken.db"
    processes.run(*LARGE_STUDY, storage=unbroken)
    processes.run("work", "--study", "limits", "--lanes", "2", storage=unbroken)
    assert weights(storage) == weights(unbroken)


def test_a_single_lane_that_does_not_fit_says_what_it_needs(
    processes: Processes, large: tuple[str, Callable[[], None]]
) -> None:
    storage, enqueue_second = large
    work = ("work", "--study", "limits", "--lanes", "1", "--checkpoint-every", "1")
    worker = processes.start(*work, storage=storage)
    wait_for(partial(processes.has_logged, worker, "Trial 0 was not solved"))
    limit_memory(worker, usual_memory(worker) + 2 * LANE // 3)
    enqueue_second()
    assert worker.wait(LIMIT_SECONDS) == 2, processes.log(worker)
    last = processes.log(worker).strip().splitlines()[-1]
    size = re.search(r"error: not one lane fits .* d_model=256 n_heads=4 needs (\d+) MiB per lane", last)
    assert size and 100 <= int(size[1]) <= 300, last
    assert [t.state for t in read_trials(storage, "limits")] == [TrialState.COMPLETE, TrialState.WAITING]
    # On a machine where it fits the same trial ends.
    assert processes.start(*work, storage=storage).wait(600) == 0
    assert [t.state for t in read_trials(storage, "limits")] == [TrialState.COMPLETE] * 2


@pytest.fixture
def small_disk(tmp_path: Path) -> tuple[str, ...]:
    """The start of a command line that has a disk of 1 MiB at `tmp_path`/disk, which nobody else sees."""
    script = f'mkdir -p {tmp_path}/disk && mount -t tmpfs -o size=1m tmpfs {tmp_path}/disk && exec "$@"'
    for unshare in (["unshare", "--mount"], ["unshare", "--mount", "--user", "--map-root-user"]):
        within = (*unshare, "sh", "-c", script, "sh")
        if subprocess.run([*within, "true"], capture_output=True).returncode == 0:
            return within
    pytest.skip("a disk of a size of our own needs the right to mount one (root, or user namespaces)")


def test_a_full_disk_costs_no_more_than_its_checkpoints(
    processes: Processes, tmp_path: Path, small_disk: tuple[str, ...]
) -> None:
    """ENOSPC in the middle of a file: no half file is left, the database holds the checkpoint, the trial goes on."""
    storage = f"sqlite:///{tmp_path}/study.db"
    processes.run(
        *("create", "--study", "limits", "--preset", "demo", *GRID, "--set", "experiment.p=31"),
        *("--set", "hyperparameters.d_model=128", "--set", "experiment.epochs=1000", "--set", "replicates=2"),
        storage=storage,
    )
    work = ("work", "--study", "limits", "--lanes", "1", "--checkpoint-every", "0.2")
    worker = processes.start(*work, "--checkpoints", str(tmp_path / "disk"), storage=storage, within=small_disk)
    wait_for(partial(processes.has_logged, worker, "No space left on device"))
    held = Path(f"/proc/{worker.pid}/root{tmp_path}/disk")
    wait_for(lambda: trials_with_checkpoint(storage))
    wait_for(lambda: not list(held.rglob("*.tmp")))  # it may be trying again at this moment
    assert worker.wait(LIMIT_SECONDS) == 0, processes.log(worker)
    assert "Traceback" not in processes.log(worker)
    assert {t.state for t in read_trials(storage, "limits")} == {TrialState.COMPLETE}


def test_a_database_on_a_full_disk_is_waited_for(
    processes: Processes, tmp_path: Path, small_disk: tuple[str, ...]
) -> None:
    """It takes no reports for a while: the worker says so, trains on, and writes them once there is room."""
    outside = f"sqlite:///{tmp_path}/study.db"
    processes.run(
        *("create", "--study", "limits", "--preset", "demo", *GRID, *SMALL, "--set", "experiment.epochs=40000"),
        storage=outside,
    )
    script = f'cd {tmp_path} && cp study.db disk && "$@" && cp disk/study.db* .'
    worker = processes.start(
        *("work", "--study", "limits", "--lanes", "1"),
        storage=f"sqlite:///{tmp_path}/disk/study.db",
        within=(*small_disk, "sh", "-c", script, "sh"),
    )
    wait_for(partial(processes.has_logged, worker, "Trial 0 starts"))
    rubbish = Path(f"/proc/{worker.pid}/root{tmp_path}/disk/rubbish")
    with pytest.raises(OSError, match="No space left"), rubbish.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    wait_for(partial(processes.has_logged, worker, "the database does not answer (database or disk is full)"))
    rubbish.unlink()
    wait_for(partial(processes.has_logged, worker, "the database is back"))
    assert worker.wait(LIMIT_SECONDS) == 0, processes.log(worker)
    [trial] = read_trials(outside, "limits")
    assert trial.state == TrialState.COMPLETE and max(trial.intermediate_values) == 40_000


def test_artifacts_that_the_database_refuses(processes: Processes, storage_url: str) -> None:
    """The trial ends with its result all the same, and its note says what is missing."""
    processes.run("create", "--study", "limits", "--preset", "demo", *GRID, *SMALL, storage=storage_url)
    refuse = (
        ["CREATE TRIGGER full BEFORE INSERT ON miiii_artifacts BEGIN SELECT RAISE(ABORT, 'no room for files'); END"]
        if storage_url.startswith("sqlite")
        else [
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'no room for files'; END $$",
            "CREATE TRIGGER full_store BEFORE INSERT ON miiii_artifacts FOR EACH ROW EXECUTE FUNCTION refuse()",
        ]
    )
    with open_engine(storage_url).begin() as connection:
        for statement in refuse:
            connection.execute(sa.text(statement))
    said = processes.run("work", "--study", "limits", storage=storage_url)
    assert "Its artifacts could not be stored: no room for files" in said
    [trial] = read_trials(storage_url, "limits")
    assert trial.state == TrialState.COMPLETE and "no room for files" in trial.user_attrs["artifacts"]


def test_so_many_solved_and_not_one_more(processes: Processes, postgres_url: str) -> None:
    """Three workers with two lanes each, on trials that solve at once: all stop by themselves."""
    easy = ("--set", "experiment.target_accuracy=0.01", "--set", "budget.solved=4", "--set", "replicates=30")
    processes.run("create", "--study", "limits", "--preset", "demo", *GRID, *SMALL, *easy, storage=postgres_url)
    coordinator = processes.start("coordinate", "--study", "limits", storage=postgres_url)
    work = ("work", "--study", "limits", "--lanes", "2")
    workers = [processes.start(*work, storage=postgres_url) for _ in range(3)]
    for process in [*workers, coordinator]:
        assert process.wait(LIMIT_SECONDS) == 0, processes.log(process)
    trials = read_trials(postgres_url, "limits")
    assert sum(t.user_attrs.get("epochs_to_solve") is not None for t in trials) == 4
    assert sorted({t.state for t in trials}) == [TrialState.COMPLETE, TrialState.WAITING]
    assert "done: 4 trials are solved" in processes.run("status", "--study", "limits", storage=postgres_url)
    said = processes.start(*work, storage=postgres_url)  # one that comes later finds nothing to do
    assert said.wait(LIMIT_SECONDS) == 0
    assert "starts" not in processes.log(said)


def endless(**budget: float) -> StudySpec:
    spec = make_spec(budget=budget, pruning={"rule": "none"})
    experiment = spec.experiment.model_copy(update={"epochs": 10**7, "target_accuracy": 1.0})
    return spec.model_copy(update={"experiment": experiment})


@pytest.mark.parametrize("limit", ["device_hours", "wall_hours"])
def test_not_a_second_beyond(postgres_url: str, limit: str, logged: list[str]) -> None:
    """Two workers, whose every chunk is timed."""
    seconds = 48.0 if limit == "device_hours" else 24.0
    database = open_database(postgres_url, create=True)
    # On a busy machine compiling alone may take as long as the budget: it is done before, and kept.
    use_compilation_cache()
    spec = endless(trials=2)
    spec = spec.model_copy(update={"experiment": spec.experiment.model_copy(update={"epochs": 64})})
    Worker(create_study(database, "compiled", spec), 2).run(threading.Event())
    study = create_study(database, "limits", endless(**{limit: seconds / 3600}))
    timelines: list[list[ChunkTiming]] = [[], []]
    began = time.monotonic()
    workers = [
        threading.Thread(target=Worker(study, 2, on_chunk=timeline.append).run, args=(threading.Event(),))
        for timeline in timelines
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert not worker.is_alive()
    used = [busy(timeline) for timeline in timelines]
    if limit == "device_hours":
        assert 0 < sum(used) <= seconds  # where much else runs, starting and compiling take most of it
        assert "device hours is used up" in "".join(logged)
    else:
        assert max(chunk.end for timeline in timelines for chunk in timeline) - began <= seconds
        assert sum(used) > 0
        wait_for(study.is_done, 10)
    assert study.is_done()
    assert study.counts()[TrialState.RUNNING] == 0
    database.close()


def busy(timeline: list[ChunkTiming]) -> float:
    """For how long a worker computed in any of its lanes."""
    total, until = 0.0, 0.0
    for chunk in sorted(timeline, key=lambda chunk: chunk.start):
        total += max(chunk.end - max(chunk.start, until), 0.0)
        until = max(until, chunk.end)
    return total
