"""Faults, for real: killed and stopped workers, a database that goes away, disks that take nothing.

`MIIII_KILLS` and `MIIII_FAULT_TRIALS` make the test of random kills longer; `make test-faults` does.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.search import tables
from tests.integration.processes import Processes, read_trials, wait_for
from tests.integration.proxy import Proxy
from tests.postgres import PostgresServer, open_engine

KILLS = int(os.environ.get("MIIII_KILLS", "6"))
TRIALS = int(os.environ.get("MIIII_FAULT_TRIALS", "8"))

SHAPE = (
    *("--set", "experiment.p=13", "--set", "experiment.validation_samples=20", "--set", "hyperparameters.d_model=16"),
    *("--set", "experiment.target_accuracy=1.0", "--set", "experiment.evaluate_every=50"),
)
EPOCHS = 40_000
"""Of a trial: some seconds."""

WORK = ("work", "--study", "faults", "--lanes", "2", "--checkpoint-every", "0.5")


def study(trials: int = TRIALS, epochs: int = EPOCHS, lease: float = 4) -> tuple[str, ...]:
    """A study whose trials differ in their seeds alone, and none of which ends early."""
    return (
        *("create", "--study", "faults", "--preset", "demo", *SHAPE, "--set", f"replicates={trials}"),
        *("--set", "space.dropout=[0.5]", "--set", "space.weight_decay=[1.0]", "--set", "space.grokfast_lambda=[0.0]"),
        *("--set", f"experiment.epochs={epochs}", "--set", "pruning.rule=none", "--set", f"lease_seconds={lease}"),
    )


def epochs_of(storage: str) -> list[int]:
    """The last report of each trial that is running or waits after it ran."""
    return [max(t.intermediate_values, default=0) for t in read_trials(storage, "faults") if not t.state.is_finished()]


def has_said(processes: Processes, process: subprocess.Popen[str], words: str) -> bool:
    return words in processes.log(process)


def shared_trials(storage: str) -> list[int]:
    """The trials that have a checkpoint in the database."""
    with open_engine(storage).connect() as connection:
        return list(connection.execute(sa.select(tables.checkpoints.c.trial_id)).scalars())


def trains(storage: str, worker: subprocess.Popen[str], saved: bool) -> bool:
    """Whether a worker has a trial, and, if asked for, has saved one."""
    with open_engine(storage).connect() as connection:
        query = sa.select(tables.leases.c.saved_epoch).where(tables.leases.c.worker.endswith(f":{worker.pid}"))
        return any(epoch > 0 or not saved for epoch in connection.execute(query).scalars())


def digests(trials: list[optuna.trial.FrozenTrial]) -> dict[int, str]:
    """What each trial came to, weights included: seed → SHA-256."""
    return {t.user_attrs["seed"]: t.user_attrs["metrics"]["weights_sha256"] for t in trials}


def assert_all_ended_once(trials: list[optuna.trial.FrozenTrial], n: int = TRIALS) -> None:
    assert len(trials) == n
    assert Counter(t.state for t in trials) == {TrialState.COMPLETE: n}
    assert sorted(t.user_attrs["seed"] for t in trials) == list(range(n))
    for trial in trials:
        # No report is missing, whichever worker was to write it.
        assert max(trial.intermediate_values) == EPOCHS
        assert len(trial.intermediate_values) == len(trials[0].intermediate_values)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, str]]:
    """What the trials come to without any fault."""
    folder = tmp_path_factory.mktemp("unbroken")
    processes, storage = Processes(folder), f"sqlite:///{folder}/study.db"
    processes.run(*study(), storage=storage)
    processes.run("work", "--study", "faults", "--lanes", "2", storage=storage)
    yield digests(read_trials(storage, "faults"))
    processes.close()


def test_random_kills(processes: Processes, postgres_url: str, unbroken: dict[int, str]) -> None:
    """SIGKILL at random moments: every trial ends once, and comes to what it comes to without."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    processes.run(*study(), storage=postgres_url)
    coordinator = processes.start("coordinate", "--study", "faults", storage=postgres_url)
    workers = [processes.start(*WORK, storage=postgres_url) for _ in range(2)]
    kills = 0
    while kills < KILLS and coordinator.poll() is None:
        # Half of them at any moment, while it compiles for instance, the others some time after a checkpoint.
        victim, saved = chance.randrange(2), chance.random() < 0.5
        if not trains(postgres_url, workers[victim], saved):
            time.sleep(0.2)
            continue
        time.sleep(chance.uniform(0.0, 2.5))
        workers[victim].kill()
        workers[victim].wait()
        kills += 1
        workers[victim] = processes.start(*WORK, storage=postgres_url)
    assert coordinator.wait(60 * TRIALS) == 0, processes.log(coordinator)
    trials = read_trials(postgres_url, "faults")
    assert_all_ended_once(trials)
    assert digests(trials) == unbroken
    resumed = [entry["epoch"] for t in trials for entry in t.user_attrs["resumed"]]
    print(f"{kills} kills; resumed at epochs {sorted(resumed)}")
    assert kills == KILLS and len(resumed) >= KILLS // 3
    assert all(epoch > 0 for epoch in resumed)


def test_told_to_stop(processes: Processes, storage_url: str, unbroken: dict[int, str]) -> None:
    """SIGTERM saves all lanes and hands them back; another machine goes on from what was shared."""
    processes.run(*study(2), storage=storage_url)
    worker = processes.start(*WORK[:-1], "3600", "--checkpoints", "here", storage=storage_url)
    wait_for(lambda: min(epochs_of(storage_url), default=0) > 1000)
    worker.terminate()
    assert worker.wait(10) == 0, processes.log(worker)
    assert "handed back 2 trials" in processes.log(worker)
    other = processes.start(*WORK, "--checkpoints", "there", storage=storage_url)  # it sees the database only
    assert other.wait(120) == 0, processes.log(other)
    starts = [int(n.replace(",", "")) for n in re.findall(r"starts from epoch ([\d,]+)", processes.log(other))]
    assert len(starts) == 2 and min(starts) > 1000
    trials = read_trials(storage_url, "faults")
    assert {seed: unbroken[seed] for seed in (0, 1)} == digests(trials)
    assert not list((processes.folder / "there").rglob("*.ckpt"))  # needless once a trial has ended


def test_told_to_stop_while_it_compiles(processes: Processes, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    processes.environment |= {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "empty")}
    processes.run("create", "--study", "faults", "--preset", "paper", "--trials", "2", storage=storage)
    worker = processes.start("work", "--study", "faults", storage=storage)
    wait_for(lambda: "Trial" in processes.log(worker))
    worker.terminate()
    assert worker.wait(15) == 0, processes.log(worker)
    assert {t.state for t in read_trials(storage, "faults")} == {TrialState.WAITING}


def test_paused_for_longer_than_a_lease(processes: Processes, storage_url: str, unbroken: dict[int, str]) -> None:
    """A worker that wakes up finds its trials taken, and overwrites nothing."""
    processes.run(*study(2), storage=storage_url)
    sleeper = processes.start(*WORK, storage=storage_url)
    wait_for(lambda: min(epochs_of(storage_url), default=0) > 1000)
    sleeper.send_signal(signal.SIGSTOP)
    coordinator = processes.start("coordinate", "--study", "faults", storage=storage_url)
    wait_for(lambda: processes.log(coordinator).count("went back to the queue") == 2)
    other = processes.start(*WORK, storage=storage_url)
    wait_for(lambda: processes.log(other).count("starts") == 2)
    sleeper.send_signal(signal.SIGCONT)
    wait_for(lambda: processes.log(sleeper).count("was taken from this worker") == 2)
    for process in (coordinator, other, sleeper):
        assert process.wait(120) == 0, processes.log(process)
    trials = read_trials(storage_url, "faults")
    assert {seed: unbroken[seed] for seed in (0, 1)} == digests(trials)
    assert len({t.user_attrs["worker"] for t in trials}) == 1


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_database_goes_away(processes: Processes, unbroken: dict[int, str], mode: str) -> None:
    """For longer than a lease: workers train on, report what waited, and lose no trial."""
    with PostgresServer() as server:
        storage = server.create_database()
        processes.run(*study(4), storage=storage)
        coordinator = processes.start("coordinate", "--study", "faults", storage=storage)
        workers = [processes.start(*WORK, storage=storage) for _ in range(2)]
        wait_for(lambda: sum(epoch > 500 for epoch in epochs_of(storage)) == 4)
        server.stop(mode)  # type: ignore[arg-type]
        everyone: list[subprocess.Popen[str]] = [coordinator, *workers]
        for process in everyone:
            wait_for(partial(has_said, processes, process, "the database does not answer"))
        time.sleep(6)  # longer than a lease
        server.start()
        for process in everyone:
            assert process.wait(180) == 0, processes.log(process)
            assert "the database is back" in processes.log(process)
            assert "Traceback" not in processes.log(process)
        trials = read_trials(storage, "faults")
    assert_all_ended_once(trials, 4)
    assert {seed: unbroken[seed] for seed in range(4)} == digests(trials)
    assert [t.user_attrs["resumed"] for t in trials] == [[]] * 4
    assert "was taken" not in "".join(processes.log(worker) for worker in workers)


@pytest.mark.parametrize("fault", ["cut", "silence", "half-closed"])
def test_network_that_breaks(processes: Processes, postgres_url: str, unbroken: dict[int, str], fault: str) -> None:
    """Connections that are cut, that stay but say nothing any more, or that end in one direction only."""
    processes.run(*study(2), storage=postgres_url)
    coordinator = processes.start("coordinate", "--study", "faults", storage=postgres_url)
    with Proxy(postgres_url) as proxy:
        worker = processes.start(*WORK, storage=proxy.url)
        wait_for(lambda: min(epochs_of(postgres_url), default=0) > 1000)
        proxy.fault = fault
        proxy.break_connections()
        wait_for(partial(has_said, processes, worker, "the database does not answer"))
        proxy.fault = ""
        proxy.break_connections()
        for process in (worker, coordinator):
            assert process.wait(180) == 0, processes.log(process)
    assert "the database is back" in processes.log(worker)
    trials = read_trials(postgres_url, "faults")
    assert {seed: unbroken[seed] for seed in (0, 1)} == digests(trials)
    for trial in trials:
        assert max(trial.intermediate_values) == EPOCHS


def test_disk_that_takes_nothing(processes: Processes, tmp_path: Path) -> None:
    """It is said, it costs nothing else, and the database holds the checkpoints instead."""
    storage = f"sqlite:///{tmp_path}/study.db"
    processes.run(*study(2, lease=2), storage=storage)
    (tmp_path / "file").write_text("no folder")
    worker = processes.start(*WORK, "--checkpoints", "file/folder", storage=storage)
    wait_for(partial(has_said, processes, worker, "cannot save trial"))
    wait_for(lambda: len(shared_trials(storage)) == 2)
    worker.kill()
    worker.wait()
    coordinator = processes.start("coordinate", "--study", "faults", storage=storage)
    other = processes.start(*WORK, storage=storage)
    assert other.wait(120) == 0 and coordinator.wait(60) == 0
    assert len(re.findall(r"starts from epoch", processes.log(other))) == 2
