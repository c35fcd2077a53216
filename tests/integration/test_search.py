"""Whole searches, as a user starts them: real processes, real databases, real signals."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from optuna.trial import TrialState

from miiii_search.runs.run_folder import read_run
from miiii_search.testing.failpoints import Failpoints
from miiii_search.testing.processes import LIMIT_SECONDS, TINY, Processes, read_trials, wait_for

GRID = ("--set", "space.dropout=[0.0, 0.1]", "--set", "space.weight_decay=[0.0, 0.5, 1.0]")
LAMBDAS = ("--set", "space.grokfast_lambda=[0.0, 0.25, 0.5, 2.0]")
"""Together 2·3·4 = 24 configurations."""


def read_status(processes: Processes, storage: str, study: str) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(processes.run("status", "--study", study, "--json", storage=storage))
    return status


def test_two_workers_share_a_study(processes: Processes, storage_url: str) -> None:
    """Every configuration once, none twice, none left; and both workers had a part."""
    grid = (*TINY, *GRID, *LAMBDAS, "--set", "pruning.rule=none", "--set", "experiment.epochs=512")
    processes.run("create", "--study", "shared", *grid, storage=storage_url)
    workers = [processes.start("work", "--study", "shared", "--lanes", "2", storage=storage_url) for _ in range(2)]
    coordinator = processes.start("coordinate", "--study", "shared", storage=storage_url)
    for process in [*workers, coordinator]:
        assert process.wait(LIMIT_SECONDS) == 0, processes.log(process)
    trials = read_trials(storage_url, "shared")
    assert len(trials) == 24
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    configurations = Counter(tuple(sorted(trial.params.items())) for trial in trials)
    assert len(configurations) == 24
    assert len({trial.user_attrs["worker"] for trial in trials}) == 2
    status = read_status(processes, storage_url, "shared")
    assert status["done"] is True
    assert status["counts"] == {"waiting": 0, "running": 0, "complete": 24, "pruned": 0, "fail": 0}
    assert status["best"]["value"] == max(trial.value or 0 for trial in trials)


@pytest.mark.parametrize("storage_url", ["sqlite"], indirect=True)
def test_from_a_preset_to_a_retrained_best(processes: Processes, storage_url: str) -> None:
    """`up` to its end, again, `best`, `train`: the way of the README."""
    up = ("up", "--preset", "demo", "--no-dashboard", *TINY, "--trials", "3")
    said = processes.run(*up, storage=storage_url)
    assert "best first" in said
    assert "demo-best.toml" in said
    assert "3 complete" in processes.run(*up, storage=storage_url)
    status = read_status(processes, storage_url, "demo")
    assert set(status) >= {"study", "counts", "best", "done"}
    assert set(status["best"]) == {"number", "value", "params", "epochs_to_solve"}
    processes.run("best", "--study", "demo", "--out", "best.json", storage=storage_url)
    assert "identical" in processes.run("train", "best.json", "--out", "run", storage=storage_url)
    files = {path.name for path in (processes.folder / "run").iterdir()}
    assert files == {
        "config.toml",
        "metrics.json",
        "record.npz",
        "weights.safetensors",
        "learning-curves.png",
        "snapshots",
    }


@pytest.mark.parametrize("storage_url", ["postgresql"], indirect=True)
def test_the_best_are_run_with_another_seed(processes: Processes, storage_url: str) -> None:
    """`up` to its end: four configurations once, the best two of them again; and what goes by them."""
    four = ("--set", "space.dropout=[0.0, 0.1]", "--set", "space.weight_decay=[0.5, 1.0]")
    easy = ("--set", "experiment.target_accuracy=0.01", "--set", "experiment.solved_evaluations=1")
    spec = (*TINY, *four, *easy, "--set", "space.grokfast_lambda=[0.0]", "--set", "pruning.rule=none")
    up = ("up", "--preset", "demo", "--no-dashboard", *spec, "--set", "replicates={count=2, top=2}")
    said = processes.run(*up, storage=storage_url)
    assert "up to 6 trials" in said and "2 trials with further seeds are queued" in said and "median" in said
    trials = read_trials(storage_url, "demo")
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    best = sorted(trials[:4], key=lambda trial: (-(trial.value or 0.0), trial.number))[:2]
    assert [trial.params for trial in trials[4:]] == [trial.params for trial in best]
    status = read_status(processes, storage_url, "demo")
    assert status["done"] is True and status["counts"]["complete"] == 6
    assert [one["ended"] for one in status["configurations"][:2]] == [2, 2]
    processes.run("best", "--by", "median", "--out", "median.json", storage=storage_url)
    ranking = json.loads((processes.folder / "median.json").read_text())["provenance"]["ranking"]
    assert ranking == {"by": "median", **{k: v for k, v in status["configurations"][0].items() if k != "params"}}
    assert "figures" in processes.run("analyze", "--study", "demo", "--out", "all", storage=storage_url)
    assert (processes.folder / "all" / "study-seeds.png").exists()


def test_another_seed_differs(processes: Processes, tmp_path: Path) -> None:
    """The verdict of `train` is not always the same; and what it writes is a configuration like any other."""
    storage = f"sqlite:///{tmp_path}/none.db"
    preset = ("--preset", "demo", "--set", "experiment.p=7", "--set", "experiment.epochs=64")
    small = ("--set", "experiment.validation_samples=10", "--set", "hyperparameters.d_model=16")
    processes.run("train", *preset, *small, "--out", "run", storage=storage)
    config = tmp_path / "run" / "config.toml"
    config.write_text(re.sub(r"^seed = 0", "seed = 1", config.read_text(), flags=re.MULTILINE))
    assert "differs" in processes.run("train", "run/config.toml", "--out", "other", storage=storage)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_stop(processes: Processes, tmp_path: Path, number: signal.Signals) -> None:
    """A stopped run is a run like any other, and says that it is not complete."""
    small = ("--set", "experiment.validation_samples=10", "--set", "hyperparameters.d_model=16")
    tiny = ("--set", "experiment.p=7", "--set", "experiment.solved_evaluations=1000000", *small)
    endless = ("train", "--preset", "demo", *tiny, "--set", "experiment.epochs=1000000", "--out", "run")
    process = processes.start(*endless, storage="")
    wait_for(lambda: list((tmp_path / "run").rglob("epoch-256.npz")))
    process.send_signal(number)
    assert process.wait(LIMIT_SECONDS) == 130
    said = processes.log(process)
    assert re.search(r"stopped at epoch [\d,]+ of 1,000,000; metrics, weights and curves are in run\n", said), said
    run, problems = read_run(tmp_path / "run")
    assert problems == [] and run.metrics is not None and run.record is not None and run.weights is not None
    assert 256 <= run.metrics.epochs_trained == run.record.epoch[-1] == run.last_epoch < 1_000_000
    assert min(run.snapshots) == 256 and list(run.snapshots) == list(run.spectra)
    assert f"stopped_at_epoch = {run.last_epoch}" in (tmp_path / "run" / "config.toml").read_text()
    assert [path.parent.name for path in (tmp_path / "run").rglob("epoch-256.npz")] == ["snapshots"]


def long_study(epochs: int = 10**6) -> tuple[str, ...]:
    """`up` on a study that does not end by itself while a test looks."""
    return ("up", "--preset", "demo", *TINY, "--set", f"experiment.epochs={epochs}", "--trials", "3")


def wait_until_it_trains(processes: Processes, process: subprocess.Popen[str], storage: str) -> None:
    """Until a trial of the study has reported."""
    # Not before it says so: reading would make the tables of a database that is not there yet.
    wait_for(lambda: "starts" in processes.log(process))
    wait_for(lambda: any(t.state == TrialState.RUNNING and t.intermediate_values for t in read_trials(storage, "demo")))


def test_interrupt_hands_back_and_the_same_command_continues(processes: Processes, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    up = processes.start(*long_study(), "--no-dashboard", storage=storage)
    wait_until_it_trains(processes, up, storage)
    children = psutil.Process(up.pid).children(recursive=True)
    assert children
    up.send_signal(signal.SIGINT)
    assert up.wait(LIMIT_SECONDS) == 0, processes.log(up)
    assert "the same command continues" in processes.log(up)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    before = read_trials(storage, "demo")
    assert {trial.state for trial in before} == {TrialState.WAITING}
    again = processes.start(*long_study(), "--no-dashboard", storage=storage)
    wait_until_it_trains(processes, again, storage)
    again.send_signal(signal.SIGTERM)
    assert again.wait(LIMIT_SECONDS) == 0
    after = read_trials(storage, "demo")
    assert [trial.params for trial in after] == [trial.params for trial in before]
    assert {trial.state for trial in after} == {TrialState.WAITING}, processes.log(again)


def test_killed_parent_leaves_no_worker_and_its_trials_come_back(processes: Processes, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    up = processes.start(*long_study(), "--set", "lease_seconds=5", "--port", "0", storage=storage)
    wait_until_it_trains(processes, up, storage)
    children = psutil.Process(up.pid).children(recursive=True)
    assert len(children) == 2  # the worker and the dashboard
    up.kill()
    up.wait()
    psutil.wait_procs(children, timeout=600)
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    wait_for(lambda: {t.state for t in read_trials(storage, "demo")} == {TrialState.WAITING})


def test_end_of_parent_and_a_signal_are_not_two_signals(processes: Processes, tmp_path: Path) -> None:
    """A service manager that stops `up` tells both at once; the worker hands its trial back all the same."""
    storage = f"sqlite:///{tmp_path}/study.db"
    processes.run("create", *long_study()[1:], storage=storage)
    worker = processes.start("work", "--study", "demo", "--with-parent", storage=storage, stdin=subprocess.PIPE)
    wait_until_it_trains(processes, worker, storage)
    assert worker.stdin is not None
    worker.stdin.close()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(LIMIT_SECONDS) == 0, processes.log(worker)
    assert "to the queue" in processes.log(worker)


def test_second_signal_ends_a_worker_at_once(processes: Processes, tmp_path: Path, failpoints: Failpoints) -> None:
    """Even while it compiles; the database would have its trial back when the lease runs out."""
    failpoints.arm("compile")
    storage = f"sqlite:///{tmp_path}/study.db"
    processes.run("create", *long_study()[1:], storage=storage)
    worker = processes.start("work", "--study", "demo", storage=storage)
    failpoints.wait("compile")
    worker.send_signal(signal.SIGINT)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(LIMIT_SECONDS) in (128 + signal.SIGINT, 128 + signal.SIGTERM)  # two that wait come in any order
    assert "to the queue" not in processes.log(worker)


@pytest.mark.parametrize("storage_url", ["postgresql"], indirect=True)
def test_killed_worker_s_trials_come_back(processes: Processes, storage_url: str) -> None:
    """SIGKILL leaves no time to hand anything back: the lease runs out, and the coordinator notices."""
    processes.run("create", *long_study()[1:], "--set", "lease_seconds=2", storage=storage_url)
    worker = processes.start("work", "--study", "demo", "--lanes", "2", storage=storage_url)
    wait_until_it_trains(processes, worker, storage_url)
    worker.kill()
    worker.wait()
    coordinator = processes.start("coordinate", "--study", "demo", storage=storage_url)
    wait_for(lambda: {t.state for t in read_trials(storage_url, "demo")} == {TrialState.WAITING})
    wait_for(lambda: processes.has_logged(coordinator, "went back to the queue"))
    coordinator.send_signal(signal.SIGTERM)
    assert coordinator.wait(LIMIT_SECONDS) == 0


def test_dashboard_beside_a_search(processes: Processes, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    up = processes.start(*long_study(), "--port", "0", storage=storage)
    url = wait_for(lambda: re.search(r"dashboard: (http://\S+)", processes.log(up)))[1]
    with urllib.request.urlopen(f"{url}api/studies", timeout=600) as answer:
        studies = json.load(answer)["study_summaries"]
    assert [study["study_name"] for study in studies] == ["demo"]
    up.send_signal(signal.SIGINT)
    assert up.wait(LIMIT_SECONDS) == 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}api/studies", timeout=5)


def test_dead_worker_ends_up_with_exit_code_1(processes: Processes, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    up = processes.start(*long_study(), "--no-dashboard", storage=storage)
    wait_until_it_trains(processes, up, storage)
    [worker] = psutil.Process(up.pid).children()
    worker.kill()
    assert up.wait(LIMIT_SECONDS) == 1
    assert "the worker ended with exit code -9" in processes.log(up)
    assert "Traceback" not in processes.log(up)


def test_watch_ends_with_the_study(processes: Processes, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    processes.run("create", "--preset", "demo", *TINY, "--trials", "2", storage=storage)
    watch = processes.start("watch", "--study", "demo", storage=storage)
    assert processes.start("work", "--study", "demo", storage=storage).wait(120) == 0
    assert watch.wait(LIMIT_SECONDS) == 0
    assert "done" in processes.log(watch)
