"""A clock and a trainer pool that replace training in the simulated fleet of `bench/fleet.py`."""

from __future__ import annotations

import bisect
import heapq
import itertools
import queue
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from miiii_search.config.study_spec import rungs
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment
from miiii_search.testing.trainer_pool import FakeTrainerPool
from miiii_search.training.lane_state import RunProgress
from miiii_search.training.lane_stores import PendingRecords
from miiii_search.training.trainer_messages import FinalState, RunRequest, RunUpdate

LANES = 32
"""Lanes per worker."""

EPOCHS = 65_536
"""Epochs per trial."""

RUNGS = rungs(Experiment(epochs=EPOCHS))

TASKS = 29

ROW: dict[str, Any] = {
    **{name: np.zeros((1, TASKS), np.float32) for name in ("train_loss", "train_accuracy", "validation_loss")},
    **{name: np.zeros((1, 9), np.float32) for name in ("gradient_norm", "weight_norm")},
}
"""Columns of a record, except epoch and validation accuracy."""

FINAL = {name: np.zeros(TASKS, np.float32) for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy")}
WEIGHTS = {"w": np.zeros(4, np.float32)}


class Clock(threading.Thread):
    """Calls functions at given times: the lanes of all pools of a process reach their rungs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()

    def call_at(self, moment: float, act: Callable[[], None]) -> None:
        with self._changed:
            heapq.heappush(self._due, (moment, next(self._order), act))
            self._changed.notify()

    def run(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.monotonic():
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                _, _, act = heapq.heappop(self._due)
            act()


class ClockPool(FakeTrainerPool[tuple[RunRequest, float]]):
    """A trainer pool whose lanes train nothing and take a fixed number of seconds per trial.

    The first runs start at random ages.
    """

    def __init__(self, clock: Clock, generator: random.Random, trial_seconds: float) -> None:
        super().__init__()
        self._trial_seconds = trial_seconds
        self.events = queue.Queue()
        self._clock = clock
        self._generator = generator
        self._is_filling = True
        """Whether lanes are being filled for the first time."""

    def start_run(self, run: RunRequest) -> None:
        age = (
            self._generator.uniform(0.0, self._trial_seconds) if len(self._lanes) < LANES and self._is_filling else 0.0
        )
        self._lanes[run.number] = (run, time.monotonic() - age)
        self._is_filling = self._is_filling and len(self._lanes) < LANES
        self._schedule_next_rung(run.number)

    def stop(self, number: int) -> None:
        self._post(number, over=True)

    def _schedule_next_rung(self, number: int) -> None:
        run, began = self._lanes[number]
        epoch = self._epoch(number)
        rung = RUNGS[min(bisect.bisect_right(RUNGS, epoch), len(RUNGS) - 1)]
        moment = began + self._trial_seconds * rung / EPOCHS
        self._clock.call_at(moment, lambda: self._post(number, over=rung >= run.experiment.epochs))

    def _epoch(self, number: int) -> int:
        run, began = self._lanes[number]
        reached = EPOCHS * (time.monotonic() - began) / self._trial_seconds
        interval = run.experiment.evaluation_interval
        return min(int(reached + 1e-3) // interval * interval, run.experiment.epochs)

    def _post(self, number: int, over: bool) -> None:
        if number not in self._lanes:
            return
        epoch = EPOCHS if over else self._epoch(number)
        end = FinalState(FINAL, WEIGHTS) if over else None
        progress = RunProgress(epoch, None, None, ended=over)
        self.events.put(
            RunUpdate(number, progress, EPOCHS / self._trial_seconds, end, None, OneRow(epoch, self._generator), 0)
        )
        if not over:
            self._schedule_next_rung(number)


class OneRow(PendingRecords):
    """The record of a lane at one epoch, with a random accuracy."""

    def __init__(self, epoch: int, generator: random.Random) -> None:
        self._epoch = epoch
        self._accuracy = generator.random()

    def record(self, lane: int) -> Record:
        accuracy = np.full((1, TASKS), self._accuracy, np.float32)
        return Record(epoch=np.asarray([self._epoch], np.int32), validation_accuracy=accuracy, **ROW)
