"""The checkpoints of a worker: which files are kept, which is loaded, and when the database gets a copy."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miiii_search.study.delete import delete
from miiii_search.study.study import Study
from miiii_search.training.checkpoint import Checkpoint
from miiii_search.worker.active_trial import ActiveTrial
from miiii_search.worker.checkpoint_writer import CheckpointWriter
from miiii_search.worker.checkpoints import ByteBudget
from miiii_search.worker.options import CheckpointPolicy
from tests.backends import SqlBackend
from tests.support import SECONDS, SMALL, TINY, end
from tests.worker.support import STATE, active, record_until, saved, update

ENVIRONMENT = {"device": "cpu", "versions": {"jax": "0"}, "numerics": "n"}


class Case:
    """A trial of a study, the checkpoints of one worker, and its clock."""

    def __init__(self, study: Study, folder: Path, **policy: Any) -> None:
        self.study, self.folder = study, folder
        self.writer = CheckpointWriter(study, CheckpointPolicy(folder, **policy))
        self.trial = active(study)

    def save(self, epoch: int, **known: Any) -> int | None:
        """Train until an epoch, and save the trial."""
        self.trial.apply_update(update(epoch, record_until(4)))
        checkpoint = self.trial.make_checkpoint(saved(epoch), ENVIRONMENT)
        return self.writer.save(self.trial.heartbeat(), checkpoint, **known).result(60)

    def load(self, shared_epoch: int = 0, **changed: Any) -> Checkpoint | None:
        return self.writer.load(self.trial.lease.trial_id, TINY.model_copy(update=changed), SMALL, shared_epoch)

    def files(self) -> list[str]:
        return sorted(path.name.partition(".")[2] for path in self.folder.rglob("trial-*"))

    def shared(self) -> int | None:
        return self.study.queue.checkpoint_epochs([self.trial.lease.trial_id]).get(self.trial.lease.trial_id)


@pytest.fixture
def case(study: Study, tmp_path: Path) -> Iterator[Case]:
    made = Case(study, tmp_path / "checkpoints")
    yield made
    made.writer._thread.shutdown()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, as a list of one number."""
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    return clock


def test_the_newest_two_files_are_kept_and_the_newest_intact_one_is_loaded(case: Case, logged: list[str]) -> None:
    assert case.load() is None
    assert [case.save(epoch) for epoch in (4, 8, 12)] == [4, 8, 12]
    assert case.files() == ["epoch-12.ckpt", "epoch-8.ckpt"] and case.shared() is None
    newest = case.load()
    assert newest is not None and newest.epoch == 12 and logged == []
    assert newest.state["weights.query"].tolist() == STATE["weights.query"].tolist()
    assert case.load(p=11) is None and "it belongs to another run" in logged[0]
    [path] = case.folder.rglob("*epoch-12.ckpt")
    path.write_bytes(path.read_bytes()[:-1])
    older = case.load()
    assert older is not None and older.epoch == 8
    assert re.search(r"a checkpoint was skipped: .*epoch-12.ckpt: its checksum does not match", logged[-1])


def test_a_trial_goes_on_from_what_was_saved(case: Case) -> None:
    """Its evaluations are reported again, and it names the workers before."""
    case.save(8)
    checkpoint = case.load()
    assert checkpoint is not None
    assert {k: checkpoint.origin[k] for k in ENVIRONMENT} == ENVIRONMENT and checkpoint.origin["resumed"] == []
    again = ActiveTrial(case.trial.lease, TINY, SMALL, active(case.study).reports)
    assert again.history.earlier_workers() == []
    again.resume(checkpoint)
    assert again.history.progress.epoch == 8 and again.reports.pending == {4: 0.5}
    assert again.history.seconds >= checkpoint.origin["seconds"]
    assert again.history.earlier_workers() == [{"epoch": 8, **ENVIRONMENT}]
    later = again.make_checkpoint(saved(12), ENVIRONMENT)
    assert later.origin["resumed"] == [{"epoch": 8, **ENVIRONMENT}]
    assert np.array_equal(later.record.epoch, [4])


def test_the_database_gets_a_copy_now_and_then(case: Case, now: list[float]) -> None:
    case.save(4)
    now[0] += 599
    case.save(8)
    assert case.shared() is None
    now[0] += 1
    case.save(12)
    assert case.shared() == 12
    now[0] += 599
    case.save(16)
    assert case.shared() == 12
    case.save(20, is_last=True)  # before a pause
    assert case.shared() == 20


def test_what_the_disk_does_not_take_goes_to_the_database(case: Case, logged: list[str]) -> None:
    case.folder.write_text("a file in place of the folder")
    assert case.save(4) is None
    assert case.shared() == 4
    assert logged[0].startswith(f"cannot save trial {case.trial.lease.number} in {case.folder}")
    shared = case.load(4)
    assert shared is not None and shared.epoch == 4


def test_the_newer_of_disk_and_database_is_loaded(case: Case, logged: list[str]) -> None:
    case.save(4, is_last=True)
    case.save(8)
    for shared_epoch, epoch in ((4, 8), (8, 8), (0, 8), (12, 4)):  # the last is what the database has
        found = case.load(shared_epoch)
        assert found is not None and found.epoch == epoch
    beat = case.trial.heartbeat()
    assert case.study.queue.share_checkpoint(beat, 12, b"damaged", SECONDS)
    found = case.load(12)
    assert found is not None and found.epoch == 8
    assert logged == ["a checkpoint was skipped: the one in the database: it is not a checkpoint of this version"]
    case.study.queue.requeue([case.trial.lease])
    end(case.study, case.study.queue.claim("worker", SECONDS, first_ids=[case.trial.lease.trial_id])[0])
    found = case.load(12)  # the database has none any more
    assert found is not None and found.epoch == 8


def test_while_a_worker_stops_the_disk_comes_first(case: Case, now: list[float]) -> None:
    assert not case.writer.is_draining
    case.writer.drain(now[0] + 10)
    assert case.writer.is_draining
    assert case.save(4) == 4 and case.shared() is None
    case.writer.close()
    assert case.shared() == 4


def test_after_the_deadline_nothing_more_is_shared(case: Case, now: list[float]) -> None:
    case.writer.drain(now[0] + 10)
    assert case.save(4) == 4
    now[0] += 11
    case.writer._share_rest()
    assert case.shared() is None and case.files() == ["epoch-4.ckpt"]


def test_a_copy_that_the_database_does_not_take_is_left_out(study: Study, tmp_path: Path) -> None:
    slow = Case(study, tmp_path / "slow", share_bytes_per_second=1.0)
    assert slow.save(4, is_last=True) == 4 and slow.shared() is None  # larger than the rate allows
    slow.writer.close()
    case = Case(study, tmp_path / "away")
    with SqlBackend(study.database).outage():
        assert case.save(4, is_last=True) == 4
    assert case.shared() is None
    study.queue.requeue([case.trial.lease])  # the lease is lost
    assert case.save(8, is_last=True) == 8 and case.shared() is None
    case.writer.close()


def test_files_of_ended_trials_and_deleted_studies_are_removed(case: Case, logged: list[str]) -> None:
    other = active(case.study)
    case.save(4)
    case.writer._local.save(other.lease.trial_id, 4, b"data")
    other_study = case.writer._local.folder.parent / ("0" * 32)
    other_study.mkdir()
    (case.writer._local.folder.parent / "notes").mkdir()  # not a study's
    case.writer.sweep()
    assert case.files() == ["epoch-4.ckpt"] * 2 and not other_study.exists()
    end(case.study, other.lease)
    case.writer.sweep()
    assert case.files() == ["epoch-4.ckpt"]
    case.writer.remove(case.trial.lease.trial_id)
    assert case.files() == []
    study_folder = case.writer._local.folder
    delete(case.study, force=True)
    case.writer.sweep()
    assert not study_folder.exists() and (study_folder.parent / "notes").exists()
    assert logged == []


def test_files_that_cannot_be_removed_are_logged(
    case: Case, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError("read-only")

    monkeypatch.setattr(case.writer._local, "remove", fail)
    monkeypatch.setattr(case.writer._local, "remove_deleted_studies", fail)
    case.save(4)
    end(case.study, case.trial.lease)
    case.writer.sweep()
    assert logged == [
        "cannot remove the checkpoints of a deleted study: read-only",
        "cannot remove the checkpoints of an ended trial: read-only",
    ]


def test_the_rate_of_the_copies() -> None:
    now = [0.0]
    budget = ByteBudget(10, lambda: now[0])
    assert not budget.try_consume(601) and budget.try_consume(600)  # those of a minute at first
    now[0] += 5
    assert not budget.try_consume(51) and budget.try_consume(50)
    now[0] += 10_000
    assert not budget.try_consume(6001) and budget.try_consume(6000)  # those of ten minutes at most
