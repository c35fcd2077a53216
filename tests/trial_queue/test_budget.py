"""Budgets on real databases: what workers use together is never more."""

from __future__ import annotations

import random

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.config.study_sections import Budget
from miiii_search.storage import schema
from miiii_search.storage.database import Database
from miiii_search.storage.usage import read_usage
from miiii_search.study.create import create_study
from miiii_search.study.status import read_status
from miiii_search.study.study import Study
from miiii_search.trial_queue.budget import (
    MAX_RESERVATION_SECONDS,
    MIN_RESERVATION_SECONDS,
    BudgetReservation,
    read_exhausted_limit,
)
from miiii_search.trial_queue.leases import Heartbeat, Lease
from miiii_search.trial_queue.results import FinishStatus, TrialResult
from tests.support import SECONDS, claim, end, make_spec, read_back, together


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def study_with(database: Database, **budget: float) -> Study:
    return create_study(database, "budget", make_spec(budget=budget))


def ledger(study: Study) -> float:
    with study.database.engine.connect() as connection:
        return read_usage(connection, study.study_id).device_seconds


def reservation(study: Study, devices: int, clock: Clock) -> BudgetReservation:
    return BudgetReservation(study.queue, study.spec.budget, devices, clock)


@pytest.mark.parametrize("seed", range(3))
def test_workers_never_use_more_device_time_than_there_is(database: Database, seed: int) -> None:
    """Workers start, stop, pause and are killed. Counted by hand, the device time stays within the budget."""
    chance = random.Random(seed)
    study, clock, hours = study_with(database, device_hours=1.0), Clock(), 1.0
    held, workers, margin = 0.0, [], chance.choice([2.0, 7.0, 21.0])
    for _ in range(5):
        devices = chance.choice([1, 2, 8])
        workers.append((devices, reservation(study, devices, clock)))
    training = set(range(5))
    for _ in range(3000):
        for k in sorted(training):
            devices, worker = workers[k]
            if worker.needs_update(margin):
                worker.update(margin)
            if worker.stop_reason(margin) is not None:
                training.discard(k)
            elif chance.random() < 0.01:
                worker.release()
            elif chance.random() < 0.001:  # killed: it gives nothing back
                training.discard(k)
        seconds = chance.uniform(0.0, 1.5)
        clock.now += seconds
        held += seconds * sum(workers[k][0] for k in training if workers[k][1].may_claim)
        assert held <= 3600 * hours
        assert ledger(study) <= 3600 * hours + 1e-6
        if not training:
            break
    assert not training
    assert held > 0.25 * 3600 * hours  # the rest are reservations of killed workers


@pytest.mark.parametrize("hours", [0.1, 1.0])
@pytest.mark.parametrize("margin", [3.0, 5.0, 9.0, 21.0])
def test_a_lone_worker_uses_nearly_all(database: Database, margin: float, hours: float) -> None:
    """The study is done afterwards, however long the worker takes to stop: no other worker would finish it."""
    study, clock = study_with(database, device_hours=hours), Clock()
    worker = reservation(study, 2, clock)
    worker.update(margin)
    while worker.stop_reason(margin) is None:
        clock.now += 1.0
        if worker.needs_update(margin):
            worker.update(margin)
    assert 3600 * hours - 2 * margin - MIN_RESERVATION_SECONDS - 4 <= 2 * clock.now <= 3600 * hours
    assert study.is_done()
    assert read_exhausted_limit(study.queue, study.spec.budget) == (f"the budget of {hours:g} device hours is used up")


def test_a_reservation_survives_an_outage_and_a_lost_answer(database: Database) -> None:
    study, clock = study_with(database, device_hours=100.0), Clock()
    worker = reservation(study, 1, clock)
    worker.update()
    assert worker.seconds_left == MAX_RESERVATION_SECONDS
    clock.now += 600  # the database is unavailable for ten minutes
    assert worker.stop_reason(2.0) is None
    before = ledger(study)
    other = reservation(study, 1, clock)
    other._holder = worker._holder  # the ledger was written, but the answer was lost
    other.update()
    assert ledger(study) == before


def test_release_returns_device_time_that_was_not_used(database: Database) -> None:
    study, clock = study_with(database, device_hours=1.0), Clock()
    worker = reservation(study, 4, clock)
    worker.update()
    clock.now += 7
    worker.release()
    assert ledger(study) == pytest.approx(28)
    clock.now += 1000
    worker.update()
    assert worker.stop_reason(2.0) is None
    clock.now += 1
    worker.release()
    assert ledger(study) == pytest.approx(32)


def test_together_workers_reserve_no_more_than_there_is(database: Database) -> None:
    """Threads reserve at once. The ledger is read and written under one lock."""
    study = study_with(database, device_hours=60 / 3600)
    workers = [reservation(study, 1, Clock()) for _ in range(8)]
    together(*[worker.update for worker in workers])
    assert sum(max(worker.seconds_left, 0) for worker in workers) <= 60
    assert ledger(study) <= 60


def test_wall_time_runs_from_the_first_claim_for_all_workers(database: Database) -> None:
    study, clock = study_with(database, wall_hours=1.0), Clock()
    first, second = reservation(study, 1, clock), reservation(study, 8, clock)
    first.update()
    assert first.stop_reason(2.0) is None and not study.is_done()
    with database.transaction() as connection:  # an hour ago
        started = sa.select(schema.study_system_attributes.c.value_json).where(
            schema.study_system_attributes.c.key == "miiii:started_at"
        )
        earlier = float(connection.execute(started).scalar_one()) - 3599
        connection.execute(
            sa.update(schema.study_system_attributes)
            .where(schema.study_system_attributes.c.key == "miiii:started_at")
            .values(value_json=str(earlier))
        )
    second.update()
    assert second.stop_reason(2.0) == "the budget of 1 hours is over"
    assert second.stop_reason(0.1) is None  # a second is left
    clock.now += 3590
    first.update()
    assert first.stop_reason(2.0) == "the budget of 1 hours is over"


def solve(study: Study, lease: Lease) -> FinishStatus:
    result = TrialResult(TrialState.COMPLETE, 1.5, "solved.", {"epochs_to_solve": 8}, [], is_solved=True)
    return study.queue.finish(Heartbeat(lease, 8, 1.0), result, study.spec.budget.solved)


def test_solved_trials_are_counted_exactly(database: Database) -> None:
    """Eight trials end at once, and the budget is three. The others are in the queue again."""
    study = study_with(database, solved=3)
    held = [claim(study) for _ in range(8)]
    endings = together(*[lambda lease=lease: solve(study, lease) for lease in held])
    assert sorted(e.value for e in endings) == ["over budget"] * 5 + ["written"] * 3
    trials = read_back(study).trials
    assert sum(t.state == TrialState.COMPLETE for t in trials) == 3
    assert sum(t.state == TrialState.WAITING for t in trials) == len(trials) - 3
    assert study.is_done()
    worker = reservation(study, 1, Clock())
    worker.update()
    assert worker.stop_reason(1.0) == "3 trials are solved, as many as the budget asks for"


def test_unsolved_trials_may_end_beyond_the_budget(database: Database) -> None:
    study = study_with(database, solved=1)
    held = [claim(study) for _ in range(3)]
    assert solve(study, held[0]) == FinishStatus.WRITTEN
    end(study, held[1], value=0.25, epochs_to_solve=None)
    end(study, held[2], TrialState.PRUNED, 0.25)
    assert study.is_done()
    assert study.counts()[TrialState.COMPLETE] == 2


def test_a_study_over_its_budget_is_done_once_nothing_runs(database: Database) -> None:
    study = study_with(database, solved=1)
    running, lease = claim(study), claim(study)
    solve(study, lease)
    assert not study.is_done()
    status = read_status(study)
    assert not status.done and status.to_json()["budget"] == {"solved": {"used": 1, "limit": 1}}
    assert study.queue.requeue([running]) == [running.number]
    assert study.is_done() and read_status(study).done


def test_budgets_of_two_studies_are_independent(database: Database) -> None:
    study, clock = study_with(database, device_hours=1.0, solved=1), Clock()
    other = create_study(database, "other", make_spec(budget={"device_hours": 1.0, "solved": 1}))
    reservation(study, 1, clock).update()
    solve(study, claim(study, SECONDS))
    assert ledger(other) == 0
    assert study.is_done() and not other.is_done()


@pytest.mark.parametrize("limit", [{"solved": 0}, {"device_hours": 0.0}, {"wall_hours": -1.0}, {"wall_hours": 1e400}])
def test_limits_are_positive_and_finite(limit: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(limit))):
        Budget(**limit)  # type: ignore[arg-type]
