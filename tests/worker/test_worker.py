"""A worker trains whole studies of tiny runs: what it trains, what it writes, and when it must not write."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import optuna_dashboard
import pytest
import sqlalchemy as sa
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import FrozenTrial, TrialState
from safetensors.numpy import load

from miiii_search.config.search_space import Range
from miiii_search.config.study_sections import Budget, Pruning
from miiii_search.config.study_spec import rungs
from miiii_search.errors import VersionMismatchError
from miiii_search.experiment.metrics import hash_weights
from miiii_search.experiment.record import Record
from miiii_search.storage import schema
from miiii_search.storage import study_attrs as attributes
from miiii_search.storage.artifacts import DatabaseArtifactStore
from miiii_search.storage.database import Database, open_database
from miiii_search.storage.study_attrs import PROGRAMS_KEY, VERSION_KEY
from miiii_search.study.create import create_study
from miiii_search.study.open import open_study
from miiii_search.study.snapshots import trial_folder
from miiii_search.study.status import read_status
from miiii_search.study.study import Study
from miiii_search.testing.failpoints import Failpoints
from miiii_search.training import run
from miiii_search.training.version import TRAINING_PROGRAM
from miiii_search.trial_queue._leases import grant
from miiii_search.worker.checkpoints import ByteBudget, LocalCheckpoints
from miiii_search.worker.options import CheckpointPolicy, WorkerOptions
from miiii_search.worker.worker import Worker
from tests.support import SECONDS, SMALL, TINY, claim, end, everything, log_lines, make_spec, read_back, wait_until

NEVER = Pruning(rule="none")
ENDLESS = TINY.model_copy(update={"epochs": 10**7})


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path_factory.mktemp('worker')}/test.db", create=True)
    yield opened
    opened.close()


def work(study: Study, lanes: int = 2) -> list[str]:
    """Train a study to its end, and return what the worker logged."""
    with log_lines() as logged:
        Worker(study, lanes).run(threading.Event())
    assert study.is_done()
    return logged


@contextlib.contextmanager
def working(
    study: Study, lanes: int = 2, checkpoints: CheckpointPolicy | None = None, **hooks: Any
) -> Iterator[tuple[threading.Event, list[str]]]:
    """Run a worker in a thread. Yield the event that stops it and what it logs, and stop it at the end."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def train() -> None:
        try:
            Worker(study, lanes, WorkerOptions(checkpoints=checkpoints), **hooks).run(stop)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=train)
    with log_lines(thread) as logged:
        thread.start()
        try:
            yield stop, logged
        finally:
            stop.set()
            thread.join(600)
    assert not thread.is_alive() and errors == []


def artifacts_of(study: Study, trial: FrozenTrial) -> dict[str, bytes]:
    store = DatabaseArtifactStore(study.database)
    found = get_all_artifact_meta(trial, storage=study.database.optuna)
    return {meta.filename: store.open_reader(meta.artifact_id).read() for meta in found}


def note_of(study: Study, trial: FrozenTrial) -> str:
    return str(optuna_dashboard.get_note(optuna.trial.Trial(read_back(study), trial._trial_id)))


def expected_reports(record: Record, at: Sequence[int]) -> dict[int, Any]:
    accuracy = dict(zip(record.epoch.tolist(), record.validation_accuracy.mean(1).tolist(), strict=True))
    return {epoch: pytest.approx(accuracy[epoch], abs=1e-7) for epoch in at}  # float32 here


def test_a_study_to_its_end(database: Database) -> None:
    space = {"n_heads": (2, 4), "weight_decay": (0.0, 0.5, 1.0)}  # two programs
    study = create_study(database, "study", make_spec(space=space, pruning=NEVER))
    logged = work(study)

    trials = read_back(study).trials
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    points = [tuple(trial.params[name] for name in space) for trial in trials]
    assert sorted(points) == sorted(itertools.product(*space.values()))
    for trial in trials:
        assert [line for line in logged if line.startswith(f"Trial {trial.number} starts: ")]
        attributes = trial.user_attrs
        assert attributes["epochs_trained"] == 48 and attributes["epochs_to_solve"] is None
        assert attributes["device"].startswith("cpu") and ":" in attributes["worker"]
        assert attributes["seconds"] > 0 and attributes["seed"] == 0 and "jax" in attributes["versions"]
        for split in ("validation_accuracy", "test_accuracy"):
            assert attributes[split].keys() == {"7"} and 0 <= attributes[split]["7"] <= 1
        assert trial.value == pytest.approx(attributes["validation_accuracy"]["7"], abs=1e-7)

        files = artifacts_of(study, trial)
        assert files.keys() == {"learning-curves.png", "record.npz", "weights.safetensors"}
        assert hash_weights(load(files["weights.safetensors"])) == attributes["metrics"]["weights_sha256"]
        assert files["learning-curves.png"].startswith(b"\x89PNG\r\n\x1a\n")
        record = Record.from_npz(files["record.npz"])
        assert record.epoch.tolist() == list(range(4, 49, 4))
        with np.load(io.BytesIO(files["record.npz"]), allow_pickle=False) as arrays:
            assert arrays["moduli"].tolist() == [7]
        assert trial.intermediate_values == expected_reports(record, [4, 8, 12, 16, 24, 32, 48])
        assert rungs(TINY) == [4, 8, 12, 16, 24, 32, 48]

        note = note_of(study, trial)
        assert note in logged
        assert note.startswith(f"Trial {trial.number} was not solved in 48 epochs: ") and note.endswith(".")
    assert everything(database)["miiii_leases"] == []
    assert len(trials) == len(everything(database)["trials"]) == 6

    # A run gives the same result in a lane beside others as on its own.
    trial = trials[-1]
    alone = run.train(*study.trial_settings(trial))
    assert trial.user_attrs["metrics"] == alone.metrics.model_dump(mode="json", exclude_none=True)


def test_solved_trials(sqlite: Database) -> None:
    """Check that a run is solved at the first of three consecutive evaluations at the target."""
    experiment = TINY.model_copy(update={"target_accuracy": 0.05})  # one validation sample of twelve is right
    spec = make_spec(experiment=experiment, space={"learning_rate": (1e-3, 1e-4, 3e-4, 1e-5)}, pruning=NEVER)
    study = create_study(sqlite, "solved", spec)
    work(study)
    solved = 0
    for trial in read_back(study).trials:
        record = Record.from_npz(artifacts_of(study, trial)["record.npz"])
        at_target = np.all(record.validation_accuracy >= 0.05, axis=1)
        streaks = [k for k in range(len(record) - 2) if all(at_target[k : k + 3])]
        if streaks:
            solved += 1
            epoch = int(record.epoch[streaks[0]])
            assert trial.user_attrs["epochs_to_solve"] == epoch
            # It ends at once.
            assert trial.user_attrs["epochs_trained"] == record.epoch[-1] == epoch + 8
            assert trial.value == pytest.approx(1 + (1 - epoch / 48))
            assert f"solved every task at epoch {epoch} of 48" in note_of(study, trial)
            assert max(trial.intermediate_values) == epoch + 8
            assert max(trial.intermediate_values.values()) <= 1
        else:
            assert trial.user_attrs["epochs_to_solve"] is None
            assert trial.value is not None and trial.value <= 1
    assert solved >= 2
    best = read_status(study).best
    assert best is not None and best.value is not None and best.value > 1


def test_a_loss_that_is_not_finite(sqlite: Database) -> None:
    spec = make_spec(space={"learning_rate": (1e30, 3e-3, 1e-3)}, pruning=NEVER)
    study = create_study(sqlite, "not finite", spec)
    work(study)
    trials = read_back(study).trials
    [failed] = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert failed.params == {"learning_rate": 1e30} and failed.value is None
    assert [trial.state for trial in trials].count(TrialState.COMPLETE) == 2
    epoch = failed.user_attrs["failed_epoch"]
    record = Record.from_npz(artifacts_of(study, failed)["record.npz"])
    # The epoch of the step that met the loss, not that of the evaluation which found it.
    assert 2 <= epoch <= record.epoch[-1] and not math.isfinite(record.train_loss[-1].sum())
    assert failed.user_attrs["epochs_trained"] == record.epoch[-1] < 48
    assert failed.user_attrs["reason"] == note_of(study, failed)
    assert f"the loss was not finite at epoch {epoch}" in failed.user_attrs["reason"]
    assert "learning-curves.png" in artifacts_of(study, failed)
    json.dumps(failed.user_attrs, allow_nan=False)
    assert "metrics" not in failed.user_attrs
    assert failed.user_attrs["retries"] == 2  # it was trained three times


def test_no_retries(sqlite: Database) -> None:
    spec = make_spec(space={"learning_rate": (1e30,)}, pruning=NEVER, max_retries=0)
    study = create_study(sqlite, "no retries", spec)
    work(study)
    [failed] = read_back(study).trials
    assert failed.state == TrialState.FAIL and "retries" not in failed.user_attrs


def test_a_study_of_another_version(sqlite: Database) -> None:
    study = create_study(sqlite, "another version", make_spec(space={"dropout": (0.0,)}))
    with study.database.transaction() as connection:
        attributes.write(connection, study.study_id, {VERSION_KEY: "0.0.1", PROGRAMS_KEY: [0]})
    other = open_study(sqlite, study.name)
    with pytest.raises(VersionMismatchError, match=r"created by miiii-search 0\.0\.1.*program 0;.*--any-version"):
        Worker(other, 1)
    study.refresh()
    assert study.version_mismatch == replace(other, version=study.version).version_mismatch is not None
    Worker(other, 1, WorkerOptions(any_version=True)).run(threading.Event())
    study.refresh()
    assert study.version_mismatch is None and study.programs == (0, TRAINING_PROGRAM)  # from now on, for everyone
    [trial] = read_back(study).trials
    assert trial.state == TrialState.COMPLETE and trial.user_attrs["study_version"] == "0.0.1"
    assert trial.user_attrs["training_program"] == TRAINING_PROGRAM


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the files of a trial, oldest first."""
    return sorted(folder.rglob("*.ckpt"), key=lambda path: int(path.stem.split("-")[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["none", "truncated", "a flipped byte", "all"])
def test_a_trial_goes_on_from_its_last_good_checkpoint(
    sqlite: Database, tmp_path: Path, damage: str, failpoints_here: Failpoints
) -> None:
    experiment = TINY.model_copy(update={"epochs": 4000, "evaluate_every": 50})
    spec = make_spec(experiment=experiment, space={"dropout": (0.1,)}, pruning=NEVER)
    study = create_study(sqlite, f"checkpoints, {damage}", spec)
    policy = CheckpointPolicy(tmp_path / "checkpoints", save_seconds=0.0)  # after each chunk
    failpoints_here.arm("chunk", "pause 2")
    with working(study, 1, checkpoints=policy) as (stop, _):
        wait_until(lambda: len(checkpoints_in(tmp_path)) == 1)
        failpoints_here.arm("drain", "pass")
        stop.set()
        failpoints_here.wait("drain")
        failpoints_here.release("chunk")
    older, newest = checkpoints_in(tmp_path)
    with study.database.transaction() as connection:
        connection.execute(sa.delete(schema.checkpoints))  # which the worker wrote when it stopped
    for path in {"none": [], "all": [older, newest]}.get(damage, [newest]):
        data = path.read_bytes()
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]
        path.write_bytes(data[:middle] if damage == "truncated" else flipped)
    with log_lines() as logged:
        Worker(study, 1, WorkerOptions(checkpoints=policy)).run(threading.Event())
    start = next(line for line in logged if line.startswith("Trial 0 starts"))
    expected = {"none": newest, "all": None}.get(damage, older)
    epoch = int(expected.stem.split("-")[-1]) if expected else 0
    assert start.startswith(f"Trial 0 starts from epoch {epoch:,}:" if epoch else "Trial 0 starts:")
    assert len([line for line in logged if "was skipped" in line]) == {"none": 0, "all": 2}.get(damage, 1)
    [trial] = read_back(study).trials
    assert [entry["epoch"] for entry in trial.user_attrs["resumed"]] == ([epoch] if epoch else [])
    # The result is that of a run without an interruption.
    alone = run.train(*study.trial_settings(trial))
    assert trial.user_attrs["metrics"] == alone.metrics.model_dump(mode="json", exclude_none=True)
    record = Record.from_npz(artifacts_of(study, trial)["record.npz"])
    np.testing.assert_array_equal(record.epoch, alone.record.epoch)
    np.testing.assert_array_equal(record.validation_loss, alone.record.validation_loss)
    assert set(trial.intermediate_values) == set(rungs(experiment))
    assert checkpoints_in(tmp_path) == []


def test_what_ended_elsewhere_is_swept(sqlite: Database, tmp_path: Path) -> None:
    study = create_study(sqlite, "swept", make_spec(space={"dropout": (0.0, 0.1)}, pruning=NEVER))
    first, second = claim(study), claim(study)
    local = LocalCheckpoints(tmp_path, study)
    for lease in (first, second):
        for epoch in (4, 8, 12):
            local.save(lease.trial_id, epoch, b"data")
    (local.folder / f"trial-{first.trial_id}.epoch-16.77.tmp").write_bytes(b"half")
    assert len(list(local.folder.iterdir())) == 5  # the newest two of each
    end(study, first)
    stop = threading.Event()
    stop.set()
    Worker(study, 1, WorkerOptions(checkpoints=CheckpointPolicy(tmp_path))).run(stop)
    assert local.trial_ids() == {second.trial_id} and len(list(local.folder.iterdir())) == 2


def test_what_a_full_byte_budget_does_not_take() -> None:
    clock = [0.0]
    budget = ByteBudget(100.0, lambda: clock[0])
    assert budget.try_consume(6000) and not budget.try_consume(1)  # a minute's worth at first
    clock[0] = 10.0
    assert budget.try_consume(1000) and not budget.try_consume(1)
    clock[0] = 10_000.0
    assert not budget.try_consume(60_001) and budget.try_consume(60_000)  # ten minutes' worth at most


@pytest.mark.slow
def test_pruning_respects_its_floor(sqlite: Database) -> None:
    """Check that a pruner which prunes everything does so at the first rung from the floor on."""
    pruning = Pruning(rule="threshold", min_epochs=20, options={"lower": 1.5})
    spec = make_spec(experiment=ENDLESS, space={"weight_decay": (0.0, 0.5, 1.0)}, pruning=pruning)
    study = create_study(sqlite, "floor", spec)
    work(study)
    for trial in read_back(study).trials:
        assert trial.state == TrialState.PRUNED
        assert trial.user_attrs["reason"].startswith("ThresholdPruner at epoch 24")
        assert f"was pruned: {trial.user_attrs['reason']}." in note_of(study, trial)
        # At the end of a chunk: the lane continues to train during the decision.
        assert 24 <= trial.user_attrs["epochs_trained"] < ENDLESS.epochs
        assert max(trial.intermediate_values) == trial.user_attrs["epochs_trained"]
        assert trial.value == trial.intermediate_values[max(trial.intermediate_values)] is not None
        assert "test_accuracy" in trial.user_attrs
        assert artifacts_of(study, trial).keys() == {"learning-curves.png", "record.npz"}


@pytest.mark.slow
def test_quantile_pruning(sqlite: Database) -> None:
    """Check that trials below the quantile are pruned, and that the best one never is."""
    rates = (1e-5, 1e-4, 1e-3, 3e-3)
    pruning = Pruning(rule="quantile", quantile=0.9, min_epochs=4, min_trials=4)
    spec = make_spec(experiment=ENDLESS, space={"learning_rate": rates}, pruning=pruning)
    study = create_study(sqlite, "quantile", spec)
    with working(study, lanes=4):
        wait_until(lambda: [t for t in read_back(study).trials if t.state == TrialState.PRUNED])
    trials = read_back(study).trials
    states = [trial.state for trial in trials]
    assert set(states) == {TrialState.PRUNED, TrialState.WAITING}  # returned to the queue at the end
    for trial in trials:
        if trial.state == TrialState.PRUNED:
            assert "the 90% quantile of 4 trials" in trial.user_attrs["reason"]
            assert 4 <= trial.user_attrs["epochs_trained"] < ENDLESS.epochs
        else:
            assert "reason" not in trial.user_attrs


@pytest.mark.slow
def test_stop_hands_the_trials_back(database: Database) -> None:
    study = create_study(database, "study", make_spec(experiment=ENDLESS, pruning=NEVER))
    with working(study, lanes=3) as (stop, logged):
        reported = wait_until(lambda: [t.number for t in study.trials() if len(t.intermediate_values) > 2])
        stop.set()
    trials = read_back(study).trials
    assert {trial.state for trial in trials} == {TrialState.WAITING}
    assert all(trials[number].intermediate_values for number in reported)
    assert everything(database)["miiii_leases"] == []
    started = sorted(int(line.split()[1]) for line in logged if " starts: " in line)
    assert logged[-1] == f"returned 3 trials to the queue: {', '.join(map(str, started))}"


def test_a_stolen_lease(database: Database) -> None:
    spec = make_spec(experiment=ENDLESS, budget=Budget(trials=1), pruning=NEVER, lease_seconds=2.0)
    study = create_study(database, "study", spec)
    with working(study, lanes=1) as (_, logged):
        wait_until(lambda: read_back(study).trials[0].intermediate_values)
        with database.transaction() as connection:
            # A coordinator and another worker do this one after the other. Here it is done at once, so that this worker
            # cannot be the other one.
            connection.execute(sa.delete(schema.leases))
            trial_id = study.trials()[0]._trial_id
            [thief] = grant(connection, study.study_id, [(trial_id, 0)], "thief", SECONDS)
        before = everything(database)
        wait_until(lambda: "Trial 0 was taken from this worker" in logged)
        assert everything(database) == before
        end(study, thief, value=0.125)
        wait_until(study.is_done)
    trial = read_back(study).trials[0]
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.125)
    assert study.queue.requeue_overdue() == []
    assert "returned" not in "".join(logged)


def test_a_worker_goes_on_with_what_another_left(sqlite: Database) -> None:
    """Check that a trial without a checkpoint starts again with the same result, since it depends on its seed only."""
    space = {"weight_decay": (0.0, 0.5)}
    left = create_study(sqlite, "left", make_spec(space=space, pruning=NEVER))
    lease = claim(left, seconds=-1.0)
    sqlite.optuna.set_trial_intermediate_value(lease.trial_id, 4, 0.125)
    assert left.queue.requeue_overdue() == [lease.number]
    whole = create_study(sqlite, "whole", make_spec(space=space, pruning=NEVER))
    for study in (left, whole):
        work(study)
    mine, theirs = (read_back(study).trials for study in (left, whole))
    assert [t.intermediate_values for t in mine] == [t.intermediate_values for t in theirs]
    assert [t.user_attrs["metrics"] for t in mine] == [t.user_attrs["metrics"] for t in theirs]


@pytest.mark.slow
def test_looks_are_kept(sqlite: Database, tmp_path: Path) -> None:
    """Check that spectra are always recorded, and that weights are recorded on request."""
    experiment = TINY.model_copy(update={"epochs": 320, "solved_evaluations": 100})
    study = create_study(
        sqlite, "looks", make_spec(experiment=experiment, space={"dropout": (0.0, 0.1)}, pruning=NEVER)
    )
    Worker(study, None, WorkerOptions(snapshots=tmp_path)).run(threading.Event())
    for trial in read_back(study).trials:
        with np.load(io.BytesIO(artifacts_of(study, trial)["record.npz"]), allow_pickle=False) as arrays:
            assert arrays["spectrum_epoch"].tolist() == [256, 320]
            assert arrays["spectrum"].shape == (2, 7, 4)
        folder = trial_folder(tmp_path, study, trial.number)
        assert sorted(path.name for path in folder.iterdir()) == ["epoch-256.npz", "epoch-320.npz"]
        with np.load(folder / "epoch-320.npz", allow_pickle=False) as weights:
            assert hash_weights(dict(weights)) == trial.user_attrs["metrics"]["weights_sha256"]


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_weights_of_the_best_are_kept(database: Database, keep: int) -> None:
    """Check the weights of the best trials: each was among the best when it ended."""
    spec = make_spec(space={"weight_decay": (0.0, 0.5, 1.0), "dropout": (0.0, 0.1)}, pruning=NEVER, keep_weights=keep)
    study = create_study(database, "weights", spec)
    work(study, lanes=1)
    trials = sorted(read_back(study).trials, key=lambda trial: str(trial.datetime_complete))
    values = [float(trial.value or 0) for trial in trials]
    for k, trial in enumerate(trials):
        kept = "weights.safetensors" in artifacts_of(study, trial)
        assert kept == (sum(value >= values[k] for value in values[:k]) < keep)


def test_sampled_trials_are_trained(sqlite: Database) -> None:
    space = {"learning_rate": Range(low=1e-4, high=1e-2, log=True), "dropout": (0.0, 0.1)}
    first = {"learning_rate": 1e-3, "dropout": 0.1}
    spec = make_spec(space=space, sampler="tpe", budget=Budget(trials=4), first=(first,), pruning=NEVER)
    study = create_study(sqlite, "sampled", spec)
    work(study)
    trials = read_back(study).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    assert trials[0].params == first and len({str(trial.params) for trial in trials}) == 4
    # The recorded configuration is the one that was trained.
    alone = run.train(*study.trial_settings(trials[3]))
    assert trials[3].user_attrs["metrics"]["weights_sha256"] == alone.metrics.weights_sha256


@pytest.mark.slow
def test_several_tasks(sqlite: Database) -> None:
    """Check that masked tasks are recorded like the others, but do not count in any mean."""
    changes = {"p": 13, "task": "masked", "validation_samples": 40, "epochs": 8}
    spec = make_spec(experiment=TINY.model_copy(update=changes), space={"dropout": (0.1,)}, pruning=NEVER)
    study = create_study(sqlite, "tasks", spec)
    work(study)
    [trial] = read_back(study).trials
    accuracy: dict[str, Any] = trial.user_attrs["validation_accuracy"]
    assert list(accuracy) == ["2", "3", "5", "7", "11"]
    assert trial.value == pytest.approx(accuracy["11"], abs=1e-7)
    record = Record.from_npz(artifacts_of(study, trial)["record.npz"])
    assert record.validation_accuracy.shape == (2, 5)


def test_hyperparameters_of_a_run(sqlite: Database) -> None:
    """Check that hyperparameters outside the search space are those of the study."""
    study = create_study(sqlite, "base", make_spec(space={"dropout": (0.1,)}, pruning=NEVER))
    _, hyperparameters = study.trial_settings(study.trials()[0])
    assert hyperparameters == SMALL.model_copy(update={"dropout": 0.1})
