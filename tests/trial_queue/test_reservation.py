"""Reservations of device time, computed by hand, on a ledger and a clock that the test sets."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import pytest

from miiii_search.config.study_sections import Budget
from miiii_search.storage.usage import Usage
from miiii_search.trial_queue._device_time import ReservedTime
from miiii_search.trial_queue.budget import BudgetReservation, exhausted_limit, read_exhausted_limit
from miiii_search.trial_queue.trial_queue import TrialQueue


class Ledger:
    """The answers of a queue to one holder. Other workers have used `others`."""

    def __init__(self, others: float = 0.0, wall_seconds: float = 0.0) -> None:
        self.now = 0.0
        self.others, self.wall_seconds, self.solved = others, wall_seconds, 0
        self.seconds: float = 0.0
        self.is_deleted = False
        self.calls: list[str] = []

    def usage(self) -> Usage:
        return Usage(self.solved, self.others + self.seconds, self.wall_seconds)

    def read_usage(self) -> Usage:
        self.calls.append("read")
        return self.usage()

    def reserve_device_time(self, holder: str, known: float, choose: Callable[[Usage], float]) -> ReservedTime | None:
        self.calls.append("reserve")
        assert known == self.seconds and len(holder) == 32
        if self.is_deleted:
            return None
        usage = self.usage()
        self.seconds += choose(usage)
        return ReservedTime(usage, self.seconds)

    def set_device_time(self, holder: str, seconds: float) -> None:
        self.calls.append("set")
        assert len(holder) == 32
        self.seconds = seconds

    def worker(self, devices: int = 1, **limits: float) -> BudgetReservation:
        return BudgetReservation(cast(TrialQueue, self), Budget(**limits), devices, lambda: self.now)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("left", "devices", "margin", "reserved"),
    [
        (1800, 1, 0, 450),  # a quarter of what is left
        (1800, 2, 0, 450),
        (360_000, 1, 0, 900),  # at most 15 minutes a device
        (360_000, 8, 0, 7200),
        (3600, 1, 21, 900),
        (180, 1, 30, 60),  # twice what stopping takes
        (50, 1, 30, 50),  # all that is left
        (20, 1, 0, 10),  # at least ten seconds
        (10, 1, 0, 10),
        (9.99, 1, 0, 0),
        (10, 2, 30, 10),
        (9.99, 2, 30, 0),
        (30, 2, 0, 20),  # ten a device
        (0, 1, 0, 0),
    ],
)
def test_how_much_is_reserved(left: float, devices: int, margin: float, reserved: float) -> None:
    ledger = Ledger(others=3_600_000 - left)
    worker = ledger.worker(devices, device_hours=1000)
    worker.update(margin)
    assert ledger.seconds == pytest.approx(reserved)
    assert worker.seconds_left == pytest.approx(reserved / devices)


@pytest.mark.parametrize(
    ("margin", "passed", "more"), [(0, 449.9, 0), (0, 450, 900), (500, 399.9, 0), (500, 400, 1000)]
)
def test_more_is_reserved_once_half_or_the_margin_is_left(margin: float, passed: float, more: float) -> None:
    ledger = Ledger()
    worker = ledger.worker(device_hours=100)
    worker.update(0)
    ledger.now += passed
    assert worker.seconds_left == pytest.approx(900 - passed)
    for _ in range(2):
        worker.update(margin)
        assert ledger.seconds == 900 + more
        assert worker.seconds_left == pytest.approx(900 + more - passed)


def test_a_worker_may_claim_once_it_has_reserved() -> None:
    ledger = Ledger()
    worker = ledger.worker(device_hours=1)
    assert not worker.may_claim and worker.needs_update(0) and worker.stop_reason(2000) is None
    assert worker.seconds_left == 0
    ledger.is_deleted = True
    worker.update()
    assert not worker.may_claim and worker.needs_update(0)
    ledger.is_deleted = False
    worker.update()
    assert worker.may_claim and not worker.needs_update(0)
    free = ledger.worker(trials=3)
    assert free.may_claim and not free.needs_update(1e9) and free.stop_reason(1e9) is None
    ledger.calls.clear()
    free.update()
    free.release()
    assert ledger.calls == []  # a budget of trials alone needs no ledger


def test_updates_are_due_at_regular_intervals_and_when_little_is_left() -> None:
    ledger = Ledger()
    worker = ledger.worker(device_hours=100)
    worker.update()
    ledger.now += 4.9
    assert not worker.needs_update(895) and worker.needs_update(895.1)
    ledger.now = 5.0
    assert worker.needs_update(0)
    soon = Ledger(wall_seconds=3594)
    worker = soon.worker(wall_hours=1)
    worker.update()
    soon.now += 2.9  # the interval is half of the six seconds that are left
    assert not worker.needs_update(0)
    soon.now = 3.0
    assert worker.needs_update(0)


def test_why_training_stops() -> None:
    ledger = Ledger()
    worker = ledger.worker(device_hours=0.5)
    worker.update()
    assert worker.stop_reason(449.9) is None
    why = "the budget of 0.5 device hours is used up, or other workers hold the rest"
    assert worker.stop_reason(450) == why
    ledger.now += 448
    assert worker.stop_reason(1.9) is None and worker.stop_reason(2) == why
    wall = Ledger(wall_seconds=3000)
    worker = wall.worker(wall_hours=1)
    worker.update()
    assert worker.seconds_left == 600
    assert worker.stop_reason(599.9) is None and worker.stop_reason(600) == "the budget of 1 hours is over"
    both = Ledger(wall_seconds=3000)
    worker = both.worker(wall_hours=1, device_hours=1)
    worker.update()
    assert worker.seconds_left == 600 and worker.stop_reason(600) == "the budget of 1 hours is over"
    worker = both.worker(wall_hours=2, device_hours=0.5)
    both.seconds = 0
    worker.update()
    assert worker.seconds_left == 450 and worker.stop_reason(450) == why
    # What all have reserved is not what this worker may use.
    full = Ledger(others=2700)
    worker = full.worker(device_hours=1)
    worker.update()
    full.others = 3600
    worker.update()
    assert worker.stop_reason(2) is None


def test_a_budget_of_less_than_a_reservation_is_never_used() -> None:
    ledger = Ledger()
    worker = ledger.worker(device_hours=10 / 3600)
    worker.update()
    assert worker.seconds_left == pytest.approx(10) and worker.stop_reason(0) is None
    worker = Ledger().worker(device_hours=9.5 / 3600)
    worker.update()
    assert worker.stop_reason(0) == "the budget of 0.00263889 device hours is used up"


def test_a_solved_budget_is_read_at_once_and_at_intervals() -> None:
    ledger = Ledger()
    worker = ledger.worker(solved=2)
    assert worker.needs_update(0) and worker.seconds_left == math.inf
    worker.update()
    assert not worker.needs_update(0)
    worker.set_budget(Budget(solved=3))
    assert worker.needs_update(0)
    worker.update()
    worker.release()
    assert worker.needs_update(0)


def test_an_exhausted_budget_stops_training_until_it_is_raised() -> None:
    ledger = Ledger()
    worker = ledger.worker(solved=2)
    worker.update()
    assert worker.stop_reason(1e9) is None
    ledger.now += 5
    ledger.solved = 2
    worker.update()
    why = "2 trials are solved, as many as the budget asks for"
    ledger.now += 100
    assert worker.stop_reason(0) == why and not worker.needs_update(1e9)
    worker.set_budget(Budget(solved=2))
    assert worker.stop_reason(0) == why and not worker.needs_update(0)
    worker.set_budget(Budget(solved=3))
    assert worker.stop_reason(0) is None and worker.needs_update(0)
    worker.update()
    assert worker.stop_reason(0) is None and not worker.needs_update(0)


def test_release_gives_back_what_was_not_used_once() -> None:
    ledger = Ledger()
    worker = ledger.worker(2, device_hours=1)
    worker.release()
    assert ledger.calls == []  # it holds nothing
    worker.update()
    ledger.now += 7
    for _ in range(2):
        worker.release()
    assert ledger.calls == ["reserve", "set"] and ledger.seconds == 14
    assert not worker.may_claim and worker.needs_update(0) and worker.stop_reason(1e9) is None
    assert worker.seconds_left == 0
    ledger.now += 100  # it holds no devices
    worker.update()
    assert worker.seconds_left == pytest.approx((3600 - 14) / 8) and worker.may_claim
    ledger.now += 3
    worker.release()
    assert ledger.seconds == pytest.approx(20)
    timed = Ledger()
    worker = timed.worker(wall_hours=1)
    worker.update()
    worker.release()
    assert timed.calls == ["reserve"] and timed.seconds == 0 and not worker.may_claim


def test_a_reservation_never_shrinks() -> None:
    """A ledger with less than the worker knows takes nothing from it: the time was granted."""

    class Forgetful(Ledger):
        def reserve_device_time(
            self, holder: str, known: float, choose: Callable[[Usage], float]
        ) -> ReservedTime | None:
            super().reserve_device_time(holder, self.seconds, choose)
            return ReservedTime(self.usage(), 900.0 if known == 0 else 10.0)

    ledger = Forgetful()
    worker = ledger.worker(device_hours=100)
    worker.update()
    worker.update()
    assert worker.seconds_left == 900


@pytest.mark.parametrize(
    ("limits", "usage", "limit"),
    [
        ({"solved": 2}, Usage(1, 0, 0), None),
        ({"solved": 2}, Usage(2, 0, 0), "2 trials are solved, as many as the budget asks for"),
        ({"solved": 2}, Usage(3, 0, 0), "3 trials are solved, as many as the budget asks for"),
        ({"wall_hours": 1.5}, Usage(9, 1e9, 5399.9), None),
        ({"wall_hours": 1.5}, Usage(0, 0, 5400), "the budget of 1.5 hours is over"),
        ({"wall_hours": 1.5}, Usage(0, 0, 5401), "the budget of 1.5 hours is over"),
        ({"device_hours": 0.5}, Usage(9, 1790, 1e9), None),
        ({"device_hours": 0.5}, Usage(0, 1790.01, 0), "the budget of 0.5 device hours is used up"),
        ({"trials": 1}, Usage(9, 1e9, 1e9), None),
    ],
)
def test_which_limit_is_exhausted(limits: dict[str, float], usage: Usage, limit: str | None) -> None:
    budget = Budget(**limits)  # type: ignore[arg-type]
    assert exhausted_limit(budget, usage) == limit
    ledger = Ledger(usage.device_seconds, usage.wall_seconds)
    ledger.solved = usage.solved
    assert read_exhausted_limit(cast(TrialQueue, ledger), budget) == limit
    assert ledger.calls == ["read"] * budget.has_limits
