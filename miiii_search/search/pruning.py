"""Rules that give trials up early. A rule only decides; the worker asks it at rungs and acts.

Grokking curves stand at chance for most of their life, so every rule here has a floor below which it is not
asked at all: `pruning.min_epochs`, by default a quarter of the budget.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from miiii_search.errors import UserError
from miiii_search.search.spec import Pruning, StudySpec


class Reported(Protocol):
    """A trial as far as a rule looks at it, a `peers.Peer` or one of Optuna's."""

    @property
    def state(self) -> TrialState:
        """Where it is."""
        ...

    @property
    def intermediate_values(self) -> dict[int, float]:
        """Its reports: at the rung that is decided on, and if it has ended its last one."""
        ...


class Rule(Protocol):
    """Decides on one trial, given all trials of the study as they were read once for all lanes."""

    def decide(self, trial: Any, trials: Sequence[Any], epoch: int) -> str | None:
        """Why the trial should be given up at the rung `epoch`, in words; None to let it go on."""
        ...


class Never:
    """The rule `none`."""

    def decide(self, trial: Reported, trials: Sequence[Reported], epoch: int) -> str | None:
        """Lets every trial go on."""
        return None


@dataclass(frozen=True)
class Quantile:
    """The rule `quantile`: below a quantile of all trials at the same rung.

    A trial that ended before the rung takes part with its last report (a solved one with 1): otherwise the
    best, which stop early, would vanish from the comparison.
    """

    quantile: float
    min_trials: int

    def decide(self, trial: Reported, trials: Sequence[Reported], epoch: int) -> str | None:
        """Compares the trial's report at the rung with its peers'."""
        mine = trial.intermediate_values.get(epoch)
        if mine is None:
            return None
        values = [value for peer in trials if (value := _value_at(peer, epoch)) is not None]
        if len(values) < self.min_trials:
            return None
        threshold = float(np.quantile(values, self.quantile))
        if mine >= threshold:
            return None
        return (
            f"validation accuracy {mine:.3f} at epoch {epoch:,} is below {threshold:.3f}, "
            f"the {self.quantile:.0%} quantile of {len(values)} trials"
        )


@dataclass(frozen=True)
class OptunaRule:
    """One of Optuna's pruners, on the reports at our rungs. Its trials are Optuna's own, read whole."""

    study: optuna.Study
    pruner: optuna.pruners.BasePruner

    def decide(self, trial: FrozenTrial, trials: Sequence[FrozenTrial], epoch: int) -> str | None:
        """Asks the pruner, which sees reports up to this rung only."""
        seen = copy.copy(trial)
        seen.intermediate_values = {rung: value for rung, value in trial.intermediate_values.items() if rung <= epoch}
        if not self.pruner.prune(self.study, seen):
            return None
        mine = trial.intermediate_values.get(epoch, float("nan"))
        return f"{type(self.pruner).__name__} at epoch {epoch:,}, validation accuracy {mine:.3f}"


_PRUNERS: dict[str, Callable[..., optuna.pruners.BasePruner]] = {
    "median": optuna.pruners.MedianPruner,
    "percentile": lambda percentile=25.0, **kw: optuna.pruners.PercentilePruner(percentile, **kw),
    # min_resource `auto` differs from process to process, so the first rung above the floor is given instead.
    "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "patient": lambda patience=3, **kw: optuna.pruners.PatientPruner(None, int(patience), **kw),
    "threshold": optuna.pruners.ThresholdPruner,
}


def make_rule(spec: StudySpec, study: optuna.Study) -> Rule:
    """The study's rule. Raises `UserError` for options that its pruner does not take."""
    pruning = spec.pruning
    if pruning.rule == "none":
        return Never()
    if pruning.rule == "quantile":
        return Quantile(pruning.quantile, pruning.min_trials)
    return OptunaRule(study, make_pruner(pruning, spec.pruning_floor, spec.experiment.epochs))


def check_pruning(spec: StudySpec) -> None:
    """Raises `UserError` for options that the study's pruner does not take: better now than in each worker."""
    if spec.pruning.rule in _PRUNERS:
        make_pruner(spec.pruning, spec.pruning_floor, spec.experiment.epochs)
    elif spec.pruning.options:
        raise UserError(f"pruning.options are for Optuna's pruners, not for pruning.rule = '{spec.pruning.rule}'")


def make_pruner(pruning: Pruning, floor: int, epochs: int) -> optuna.pruners.BasePruner:
    """Optuna's pruner of this name. Raises `UserError` for options that it does not take."""
    options: dict[str, Any] = dict(pruning.options)
    if pruning.rule in ("successive_halving", "hyperband"):
        options.setdefault("min_resource", max(floor, 1))
    if pruning.rule == "hyperband":
        options.setdefault("max_resource", epochs)
    if pruning.rule == "threshold" and not options.keys() & {"lower", "upper"}:
        raise UserError("pruning.rule = 'threshold' needs a bound: --set pruning.options.lower=0.05")
    try:
        with warnings.catch_warnings():
            # That an interface may change is no matter to the user: we say which version of Optuna we take.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return _PRUNERS[pruning.rule](**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"pruning.options for `{pruning.rule}`: {error}") from None


def _value_at(trial: Reported, epoch: int) -> float | None:
    """The trial's report at the rung; a finished one that ended before it, its last."""
    if epoch in trial.intermediate_values:
        return trial.intermediate_values[epoch]
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
        earlier = [step for step in trial.intermediate_values if step < epoch]
        if earlier:
            return trial.intermediate_values[max(earlier)]
    return None
