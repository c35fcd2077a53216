"""Chooses the pruner of a study: one of ours, or one of Optuna's by its name.

The accuracy of a run that will grok stays at chance level for most of its life. Every study therefore has a floor,
`pruning.min_epochs`, below which its pruner is not asked.
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
from miiii_search.errors import InvalidSpecError
from miiii_search.experiment.metrics import format_accuracy
from miiii_search.pruners.base import NopPruner, Pruner, PruningContext
from miiii_search.pruners.forecast import Forecast
from miiii_search.pruners.quantile import Quantile


@dataclass(frozen=True)
class OptunaPruner:
    """Wraps one of Optuna's pruners, which decides on the validation accuracies that trials report at rungs.

    Attributes:
        study: The Optuna study, from which the wrapped pruner reads all trials.
        pruner: The wrapped pruner.
    """

    study: optuna.Study
    pruner: optuna.pruners.BasePruner
    uses_peers = True

    def should_prune(self, context: PruningContext) -> str | None:
        """Ask the wrapped pruner, showing it the trial's reports up to this rung only."""
        trial, epoch = context.trial, context.epoch
        trial_so_far = copy.copy(trial)
        trial_so_far.intermediate_values = {
            rung: value for rung, value in trial.intermediate_values.items() if rung <= epoch
        }
        if not self.pruner.prune(self.study, trial_so_far):
            return None
        accuracy = trial.intermediate_values.get(epoch, float("nan"))
        return f"{type(self.pruner).__name__} at epoch {epoch:,}, validation accuracy {format_accuracy(accuracy)}"


OPTUNA_PRUNERS: dict[str, Callable[..., optuna.pruners.BasePruner]] = {
    "median": optuna.pruners.MedianPruner,
    "percentile": lambda percentile=25.0, **options: optuna.pruners.PercentilePruner(percentile, **options),
    "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "patient": lambda patience=3, **options: optuna.pruners.PatientPruner(None, int(patience), **options),
    "threshold": optuna.pruners.ThresholdPruner,
}
"""Constructors of Optuna's pruners by their `pruning.rule`."""

OWN_PRUNERS: dict[str, Callable[[Pruning], Pruner]] = {
    "none": lambda pruning: NopPruner(),
    "forecast": lambda pruning: Forecast(pruning.safety),
    "quantile": lambda pruning: Quantile(pruning.quantile, pruning.min_trials),
}
"""Constructors of our pruners by their `pruning.rule`."""

OWN_OPTIONS = {"forecast": ("safety",), "quantile": ("quantile", "min_trials")}
"""Fields of `Pruning` that only one of our pruners reads, by its name."""


def make_pruner(spec: StudySpec, study: optuna.Study) -> Pruner:
    """Return the pruner of a study.

    Args:
        spec: The study's specification.
        study: The same study in Optuna, for a pruner of Optuna's.

    Raises:
        InvalidSpecError: If the pruner does not accept its options.
    """
    if spec.pruning.rule in OPTUNA_PRUNERS:
        return OptunaPruner(study, make_optuna_pruner(spec.pruning, spec.pruning_floor, spec.experiment.epochs))
    return make_own_pruner(spec.pruning)


def make_own_pruner(pruning: Pruning) -> Pruner:
    """Return one of our pruners.

    Raises:
        KeyError: If the settings name one of Optuna's pruners.
    """
    return OWN_PRUNERS[pruning.rule](pruning)


def make_optuna_pruner(pruning: Pruning, floor: int, epochs: int) -> optuna.pruners.BasePruner:
    """Return one of Optuna's pruners.

    Args:
        pruning: The settings. `pruning.options` are arguments of the pruner's constructor.
        floor: First epoch at which the pruner is asked.
        epochs: Epoch budget of a run.

    Raises:
        InvalidSpecError: If the pruner does not accept its options.
    """
    options: dict[str, Any] = dict(pruning.options)
    if pruning.rule in ("successive_halving", "hyperband"):
        # Optuna's default, "auto", is estimated from the trials that a process has read, so it differs between workers.
        options.setdefault("min_resource", max(floor, 1))
    if pruning.rule == "hyperband":
        options.setdefault("max_resource", epochs)
    if pruning.rule == "threshold" and not options.keys() & {"lower", "upper"}:
        raise InvalidSpecError("pruning.rule = 'threshold' needs a bound: --set pruning.options.lower=0.05")
    try:
        with warnings.catch_warnings():
            # pyproject.toml bounds Optuna's version, so a change of an experimental interface does not reach the user.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return OPTUNA_PRUNERS[pruning.rule](**options)
    except (TypeError, ValueError) as error:
        raise InvalidSpecError(f"pruning.options for `{pruning.rule}`: {error}") from None


def check_pruning(spec: StudySpec) -> None:
    """Check the pruning settings of a new study, so that errors appear now and not in each worker.

    Raises:
        InvalidSpecError: If there is a setting that the study's pruner does not accept or does not read.
    """
    pruning = spec.pruning
    if pruning.rule in OPTUNA_PRUNERS:
        make_optuna_pruner(pruning, spec.pruning_floor, spec.experiment.epochs)
    elif pruning.options:
        raise InvalidSpecError(f"pruning.options are for Optuna's pruners, not for pruning.rule = '{pruning.rule}'")
    for rule, names in OWN_OPTIONS.items():
        for name in names:
            if rule != pruning.rule and getattr(pruning, name) != Pruning.model_fields[name].default:
                raise InvalidSpecError(
                    f"pruning.{name} is for pruning.rule = '{rule}', but the rule is '{pruning.rule}': "
                    f"add --set pruning.rule={rule}, or leave pruning.{name} out"
                )
