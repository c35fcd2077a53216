"""Budgets of a study: solved trials, device time and wall time. They are kept exactly, for any number of workers.

Device time is the number of devices times the seconds for which workers hold them, compilation included. Clouds and
batch systems bill it the same way. A worker reserves device time in a ledger, under a lock, and stops before its
reservation ends. All workers together therefore never exceed the budget. The reservation of a killed worker counts as
used.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from miiii_search.config.study_sections import Budget
from miiii_search.storage.usage import Usage

if TYPE_CHECKING:
    from miiii_search.trial_queue.trial_queue import TrialQueue

UPDATE_SECONDS = 5.0
"""Maximum time between two updates of what the other workers have used, in seconds."""

MAX_SHARE = 0.25
"""Maximum share of the remaining device time that one reservation takes, so that other workers get some as well."""

MIN_RESERVATION_SECONDS = 10.0
"""Minimum of a reservation, in seconds of device time. Less than this of a budget is left unused."""

MAX_RESERVATION_SECONDS = 900.0
"""Maximum of a reservation, in seconds per device.

A killed worker loses at most this much. While the database is unavailable, a worker trains at most this long.
"""


def exhausted_limit(budget: Budget, usage: Usage) -> str | None:
    """Return a clause that says which limit of the budget is exhausted, or None if there is none."""
    if budget.solved is not None and usage.solved >= budget.solved:
        return f"{usage.solved} trials are solved, as many as the budget asks for"
    if budget.wall_hours is not None and usage.wall_seconds >= 3600 * budget.wall_hours:
        return f"the budget of {budget.wall_hours:g} hours is over"
    if budget.device_hours is not None and 3600 * budget.device_hours - usage.device_seconds < MIN_RESERVATION_SECONDS:
        return f"the budget of {budget.device_hours:g} device hours is used up"
    return None


def read_exhausted_limit(queue: TrialQueue, budget: Budget) -> str | None:
    """Return `exhausted_limit` for the current usage of the study.

    A budget that limits only the number of trials does not access the database.

    Raises:
        sqlalchemy.exc.DBAPIError: The database is unavailable.
    """
    return exhausted_limit(budget, queue.read_usage()) if budget.has_limits else None


class BudgetReservation:
    """The part of a study's budget that one worker may use. For use by one thread.

    Args:
        queue: The queue of the study.
        budget: The budget of the study.
        devices: Number of devices that the worker holds.
        clock: Monotonic clock, in seconds.
    """

    def __init__(
        self,
        queue: TrialQueue,
        budget: Budget,
        devices: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._budget = budget
        self._devices = devices
        self._clock = clock
        self._holder = uuid.uuid4().hex
        self._held_since: float | None = None
        """Time at which the worker began to hold its devices; None while it does not."""
        self._used = self._reserved = 0.0
        """Seconds per device since the beginning: held before `_held_since`, and written to the ledger."""
        self._wall_end = math.inf
        self._next_update_at = 0.0
        self._exhausted: str | None = None

    def stop_reason(self, margin: float) -> str | None:
        """Return a clause that says why training must stop now, or None if it may continue.

        Args:
            margin: Seconds that stopping takes.
        """
        may_go_on = not self._budget.has_limits or self._held_since is None or self.seconds_left > margin
        if self._exhausted is not None or may_go_on:
            return self._exhausted
        if self._wall_end - self._clock() <= margin:
            return f"the budget of {self._budget.wall_hours:g} hours is over"
        return f"the budget of {self._budget.device_hours:g} device hours is used up, or other workers hold the rest"

    @property
    def seconds_left(self) -> float:
        """Seconds for which training may continue without a further reservation."""
        now = self._clock()
        held = self._used + (now - self._held_since if self._held_since is not None else 0.0)
        reserved = self._reserved - held if self._budget.device_hours is not None else math.inf
        return min(reserved, self._wall_end - now)

    @property
    def may_claim(self) -> bool:
        """Whether the worker may claim trials. With limits, it may not before the first `update` has succeeded."""
        return not self._budget.has_limits or self._held_since is not None

    def set_budget(self, budget: Budget) -> None:
        """Use a budget that was raised. Called twice with the same budget, it does nothing."""
        if budget != self._budget:
            self._budget, self._exhausted, self._next_update_at = budget, None, 0.0

    def needs_update(self, margin: float) -> bool:
        """Return whether `update` is due: at regular intervals, and before `stop_reason` would stop training.

        Args:
            margin: Seconds that stopping takes.
        """
        if not self._budget.has_limits or self._exhausted is not None:
            return False
        return self._clock() >= self._next_update_at or self.seconds_left <= margin

    def update(self, margin: float = 0.0) -> None:
        """Read what all workers have used, and reserve more device time if little is left.

        Call it before the first trial is claimed, and then whenever `needs_update` is true. Called twice, it reserves
        nothing more. It does nothing if the study was deleted.

        Args:
            margin: Seconds that stopping takes. A reservation lasts at least twice as long. Otherwise the rest of the
                budget could never be reserved, and the study would never be done.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable. The earlier reservation may still be used.
        """
        if not self._budget.has_limits:
            return
        known = self._reserved * self._devices
        answer = self._queue.reserve_device_time(self._holder, known, lambda usage: self._choose(usage, margin))
        if answer is None:
            return
        usage = answer.usage
        now = self._clock()
        self._held_since = now if self._held_since is None else self._held_since
        self._reserved = max(self._reserved, answer.seconds / self._devices)
        if self._budget.wall_hours is not None:
            self._wall_end = now + 3600 * self._budget.wall_hours - usage.wall_seconds
        # Device time is judged by what this worker could reserve, not by what all have reserved.
        without_device_time = Usage(usage.solved, 0.0, usage.wall_seconds)
        self._exhausted = exhausted_limit(self._budget, without_device_time)
        self._next_update_at = now + min(UPDATE_SECONDS, self.seconds_left / 2)

    def release(self) -> None:
        """Return reserved device time that is not used, because the worker trains nothing for now.

        The next `update` starts anew. Called twice, it does nothing. Do not call it after `stop_reason` has stopped
        training: the last seconds of the budget would seem to be left.

        Raises:
            sqlalchemy.exc.DBAPIError: The database is unavailable. The device time counts as used until a later call.
        """
        if self._held_since is None:
            return
        if self._budget.device_hours is not None:
            used = self._used + self._clock() - self._held_since
            self._queue.set_device_time(self._holder, used * self._devices)
            self._used = self._reserved = used
        self._held_since, self._next_update_at = None, 0.0

    def _choose(self, usage: Usage, margin: float) -> float:
        """Return how much device time to reserve in addition, in seconds times devices; 0 for none.

        More is reserved once no more than half of a reservation, or the margin, is left.
        """
        if self._budget.device_hours is None:
            return 0.0
        left = 3600 * self._budget.device_hours - usage.device_seconds
        share = min(max(MAX_SHARE * left / self._devices, MIN_RESERVATION_SECONDS), MAX_RESERVATION_SECONDS)
        seconds = min(max(share, 2 * margin), left / self._devices)
        if seconds * self._devices < MIN_RESERVATION_SECONDS or self.seconds_left > max(seconds / 2, margin):
            return 0.0
        return seconds * self._devices
