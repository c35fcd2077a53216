"""Faults, for real: killed and stopped workers, a database that goes away, networks that break.

`MIIII_KILLS`, `MIIII_FAULT_TRIALS`, `MIIII_FAULT_EPOCHS` and `MIIII_OUTAGE_SECONDS` make them longer, as
`make test-faults` does. `MIIII_FAULT_SEED` repeats a schedule of random faults, which is printed.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from optuna.trial import TrialState

from miiii_search.failpoints import Name
from miiii_search.testing.failpoints import Failpoints
from miiii_search.testing.fault_study import FinishedTrial, create_command, finished_by_seed, run_without_faults
from miiii_search.testing.faults import FAULTS, run_with_faults
from miiii_search.testing.postgres import PostgresServer
from miiii_search.testing.processes import (
    LIMIT_SECONDS,
    Processes,
    is_stopped,
    read_trials,
    trials_with_checkpoint,
    wait_for,
)
from miiii_search.testing.proxy import Proxy
from miiii_search.training.device import count_cores

KILLS = int(os.environ.get("MIIII_KILLS", "6"))
TRIALS = int(os.environ.get("MIIII_FAULT_TRIALS", "8"))
AT_LENGTH = "MIIII_KILLS" in os.environ
OUTAGE_SECONDS = float(os.environ.get("MIIII_OUTAGE_SECONDS", "2"))
"""Longer than a lease in `make test-faults`."""
SEED = int(os.environ.get("MIIII_FAULT_SEED", random.SystemRandom().randrange(10**6)))
"""Seed of the faults, their order, their times and their victims."""

WORK = ("work", "--study", "faults", "--lanes", "2", "--checkpoint-every", "0.5")

SHORT = 6000
"""Epochs of a trial that a failpoint holds up for as long as a test needs."""

EVERY_CHUNK = "delay 0.2"
"""With it at `chunk`, a worker that saves each 0.1 seconds saves after each chunk."""

N_AT_ONCE = min(2, count_cores())
"""Number of trainers, and so of chunks at a time, of a worker with two lanes."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[int, FinishedTrial]:
    """Results of short trials without any fault."""
    return run_without_faults(tmp_path_factory.mktemp("unbroken"), 4, SHORT)


@pytest.fixture(scope="module")
def unbroken_soak(tmp_path_factory: pytest.TempPathFactory) -> dict[int, FinishedTrial]:
    """Results of the soak tests' trials without any fault."""
    return run_without_faults(tmp_path_factory.mktemp("unbroken"), TRIALS)


@pytest.mark.soak
@pytest.mark.timeout(2 * LIMIT_SECONDS + 60 * TRIALS)
def test_random_kills(tmp_path: Path, unbroken_soak: dict[int, FinishedTrial]) -> None:
    """SIGKILL at random times: every trial ends once, with the result that it has without faults."""
    print(f"MIIII_FAULT_SEED={SEED}")
    result = run_with_faults(tmp_path, unbroken_soak, TRIALS, ["worker killed"] * KILLS, random.Random(SEED))
    print(result)
    assert result.is_intact
    # The last of them may find the study done, and a few may all hit trials that were not saved yet: in the test at
    # length there are enough to count.
    assert result.faults["worker killed"] >= (KILLS if AT_LENGTH else 1)
    assert len(result.resumed) >= (2 * KILLS // 5 if AT_LENGTH else 0)


@pytest.mark.soak
@pytest.mark.timeout(2 * LIMIT_SECONDS + 60 * TRIALS)
def test_random_faults(tmp_path: Path, unbroken_soak: dict[int, FinishedTrial]) -> None:
    """Each fault once, in random order."""
    print(f"MIIII_FAULT_SEED={SEED}")
    chance = random.Random(SEED)
    result = run_with_faults(tmp_path, unbroken_soak, TRIALS, chance.sample(list(FAULTS), len(FAULTS)), chance)
    print(result)
    assert result.is_intact
    assert result.faults


def test_told_to_stop(
    processes: Processes, storage_url: str, unbroken: dict[int, FinishedTrial], failpoints: Failpoints
) -> None:
    """SIGTERM saves all lanes and hands them back; another machine goes on from what was shared."""
    processes.run(*create_command(2, SHORT), storage=storage_url)
    never = (*WORK[:-1], "3600", "--grace", "60")
    failpoints.arm("chunk")
    failpoints.arm("drain", "pass")
    worker = processes.start(*never, "--checkpoints", "here", storage=storage_url)
    failpoints.wait("chunk", N_AT_ONCE)
    worker.terminate()
    failpoints.wait("drain")
    failpoints.release("chunk")
    assert worker.wait(LIMIT_SECONDS) == 0, processes.log(worker)
    assert "returned 2 trials to the queue" in processes.log(worker)
    other = processes.start(*WORK, "--checkpoints", "there", storage=storage_url)  # it sees the database only
    assert other.wait(LIMIT_SECONDS) == 0, processes.log(other)
    starts = [int(n.replace(",", "")) for n in re.findall(r"starts from epoch ([\d,]+)", processes.log(other))]
    assert len(starts) == 2 and 0 < min(starts) < SHORT
    trials = read_trials(storage_url, "faults")
    assert {seed: unbroken[seed] for seed in (0, 1)} == finished_by_seed(trials)
    assert not list((processes.folder / "there").rglob("*.ckpt"))  # needless once a trial has ended


def test_told_to_stop_while_it_compiles(processes: Processes, tmp_path: Path, failpoints: Failpoints) -> None:
    """It does not wait for the compiler."""
    storage = f"sqlite:///{tmp_path}/study.db"
    processes.run(*create_command(2, SHORT), storage=storage)
    failpoints.arm("compile")
    worker = processes.start("work", "--study", "faults", storage=storage)
    failpoints.wait("compile")
    worker.terminate()
    assert worker.wait(LIMIT_SECONDS) == 0, processes.log(worker)
    assert {t.state for t in read_trials(storage, "faults")} == {TrialState.WAITING}


@pytest.mark.parametrize(
    ("name", "storage_url"),
    [
        ("checkpoint-saved", "sqlite"),
        ("result-written", "sqlite"),
        ("result-written", "postgresql"),
        ("result-committed", "sqlite"),
        ("hand-back-written", "postgresql"),
    ],
    indirect=["storage_url"],
)
def test_killed_in_between(
    processes: Processes, storage_url: str, unbroken: dict[int, FinishedTrial], failpoints: Failpoints, name: Name
) -> None:
    """Wherever a worker dies, each trial ends once, with the result that it has without faults."""
    processes.run(*create_command(2, SHORT, lease_seconds=2.0), storage=storage_url)
    failpoints.arm(name, "kill")
    failpoints.arm("chunk", "pause" if name == "hand-back-written" else EVERY_CHUNK)
    killed = processes.start(*WORK[:-1], "0.1", storage=storage_url)
    if name == "hand-back-written":
        failpoints.wait("chunk")
        failpoints.arm("drain", "pass")
        killed.terminate()
        failpoints.wait("drain")
        failpoints.release("chunk")
    assert failpoints.wait(name)[0] == killed.pid
    assert killed.wait(LIMIT_SECONDS) == -signal.SIGKILL
    failpoints.close()
    states = Counter(t.state for t in read_trials(storage_url, "faults"))
    assert states[TrialState.COMPLETE] == (name == "result-committed")
    assert states[TrialState.RUNNING] == 2 - states[TrialState.COMPLETE]
    coordinator = processes.start("coordinate", "--study", "faults", storage=storage_url)
    other = processes.start(*WORK, storage=storage_url)
    for process in (other, coordinator):
        assert process.wait(LIMIT_SECONDS) == 0, processes.log(process)
    trials = read_trials(storage_url, "faults")
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 2
    assert {seed: unbroken[seed] for seed in (0, 1)} == finished_by_seed(trials)


def test_paused_for_longer_than_a_lease(
    processes: Processes, storage_url: str, unbroken: dict[int, FinishedTrial], failpoints: Failpoints
) -> None:
    """A worker that wakes up finds its trials taken, and overwrites nothing."""
    processes.run(*create_command(2, SHORT), storage=storage_url)
    failpoints.arm("chunk")
    sleeper = processes.start(*WORK, storage=storage_url)
    failpoints.wait("chunk", N_AT_ONCE)
    pause(sleeper, storage_url)
    failpoints.release("chunk")
    coordinator = processes.start("coordinate", "--study", "faults", storage=storage_url)
    wait_for(lambda: processes.log(coordinator).count("went back to the queue") == 2)
    other = processes.start(*WORK, storage=storage_url)
    wait_for(lambda: processes.log(other).count("starts") == 2)
    sleeper.send_signal(signal.SIGCONT)
    wait_for(lambda: processes.log(sleeper).count("was taken from this worker") == 2)
    for process in (coordinator, other, sleeper):
        assert process.wait(LIMIT_SECONDS) == 0, processes.log(process)
    trials = read_trials(storage_url, "faults")
    assert {seed: unbroken[seed] for seed in (0, 1)} == finished_by_seed(trials)
    assert len({t.user_attrs["worker"] for t in trials}) == 1


@pytest.mark.timeout(2 * LIMIT_SECONDS + OUTAGE_SECONDS)
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_database_goes_away(
    processes: Processes, unbroken: dict[int, FinishedTrial], mode: str, failpoints: Failpoints
) -> None:
    """Workers train on, report what waited, and lose no trial; coordinator and dashboard are there again."""
    with PostgresServer() as server:
        storage = server.create_database()
        # A worker that waits for its next attempt has a whole lease after the restart to come back.
        processes.run(*create_command(4, SHORT, lease_seconds=30.0), storage=storage)
        failpoints.arm("chunk")
        dashboard = processes.start("dashboard", "--port", "0", storage=storage)
        coordinator = processes.start("coordinate", "--study", "faults", storage=storage)
        workers = [processes.start(*WORK, storage=storage) for _ in range(2)]
        failpoints.wait("chunk", 2 * N_AT_ONCE)
        page = wait_for(lambda: re.search(r"dashboard: (http://\S+)", processes.log(dashboard)))[1]
        assert answer(page) == 200
        server.stop(mode)  # type: ignore[arg-type]
        failpoints.release("chunk")
        everyone: list[subprocess.Popen[str]] = [coordinator, *workers]
        for process in everyone:
            wait_for(partial(processes.has_logged, process, "the database does not answer"))
        assert answer(page) == 503
        time.sleep(OUTAGE_SECONDS)  # not a wait: how long the outage lasts
        server.start()
        for process in everyone:
            assert process.wait(LIMIT_SECONDS) == 0, processes.log(process)
            assert "the database is back" in processes.log(process)
            assert "Traceback" not in processes.log(process)
        assert answer(page) == 200
        assert "Traceback" not in processes.log(dashboard)
        trials = read_trials(storage, "faults")
    assert {seed: unbroken[seed] for seed in range(4)} == finished_by_seed(trials)
    assert [t.user_attrs["resumed"] for t in trials] == [[]] * 4
    assert "was taken" not in "".join(processes.log(worker) for worker in workers)


def pause(process: subprocess.Popen[str], storage: str) -> None:
    """Stops a process, though not while it writes to a SQLite file: nobody else could until it goes on."""
    while True:
        process.send_signal(signal.SIGSTOP)
        wait_for(lambda: is_stopped(process))
        if not storage.startswith("sqlite"):
            return
        with contextlib.closing(sqlite3.connect(storage.removeprefix("sqlite:///"), timeout=0)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)


def answer(page: str) -> int:
    """The status of the dashboard's answer to what its page asks for first."""
    try:
        with urllib.request.urlopen(f"{page}api/studies", timeout=600) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("fault", ["cut", "silence", "half-closed"])
def test_network_that_breaks(
    processes: Processes,
    postgres_url: str,
    unbroken: dict[int, FinishedTrial],
    fault: str,
    failpoints: Failpoints,
) -> None:
    """Connections that are cut, that stay but say nothing any more, or that end in one direction only."""
    processes.run(*create_command(2, SHORT), storage=postgres_url)
    coordinator = processes.start("coordinate", "--study", "faults", storage=postgres_url)
    failpoints.arm("chunk")
    with Proxy(postgres_url) as proxy:
        worker = processes.start(*WORK, storage=proxy.url)
        failpoints.wait("chunk", N_AT_ONCE)
        proxy.fault = fault
        proxy.break_connections()
        failpoints.release("chunk")
        wait_for(partial(processes.has_logged, worker, "the database does not answer"))
        proxy.fault = ""
        proxy.break_connections()
        for process in (worker, coordinator):
            assert process.wait(LIMIT_SECONDS) == 0, processes.log(process)
    assert "the database is back" in processes.log(worker)
    trials = read_trials(postgres_url, "faults")
    assert {seed: unbroken[seed] for seed in (0, 1)} == finished_by_seed(trials)
    for trial in trials:
        assert max(trial.intermediate_values) == SHORT


def test_disk_that_takes_nothing(
    processes: Processes, tmp_path: Path, unbroken: dict[int, FinishedTrial], failpoints: Failpoints
) -> None:
    """It is said, it costs nothing else, and the database holds the checkpoints instead."""
    storage = f"sqlite:///{tmp_path}/study.db"
    processes.run(*create_command(2, SHORT), storage=storage)
    (tmp_path / "file").write_text("no folder")
    failpoints.arm("result-ready")
    failpoints.arm("chunk", EVERY_CHUNK)
    worker = processes.start(*WORK[:-1], "0.1", "--checkpoints", "file/folder", storage=storage)
    wait_for(partial(processes.has_logged, worker, "cannot save trial"))
    wait_for(lambda: len(trials_with_checkpoint(storage)) == 2)
    worker.kill()
    worker.wait()
    failpoints.close()
    coordinator = processes.start("coordinate", "--study", "faults", storage=storage)
    other = processes.start(*WORK, storage=storage)
    assert other.wait(LIMIT_SECONDS) == 0 and coordinator.wait(LIMIT_SECONDS) == 0
    assert len(re.findall(r"Trial (0|1) starts from epoch", processes.log(other))) >= 2
    assert {seed: unbroken[seed] for seed in (0, 1)} == finished_by_seed(read_trials(storage, "faults"))
