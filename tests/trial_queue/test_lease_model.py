"""The lease protocol, compared with a model of it, for any order of claims, renewals, faults and time steps.

The storage is real. Only the database's clock is replaced.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from optuna.trial import TrialState

from miiii_search.storage import schema
from miiii_search.storage.database import Database, open_database
from miiii_search.study.create import create_study
from miiii_search.trial_queue.leases import Heartbeat, Lease
from miiii_search.trial_queue.results import FinishStatus, TrialResult
from tests.support import examples, make_spec

PERIOD = 10.0
TRIALS = 3


@contextmanager
def a_database() -> Iterator[Database]:
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(f"sqlite:///{Path(folder)}/model.db", create=True)
        yield database
        database.close()


@dataclass
class Trial:
    """The expected state of a trial."""

    state: TrialState = TrialState.WAITING
    holder: Lease | None = None
    expires_at: float = 0.0
    epoch: int = 0
    saved: int = 0
    retries: int = 0


class LeaseModel(RuleBasedStateMachine):
    """A model of a study and its leases.

    The bundle holds all leases that were ever granted. Workers keep using leases that they have lost.
    """

    granted = Bundle("granted")
    names = itertools.count()

    @initialize()
    def begin(self) -> None:
        self.time = 1000.0
        self.clock = mock.patch.object(schema, "now", lambda _: sa.literal(self.time, sa.Double))
        self.clock.start()
        spec = make_spec(space={"weight_decay": (0.0, 0.5, 1.0)})
        self.study = create_study(DATABASE[0], f"study {next(self.names)}", spec)
        self.trials = {t.number: Trial() for t in self.study.trials()}
        assert len(self.trials) == TRIALS

    def teardown(self) -> None:
        if hasattr(self, "clock"):
            self.clock.stop()

    def held(self, lease: Lease) -> bool:
        return self.trials[lease.number].holder == lease

    def renewed(self, lease: Lease) -> None:
        self.trials[lease.number].expires_at = self.time + PERIOD

    @rule(target=granted)
    def claim(self) -> Any:
        claimed = self.study.queue.claim("worker", PERIOD)
        waiting = [number for number, trial in self.trials.items() if trial.state == TrialState.WAITING]
        if not waiting:
            assert claimed == []
            return multiple()
        [lease] = claimed
        assert lease.number == min(waiting)
        trial = self.trials[lease.number]
        trial.state, trial.holder = TrialState.RUNNING, lease
        self.renewed(lease)
        return lease

    @rule(lease=granted, epoch=st.integers(1, 99))
    def report(self, lease: Lease, epoch: int) -> None:
        kept = self.study.queue.report([Heartbeat(lease, epoch, 1.0)], {lease: {epoch: 0.5}}, PERIOD)
        assert kept == ({lease} if self.held(lease) else set())
        if self.held(lease):
            self.renewed(lease)
            self.trials[lease.number].epoch = max(self.trials[lease.number].epoch, epoch)

    @rule(lease=granted, epoch=st.integers(1, 99))
    def share(self, lease: Lease, epoch: int) -> None:
        assert self.study.queue.share_checkpoint(Heartbeat(lease, epoch, 1.0), epoch, b"data", PERIOD) == self.held(
            lease
        )
        if self.held(lease):
            self.renewed(lease)
            self.trials[lease.number].saved = epoch

    @rule(lease=granted, state=st.sampled_from([TrialState.COMPLETE, TrialState.PRUNED]))
    def finish(self, lease: Lease, state: TrialState) -> None:
        trial = self.trials[lease.number]
        ended_by_it = trial.state.is_finished() and self.ended_by.get(lease.number) == lease
        result = TrialResult(state, 0.5, "ended.", {}, [])
        ending = self.study.queue.finish(Heartbeat(lease, 1, 1.0), result)
        assert (ending == FinishStatus.WRITTEN) == (self.held(lease) or ended_by_it)
        if self.held(lease):
            trial.state, trial.holder, trial.saved = state, None, 0
            self.ended_by[lease.number] = lease

    @rule(lease=granted)
    def retry(self, lease: Lease) -> None:
        trial = self.trials[lease.number]
        ok = self.study.queue.requeue_for_retry(Heartbeat(lease, 1, 1.0), trial.retries + 1, "not finite")
        assert ok == self.held(lease)
        if ok:
            trial.state, trial.holder, trial.retries = TrialState.WAITING, None, trial.retries + 1

    @rule(lease=granted)
    def requeue(self, lease: Lease) -> None:
        numbers = self.study.queue.requeue([lease])
        assert numbers == ([lease.number] if self.held(lease) else [])
        if self.held(lease):
            self.trials[lease.number].state, self.trials[lease.number].holder = TrialState.WAITING, None

    @rule(seconds=st.floats(0.5, 2 * PERIOD))
    def time_passes(self, seconds: float) -> None:
        self.time += seconds

    @rule()
    def requeue_overdue(self) -> None:
        overdue = [n for n, trial in self.trials.items() if trial.holder and trial.expires_at < self.time]
        assert self.study.queue.requeue_overdue() == overdue
        for number in overdue:
            self.trials[number].state, self.trials[number].holder = TrialState.WAITING, None

    @invariant()
    def the_database_equals_the_model(self) -> None:
        if not hasattr(self, "trials"):
            return
        for stored in self.study.trials():
            trial = self.trials[stored.number]
            assert stored.state == trial.state
            assert max(stored.intermediate_values, default=0) == trial.epoch
            assert self.study.queue.checkpoint_epochs([stored._trial_id]).get(stored._trial_id, 0) == trial.saved
            assert stored.user_attrs.get("retries", 0) == trial.retries

    @property
    def ended_by(self) -> dict[int, Lease]:
        """The lease that ended each trial, by the number of the trial."""
        found: dict[int, Lease] = self.__dict__.setdefault("_ended_by", {})
        return found


DATABASE: list[Database] = []


def test_any_order_of_events() -> None:
    with a_database() as database:
        DATABASE.append(database)
        LeaseModel.TestCase.settings = settings(
            examples(40), stateful_step_count=30, suppress_health_check=list(HealthCheck)
        )
        LeaseModel.TestCase().runTest()
        DATABASE.clear()
