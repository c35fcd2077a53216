"""Processes that wait log why, and what to do: a worker without a coordinator, a coordinator without workers."""

from __future__ import annotations

import queue
import threading

import pytest
import sqlalchemy as sa

from miiii_search.config.study_sections import Budget
from miiii_search.coordinator import coordinator
from miiii_search.coordinator.coordinator import supervise
from miiii_search.storage import schema
from miiii_search.storage.abandoned import find_abandoned
from miiii_search.storage.database import Database
from miiii_search.study.create import create_study
from miiii_search.study.open import open_study
from miiii_search.study.pause import pause, resume
from miiii_search.testing.trainer_pool import FakeTrainerPool
from miiii_search.trial_queue.abandoned import describe_abandoned
from miiii_search.worker import worker
from tests.support import SECONDS, claim, end, make_spec, wait_until
from tests.worker.test_worker import working


class NoTrainers(FakeTrainerPool[None]):
    """A trainer pool that trains nothing and posts no events."""

    def __init__(self) -> None:
        super().__init__()
        self.events = queue.Queue()


def test_a_worker_without_a_coordinator_says_what_it_waits_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that an idle worker logs once that the trial of a dead worker is overdue."""
    monkeypatch.setattr(schema, "server_start_time", lambda connection: sa.literal(0.0))
    monkeypatch.setattr(worker, "IDLE_SECONDS", 0.02)
    study = create_study(database, "a [b]", make_spec(budget=Budget(trials=2)))
    end(study, claim(study))
    dead = claim(study, worker="gone:1")
    turns: list[int] = []
    with working(open_study(database, "a [b]"), 1, trainers=NoTrainers(), on_turn=lambda: turns.append(1)) as (
        _,
        logged,
    ):
        wait_until(lambda: any("run on other workers" in line for line in logged))
        with database.transaction() as connection:
            connection.execute(sa.update(schema.leases).values(expires_at=2.0, renewed_at=1.0))
        [line] = wait_until(lambda: [line for line in logged if "overdue" in line])
        assert f"trial {dead.number} is overdue (worker gone:1 has been silent for " in line
        assert "no coordinator has returned it to the queue; start one: " in line
        assert "coordinate --study 'a [b]'" in line
        seen = len(turns)
        wait_until(lambda: len(turns) > seen + 3)
    assert len(logged) == 2  # each message is logged once


def test_a_worker_says_nothing_of_leases_that_are_renewed(database: Database) -> None:
    study = create_study(database, "s", make_spec())
    claim(study, SECONDS)
    with database.engine.connect() as connection:
        assert find_abandoned(connection) == find_abandoned(connection, study.study_id) == []


def test_who_is_named(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the message for abandoned trials, of one study or of all, which names only a few of them."""
    monkeypatch.setattr(schema, "server_start_time", lambda connection: sa.literal(0.0))
    first, second = (create_study(database, name, make_spec()) for name in ("first", "second"))
    for k in range(7):
        claim(first, worker=f"w:{k % 2}")
    claim(second)
    with database.transaction() as connection:
        connection.execute(sa.update(schema.leases).values(expires_at=2.0, renewed_at=1.0))
    with database.engine.connect() as connection:
        found = find_abandoned(connection)
        assert [trial.study_id for trial in found] == [first.study_id] * 7 + [second.study_id]
        of_first = find_abandoned(connection, first.study_id)
    message = describe_abandoned(of_first)
    assert message.startswith("trials 0, 1, 2, 3, 4 and others are overdue (workers w:0, w:1 have been silent for ")
    assert message.endswith("and no coordinator has returned them to the queue")


def test_a_coordinator_without_workers_says_so_once(
    database: Database, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    """Check that the message is repeated only after a worker came, and that a paused study logs none."""
    monkeypatch.setattr(coordinator, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(coordinator, "NO_WORKER_SECONDS", 0.0)
    study = create_study(database, "s", make_spec(budget=Budget(trials=2)))
    pause(study)
    stop, looks = threading.Event(), list[int]()
    watching = threading.Thread(target=lambda: supervise(open_study(database, "s"), stop, lambda: looks.append(1)))

    def look_on() -> None:
        seen = len(looks)
        wait_until(lambda: len(looks) > seen + 2)

    def count_messages() -> int:
        return sum("study `s` is waiting for a worker; start one: " in line for line in logged)

    watching.start()
    try:
        look_on()
        assert count_messages() == 0
        resume(study)
        wait_until(lambda: count_messages() == 1)
        look_on()
        assert count_messages() == 1
        lease = claim(study)
        look_on()
        end(study, lease)
        wait_until(lambda: count_messages() == 2)
    finally:
        stop.set()
        watching.join(600)
    assert "work --study s" in logged[-1]
