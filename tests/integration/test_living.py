"""Living with a study, as a user does it: commands, workers and a coordinator in processes of their own."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.cli.options import DEFAULT_STORAGE
from miiii_search.storage import schema
from miiii_search.testing.failpoints import Failpoints
from miiii_search.testing.postgres import open_engine
from miiii_search.testing.processes import LIMIT_SECONDS, TINY, Processes, read_trials, trials_with_checkpoint, wait_for

EPOCHS = 8000


def hashes(storage: str, study: str) -> list[str]:
    return [t.user_attrs["metrics"]["weights_sha256"] for t in read_trials(storage, study)]


def states(storage: str) -> set[TrialState]:
    return {t.state for t in read_trials(storage, "one")}


def test_from_the_first_day_to_the_last(
    processes: Processes, postgres_url: str, tmp_path: Path, failpoints: Failpoints
) -> None:
    """Pause, move from PostgreSQL to SQLite, go on there, extend, delete; what comes of it is what comes without."""
    long = ("--set", f"experiment.epochs={EPOCHS}", "--set", "experiment.evaluate_every=64")
    spec = (*TINY, *long, "--set", "pruning.rule=none", "--set", "lease_seconds=8")
    small = (*spec, "--set", "space.dropout=[0.0]", "--set", "space.weight_decay=[1.0]")
    space = ("--set", "space.grokfast_lambda=[0.0, 0.5]")
    create = ("create", "--preset", "demo", *small, *space)
    processes.run(*create, "--study", "one", storage=postgres_url)
    failpoints.arm("chunk")
    worker = processes.start("work", "--study", "one", "--lanes", "1", "--checkpoints", "here", storage=postgres_url)
    coordinator = processes.start("coordinate", "--study", "one", storage=postgres_url)
    failpoints.wait("chunk")

    assert "is paused now" in processes.run("pause", "--study", "one", storage=postgres_url)
    wait_for(lambda: "is paused" in processes.log(worker))
    failpoints.release("chunk")
    wait_for(lambda: TrialState.RUNNING not in states(postgres_url))
    wait_for(lambda: "is paused" in processes.log(coordinator))
    assert trials_with_checkpoint(postgres_url)
    status = json.loads(processes.run("status", "--study", "one", "--json", storage=postgres_url))
    assert status["paused"] and not status["done"]
    [listed] = json.loads(processes.run("list", "--json", storage=postgres_url))
    assert listed["state"] == "paused" and listed["counts"]["waiting"] > 0
    assert "paused" in processes.run("list", storage=postgres_url)
    assert worker.poll() is None and coordinator.poll() is None

    moved = f"sqlite:///{tmp_path}/moved.db"
    processes.run("export-study", "one.zip", "--study", "one", storage=postgres_url)
    processes.run("import-study", "one.zip", storage=moved)
    processes.run("resume", "--study", "one", storage=postgres_url)
    for process in (worker, coordinator):
        assert process.wait(LIMIT_SECONDS) == 0, processes.log(process)
    assert "is no longer paused" in processes.log(worker)
    assert states(postgres_url) == {TrialState.COMPLETE}

    assert "no longer paused" in processes.run("resume", "--study", "one", storage=moved)
    elsewhere = processes.start("work", "--lanes", "1", "--checkpoints", "there", storage=moved)
    assert elsewhere.wait(LIMIT_SECONDS) == 0, processes.log(elsewhere)
    assert re.search(r"starts from epoch [\d,]+", processes.log(elsewhere))
    assert hashes(moved, "one") == hashes(postgres_url, "one")

    larger = ("--set", "space.grokfast_lambda=[0.0, 0.5, 2.0]")
    said = processes.run("extend", "--study", "one", *larger, storage=moved)
    assert "1 new trials are in the queue, 3 in all" in said
    processes.run("create", "--study", "one", "--preset", "demo", *small, *larger, storage=moved)
    processes.run("create", "--study", "one", "--preset", "demo", *small, *space, storage=moved, code=2)
    assert [t.state for t in read_trials(moved, "one")] == [*[TrialState.COMPLETE] * 2, TrialState.WAITING]

    processes.run("delete", "--study", "one", storage=moved, code=2)  # nobody is there to answer
    assert "is deleted" in processes.run("delete", "--study", "one", "--yes", storage=moved)
    assert json.loads(processes.run("list", "--json", storage=moved)) == []


def test_namesakes_leave_each_other_alone(tmp_path: Path) -> None:
    """Two folders, each with the default storage and a study of the same name: neither sees the other's checkpoints."""
    checkpoints = tmp_path / "state" / "miiii-search" / "checkpoints"
    long = ("--set", f"experiment.epochs={10**7}", "--set", "pruning.rule=none")
    work = ("work", "--lanes", "1", "--checkpoint-every", "0.2")
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(contextlib.closing(Processes(tmp_path / name))) for name in ("1", "2"))
        for processes, more in ((first, long), (second, ())):
            processes.folder.mkdir()
            processes.environment["XDG_STATE_HOME"] = str(tmp_path / "state")
            processes.run("create", "--preset", "demo", *TINY, *more, "--trials", "1", storage=DEFAULT_STORAGE)
        killed = first.start(*work, storage=DEFAULT_STORAGE)
        wait_for(lambda: len(list(checkpoints.rglob("*.ckpt"))) >= 2)
        killed.kill()
        killed.wait()
        left = {path: path.read_bytes() for path in checkpoints.rglob("*.ckpt")}
        other = second.start(*work, storage=DEFAULT_STORAGE)
        assert other.wait(LIMIT_SECONDS) == 0
        assert "was skipped" not in second.log(other)
        assert {path: path.read_bytes() for path in checkpoints.rglob("*.ckpt")} == left != {}
        with open_engine(f"sqlite:///{first.folder}/miiii-search.db").begin() as connection:  # its lease runs out
            connection.execute(sa.update(schema.leases).values(expires_at=0.0))
        coordinator = first.start("coordinate", storage=DEFAULT_STORAGE)
        again = first.start(*work, storage=DEFAULT_STORAGE)
        wait_for(lambda: re.search(r"Trial 0 starts from epoch [\d,]+", first.log(again)))
        for process in (again, coordinator):
            process.terminate()
            assert process.wait(LIMIT_SECONDS) == 0
