"""Replays a study on recorded curves: lanes, the order of the runs, rungs and a pruner, but no training.

A replayed run lives by the same rules as a trial in a worker: `worker.trial_life.transition`.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from optuna.trial import TrialState

from miiii_search.config.study_spec import rungs
from miiii_search.simulation.curves import Curve
from miiii_search.simulation.simulated_study import SimulatedStudy
from miiii_search.worker.life_events import Event, PrunerDecided, ReportsWritten, ResultWritten, Trained, TrainingEnded
from miiii_search.worker.trial_life import Action, Duty, TrialLife, transition

Outcome = Literal["solved", "unsolved", "pruned", "failed"]
"""Outcome of a run."""

STATES = {
    "solved": TrialState.COMPLETE,
    "unsolved": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
"""State of a trial by the outcome of its run."""


@dataclass(frozen=True)
class ReplayedRun:
    """A run of a replayed study. Times are in epochs of one lane since the study began."""

    curve: Curve
    outcome: Outcome
    started: float
    """Time at which a lane started the run."""
    epochs: int
    """Number of epochs trained."""
    reason: str | None = None
    """The pruner's reason, if the run was pruned."""

    @property
    def finished(self) -> float:
        """Time at which the run ended and its lane became free."""
        return self.started + self.epochs

    @property
    def objective(self) -> float | None:
        """The objective of a completed run; None for a run that was pruned or failed."""
        return self.curve.objective if self.outcome in ("solved", "unsolved") else None

    @property
    def value(self) -> float | None:
        """Value of the run's trial: the objective, the last accuracy if it was pruned, None if it failed."""
        return self.curve.accuracy.get(self.epochs) if self.outcome == "pruned" else self.curve.objective


class RunOrder(Protocol):
    """Chooses which run a free lane starts. Runs are identified by their positions in the queue."""

    def next_run(self, waiting: Sequence[int], finished: Mapping[int, ReplayedRun], running: Collection[int]) -> int:
        """Return one of the waiting runs.

        Args:
            waiting: Runs that have not started, at least one, in the order of the queue.
            finished: Runs that have ended, in the order in which they did.
            running: Runs in lanes.
        """
        ...


class QueueOrder:
    """Starts the runs in the order of the queue."""

    def next_run(self, waiting: Sequence[int], finished: Mapping[int, ReplayedRun], running: Collection[int]) -> int:
        """Return the first waiting run."""
        return waiting[0]


QUEUE_ORDER = QueueOrder()


def replay(
    curves: Sequence[Curve], study: SimulatedStudy, lanes: int, floor: int, order: RunOrder = QUEUE_ORDER
) -> list[ReplayedRun]:
    """Replay a study on curves, as the service would train it.

    All lanes train at the same speed. When several runs reach a rung at the same time, all of them report before the
    pruner is asked about any. Free lanes start new runs one after the other.

    Args:
        curves: Curves of all runs, in the order of the queue.
        study: The pruner and the trials that it sees.
        lanes: Number of runs that are trained at the same time.
        floor: First epoch at which the pruner is asked.
        order: Chooses the next run for a free lane.

    Returns:
        The runs, in the order of `curves`.
    """
    return _Replay(curves, study, floor, order).run(lanes)


class _Replay:
    """A replay in progress. It drives the same transitions as a worker, and answers them from the curves."""

    def __init__(self, curves: Sequence[Curve], study: SimulatedStudy, floor: int, order: RunOrder) -> None:
        self._curves = curves
        self._study = study
        self._floor = floor
        self._order = order
        self._waiting = list(range(len(curves)))
        self._running: dict[int, float] = {}
        """Times at which running runs started."""
        self._lives: dict[int, TrialLife] = {}
        """The states of the running runs."""
        self._finished: dict[int, ReplayedRun] = {}
        self._stops = [_stops(curve) for curve in curves]
        self._events: list[tuple[float, int, int]] = []
        """Heap of (time, run, index of the stop that the run reaches then)."""

    def run(self, lanes: int) -> list[ReplayedRun]:
        for _ in range(min(lanes, len(self._curves))):
            self._start_run(0.0)
        while self._events:
            self._advance()
        return [self._finished[k] for k in range(len(self._curves))]

    def _advance(self) -> None:
        """Go to the next time at which a run reaches a rung or its end."""
        now, arrived = self._events[0][0], dict[int, int]()
        while self._events and self._events[0][0] == now:
            _, k, stop = heapq.heappop(self._events)
            arrived[k] = stop
        epochs = {k: self._stops[k][stop] for k, stop in arrived.items()}
        n_running = len(self._running)
        for k, epoch in epochs.items():
            is_end = epoch >= self._curves[k].last_epoch
            self._tell(k, epoch, TrainingEnded(by_itself=True) if is_end else Trained(has_reports=True))
        self._write_reports(epochs)
        self._ask_pruner(epochs)
        for k, stop in arrived.items():
            if k in self._running:
                self._schedule(k, stop + 1)
        for _ in range(n_running - len(self._running)):
            self._start_run(now)

    def _start_run(self, now: float) -> None:
        if self._waiting:
            k = self._order.next_run(self._waiting, self._finished, self._running)
            self._waiting.remove(k)
            self._running[k], self._lives[k] = now, TrialLife()
            self._study.start(k)
            self._schedule(k, 0)

    def _schedule(self, k: int, stop: int) -> None:
        heapq.heappush(self._events, (self._running[k] + self._stops[k][stop], k, stop))

    def _tell(self, k: int, epoch: int, event: Event) -> None:
        """Apply an event to a run, and answer what follows at once."""
        self._lives[k], actions = transition(self._lives[k], event)
        for action in actions:
            if action == Action.STOP_RUN:
                self._tell(k, epoch, TrainingEnded(by_itself=False))
            elif action == Action.WRITE_RESULT:
                self._finish(k, epoch)

    def _owing(self, duty: Duty, among: Iterable[int]) -> list[int]:
        return [k for k in among if k in self._running and duty in self._lives[k].duties]

    def _write_reports(self, epochs: Mapping[int, int]) -> None:
        """Store the accuracies of all runs, then go on with each of them."""
        owing = self._owing(Duty.WRITE_REPORTS, epochs)
        for k in owing:
            if epochs[k] in self._curves[k].accuracy:
                self._study.report(k, epochs[k], self._curves[k].accuracy[epochs[k]])
        for k in owing:
            self._tell(k, epochs[k], ReportsWritten(has_rungs=epochs[k] >= self._floor))

    def _ask_pruner(self, epochs: Mapping[int, int]) -> None:
        """Ask the pruner about all runs, then end those that it prunes."""
        owing = self._owing(Duty.ASK_PRUNER, epochs)
        reasons = [self._study.should_prune(k, epochs[k]) for k in owing]
        for k, reason in zip(owing, reasons, strict=True):
            self._tell(k, epochs[k], PrunerDecided(reason))
        # A pruned run owes its lease a last look before its result. It has no further report.
        for k in self._owing(Duty.WRITE_REPORTS, owing):
            self._tell(k, epochs[k], ReportsWritten(has_rungs=False))

    def _finish(self, k: int, epoch: int) -> None:
        curve, reason = self._curves[k], self._lives[k].prune_reason
        outcome = _outcome(curve) if reason is None else "pruned"
        run = ReplayedRun(curve, outcome, self._running.pop(k), epoch, reason)
        self._finished[k] = run
        self._study.finish(k, STATES[outcome], run.value)
        self._tell(k, epoch, ResultWritten(outcome))


def _outcome(curve: Curve) -> Outcome:
    """Return how a run ends if it is not pruned."""
    if curve.failed:
        return "failed"
    return "unsolved" if curve.solved_epoch is None else "solved"


def _stops(curve: Curve) -> list[int]:
    """Return the epochs of a run's recorded rungs, and the epoch of its end."""
    known = min(curve.last_epoch, curve.ended_epoch + 1)
    return [epoch for epoch in rungs(curve.experiment) if epoch < known] + [curve.last_epoch]
