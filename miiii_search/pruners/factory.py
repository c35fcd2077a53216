"""Which rule a study has: one of ours, or a pruner of Optuna's by its name.

Grokking curves stand at chance for most of their life, so every rule has a floor below which it is not asked at all:
`pruning.min_epochs`.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optuna

from miiii_search.config.study_sections import Pruning
from miiii_search.config.study_spec import StudySpec
from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.metrics import format_accuracy
from miiii_search.pruners.base import NopPruner, Pruner, PruningContext, Quantile
from miiii_search.pruners.forecast import Forecast


@dataclass(frozen=True)
class OptunaPruner:
    """One of Optuna's pruners, on the reports at our rungs. Its trials are Optuna's own, read whole."""

    study: optuna.Study
    pruner: optuna.pruners.BasePruner
    uses_peers = True

    def should_prune(self, context: PruningContext) -> str | None:
        """Asks the pruner, which sees the trial's reports up to this rung only."""
        trial, epoch = context.trial, context.epoch
        seen = copy.copy(trial)
        seen.intermediate_values = {rung: value for rung, value in trial.intermediate_values.items() if rung <= epoch}
        if not self.pruner.prune(self.study, seen):
            return None
        mine = trial.intermediate_values.get(epoch, float("nan"))
        return f"{type(self.pruner).__name__} at epoch {epoch:,}, validation accuracy {format_accuracy(mine)}"


OPTUNA_PRUNERS: dict[str, Callable[..., optuna.pruners.BasePruner]] = {
    "median": optuna.pruners.MedianPruner,
    "percentile": lambda percentile=25.0, **kw: optuna.pruners.PercentilePruner(percentile, **kw),
    # min_resource `auto` differs from process to process, so the first rung above the floor is given instead.
    "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "patient": lambda patience=3, **kw: optuna.pruners.PatientPruner(None, int(patience), **kw),
    "threshold": optuna.pruners.ThresholdPruner,
}


def make_pruner(spec: StudySpec, study: optuna.Study) -> Pruner:
    """The study's rule. Raises `MiiiiSearchError` for options that its pruner does not take."""
    if spec.pruning.rule in OPTUNA_PRUNERS:
        return OptunaPruner(study, make_optuna_pruner(spec.pruning, spec.pruning_floor, spec.experiment.epochs))
    return make_own_pruner(spec.pruning)


def make_own_pruner(pruning: Pruning) -> Pruner:
    """The rule of ours that a study has. Raises `KeyError` if it is a pruner of Optuna's."""
    rules: dict[str, Callable[[], Pruner]] = {
        "none": NopPruner,
        "forecast": lambda: Forecast(pruning.safety),
        "quantile": lambda: Quantile(pruning.quantile, pruning.min_trials),
    }
    return rules[pruning.rule]()


def check_pruning(spec: StudySpec) -> None:
    """Raises `MiiiiSearchError` for settings that the study's rule does not take: better now than in each worker."""
    pruning = spec.pruning
    if pruning.rule in OPTUNA_PRUNERS:
        make_optuna_pruner(pruning, spec.pruning_floor, spec.experiment.epochs)
    elif pruning.options:
        raise MiiiiSearchError(f"pruning.options are for Optuna's pruners, not for pruning.rule = '{pruning.rule}'")
    for rule, names in {"forecast": ("safety",), "quantile": ("quantile", "min_trials")}.items():
        for name in names:
            if rule != pruning.rule and getattr(pruning, name) != Pruning.model_fields[name].default:
                raise MiiiiSearchError(
                    f"pruning.{name} is for pruning.rule = '{rule}', but the rule is '{pruning.rule}': "
                    f"add --set pruning.rule={rule}, or leave pruning.{name} out"
                )


def make_optuna_pruner(pruning: Pruning, floor: int, epochs: int) -> optuna.pruners.BasePruner:
    """Optuna's pruner of this name. Raises `MiiiiSearchError` for options that it does not take."""
    options: dict[str, Any] = dict(pruning.options)
    if pruning.rule in ("successive_halving", "hyperband"):
        options.setdefault("min_resource", max(floor, 1))
    if pruning.rule == "hyperband":
        options.setdefault("max_resource", epochs)
    if pruning.rule == "threshold" and not options.keys() & {"lower", "upper"}:
        raise MiiiiSearchError("pruning.rule = 'threshold' needs a bound: --set pruning.options.lower=0.05")
    try:
        with warnings.catch_warnings():
            # That an interface may change is no matter to the user: we say which version of Optuna we take.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return OPTUNA_PRUNERS[pruning.rule](**options)
    except (TypeError, ValueError) as error:
        raise MiiiiSearchError(f"pruning.options for `{pruning.rule}`: {error}") from None
