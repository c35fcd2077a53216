"""A study replayed on recorded curves: lanes, what they take next, rungs and a rule, without training anything."""

from __future__ import annotations

import heapq
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import optuna
from optuna.trial import TrialState

from miiii_search.config.study_spec import rungs
from miiii_search.pruners.base import Pruner, PruningContext
from miiii_search.pruners.factory import OptunaPruner
from miiii_search.pruners.peers import Peer
from miiii_search.simulation.curves import Curve

MakePruner = Callable[[], optuna.pruners.BasePruner]

Ending = Literal["solved", "unsolved", "pruned", "failed"]


@dataclass(frozen=True)
class ReplayedRun:
    """What became of one run."""

    curve: Curve
    ending: Ending
    started: float
    """When a lane took it: epochs of one lane since the study began."""
    epochs: int
    """That it was trained."""
    reason: str | None = None
    """Why it was given up, in the rule's words."""

    @property
    def ended(self) -> float:
        """When its lane was free again."""
        return self.started + self.epochs

    @property
    def objective(self) -> float | None:
        """Of a run that was completed."""
        return self.curve.objective if self.ending in ("solved", "unsolved") else None

    @property
    def value(self) -> float | None:
        """As its trial is told: the objective, or the last accuracy of a run that was given up; None if it failed."""
        return self.curve.accuracy.get(self.epochs) if self.ending == "pruned" else self.curve.objective


class SimulatedStudy(Protocol):
    """Asks a rule, and keeps what it compares with."""

    def again(self, curves: Sequence[Curve]) -> SimulatedStudy:
        """The same rule, for another study."""
        ...

    def begin(self, k: int) -> None:
        """The k-th run of the queue starts."""
        ...

    def report(self, k: int, epoch: int, accuracy: float) -> None:
        """It has passed a rung, or ended."""
        ...

    def end(self, k: int, state: TrialState, value: float | None) -> None:
        """It is over."""
        ...

    def should_prune(self, k: int, epoch: int) -> str | None:
        """Why it is to be given up at a rung that it has reported, if it is."""
        ...


class Order(Protocol):
    """Says which run a free lane takes. Runs are known by their places in the queue."""

    def next(self, waiting: Sequence[int], ended: Mapping[int, ReplayedRun], running: Collection[int]) -> int:
        """One of those that wait, of which there is one at least; they stand in the queue's order."""
        ...


class Queue:
    """The order that was fixed beforehand."""

    def next(self, waiting: Sequence[int], ended: Mapping[int, ReplayedRun], running: Collection[int]) -> int:
        """The first."""
        return waiting[0]


QUEUE_ORDER = Queue()


def replay(
    curves: Sequence[Curve], court: SimulatedStudy, lanes: int, floor: int, order: Order = QUEUE_ORDER
) -> list[ReplayedRun]:
    """Trains the curves, `lanes` at once, each lane an epoch a tick; returns them in the order in which they came.

    As the service has it: a run is judged at each rung from the epoch `floor` on at which it has not ended; of runs
    that pass rungs at one moment all report before any is judged; a lane that is free takes what `order` says, which
    it says for one lane after the other.
    """
    waiting = list(range(len(curves)))
    running: dict[int, float] = {}
    """When they started."""
    ended: dict[int, ReplayedRun] = {}
    stops = [_stops(curve) for curve in curves]
    moments: list[tuple[float, int, int]] = []

    def fill(now: float) -> None:
        if waiting:
            k = order.next(waiting, ended, running)
            waiting.remove(k)
            running[k] = now
            court.begin(k)
            heapq.heappush(moments, (now + stops[k][0], k, 0))

    def leave(k: int, epoch: int, ending: Ending, reason: str | None = None) -> None:
        ended[k] = ReplayedRun(curves[k], ending, running.pop(k), epoch, reason)
        state = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL}.get(ending, TrialState.COMPLETE)
        court.end(k, state, ended[k].value)

    for _ in range(min(lanes, len(curves))):
        fill(0.0)
    while moments:
        now = moments[0][0]
        present = []
        while moments and moments[0][0] == now:
            _, k, stop = heapq.heappop(moments)
            present.append((k, stop, stops[k][stop]))
        for k, _, epoch in present:
            if epoch in curves[k].accuracy:
                court.report(k, epoch, curves[k].accuracy[epoch])
        free = 0
        for k, _, epoch in present:
            if epoch < curves[k].last_epoch:
                continue
            leave(k, epoch, _own_ending(curves[k]))
            free += 1
        verdicts = [
            (k, stop, epoch, court.should_prune(k, epoch) if epoch >= floor else None)
            for k, stop, epoch in present
            if epoch < curves[k].last_epoch
        ]
        for k, stop, epoch, reason in verdicts:
            if reason is None:
                heapq.heappush(moments, (running[k] + stops[k][stop + 1], k, stop + 1))
            else:
                leave(k, epoch, "pruned", reason)
                free += 1
        for _ in range(free):
            fill(now)
    return [ended[k] for k in range(len(curves))]


def _own_ending(curve: Curve) -> Ending:
    if curve.failed:
        return "failed"
    return "unsolved" if curve.solved_epoch is None else "solved"


def _stops(curve: Curve) -> list[int]:
    """The epochs at which something happens to it: its rungs, and its end."""
    known = min(curve.last_epoch, curve.ended_epoch + 1)
    return [epoch for epoch in rungs(curve.experiment) if epoch < known] + [curve.last_epoch]


class OwnPrunerStudy:
    """For rules of ours, on the peers that the service's workers would read."""

    def __init__(self, rule: Pruner, curves: Sequence[Curve]) -> None:
        self._rule = rule
        self._curves = curves
        self._at: dict[int, dict[int, float]] = {}
        """The reports at each rung, by run."""
        self._last: dict[int, tuple[TrialState, int, float]] = {}
        """How runs ended, and their last reports."""
        self._verdicts: dict[tuple[int, int], str | None] = {}

    def again(self, curves: Sequence[Curve]) -> OwnPrunerStudy:
        """The same rule for another study; what it says of a curve whatever its peers is remembered."""
        court = OwnPrunerStudy(self._rule, curves)
        court._verdicts = self._verdicts
        return court

    def begin(self, k: int) -> None:
        pass

    def report(self, k: int, epoch: int, accuracy: float) -> None:
        self._at.setdefault(epoch, {})[k] = accuracy

    def end(self, k: int, state: TrialState, value: float | None) -> None:
        epoch = max((epoch for epoch, reports in self._at.items() if k in reports), default=None)
        if epoch is not None:
            self._last[k] = (state, epoch, self._at[epoch][k])

    def should_prune(self, k: int, epoch: int) -> str | None:
        if self._rule.uses_peers:
            return self._rule.should_prune(self._case(k, epoch, self._peers(epoch)))
        key = (self._curves[k].number, epoch)
        if key not in self._verdicts:
            self._verdicts[key] = self._rule.should_prune(self._case(k, epoch, {k: self._peer(k, epoch)}))
        return self._verdicts[key]

    def _case(self, k: int, epoch: int, peers: dict[int, Peer]) -> PruningContext:
        curve = self._curves[k]
        return PruningContext(curve.experiment, epoch, curve.history.until(epoch), peers[k], list(peers.values()))

    def _peer(self, k: int, epoch: int) -> Peer:
        return Peer(k, TrialState.RUNNING, {epoch: self._at[epoch][k]})

    def _peers(self, epoch: int) -> dict[int, Peer]:
        peers = {k: Peer(k, state, {last: value}) for k, (state, last, value) in self._last.items()}
        for k, value in self._at[epoch].items():
            if k in peers:
                peers[k].intermediate_values[epoch] = value
            else:
                peers[k] = Peer(k, TrialState.RUNNING, {epoch: value})
        return peers


class OptunaPrunerStudy:
    """For Optuna's pruners, on a study of Optuna's in memory."""

    def __init__(self, make_optuna_pruner: MakePruner, curves: Sequence[Curve]) -> None:
        self._make_pruner = make_optuna_pruner  # a pruner remembers resources that it has guessed from one study
        self._curves = curves
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            pruner = make_optuna_pruner()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(study_name="replay", direction="maximize", pruner=pruner)
        self._rule = OptunaPruner(self._study, pruner)
        self._storage, study_id = self._study._storage, self._study._study_id
        waiting = optuna.trial.create_trial(state=TrialState.WAITING)
        self._ids = [self._storage.create_new_trial(study_id, template_trial=waiting) for _ in curves]

    def again(self, curves: Sequence[Curve]) -> OptunaPrunerStudy:
        """The same pruner for another study."""
        return OptunaPrunerStudy(self._make_pruner, curves)

    def begin(self, k: int) -> None:
        self._storage.set_trial_state_values(self._ids[k], TrialState.RUNNING)

    def report(self, k: int, epoch: int, accuracy: float) -> None:
        self._storage.set_trial_intermediate_value(self._ids[k], epoch, accuracy)

    def end(self, k: int, state: TrialState, value: float | None) -> None:
        self._storage.set_trial_state_values(self._ids[k], state, None if value is None else [value])

    def should_prune(self, k: int, epoch: int) -> str | None:
        curve = self._curves[k]
        trials = self._study.get_trials(deepcopy=False)
        return self._rule.should_prune(PruningContext(curve.experiment, epoch, curve.history, trials[k], trials))
