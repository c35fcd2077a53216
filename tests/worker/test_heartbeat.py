"""Leases are renewed while the main thread compiles, but not while it hangs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import sqlalchemy as sa

from miiii_search.storage import schema
from miiii_search.storage.database import Database, open_database
from miiii_search.study.create import create_study
from miiii_search.study.delete import delete
from miiii_search.study.study import Study
from miiii_search.trial_queue import _leases
from miiii_search.trial_queue.leases import Heartbeat
from miiii_search.worker import heartbeat
from miiii_search.worker.heartbeat import HeartbeatThread
from tests.support import OVERDUE, SECONDS, claim, make_spec, wait_until


@pytest.fixture
def study(database: Database) -> Study:
    return create_study(database, "study", make_spec())


def renewed_at(study: Study) -> dict[int, float]:
    columns = schema.leases.c
    with study.database.engine.connect() as connection:
        query = sa.select(columns.trial_id, columns.renewed_at)
        return {row.trial_id: row.renewed_at for row in connection.execute(query)}


def test_leases_are_renewed_while_the_main_thread_is_busy(study: Study) -> None:
    lease = claim(study, 5.0)
    first = renewed_at(study)[lease.trial_id]

    def is_older_than_a_lease() -> bool:
        assert study.queue.requeue_overdue() == []
        return renewed_at(study)[lease.trial_id] > first + 5.5

    with HeartbeatThread(study.queue, 5.0) as heartbeats:
        heartbeats.update([Heartbeat(lease, 7, 1.0)])
        wait_until(is_older_than_a_lease)
    assert heartbeats.lost == set()


def test_lost_leases_are_reported(study: Study) -> None:
    mine, lost = claim(study), claim(study, OVERDUE)
    study.queue.requeue_overdue()
    with HeartbeatThread(study.queue, 0.1) as heartbeats:
        heartbeats.update([Heartbeat(mine, 1, 1.0), Heartbeat(lost, 1, 1.0)])
        wait_until(lambda: heartbeats.lost)
        assert heartbeats.lost == {lost}
        study.queue.requeue([mine])
        wait_until(lambda: heartbeats.lost == {lost, mine})


def test_a_main_thread_that_hangs_loses_its_leases(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "STALL_SECONDS", 0.2)
    lease = claim(study, 0.2)
    with HeartbeatThread(study.queue, 0.2) as heartbeats:
        heartbeats.update([Heartbeat(lease, 1, 1.0)])
        assert wait_until(study.queue.requeue_overdue) == [lease.number]


def test_an_outage_is_survived(study: Study) -> None:
    lease, failures = claim(study, 0.4), 0

    def fail(*_: object) -> None:
        nonlocal failures
        failures += 1
        if failures <= 3:
            raise sa.exc.OperationalError("UPDATE", {}, Exception("server closed the connection unexpectedly"))

    first = renewed_at(study)[lease.trial_id]
    sa.event.listen(study.database.engine, "begin", fail)
    try:
        with HeartbeatThread(study.queue, 0.4) as heartbeats:
            heartbeats.update([Heartbeat(lease, 1, 1.0)])
            wait_until(lambda: failures > 3)
            assert heartbeats.lost == set()
    finally:
        sa.event.remove(study.database.engine, "begin", fail)
    assert renewed_at(study)[lease.trial_id] > first


@pytest.mark.parametrize("kind", ["postgresql"])
@pytest.mark.parametrize("what", ["hand back", "delete"])
def test_leases_end_in_the_order_in_which_they_are_renewed(postgres_url: str, what: str, kind: str) -> None:
    """Check on PostgreSQL, which locks rows one by one, that a concurrent renewal causes no deadlock."""
    database = open_database(postgres_url, create=True)
    study = create_study(database, "study", make_spec())
    first, *others = [claim(study) for _ in range(12)]
    with database.transaction() as connection:
        _leases.renew(connection, [Heartbeat(first, 1, 1.0)], SECONDS)  # now its row is stored after the others
    rows = schema.leases
    with database.transaction() as connection, ThreadPoolExecutor(1) as thread:
        connection.execute(sa.select(rows).where(rows.c.token == first.token).with_for_update())
        end_all = partial(study.queue.requeue, [*others, first])
        ending = thread.submit(end_all if what == "hand back" else partial(delete, study, force=True))
        with database.engine.connect() as looking:
            blocked = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            wait_until(lambda: looking.execute(blocked).scalar_one())
        connection.execute(
            sa.select(rows).with_for_update(nowait=True)
        )  # the other transaction waits for the first row, and has locked no other
        connection.commit()
        ending.result(600)
    with database.engine.connect() as connection:
        assert connection.execute(sa.select(rows)).all() == []
    database.close()
