"""The end of a trial in a worker: what is written, what is not, and what is removed again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from miiii_search.experiment.record import WeightSnapshot
from miiii_search.storage import retry
from miiii_search.storage.artifact_stores import (
    MARKER,
    ArtifactStoreUnavailableError,
    RemoteArtifactStore,
    parse_store_url,
)
from miiii_search.storage.artifacts import MAX_ARTIFACT_BYTES
from miiii_search.storage.database import Database
from miiii_search.study.create import create_study
from miiii_search.study.study import Study
from miiii_search.worker import finalizer, trial_result
from miiii_search.worker.active_trial import ActiveTrial
from miiii_search.worker.finalizer import TrialFinalizer
from miiii_search.worker.life_events import LeaseLost, NotWritten, ResultEvent, ResultRefused, ResultWritten
from miiii_search.worker.snapshot_writer import SnapshotWriter
from tests.backends import SqlBackend
from tests.support import make_spec, read_back
from tests.worker.support import ended


@pytest.fixture(autouse=True)
def curves(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pictures that cost nothing."""
    monkeypatch.setattr(trial_result, "draw_curves", lambda *_: b"\x89PNG")
    yield


def finish(study: Study, trial: ActiveTrial, checkpoint_writer: Any = None) -> ResultEvent:
    """Have a result written, and wait for the answer."""
    writing = TrialFinalizer(study, {"worker": "w", "device": "cpu"}, checkpoint_writer)
    answer = writing.submit(trial)
    result = answer.result(60)
    writing.close(time.monotonic() + 60)
    return result


def stored(study: Study, trial: ActiveTrial) -> FrozenTrial:
    return read_back(study).trials[trial.lease.number]


def artifact_names(study: Study, trial: ActiveTrial) -> list[str]:
    values = stored(study, trial).system_attrs
    return sorted(name for key, value in values.items() if "artifacts:" in key for name in NAMES if name in str(value))


NAMES = ("learning-curves.png", "record.npz", "weights.safetensors")


def test_a_result_is_written_and_the_checkpoints_removed(study: Study) -> None:
    trial, checkpoints = ended(study), mock.Mock()
    answer = finish(study, trial, checkpoints)
    assert isinstance(answer, ResultWritten)
    assert answer.note == "Trial 0 was not solved in 48 epochs: validation accuracy 0.500, 0 of 1 tasks at 1."
    assert checkpoints.remove.call_args_list == [mock.call(trial.lease.trial_id)]
    found = stored(study, trial)
    assert (found.state, found.value) == (TrialState.COMPLETE, trial.value)
    assert found.user_attrs["worker"] == "w" and found.user_attrs["epochs_trained"] == 12
    assert "validation_accuracy" in found.user_attrs and "reason" not in found.user_attrs


def test_a_solved_and_a_pruned_trial(study: Study) -> None:
    solved = ended(study, solved=8)
    answer = finish(study, solved)
    assert isinstance(answer, ResultWritten)
    assert answer.note == "Trial 0 solved every task at epoch 8 of 48 (test accuracy 0.500)."
    pruned = ended(study)
    pruned.life = pruned.life.__class__(**{**vars(pruned.life), "prune_reason": "too slow"})
    assert finish(study, pruned) == ResultWritten("Trial 1 was pruned: too slow.")
    found = stored(study, pruned)
    assert (found.state, found.value, found.user_attrs["reason"]) == (TrialState.PRUNED, 0.5, "too slow")


def test_only_the_best_keep_their_weights(file_database: Database, study: Study) -> None:
    for keep, expected in ((0, [False, False]), (1, [True, False])):
        made = create_study(file_database, f"keep {keep}", make_spec(keep_weights=keep))
        trials = [ended(made), ended(made)]
        for trial in trials:
            assert isinstance(finish(made, trial), ResultWritten)
        assert ["weights.safetensors" in artifact_names(made, trial) for trial in trials] == expected
    large = ended(study)
    assert large.history.final_state is not None
    with mock.patch.object(finalizer, "save", lambda _: bytes(MAX_ARTIFACT_BYTES + 1)):
        assert isinstance(finish(study, large), ResultWritten)
    assert "weights.safetensors" not in artifact_names(study, large)


def test_a_loss_that_is_not_finite_is_tried_again_and_then_fails(file_database: Database) -> None:
    study = create_study(file_database, "retries", make_spec(max_retries=1))
    trial = ended(study, failed=11)
    assert finish(study, trial) == ResultRefused(
        "Trial 0 is trained again, retry 1 of 1: the loss was not finite at epoch 11."
    )
    assert stored(study, trial).state == TrialState.WAITING
    assert finish(study, trial) == LeaseLost()
    again = ended(study, failed=11)
    assert again.lease.number == 0
    again.retries = 1
    assert finish(study, again) == ResultWritten("Trial 0 failed: the loss was not finite at epoch 11.")
    found = stored(study, again)
    assert found.state == TrialState.FAIL and found.value is None and found.user_attrs["failed_epoch"] == 11


def test_a_lost_lease_and_a_spent_budget(file_database: Database, study: Study) -> None:
    lost, checkpoints = ended(study), mock.Mock()
    study.queue.requeue([lost.lease])
    assert finish(study, lost, checkpoints) == LeaseLost()
    assert not checkpoints.remove.called  # the next worker continues from them
    limited = create_study(file_database, "limited", make_spec(budget={"solved": 1}))
    first, second = ended(limited, solved=8), ended(limited, solved=8)
    assert isinstance(finish(limited, first), ResultWritten)
    assert finish(limited, second) == ResultRefused(
        "Trial 1 went back to the queue: the budget of 1 solved trials is spent"
    )


def test_a_worker_that_stops_during_an_outage_writes_nothing(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Event()
    finished = study.queue.finish

    def fail(*arguments: Any) -> Any:
        tried.set()
        return finished(*arguments)

    monkeypatch.setattr(type(study.queue), "finish", lambda _, *arguments: fail(*arguments))
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 600.0)
    writing = TrialFinalizer(study, {}, None)
    trial = ended(study)
    with SqlBackend(study.database).outage():
        answer = writing.submit(trial)
        writing.close(time.monotonic())
        assert answer.result(60) == NotWritten()
    assert stored(study, trial).state == TrialState.RUNNING


def test_artifacts_that_the_database_refuses_are_left_out(study: Study) -> None:
    trial = ended(study)

    def refuse(_c: object, _d: object, statement: str, *_: object) -> None:
        if "INSERT INTO miiii_artifacts" in statement:
            raise sa.exc.DataError(statement, {}, Exception("the row is too large"))

    sa.event.listen(study.database.engine, "before_cursor_execute", refuse)
    try:
        answer = finish(study, trial)
    finally:
        sa.event.remove(study.database.engine, "before_cursor_execute", refuse)
    assert isinstance(answer, ResultWritten)
    assert answer.note.endswith("Its artifacts could not be stored: the row is too large.")
    assert artifact_names(study, trial) == [] and stored(study, trial).user_attrs["artifacts"] == answer.note


def test_another_error_of_the_database_reaches_the_worker(study: Study) -> None:
    trial = ended(study)

    def refuse(_c: object, _d: object, statement: str, *_: object) -> None:
        if statement.startswith("UPDATE trials"):
            raise ZeroDivisionError("not the database's")

    sa.event.listen(study.database.engine, "before_cursor_execute", refuse)
    try:
        with pytest.raises(ZeroDivisionError):
            finish(study, trial)
    finally:
        sa.event.remove(study.database.engine, "before_cursor_execute", refuse)


def test_artifacts_in_a_folder(file_database: Database, tmp_path: Path) -> None:
    """They are stored before the database refers to them, and removed if it does not."""
    folder = tmp_path / "artifacts"
    folder.mkdir()
    url = parse_store_url(str(folder))
    RemoteArtifactStore(url).write_marker()
    study = create_study(file_database, "folder", make_spec(), url)

    def files() -> int:
        return sum(path.is_file() and path.name != MARKER for path in folder.rglob("*"))

    trial = ended(study)
    answer = finish(study, trial)
    assert isinstance(answer, ResultWritten) and "could not" not in answer.note
    assert len(artifact_names(study, trial)) == files() == 3
    lost = ended(study)
    study.queue.requeue([lost.lease])
    assert finish(study, lost) == LeaseLost()
    assert files() == 3
    full = ended(study)
    write = "miiii_search.storage.artifact_stores.RemoteArtifactStore.write"
    with mock.patch(write, side_effect=ArtifactStoreUnavailableError("no space")):
        answer = finish(study, full)
    assert isinstance(answer, ResultWritten)
    assert answer.note.endswith(f"Its artifacts could not be stored: {study.artifact_store_url}: no space.")
    assert files() == 3 and artifact_names(study, full) == []


def test_curves_that_cannot_be_drawn(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise ImportError("no fonts")

    monkeypatch.setattr(trial_result, "draw_curves", fail)
    trial = ended(study)
    answer = finish(study, trial)
    assert isinstance(answer, ResultWritten) and "Its learning curves could not be drawn: no fonts." in answer.note
    assert artifact_names(study, trial) == ["record.npz", "weights.safetensors"]


def test_snapshots_are_written_and_a_failure_is_logged(study: Study, tmp_path: Path, logged: list[str]) -> None:
    snapshot = WeightSnapshot(8, np.zeros((2, 2), np.float32), {"query": np.ones(3)})
    SnapshotWriter(tmp_path / "good", study).write(3, snapshot)
    [path] = (tmp_path / "good").rglob("trial-3/epoch-8.npz")
    assert np.load(path)["query"].tolist() == [1, 1, 1] and logged == []
    (tmp_path / "bad").write_text("a file in place of the folder")
    SnapshotWriter(tmp_path / "bad", study).write(3, snapshot)
    assert len(logged) == 1 and logged[0].startswith("the snapshot of trial 3 at epoch 8 was not written: ")
