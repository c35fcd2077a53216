"""A worker that stops returns its trials, or leaves them to the next worker of the machine."""

from __future__ import annotations

import json
import time
from pathlib import Path
from unittest import mock

import pytest

from miiii_search.errors import StorageUnavailableError
from miiii_search.storage.retry import DatabaseRetry
from miiii_search.study.study import Study
from miiii_search.trial_queue.leases import Lease
from miiii_search.worker.lease_returner import LeaseReturner
from miiii_search.worker.unreturned_leases import UnreturnedLeases
from tests.backends import SqlBackend
from tests.support import claim, read_back

FIELDS = {"study": "study", "worker": "worker"}


def returner(study: Study, folder: Path | None) -> LeaseReturner:
    return LeaseReturner(study, DatabaseRetry(is_logged=False), folder, FIELDS)


def waiting(study: Study, *leases: Lease) -> list[bool]:
    trials = read_back(study).trials
    return [trials[lease.number].state.name == "WAITING" for lease in leases]


def test_trials_are_returned(study: Study, logged: list[str]) -> None:
    one, other = claim(study), claim(study)
    returner(study, None).requeue([one, other], 0.0)
    returner(study, None).requeue([one], 0.0)  # lost already
    assert waiting(study, one, other) == [True, True]
    assert logged == ["returned 2 trials to the queue: 0, 1", "returned 0 trials to the queue: "]


def test_returning_is_tried_until_the_deadline(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only sleeping moves."""
    now, sleeps = 100.0, list[float]()

    def sleep(seconds: float) -> None:
        nonlocal now
        sleeps.append(seconds)
        now += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "sleep", sleep)
    lease = claim(study)
    with SqlBackend(study.database).outage(), pytest.raises(StorageUnavailableError):
        returner(study, None).requeue([lease], 102.5)
    assert sleeps == [1.0, 1.0, 0.5]
    assert waiting(study, lease) == [False]


def test_the_next_worker_of_the_machine_returns_what_was_left(study: Study, tmp_path: Path, logged: list[str]) -> None:
    held = [claim(study), claim(study)]
    lost = claim(study)
    returner(study, tmp_path).leave([*held, lost])
    study.queue.requeue([lost])
    assert "the next worker of this machine returns 3 trials to the queue (0, 1, 2); without one" in logged[0]
    [path] = (tmp_path / "unreturned").iterdir()
    for _ in range(2):
        returner(study, tmp_path).return_leftovers()
    assert waiting(study, *held) == [True, True] and not path.exists()
    assert logged[1:] == [
        "returned 2 trials to the queue for a worker that stopped while the database was unavailable: 0, 1"
    ]


def test_without_a_folder_trials_wait_for_the_end_of_their_leases(
    study: Study, tmp_path: Path, logged: list[str]
) -> None:
    lease = claim(study)
    returner(study, None).return_leftovers()
    returner(study, None).leave([lease])
    assert logged == ["1 trial will return to the queue when their leases expire"]
    (tmp_path / "unreturned").write_text("a file in place of the folder")
    returner(study, tmp_path).leave([lease])
    assert logged[1] == "cannot record which trials were not returned to the queue: File exists"
    assert logged[2] == logged[0]


def test_leases_of_another_database_are_kept_and_damaged_files_removed(study: Study, tmp_path: Path) -> None:
    lease = claim(study)
    unreturned = UnreturnedLeases(tmp_path, study)
    unreturned.save([lease])
    [path] = (tmp_path / "unreturned").iterdir()
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"database": "sqlite:///elsewhere.db"}))
    for name, text in {"a": "{", "b": "[]", "c": "{}", "d": json.dumps(content | {"leases": [{}]})}.items():
        (path.parent / f"{name}.json").write_text(text)
    assert unreturned.requeue() == []
    assert list(path.parent.iterdir()) == [path] and waiting(study, lease) == [False]
    path.write_text(json.dumps(content))
    with mock.patch.object(Path, "read_text", side_effect=FileNotFoundError):  # another worker was sooner
        assert unreturned.requeue() == []
    assert unreturned.requeue() == [lease.number] and not path.exists()
