"""Deleting a study removes all of it, and nothing of other studies."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.config.study_sections import Pruning
from miiii_search.coordinator.dashboard_note import StudyNote
from miiii_search.errors import MiiiiSearchError, StudyDeletedError
from miiii_search.samplers.optuna_samplers import TrialSampler
from miiii_search.storage.database import Database, open_database
from miiii_search.study.archive_export import export_study
from miiii_search.study.archive_import import import_study
from miiii_search.study.cleanup import cleanup
from miiii_search.study.create import create_study
from miiii_search.study.delete import delete, read_contents
from miiii_search.study.extend import extend
from miiii_search.study.names import study_names
from miiii_search.study.open import open_study
from miiii_search.study.overview import list_deleted
from miiii_search.study.pause import pause, resume
from miiii_search.study.study import Study
from miiii_search.trial_queue import _leases
from miiii_search.trial_queue.budget import BudgetReservation
from miiii_search.trial_queue.leases import Heartbeat, Lease
from miiii_search.trial_queue.results import FinishStatus, TrialResult
from miiii_search.worker import worker
from miiii_search.worker.active_trial import ActiveTrial, RungReports
from miiii_search.worker.pruning import PruningEvaluator
from tests.support import OVERDUE, SECONDS, claim, everything, make_spec, wait_until, with_all

BUDGET = {"device_hours": 1.0}


def test_all_of_it_and_nothing_else(database: Database) -> None:
    with_all(create_study(database, "kept", make_spec(budget=BUDGET)))
    before = everything(database)
    study = create_study(database, "study", make_spec(budget=BUDGET))
    leases = with_all(study)
    found = read_contents(study)
    assert (found.trials, found.artifacts, found.checkpoints, found.leases) == (24, 3, 1, 1)
    assert found.size > 3000
    everything_before = everything(database)
    with pytest.raises(MiiiiSearchError, match="workers train 1 trials"):
        delete(study)
    assert everything(database) == everything_before
    study.queue.requeue(leases)
    assert delete(study).trials == 24
    assert everything(database) == before
    assert study_names(database) == ["kept"]
    with pytest.raises(MiiiiSearchError, match="was deleted"):
        study.refresh()


def test_by_force_nobody_writes_afterwards(database: Database) -> None:
    study = create_study(database, "study", make_spec(budget=BUDGET))
    lease = claim(study)
    reservation = BudgetReservation(study.queue, study.spec.budget, 1)
    reservation.update()
    delete(study, force=True)
    before = everything(database)
    beat = Heartbeat(lease, 8, 1.0)
    assert study.queue.report([beat], {lease: {8: 0.5}}, SECONDS) == set()
    assert not study.queue.share_checkpoint(beat, 8, b"data", SECONDS)
    outcome = TrialResult(TrialState.COMPLETE, 0.5, "ended.", {}, [])
    assert study.queue.finish(beat, outcome) == FinishStatus.LEASE_LOST
    assert study.queue.requeue([lease]) == []
    reservation.release()
    reservation.update()
    assert everything(database) == before
    assert all(rows == [] for rows in before.values())


def test_a_worker_of_a_deleted_study_ends(database: Database) -> None:
    study = create_study(database, "study", make_spec())
    one = worker.Worker(study, 1)
    delete(study)
    with pytest.raises(MiiiiSearchError, match="study `study` was deleted"):
        one.run(threading.Event())
    assert all(rows == [] for rows in everything(database).values())


def test_a_worker_that_died_keeps_nothing_from_going(database: Database) -> None:
    """An expired lease does not prevent a deletion, even if no coordinator has returned the trial yet."""
    study = create_study(database, "study", make_spec())
    claim(study, OVERDUE)
    assert read_contents(study).leases == 0
    delete(study)
    assert all(rows == [] for rows in everything(database).values())


def test_only_a_user_creates_a_deleted_study_again(database: Database, tmp_path: Path) -> None:
    """A coordinator creates studies without being asked. It is refused until a user creates or imports the study."""
    spec = make_spec()
    study = create_study(database, "study", spec, again=False)
    export_study(study, tmp_path / "study.zip")
    delete(study)
    before = everything(database)
    with pytest.raises(StudyDeletedError, match=r"was deleted on .* create --study study creates it again"):
        create_study(database, "study", spec, again=False)
    with pytest.raises(StudyDeletedError):
        open_study(database, "study")
    assert everything(database) == before
    assert set(list_deleted(database)) == {"study"}
    create_study(database, "another", spec, again=False)
    delete(create_study(database, "study", spec))
    assert set(list_deleted(database)) == {"study"}
    import_study(database, tmp_path / "study.zip", None)
    assert list_deleted(database) == {}
    assert create_study(database, "study", spec, again=False).spec == spec


def test_a_study_that_is_deleted_while_it_is_created_stays_deleted(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study is deleted just after a coordinator checked that it was not."""
    delete(create_study(database, "study", make_spec()))
    monkeypatch.setattr("miiii_search.study.create.check_not_deleted", lambda *_: None)
    with pytest.raises(StudyDeletedError):
        create_study(database, "study", make_spec(), again=False)
    assert all(rows == [] for rows in everything(database).values())


def actions_on_deleted_study(monkeypatch: pytest.MonkeyPatch, study: Study) -> list[Callable[[], object]]:
    """Return actions that may already have found the study when it is deleted."""
    monkeypatch.setattr(Study, "is_done", lambda *_: False)
    monkeypatch.setattr("miiii_search.coordinator.dashboard_note.render_note", lambda *_: "a note")
    return [
        lambda: pause(study),
        lambda: resume(study),
        lambda: extend(study, ["replicates=2"]),
        lambda: delete(study),
        lambda: cleanup(study, 0),
        lambda: StudyNote(study).refresh(False),
    ]


@pytest.mark.parametrize("again", [False, True], ids=["gone", "replaced"])
def test_nothing_is_written_of_a_deleted_study(
    database: Database, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Nothing is written into a later study either, to which SQLite gives the same id."""
    study = create_study(database, "study", make_spec())
    actions = actions_on_deleted_study(monkeypatch, study)
    delete(open_study(database, "study"))
    if again:
        create_study(database, "study", make_spec(budget={"trials": 3}))
    before = everything(database)
    for action in (*actions, study.refresh):
        with pytest.raises(MiiiiSearchError, match="study `study` was deleted"):
            action()
    assert everything(database) == before


def test_whoever_reads_a_deleted_study_is_told(database: Database) -> None:
    """Reading fails with a clear error until the worker notices the deletion."""
    spec = make_spec(sampler="random", budget={"trials": 4}, pruning=Pruning(rule="median"))
    study = create_study(database, "study", spec)
    lease = TrialSampler(study, 0).create_trial("worker", SECONDS)
    assert lease is not None
    evaluator, queue = PruningEvaluator(study), TrialSampler(study, 0)
    active = ActiveTrial(lease, *study.trial_settings(study.trials()[0]), RungReports([], undecided=[16]))
    delete(open_study(database, "study"), force=True)
    for action in (
        study.trials,
        lambda: study.read_trials([lease.trial_id]),
        lambda: queue.create_trial("worker", SECONDS),
        lambda: evaluator.evaluate([active]),
    ):
        with pytest.raises(MiiiiSearchError, match="study `study` was deleted"):
            action()


@pytest.mark.parametrize("kind", ["postgresql"])
def test_by_force_while_a_trial_is_ended(postgres_url: str, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Transactions overlap on PostgreSQL: a deletion and the end of a trial do not deadlock."""
    database = open_database(postgres_url, create=True)
    study = create_study(database, "study", make_spec())
    lease, renewed, goes_on = claim(study), threading.Event(), threading.Event()
    renew = _leases.renew

    def renew_and_wait(*arguments: Any) -> set[Lease]:
        held = renew(*arguments)
        renewed.set()
        assert goes_on.wait(600)
        return held

    monkeypatch.setattr(_leases, "renew", renew_and_wait)
    outcome = TrialResult(TrialState.COMPLETE, 0.5, "ended.", {}, [])
    with ThreadPoolExecutor(2) as threads:
        ending = threads.submit(study.queue.finish, Heartbeat(lease, 8, 1.0), outcome)
        assert renewed.wait(600)
        deleting = threads.submit(delete, open_study(database, "study"), force=True)
        with database.engine.connect() as looking:
            blocked = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            wait_until(lambda: looking.execute(blocked).scalar_one())
        goes_on.set()
        assert ending.result(600) == FinishStatus.WRITTEN
        deleting.result(600)
    assert all(rows == [] for rows in everything(database).values())
    database.close()
