"""Simulated studies: a pruner, and the trials and reports that it compares with, without a database."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

import optuna
from optuna.trial import TrialState

from miiii_search.pruners.base import Pruner, PruningContext
from miiii_search.pruners.factory import OptunaPruner
from miiii_search.pruners.peers import Peer
from miiii_search.simulation.curves import Curve

MakePruner = Callable[[], optuna.pruners.BasePruner]


class SimulatedStudy(Protocol):
    """A pruner with the state of one replayed study. Runs are identified by their positions in the queue."""

    def for_curves(self, curves: Sequence[Curve]) -> SimulatedStudy:
        """Return a new study of other curves with the same pruner."""
        ...

    def start(self, k: int) -> None:
        """Start a run."""
        ...

    def report(self, k: int, epoch: int, accuracy: float) -> None:
        """Store the validation accuracy of a run at a rung or at its end."""
        ...

    def finish(self, k: int, state: TrialState, value: float | None) -> None:
        """End a run."""
        ...

    def should_prune(self, k: int, epoch: int) -> str | None:
        """Return why a run should be pruned at a rung that it has reported; None to continue it."""
        ...


class OwnPrunerStudy:
    """A simulated study for one of our pruners. It holds the peers that the service's workers would read."""

    def __init__(self, pruner: Pruner, curves: Sequence[Curve]) -> None:
        self._pruner = pruner
        self._curves = curves
        self._reports: dict[int, dict[int, float]] = {}
        """Accuracies by rung and run."""
        self._finished: dict[int, tuple[TrialState, int, float]] = {}
        """State, last epoch and last accuracy of each finished run."""
        self._reasons: dict[tuple[int, int], str | None] = {}
        """Decisions of a pruner without peers, by the curve's number and the epoch."""

    def for_curves(self, curves: Sequence[Curve]) -> OwnPrunerStudy:
        """Return a new study of other curves, sharing the decisions that do not depend on peers."""
        study = OwnPrunerStudy(self._pruner, curves)
        study._reasons = self._reasons
        return study

    def start(self, k: int) -> None:
        """Start a run. A run without reports does not matter to our pruners."""

    def report(self, k: int, epoch: int, accuracy: float) -> None:
        """Store the validation accuracy of a run at a rung or at its end."""
        self._reports.setdefault(epoch, {})[k] = accuracy

    def finish(self, k: int, state: TrialState, value: float | None) -> None:
        """End a run, keeping its last report."""
        epoch = max((epoch for epoch, reports in self._reports.items() if k in reports), default=None)
        if epoch is not None:
            self._finished[k] = (state, epoch, self._reports[epoch][k])

    def should_prune(self, k: int, epoch: int) -> str | None:
        """Return why a run should be pruned at a rung that it has reported; None to continue it."""
        if self._pruner.uses_peers:
            return self._pruner.should_prune(self._context(k, epoch, self._peers(epoch)))
        key = (self._curves[k].number, epoch)
        if key not in self._reasons:
            alone = {k: Peer(k, TrialState.RUNNING, {epoch: self._reports[epoch][k]})}
            self._reasons[key] = self._pruner.should_prune(self._context(k, epoch, alone))
        return self._reasons[key]

    def _context(self, k: int, epoch: int, peers: dict[int, Peer]) -> PruningContext:
        curve = self._curves[k]
        return PruningContext(curve.experiment, epoch, curve.history.until(epoch), peers[k], list(peers.values()))

    def _peers(self, epoch: int) -> dict[int, Peer]:
        peers = {k: Peer(k, state, {last: value}) for k, (state, last, value) in self._finished.items()}
        for k, value in self._reports[epoch].items():
            if k in peers:
                peers[k].intermediate_values[epoch] = value
            else:
                peers[k] = Peer(k, TrialState.RUNNING, {epoch: value})
        return peers


class OptunaPrunerStudy:
    """A simulated study for one of Optuna's pruners. It is an Optuna study in memory.

    Args:
        make_pruner: Makes the pruner, once per study, because a pruner keeps estimates from one study.
        curves: Curves of the study.
    """

    def __init__(self, make_pruner: MakePruner, curves: Sequence[Curve]) -> None:
        self._make_pruner = make_pruner
        self._curves = curves
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            pruner = make_pruner()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # A fixed name, because Hyperband assigns a trial to a bracket by a hash of the study's name.
        self._study = optuna.create_study(study_name="replay", direction="maximize", pruner=pruner)
        self._pruner = OptunaPruner(self._study, pruner)
        self._storage, study_id = self._study._storage, self._study._study_id
        waiting = optuna.trial.create_trial(state=TrialState.WAITING)
        self._ids = [self._storage.create_new_trial(study_id, template_trial=waiting) for _ in curves]

    def for_curves(self, curves: Sequence[Curve]) -> OptunaPrunerStudy:
        """Return a new study of other curves with a new pruner of the same kind."""
        return OptunaPrunerStudy(self._make_pruner, curves)

    def start(self, k: int) -> None:
        """Start a run."""
        self._storage.set_trial_state_values(self._ids[k], TrialState.RUNNING)

    def report(self, k: int, epoch: int, accuracy: float) -> None:
        """Store the validation accuracy of a run at a rung or at its end."""
        self._storage.set_trial_intermediate_value(self._ids[k], epoch, accuracy)

    def finish(self, k: int, state: TrialState, value: float | None) -> None:
        """End a run."""
        self._storage.set_trial_state_values(self._ids[k], state, None if value is None else [value])

    def should_prune(self, k: int, epoch: int) -> str | None:
        """Return why a run should be pruned at a rung that it has reported; None to continue it."""
        curve = self._curves[k]
        trials = self._study.get_trials(deepcopy=False)
        return self._pruner.should_prune(PruningContext(curve.experiment, epoch, curve.history, trials[k], trials))
