"""The pruners that a simulation compares: the study's own, ours, and those of Optuna that use learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import optuna

from miiii_search.config.study_sections import Pruning, rule_title
from miiii_search.config.study_spec import StudySpec
from miiii_search.pruners.factory import OPTUNA_PRUNERS, make_optuna_pruner, make_own_pruner
from miiii_search.simulation.curves import Curve
from miiii_search.simulation.simulated_study import MakePruner, OptunaPrunerStudy, OwnPrunerStudy, SimulatedStudy

NO_PRUNING = Pruning(rule="none")


@dataclass(frozen=True)
class PrunerVariant:
    """A pruner with its settings, as a study could use it, or one of Optuna's with its default arguments."""

    pruner: str
    """Name of the pruner in tables and figures."""
    label: str = ""
    """Short description that tells the settings of a pruner apart."""
    pruning: Pruning = NO_PRUNING
    floor_share: float | None = None
    """The pruning floor as a share of the epoch budget, in place of the floor of `pruning`."""
    make_default: MakePruner | None = None
    """Makes one of Optuna's pruners, which is asked at every rung from the first, in place of `pruning`."""

    @property
    def name(self) -> str:
        """Name and label, as tables show them."""
        return f"{self.pruner}, {self.label}" if self.label else self.pruner

    @property
    def is_from_optuna(self) -> bool:
        """Whether this is one of Optuna's pruners."""
        return self.make_default is not None or self.pruning.rule in OPTUNA_PRUNERS

    def pruning_for(self, spec: StudySpec) -> Pruning:
        """Return the settings for a study, whose epoch budget determines the floor."""
        if self.floor_share is None:
            return self.pruning
        return self.pruning.model_copy(update={"min_epochs": round(self.floor_share * spec.experiment.epochs)})

    def floor(self, spec: StudySpec) -> int:
        """Return the first epoch at which the pruner is asked in a study."""
        return 0 if self.make_default else spec.model_copy(update={"pruning": self.pruning_for(spec)}).pruning_floor

    def simulated_study(self, spec: StudySpec, curves: Sequence[Curve]) -> SimulatedStudy:
        """Return a simulated study of these curves with this pruner.

        Raises:
            MiiiiSearchError: If one of Optuna's pruners does not accept its options.
        """
        if not self.is_from_optuna:
            return OwnPrunerStudy(make_own_pruner(self.pruning), curves)
        pruning, floor, epochs = self.pruning_for(spec), self.floor(spec), spec.experiment.epochs
        return OptunaPrunerStudy(self.make_default or (lambda: make_optuna_pruner(pruning, floor, epochs)), curves)


OPTUNA_DEFAULTS: dict[str, MakePruner] = {
    "median": optuna.pruners.MedianPruner,
    "percentile": lambda: optuna.pruners.PercentilePruner(25.0),
    "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "patient": lambda: optuna.pruners.PatientPruner(optuna.pruners.MedianPruner(), patience=3),
    "threshold": lambda: optuna.pruners.ThresholdPruner(lower=0.5),
}
"""Optuna's pruners with default arguments, by their `pruning.rule`.

Required arguments are those of the examples in Optuna's documentation.
"""

SAFETIES = (1.0, 2.0, 5.0, 10.0)
"""Values of `pruning.safety` that are compared, besides the default."""

TUNED = tuple(
    PrunerVariant(rule_title(rule), "tuned", Pruning.model_validate({"rule": rule, "options": options}), floor)
    for rule, options, floor in (
        ("median", {"n_startup_trials": 10}, 1 / 4),
        ("percentile", {"percentile": 25.0, "n_startup_trials": 5}, 3 / 4),
        ("successive_halving", {"reduction_factor": 2, "min_early_stopping_rate": 0}, 3 / 4),
        ("hyperband", {"reduction_factor": 2}, 3 / 4),
        ("patient", {"patience": 2}, 1 / 8),
        ("threshold", {"lower": 0.3}, 1 / 2),
    )
)
"""Optuna's pruners with the best settings that `bench/pruning.py --tune` found on the curves for making rules."""


def pruner_variants(own: Pruning | None = None) -> list[PrunerVariant]:
    """Return all pruners to compare.

    Args:
        own: Pruning settings of a study. They come first, unless they are among the others.
    """
    ours = [
        PrunerVariant("none"),
        PrunerVariant("forecast", pruning=Pruning(rule="forecast")),
        *(PrunerVariant("forecast", f"safety {s:g}", Pruning(rule="forecast", safety=s)) for s in SAFETIES),
        PrunerVariant("quantile", pruning=Pruning(rule="quantile")),
    ]
    known = [variant.pruning for variant in [*ours, *TUNED] if variant.floor_share is None]
    first = [PrunerVariant("this study's", pruning=own)] if own is not None and own not in known else []
    defaults = [PrunerVariant(rule_title(rule), "default", make_default=make) for rule, make in OPTUNA_DEFAULTS.items()]
    return [*first, *ours, *defaults, *TUNED]
