"""During a pause no trial is claimed, workers wait and lose nothing, and wall time stops."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.cli.views.study_status import headline
from miiii_search.config.study_sections import Pruning
from miiii_search.coordinator.coordinator import supervise
from miiii_search.errors import MiiiiSearchError
from miiii_search.samplers.optuna_samplers import TrialSampler
from miiii_search.storage import schema, study_attrs
from miiii_search.storage.database import Database, open_database
from miiii_search.storage.study_attrs import PAUSED_KEY, STARTED_KEY
from miiii_search.storage.usage import read_usage
from miiii_search.study.create import create_study
from miiii_search.study.open import open_study
from miiii_search.study.overview import list_studies
from miiii_search.study.pause import pause, resume
from miiii_search.study.status import read_status
from miiii_search.study.study import Study
from miiii_search.testing.failpoints import Failpoints
from miiii_search.trial_queue import _leases
from miiii_search.trial_queue.budget import BudgetReservation, read_exhausted_limit
from miiii_search.trial_queue.leases import Lease
from miiii_search.worker import study_watch
from miiii_search.worker.options import CheckpointPolicy
from tests.support import OVERDUE, SECONDS, TINY, claim, end, make_spec, read_back, together, wait_until
from tests.worker.test_worker import work, working

NEVER = Pruning(rule="none")
LONG = TINY.model_copy(update={"epochs": 4000, "target_accuracy": 1.0, "evaluate_every": 8})
TWO = {"weight_decay": (0.0, 0.5)}


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make workers refresh often, so that tests are fast."""
    monkeypatch.setattr(study_watch, "REFRESH_SECONDS", 0.2)


def hashes(study: Study) -> dict[int, str]:
    return {t.number: t.user_attrs["metrics"]["weights_sha256"] for t in read_back(study).trials}


def claim_if_any(study: Study) -> list[Lease]:
    return study.queue.claim("worker", SECONDS)


def earlier(study: Study, seconds: float, *keys: str) -> None:
    """Move times that the study has stored into the past."""
    with study.database.transaction() as connection:
        times = study_attrs.read(connection, study.study_id, *keys)
        study_attrs.write(connection, study.study_id, {key: at - seconds for key, at in times.items()})


def test_nothing_of_a_paused_study_is_claimed(database: Database) -> None:
    study, other = create_study(database, "study", make_spec()), create_study(database, "other", make_spec())
    held = claim(study)
    assert pause(study) and not pause(study)
    assert claim_if_any(study) == []
    assert len(claim_if_any(other)) == 1
    end(study, held)  # what is held may end
    assert read_back(study).trials[held.number].state == TrialState.COMPLETE
    assert resume(study) and not resume(study)
    assert len(claim_if_any(study)) == 1


def test_no_claim_slips_through(database: Database) -> None:
    """Once `pause` has returned, no trial is claimed, whatever the order of events."""
    study = create_study(database, "study", make_spec())
    at_pause: list[int] = []

    def claim_many() -> None:
        for _ in range(6):
            claim_if_any(study)

    def pause_and_count() -> None:
        pause(open_study(database, "study"))
        at_pause.append(study.counts()[TrialState.RUNNING])

    together(claim_many, claim_many, pause_and_count, claim_many)
    assert study.counts()[TrialState.RUNNING] == at_pause[0]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_a_pause_waits_for_a_claim_under_way(postgres_url: str, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Transactions overlap on PostgreSQL. The claim's lock delays the pause."""
    database = open_database(postgres_url, create=True)
    study = create_study(database, "study", make_spec())
    grant, claimed, goes_on = _leases.grant, threading.Event(), threading.Event()

    def grant_late(*arguments: Any) -> list[Lease]:
        claimed.set()
        assert goes_on.wait(600)
        return grant(*arguments)

    monkeypatch.setattr(_leases, "grant", grant_late)
    with ThreadPoolExecutor(2) as threads:
        claiming = threads.submit(claim_if_any, study)
        assert claimed.wait(600)
        pausing = threads.submit(pause, open_study(database, "study"))
        with database.engine.connect() as looking:
            blocked = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            wait_until(lambda: pausing.done() or looking.execute(blocked).scalar_one())
            assert not study_attrs.read(looking, study.study_id, PAUSED_KEY)
        goes_on.set()
        assert len(claiming.result(600)) == 1 and pausing.result(600)
    study.refresh()
    assert study.paused
    database.close()


def test_a_sampler_draws_nothing_for_a_paused_study(database: Database) -> None:
    study = create_study(database, "study", make_spec(sampler="random", budget={"trials": 4}))
    queue = TrialSampler(study, 0)
    assert queue.create_trial("worker", SECONDS) is not None
    pause(open_study(database, "study"))
    assert queue.create_trial("worker", SECONDS) is None  # this one has not looked yet: the database says so
    assert len(read_back(study).trials) == 1
    resume(study)
    assert queue.create_trial("worker", SECONDS) is not None


def test_wall_time_stands_while_paused(database: Database) -> None:
    study = create_study(database, "study", make_spec(budget={"wall_hours": 1.0}))
    reservation = BudgetReservation(study.queue, study.spec.budget, 1)
    reservation.update()
    earlier(study, 1800, STARTED_KEY)
    pause(study)
    earlier(study, 7200, STARTED_KEY, PAUSED_KEY)  # it has been paused for two hours
    with database.engine.connect() as connection:
        assert read_usage(connection, study.study_id).wall_seconds == pytest.approx(1800, abs=5)
    assert read_exhausted_limit(study.queue, study.spec.budget) is None and not study.is_done()
    resume(study)
    with database.engine.connect() as connection:
        assert read_usage(connection, study.study_id).wall_seconds == pytest.approx(1800, abs=5)
    reservation.release()
    reservation.update()
    assert reservation.seconds_left == pytest.approx(1800, abs=5)


def test_a_pause_before_the_first_trial_counts_for_nothing(database: Database) -> None:
    study = create_study(database, "study", make_spec(budget={"wall_hours": 1.0}))
    pause(study)
    earlier(study, 7200, PAUSED_KEY)
    resume(study)
    BudgetReservation(study.queue, study.spec.budget, 1).update()
    with database.engine.connect() as connection:
        assert read_usage(connection, study.study_id).wall_seconds == pytest.approx(0, abs=5)


def test_a_first_trial_in_a_pause_begins_when_that_ends(database: Database) -> None:
    """A worker that has not noticed the pause may store the start of the study."""
    study = create_study(database, "study", make_spec(budget={"wall_hours": 1.0}))
    pause(study)
    BudgetReservation(study.queue, study.spec.budget, 1).update()
    earlier(study, 7200, PAUSED_KEY)
    with database.engine.connect() as connection:
        assert read_usage(connection, study.study_id).wall_seconds == 0
    resume(study)
    earlier(study, 1800, STARTED_KEY)
    with database.engine.connect() as connection:
        assert read_usage(connection, study.study_id).wall_seconds == pytest.approx(1800, abs=5)


@pytest.mark.slow
@pytest.mark.parametrize("shared_database", ["postgresql"], indirect=True)
def test_workers_hand_back_wait_and_go_on_where_they_were(
    database: Database, tmp_path: Path, failpoints_here: Failpoints
) -> None:
    """Two workers continue without a restart, and the trials have the same results as without a pause."""
    spec = make_spec(experiment=LONG, space=TWO, pruning=NEVER)
    unbroken = create_study(database, "unbroken", spec)
    work(unbroken)
    study = create_study(database, "study", spec)
    policies = [CheckpointPolicy(tmp_path / str(k), save_seconds=3600) for k in range(2)]
    failpoints_here.arm("chunk")
    with (
        working(open_study(database, "study"), 1, checkpoints=policies[0]) as (_, one),
        working(open_study(database, "study"), 1, checkpoints=policies[1]) as (_, two),
    ):
        failpoints_here.wait("chunk", times=2)
        pause(study)
        wait_until(lambda: all(any("is paused" in line for line in said) for said in (one, two)))
        failpoints_here.release("chunk")
        wait_until(lambda: not study.counts()[TrialState.RUNNING])
        waiting = [t for t in read_back(study).trials if t.state == TrialState.WAITING]
        with database.engine.connect() as connection:
            assert connection.execute(sa.select(schema.leases)).all() == []
        begun = [t._trial_id for t in waiting if t.intermediate_values]
        shared = study.queue.checkpoint_epochs(begun)  # for the worker that claims it next
        assert begun and shared.keys() == set(begun) and min(shared.values()) > 0
        status = read_status(study)
        assert status.paused and not status.done and status.to_json()["paused"] is True
        assert headline(status).startswith("paused")
        assert {listed.name: listed.state for listed in list_studies(database)}["study"] == "paused"
        resume(study)
        wait_until(study.is_done, 240)
    for said in (one, two):
        assert sum("is paused" in line for line in said) == 1 and "study `study` is no longer paused" in said
    assert {t.state for t in read_back(study).trials} == {TrialState.COMPLETE}
    resumed = {t._trial_id: t.user_attrs["resumed"] for t in read_back(study).trials}
    assert {trial_id: resumed[trial_id][0]["epoch"] for trial_id in begun} == shared
    assert hashes(study) == hashes(unbroken)


@pytest.mark.slow
def test_device_time_is_given_back_while_paused(database: Database, tmp_path: Path) -> None:
    spec = make_spec(experiment=LONG.model_copy(update={"epochs": 10**7}), space=TWO, budget={"device_hours": 1.0})
    study = create_study(database, "study", spec)

    def ledger() -> float:
        with database.engine.connect() as connection:
            return read_usage(connection, study.study_id).device_seconds

    with working(open_study(database, "study"), 1, checkpoints=CheckpointPolicy(tmp_path)):
        wait_until(lambda: any(t.intermediate_values for t in read_back(study).trials), 240)
        assert ledger() >= 600  # a quarter of what there is, reserved
        before = ledger()
        pause(study)
        wait_until(lambda: study.counts()[TrialState.WAITING] == 2)
        wait_until(lambda: ledger() < before / 2)
        used = ledger()
        resume(study)
        wait_until(lambda: ledger() > used, 240)


def test_a_worker_that_starts_in_a_pause_waits(database: Database) -> None:
    study = create_study(database, "study", make_spec(space=TWO, pruning=NEVER))
    pause(study)
    with working(open_study(database, "study"), 1) as (_, said):
        wait_until(lambda: said)
        assert [line for line in said if "starts" in line] == []
        resume(study)
        wait_until(study.is_done, 240)


def test_a_coordinator_stays_with_a_paused_study(database: Database, logged: list[str]) -> None:
    study = create_study(database, "study", make_spec(space=TWO, pruning=NEVER))
    pause(study)
    stop, done = threading.Event(), list[bool]()
    watched = open_study(database, "study")
    thread = threading.Thread(target=lambda: done.append(supervise(watched, stop)))
    thread.start()
    wait_until(lambda: "study `study` is paused" in logged)
    assert thread.is_alive()
    resume(study)
    wait_until(lambda: "study `study` is no longer paused" in logged)
    work(study)
    thread.join(600)
    assert done == [True]


def test_a_study_that_is_done_is_not_paused(database: Database) -> None:
    study = create_study(database, "study", make_spec(space=TWO, pruning=NEVER))
    for _ in range(2):
        end(study, claim(study))
    with pytest.raises(MiiiiSearchError, match="is done"):
        pause(study)


def test_the_list_of_studies(database: Database) -> None:
    create_study(database, "waits", make_spec())
    claim(create_study(database, "died", make_spec()), OVERDUE)
    runs, done = create_study(database, "runs", make_spec()), create_study(database, "done", make_spec(space=TWO))
    claim(runs)
    end(runs, claim(runs), value=0.75)
    end(done, claim(done), value=0.5)
    end(done, claim(done), TrialState.PRUNED, 0.9)
    database.optuna.create_new_study(read_back(done).directions, "theirs")
    listed = {one.name: one for one in list_studies(database)}
    assert {name: one.state for name, one in listed.items()} == {
        "waits": "waiting for a worker",
        "died": "waiting for a worker",
        "runs": "running",
        "done": "done",
        "theirs": "of another program",
    }
    assert listed["runs"].counts == {"waiting": 22, "running": 1, "complete": 1, "pruned": 0, "fail": 0}
    assert (listed["runs"].best, listed["done"].best, listed["waits"].best) == (0.75, 0.5, None)
    assert all(listed[name].created for name in ("waits", "runs", "done"))
    assert json.loads(json.dumps([one.to_json() for one in listed.values()]))


def test_the_list_takes_as_many_statements_for_many_trials_as_for_few(database: Database) -> None:
    counts = []
    for name, n in (("few", 2), ("many", 24)):
        create_study(database, name, make_spec(budget={"trials": n}))
        statements: list[str] = []

        def count(_c: object, _d: object, statement: str, *_: object, seen: list[str] = statements) -> None:
            seen.append(statement)

        sa.event.listen(database.engine, "before_cursor_execute", count)
        list_studies(database)
        sa.event.remove(database.engine, "before_cursor_execute", count)
        counts.append(len(statements))
    assert counts[0] == counts[1]
