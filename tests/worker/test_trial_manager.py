"""The messages of a trainer pool, turned into what happens to trials. The pool only notes what it is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import pytest
from optuna.trial import TrialState

from miiii_search.experiment.record import WeightSnapshot
from miiii_search.metrics.prometheus import WorkerCounters
from miiii_search.storage.retry import DatabaseRetry
from miiii_search.study.study import Study
from miiii_search.training.trainer_messages import RunsOutOfMemory, RunSuspended
from miiii_search.training.trainer_pool import TrainerPool
from miiii_search.worker import trial_result
from miiii_search.worker.active_trial import ActiveTrial
from miiii_search.worker.checkpoint_writer import CheckpointWriter
from miiii_search.worker.life_events import StudyPaused, TrainersClosed
from miiii_search.worker.options import CheckpointPolicy
from miiii_search.worker.snapshot_writer import SnapshotWriter
from miiii_search.worker.trial_life import Phase
from miiii_search.worker.trial_manager import TrialManager
from tests.backends import SqlBackend
from tests.support import read_back, wait_until
from tests.worker.support import active, record_until, saved, update

ATTRIBUTES = {"worker": "w", "device": "cpu", "versions": {}, "numerics": "n"}


class Pool:
    """A trainer pool that notes the calls. It cannot suspend runs while `starts` is true: they have no trainer yet."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.starts = False

    def stop(self, number: int) -> None:
        self.calls.append(("stop", number))

    def drop(self, number: int) -> None:
        self.calls.append(("drop", number))

    def suspend(self, number: int) -> bool:
        self.calls.append(("suspend", number))
        return not self.starts


class Case:
    """A worker's trial of run 1."""

    def __init__(self, study: Study, **parts: Any) -> None:
        self.study, self.pool, self.tuner = study, Pool(), mock.Mock()
        self.counters = WorkerCounters()
        self.manager = TrialManager(
            study,
            cast(TrainerPool, self.pool),
            self.tuner,
            DatabaseRetry(is_logged=False),
            **{"checkpoint_writer": None, "snapshot_writer": None} | parts,
            counters=self.counters,
            attributes=ATTRIBUTES,
        )
        self.trial: ActiveTrial = active(study)
        self.manager.add({1: self.trial})

    def process(self, *messages: Any, missed: bool = False) -> Phase:
        self.manager.process(messages, {self.trial.lease} if missed else set())
        return self.trial.life.phase

    def state(self) -> TrialState:
        return read_back(self.study).trials[self.trial.lease.number].state


@pytest.fixture
def case(study: Study) -> Case:
    return Case(study)


@pytest.fixture(autouse=True)
def curves(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pictures that cost nothing."""
    monkeypatch.setattr(trial_result, "draw_curves", lambda *_: b"\x89PNG")
    yield


def test_a_trial_from_its_first_report_to_its_result(case: Case, logged: list[str]) -> None:
    assert case.process(update(8, record_until(8))) == Phase.TRAINING
    assert case.counters.lane_epochs == 8 and case.trial.reports.pending == {}
    assert read_back(case.study).trials[0].intermediate_values == {4: 0.5, 8: 0.5}
    assert case.process(update(8, record_until(4)), update(6, record_until(4))) == Phase.TRAINING
    assert case.counters.lane_epochs == 8  # epochs that are reported again do not count
    case.process(update(48, record_until(48), ends=True))
    assert case.pool.calls == [("drop", 1)]
    case.process(update(52, record_until(4)))  # too late
    case.manager.close(time.monotonic() + 60)
    assert case.trial.life.phase == Phase.DONE and case.state() == TrialState.COMPLETE
    assert case.manager.trials == {} and logged[0].startswith("Trial 0 was not solved in 48 epochs")
    case.process(update(56, record_until(4)), RunSuspended(1))  # of a trial that is gone
    case.manager.tell_all(StudyPaused())
    assert case.tuner.withdraw.call_args_list == [mock.call(1)]


def test_a_pause_suspends_the_run_and_returns_the_trial(case: Case) -> None:
    case.pool.starts = True
    case.manager.tell_all(StudyPaused())
    assert case.process() == Phase.SUSPENDING
    case.pool.starts = False
    assert case.process() == Phase.SUSPENDING and case.process() == Phase.SUSPENDING
    assert case.pool.calls == [("suspend", 1)] * 2  # until the pool can
    assert case.manager.held_leases() == []
    with SqlBackend(case.study.database).outage():
        assert case.process(RunSuspended(1)) == Phase.REQUEUING
        assert case.manager.held_leases() == [case.trial.lease]
    case.manager._retry.skip_wait()
    assert case.process() == Phase.REQUEUED
    assert case.state() == TrialState.WAITING and case.manager.trials == {}
    assert case.pool.calls[2:] == [("drop", 1)]


def test_a_run_that_does_not_fit_is_dropped_once_and_returned(case: Case) -> None:
    message = RunsOutOfMemory((1, 7), 2**20, "full")
    assert case.process(message) == Phase.REQUEUED
    assert case.pool.calls == [("drop", 1)] and case.state() == TrialState.WAITING
    assert case.tuner.shrink.call_args_list == [mock.call(message, [case.trial], 1)]


def test_a_lease_that_is_lost_ends_the_trial_here(study: Study, logged: list[str]) -> None:
    """The heartbeat thread misses it, or the reports are refused."""
    case = Case(study)
    study.queue.requeue([case.trial.lease])
    assert case.process(missed=True) == Phase.LOST  # after one more look
    again = Case(study)
    study.queue.requeue([again.trial.lease])
    assert again.process(update(8, record_until(8))) == Phase.LOST
    for one in (case, again):
        assert one.pool.calls == [("drop", 1)] and one.manager.trials == {}
    assert logged == ["Trial 0 was taken from this worker"] * 2
    held = Case(study)
    assert held.process(missed=True) == Phase.TRAINING  # it was renewed after all


def test_reports_wait_for_the_database(case: Case) -> None:
    before = case.counters.wrote_at
    with SqlBackend(case.study.database).outage():
        assert case.process(update(8, record_until(8))) == Phase.TRAINING
        assert case.trial.reports.pending == {4: 0.5, 8: 0.5} and case.counters.wrote_at == before
    case.manager._retry.skip_wait()
    case.process()
    assert case.trial.reports.pending == {} and case.counters.wrote_at > before


def test_the_pruner_stops_a_run_once_the_database_answers(case: Case) -> None:
    pruning = mock.Mock()
    case.manager._pruning = pruning
    pruning.evaluate.side_effect = lambda trials: ["too slow"] * len(trials)
    case.trial.reports.upcoming_rungs = [case.study.spec.pruning_floor]
    with SqlBackend(case.study.database).outage():
        case.process(update(12, record_until(12)))
    case.manager._retry.skip_wait()
    assert not pruning.evaluate.called
    case.process()
    assert pruning.evaluate.call_args_list == [mock.call([case.trial])]
    assert case.trial.life.phase == Phase.STOPPING and case.pool.calls == [("stop", 1)]
    case.process(update(16, record_until(4)))  # the trainer had not begun the run when it was told
    assert case.pool.calls == [("stop", 1)] * 2
    stopped = update(20, record_until(4), ends=True)
    case.process(replace(stopped, progress=replace(stopped.progress, ended=False)))
    case.manager.close(time.monotonic() + 60)
    assert case.state() == TrialState.PRUNED


def test_states_are_saved_if_the_worker_keeps_checkpoints(study: Study, tmp_path: Path) -> None:
    Case(study).process(saved(4))  # nothing to write with
    writer = CheckpointWriter(study, CheckpointPolicy(tmp_path))
    case = Case(study, checkpoint_writer=writer, snapshot_writer=SnapshotWriter(tmp_path / "s", study))
    case.process(update(4, record_until(4)), saved(4))
    wait_until(lambda: not case.process() or case.trial.checkpoints.saved_epoch == 4)
    assert [path.name for path in tmp_path.rglob("*.ckpt")] == [f"trial-{case.trial.lease.trial_id}.epoch-4.ckpt"]
    slow: Future[int | None] = Future()
    with mock.patch.object(writer, "save", return_value=slow):
        case.process(saved(8), saved(12))  # the second while the first is being written
        assert case.trial.life.saving == 1
        case.manager.tell_all(StudyPaused())
        assert case.process(RunSuspended(1)) == Phase.SAVING
        slow.set_result(None)  # the disk did not accept it
        assert case.process() == Phase.REQUEUED
    assert case.trial.checkpoints.saved_epoch == 4
    spectrum = np.ones((2, 2), np.float32)
    again = Case(study, snapshot_writer=SnapshotWriter(tmp_path / "s", study))
    again.process(replace(update(4, record_until(4)), weight_snapshot=WeightSnapshot(4, spectrum, {})))
    assert again.trial.history.spectra[4] is spectrum and [*(tmp_path / "s").rglob("epoch-4.npz")]
    writer._thread.shutdown()


def test_trials_return_to_the_queue_after_the_trainers_are_closed(case: Case) -> None:
    case.manager.tell_all(StudyPaused())
    case.manager.tell_all(TrainersClosed())
    assert case.manager.held_leases() == [case.trial.lease]
