"""Budgets of a study: solved trials, device time, wall time. Kept to exactly, whatever the number of workers.

Device time is what workers hold devices for, compiling included, as a cloud or a batch system would bill it: seconds
times devices. A worker reserves it ahead in a ledger, under a lock, and stops before its reservation ends; so what all
of them use together never exceeds the budget. What a killed worker had reserved counts as used.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.config.study_spec import Budget
from miiii_search.storage import schema
from miiii_search.storage import study_attrs as attributes
from miiii_search.storage.database import Database
from miiii_search.storage.study_attrs import PAUSED_KEY, STARTED_KEY

ASK_SECONDS = 5.0
"""Between two looks at what the other workers have used."""

SHARE = 0.25
"""A worker reserves at most so much of what is left, that others have a part."""
SHORTEST_SECONDS = 10.0
"""A shorter reservation is not worth beginning with: the last seconds of a budget of device time are not used."""
LONGEST_SECONDS = 900.0
"""So much device time is lost when a worker is killed; so long it trains on while the database is away."""


@dataclass(frozen=True)
class Usage:
    """What a study has used of its budget."""

    solved: int
    """Trials in the state COMPLETE whose run was solved."""
    device_seconds: float
    """Used, or reserved by workers."""
    wall_seconds: float
    """Since the first claim, without pauses; 0 before it."""


def read_usage(connection: sa.Connection, study_id: int) -> Usage:
    """What the study has used so far."""
    ledger = schema.device_time
    device_seconds = connection.execute(
        sa.select(sa.func.coalesce(sa.func.sum(ledger.c.seconds), 0.0)).where(ledger.c.study_id == study_id)
    ).scalar_one()
    times = attributes.read(connection, study_id, STARTED_KEY, PAUSED_KEY)
    wall_seconds = 0.0
    if STARTED_KEY in times:
        now = times[PAUSED_KEY] if PAUSED_KEY in times else attributes.now(connection)
        wall_seconds = max(now - times[STARTED_KEY], 0.0)
    return Usage(count_solved(connection, study_id), float(device_seconds), wall_seconds)


def count_solved(connection: sa.Connection, study_id: int) -> int:
    """The COMPLETE trials whose run was solved."""
    trials, attributes = schema.trials, schema.trial_user_attributes
    query = (
        sa.select(sa.func.count())
        .select_from(trials.join(attributes, attributes.c.trial_id == trials.c.trial_id))
        .where(trials.c.study_id == study_id, trials.c.state == TrialState.COMPLETE)
        .where(attributes.c.key == "epochs_to_solve", attributes.c.value_json != "null")
    )
    return int(connection.execute(query).scalar_one())


def exhausted_limit(budget: Budget, usage: Usage) -> str | None:
    """Which part of the budget is used up, in words, if one is."""
    if budget.solved is not None and usage.solved >= budget.solved:
        return f"{usage.solved} trials are solved, as many as the budget asks for"
    if budget.wall_hours is not None and usage.wall_seconds >= 3600 * budget.wall_hours:
        return f"the budget of {budget.wall_hours:g} hours is over"
    if budget.device_hours is not None and 3600 * budget.device_hours - usage.device_seconds < SHORTEST_SECONDS:
        return f"the budget of {budget.device_hours:g} device hours is used up"
    return None


def read_exhausted_limit(database: Database, study_id: int, budget: Budget) -> str | None:
    """`spent`, as the database knows it now; asks nothing where the budget is of trials alone."""
    if not budget.has_limits:
        return None
    with database.engine.connect() as connection:
        return exhausted_limit(budget, read_usage(connection, study_id))


class BudgetReservation:
    """What one worker, which holds so many `devices`, may use of its study's budget. For its main thread."""

    def __init__(
        self,
        database: Database,
        study_id: int,
        budget: Budget,
        devices: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._study_id = study_id
        self._budget = budget
        self._devices = devices
        self._clock = clock
        self._holder = uuid.uuid4().hex
        self._since: float | None = None
        """When devices were begun to be held; None while they are not."""
        self._used = self._reserved = 0.0
        """Seconds a device, of all times: held before `_since`, and written down in the ledger."""
        self._wall_end = math.inf
        self._ask_at = 0.0
        self._spent: str | None = None

    def stop_reason(self, margin: float) -> str | None:
        """Why training is to end now, in words, where ending it takes so many seconds; None while it need not."""
        if self._spent is not None or not self._budget.has_limits or self._since is None or self.seconds_left > margin:
            return self._spent
        if self._wall_end - self._clock() <= margin:
            return f"the budget of {self._budget.wall_hours:g} hours is over"
        return f"the budget of {self._budget.device_hours:g} device hours is used up, or other workers hold the rest"

    @property
    def seconds_left(self) -> float:
        """How long training may go on before more has been reserved."""
        now = self._clock()
        held = self._used + (now - self._since if self._since is not None else 0.0)
        reserved = self._reserved - held if self._budget.device_hours is not None else math.inf
        return min(reserved, self._wall_end - now)

    @property
    def may_claim(self) -> bool:
        """Whether trials may be claimed: not before `ask` has been answered."""
        return not self._budget.has_limits or self._since is not None

    def set_budget(self, budget: Budget) -> None:
        """Goes by a larger budget from now on."""
        if budget != self._budget:
            self._budget, self._spent, self._ask_at = budget, None, 0.0

    def needs_update(self, margin: float) -> bool:
        """Whether the database is to be asked again: from time to time, and before training would be `over`."""
        if not self._budget.has_limits or self._spent is not None:
            return False
        return self._clock() >= self._ask_at or self.seconds_left <= margin

    def update(self, margin: float = 0.0) -> None:
        """Looks at what all workers have used, and reserves more where that is due.

        To be called before the first trial is claimed, and then whenever it `is_due`. Called twice, it does no more.
        Where ending takes longer than a reservation lasts, the rest could never be reserved, and the study would never
        be done: reservations are of twice the `margin` at least.
        """
        if not self._budget.has_limits:
            return
        with self._database.transaction() as connection:
            if not schema.lock_study(connection, self._study_id):
                return  # somebody deleted it
            if not attributes.read(connection, self._study_id, STARTED_KEY):
                attributes.write(connection, self._study_id, {STARTED_KEY: attributes.now(connection)})
            usage = read_usage(connection, self._study_id)
            reserved = self._reserve(connection, usage, margin) if self._budget.device_hours is not None else 0.0
        now = self._clock()
        self._since = now if self._since is None else self._since
        self._reserved = max(self._reserved, reserved)
        if self._budget.wall_hours is not None:
            self._wall_end = now + 3600 * self._budget.wall_hours - usage.wall_seconds
        others = Usage(usage.solved, 0.0, usage.wall_seconds)  # of device time it knows by what it could reserve
        self._spent = exhausted_limit(self._budget, others)
        self._ask_at = now + min(ASK_SECONDS, self.seconds_left / 2)

    def _reserve(self, connection: sa.Connection, usage: Usage, margin: float) -> float:
        """Reserves more where half of a reservation, or the margin, is all that is left; returns what is reserved."""
        assert self._budget.device_hours is not None
        left = 3600 * self._budget.device_hours - usage.device_seconds
        share = min(max(SHARE * left / self._devices, SHORTEST_SECONDS), LONGEST_SECONDS)
        seconds = min(max(share, 2 * margin), left / self._devices)
        if seconds * self._devices < SHORTEST_SECONDS or self.seconds_left > max(seconds / 2, margin):
            return self._reserved
        # From the ledger, not from memory: an earlier answer may have been lost on its way.
        written = self._written(connection)
        if written > self._reserved + 1e-3:
            return written
        self._write(connection, written + seconds)
        return written + seconds

    def release(self) -> None:
        """Gives back what was reserved and is not needed, since nothing is trained for now. `ask` begins anew.

        Not to be called when training ended because the budget was `over`: its last seconds would seem to be left.
        """
        if self._since is None:
            return
        if self._budget.device_hours is not None:
            used = self._used + self._clock() - self._since
            with self._database.transaction() as connection:
                if schema.lock_study(connection, self._study_id):
                    self._write(connection, used)
            self._used = self._reserved = used
        self._since, self._ask_at = None, 0.0

    def _written(self, connection: sa.Connection) -> float:
        ledger = schema.device_time
        query = sa.select(ledger.c.seconds).where(ledger.c.holder == self._holder)
        return (connection.execute(query).scalar_one_or_none() or 0.0) / self._devices

    def _write(self, connection: sa.Connection, seconds: float) -> None:
        row = {"holder": self._holder, "study_id": self._study_id, "seconds": seconds * self._devices}
        schema.upsert(connection, schema.device_time, [row], ("holder",))
