"""Behaviour of commands in containers: they stay when a study is done, show that they live, and refuse the CPU."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.deployment.liveness import INTERVAL_SECONDS
from miiii_search.storage import schema
from miiii_search.testing.postgres import PostgresServer, open_engine
from miiii_search.testing.processes import LIMIT_SECONDS, TINY, Processes, is_stopped, read_trials, wait_for


@pytest.mark.parametrize("storage_url", ["postgresql"], indirect=True)
def test_worker_and_coordinator_stay(processes: Processes, storage_url: str) -> None:
    """They stay when the study is done, and train a trial that returns to the queue."""
    processes.run("create", "--study", "s", *TINY, "--trials", "2", storage=storage_url)
    pulse = processes.folder / "pulse"
    worker = processes.start(
        "work", "--study", "s", "--keep-running", "--liveness-file", str(pulse), storage=storage_url
    )
    coordinator = processes.start("coordinate", "--study", "s", "--keep-running", storage=storage_url)
    wait_for(lambda: all(processes.has_logged(process, "is done") for process in (worker, coordinator)))
    beaten = pulse.stat().st_mtime
    wait_for(lambda: pulse.stat().st_mtime > beaten)
    first = read_trials(storage_url, "s")[0]
    with open_engine(storage_url).begin() as connection:
        connection.execute(sa.update(schema.trials).where(schema.trials.c.number == 0).values(state="WAITING"))
    wait_for(lambda: read_trials(storage_url, "s")[0].datetime_complete != first.datetime_complete)
    for process in (worker, coordinator):
        process.send_signal(signal.SIGTERM)
    for process in (worker, coordinator):
        assert process.wait(LIMIT_SECONDS) == 0, processes.log(process)


@pytest.mark.parametrize("storage_url", ["postgresql"], indirect=True)
def test_worker_stays_quietly_while_others_end(processes: Processes, storage_url: str) -> None:
    """The budget is spent, and somebody's trial still runs: there is nothing to do but to wait."""
    pulse = processes.folder / "pulse"
    budget = ("--set", "budget.wall_hours=1e-9", "--trials", "2")
    processes.run("create", "--study", "s", *TINY, *budget, storage=storage_url)
    with open_engine(storage_url).begin() as connection:
        connection.execute(sa.update(schema.trials).where(schema.trials.c.number == 0).values(state="RUNNING"))
    worker = processes.start(
        "work", "--study", "s", "--keep-running", "--liveness-file", str(pulse), storage=storage_url
    )
    wait_for(lambda: processes.has_logged(worker, "waiting for more"))
    first = pulse.stat().st_mtime
    wait_for(lambda: pulse.stat().st_mtime > first + 7)
    assert processes.log(worker).count("waiting for more") == 1, processes.log(worker)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(LIMIT_SECONDS) == 0


def test_pulse_of_a_worker_that_trains(processes: Processes, tmp_path: Path) -> None:
    """It is touched again and again, and no more when the worker is stopped."""
    storage, pulse = f"sqlite:///{tmp_path}/study.db", tmp_path / "pulse"
    long = ("--set", "experiment.epochs=1000000", "--trials", "1")
    processes.run("create", "--study", "s", *TINY, *long, storage=storage)
    worker = processes.start("work", "--study", "s", "--liveness-file", str(pulse), storage=storage)
    wait_for(lambda: any(trial.intermediate_values for trial in read_trials(storage, "s")))
    beaten = pulse.stat().st_mtime
    wait_for(lambda: pulse.stat().st_mtime > beaten + 1)
    worker.send_signal(signal.SIGSTOP)
    wait_for(lambda: is_stopped(worker))
    stopped = pulse.stat().st_mtime
    time.sleep(2 * INTERVAL_SECONDS)  # that nothing happens can only be seen over a time
    assert pulse.stat().st_mtime == stopped
    worker.send_signal(signal.SIGCONT)
    wait_for(lambda: pulse.stat().st_mtime > stopped)


@pytest.mark.parametrize("storage_url", ["sqlite"], indirect=True)
def test_study_is_kept_as_it_is(processes: Processes, storage_url: str) -> None:
    """A container that restarts with other settings continues its study, and reports the differences."""
    create = ("--study", "s", *TINY, "--trials", "1")
    processes.run("create", *create, storage=storage_url)
    processes.run("work", "--study", "s", storage=storage_url)
    other = ("coordinate", "--study", "s", *TINY, "--trials", "2")
    refused = processes.start(*other, storage=storage_url)
    assert refused.wait(LIMIT_SECONDS) == 2
    said = processes.run(*other, "--keep", storage=storage_url)
    assert "its specification is kept, although the options differ" in said
    assert "trials" in said
    assert "is done" in said


def test_worker_for_cuda_does_not_train_on_the_cpu(processes: Processes, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    processes.run("create", "--study", "s", *TINY, "--trials", "1", storage=storage)
    worker = processes.start("work", "--study", "s", "--device", "cuda", storage=storage)
    assert worker.wait(LIMIT_SECONDS) == 2
    [line] = processes.log(worker).splitlines()
    assert line.startswith("error: this worker is for CUDA, but sees no GPU")
    assert "MIIII_DEVICE=cpu" in line


def test_storage_of_a_file(processes: Processes, tmp_path: Path, storage_url: str) -> None:
    """As containers are given secrets; what is said on the command line or in the environment comes first."""
    processes.run("create", "--study", "there", *TINY, "--trials", "1", storage=storage_url)
    (tmp_path / "url").write_text(storage_url + "\n")
    processes.environment |= {"MIIII_STORAGE_FILE": str(tmp_path / "url"), "MIIII_STORAGE": ""}
    assert "there" in processes.run("status", storage=storage_url)
    (tmp_path / "url").unlink()
    refused = processes.start("status", storage=storage_url)
    assert refused.wait(LIMIT_SECONDS) == 2
    assert "MIIII_STORAGE_FILE" in processes.log(refused)


@pytest.mark.parametrize("storage_url", ["postgresql"], indirect=True)
def test_a_deleted_study_stays_deleted(processes: Processes, storage_url: str, tmp_path: Path) -> None:
    """Coordinator and worker wait, and so does a coordinator that is started again; `create` has them go on."""
    pulse = tmp_path / "pulse"
    long = ("--set", "experiment.epochs=1000000", "--trials", "1")
    coordinate = ("coordinate", "--study", "s", *TINY, *long, "--keep-running", "--keep")
    coordinator = processes.start(*coordinate, "--liveness-file", str(pulse), storage=storage_url)
    wait_for(lambda: processes.has_logged(coordinator, "created in"))
    worker = processes.start("work", "--study", "s", "--keep-running", storage=storage_url)
    wait_for(lambda: processes.has_logged(worker, "Trial 0 starts"))
    processes.run("delete", "--study", "s", "--yes", "--force", storage=storage_url)
    wait_for(lambda: all(processes.has_logged(p, "waiting: study `s` was deleted") for p in (worker, coordinator)))
    assert "miiii-search create --study s" in processes.log(coordinator)
    again = processes.start(*coordinate, storage=storage_url)
    wait_for(lambda: processes.has_logged(again, "waiting: study `s` was deleted"))
    at_once = processes.start("coordinate", "--study", "s", *TINY, *long, storage=storage_url)
    assert at_once.wait(LIMIT_SECONDS) == 2
    beaten = pulse.stat().st_mtime
    wait_for(lambda: pulse.stat().st_mtime > beaten)
    refused = processes.start("status", "--study", "s", storage=storage_url)
    assert refused.wait(LIMIT_SECONDS) == 2
    assert "was deleted on" in processes.log(refused)
    assert "study `s` was deleted" in processes.run("list", storage=storage_url)
    processes.run("create", "--study", "s", *TINY, *long, storage=storage_url)
    wait_for(lambda: processes.log(worker).count("Trial 0 starts") == 2)
    wait_for(lambda: all(processes.has_logged(p, "study `s` exists in") for p in (coordinator, again)))
    assert "was deleted" not in processes.run("list", storage=storage_url)
    for process in (worker, coordinator, again):
        process.send_signal(signal.SIGTERM)
    for process in (worker, coordinator, again):
        assert process.wait(LIMIT_SECONDS) == 0, processes.log(process)


@pytest.mark.parametrize("storage_url", ["postgresql"], indirect=True)
def test_a_worker_may_come_before_its_study(processes: Processes, storage_url: str) -> None:
    processes.run("create", "--study", "another", *TINY, "--trials", "1", storage=storage_url)
    worker = processes.start("work", "--study", "s", "--keep-running", storage=storage_url)
    wait_for(lambda: processes.has_logged(worker, "waiting: there is no study `s`"))
    processes.run("create", "--study", "s", *TINY, "--trials", "1", storage=storage_url)
    wait_for(lambda: processes.has_logged(worker, "study `s` is done"))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(LIMIT_SECONDS) == 0


@pytest.mark.parametrize("storage_url", ["sqlite"], indirect=True)
def test_a_study_that_was_left_gets_its_trials_back(processes: Processes, storage_url: str) -> None:
    """A worker dies just before the coordinator is started for another study."""
    long = ("--set", "experiment.epochs=1000000", "--set", "lease_seconds=2", "--trials", "1")
    processes.run("create", "--study", "left", *TINY, *long, storage=storage_url)
    worker = processes.start("work", "--study", "left", storage=storage_url)
    wait_for(lambda: read_trials(storage_url, "left")[0].state == TrialState.RUNNING)
    worker.kill()
    coordinator = processes.start("coordinate", "--study", "s", *TINY, "--trials", "1", storage=storage_url)
    wait_for(lambda: read_trials(storage_url, "left")[0].state == TrialState.WAITING)
    wait_for(lambda: processes.has_logged(coordinator, "trial 0 of study `left` went back to the queue"))
    assert "study `left` is not done" in processes.log(coordinator)


def test_what_could_not_be_handed_back(processes: Processes) -> None:
    """A worker stops while the database is down; the next one hands its trial back, long before the lease runs out."""
    long = ("--set", "experiment.epochs=1000000", "--set", "lease_seconds=3600", "--trials", "1")
    work = ("work", "--study", "s", "--lanes", "1", "--grace", "4")
    with PostgresServer() as server:
        storage = server.create_database()
        processes.run("create", "--study", "s", *TINY, *long, storage=storage)
        first = processes.start(*work, storage=storage)
        wait_for(lambda: read_trials(storage, "s")[0].intermediate_values)
        server.stop()
        wait_for(lambda: processes.has_logged(first, "the database does not answer"))
        first.send_signal(signal.SIGTERM)
        assert first.wait(LIMIT_SECONDS) == 0, processes.log(first)
        assert "the next worker of this machine returns 1 trial to the queue (0)" in processes.log(first)
        server.start()
        assert read_trials(storage, "s")[0].state == TrialState.RUNNING
        second = processes.start(*work, storage=storage)
        wait_for(lambda: processes.has_logged(second, "returned 1 trial to the queue for a worker that stopped"))
        wait_for(lambda: processes.has_logged(second, "Trial 0 starts from epoch"))
        second.send_signal(signal.SIGTERM)
        assert second.wait(LIMIT_SECONDS) == 0, processes.log(second)
        assert not list(processes.folder.rglob("unreturned/*.json"))
