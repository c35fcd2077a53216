"""Deleting takes all of a study, and nothing of another one."""

from __future__ import annotations

import threading

import pytest
from optuna.trial import TrialState

from miiii_search.errors import UserError
from miiii_search.search import worker
from miiii_search.search.budget import Allowance
from miiii_search.search.checkpoints import share
from miiii_search.search.deleting import delete, holdings
from miiii_search.search.leases import Heartbeat, hand_back
from miiii_search.search.reporting import Ending, Outcome, finish, report
from miiii_search.search.storage import Database
from miiii_search.search.study import create_study, study_names
from tests.search.support import SECONDS, claim, everything, make_spec, with_all

BUDGET = {"device_hours": 1.0}


def test_all_of_it_and_nothing_else(database: Database) -> None:
    with_all(create_study(database, "kept", make_spec(budget=BUDGET)))
    before = everything(database)
    study = create_study(database, "study", make_spec(budget=BUDGET))
    leases = with_all(study)
    found = holdings(study)
    assert (found.trials, found.artifacts, found.checkpoints, found.leases) == (24, 3, 1, 1)
    assert found.size > 3000
    everything_before = everything(database)
    with pytest.raises(UserError, match="workers train 1 trials"):
        delete(study)
    assert everything(database) == everything_before
    hand_back(database, leases)
    assert delete(study).trials == 24
    assert everything(database) == before
    assert study_names(database) == ["kept"]
    with pytest.raises(UserError, match="was deleted"):
        study.refresh()


def test_by_force_nobody_writes_afterwards(database: Database) -> None:
    study = create_study(database, "study", make_spec(budget=BUDGET))
    lease = claim(study)
    allowance = Allowance(database, study.study_id, study.spec.budget, 1)
    allowance.ask()
    delete(study, force=True)
    before = everything(database)
    beat = Heartbeat(lease, 8, 1.0)
    assert report(database, [beat], {lease: {8: 0.5}}, SECONDS) == set()
    assert not share(database, beat, 8, b"data", SECONDS)
    outcome = Outcome(TrialState.COMPLETE, 0.5, "ended.", {}, [])
    assert finish(database, study.study_id, beat, outcome) == Ending.LOST
    assert hand_back(database, [lease]) == []
    allowance.pause()
    allowance.ask()
    assert everything(database) == before
    assert all(rows == [] for rows in before.values())


def test_a_worker_of_a_deleted_study_ends(database: Database) -> None:
    study = create_study(database, "study", make_spec())
    one = worker.Worker(study, 1)
    delete(study)
    with pytest.raises(UserError, match="study `study` was deleted"):
        one.run(threading.Event())
    assert all(rows == [] for rows in everything(database).values())
