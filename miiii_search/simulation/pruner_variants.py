"""The rules that are compared: the study's own, ours, and every pruner of Optuna's that looks at learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import optuna

from miiii_search.config.study_sections import Pruning
from miiii_search.config.study_spec import StudySpec
from miiii_search.pruners.factory import OPTUNA_PRUNERS, make_optuna_pruner, make_own_pruner
from miiii_search.simulation.curves import Curve
from miiii_search.simulation.replay import MakePruner, OptunaPrunerStudy, OwnPrunerStudy, SimulatedStudy

NO_PRUNING = Pruning(rule="none")


@dataclass(frozen=True)
class PrunerVariant:
    """A rule with its settings, as a study could have it; or a pruner as Optuna makes it where nothing is said."""

    rule: str
    setting: str = ""
    """Which of the settings of its rule, in words."""
    pruning: Pruning = NO_PRUNING
    floor_share: float | None = None
    """The floor as a share of the budget of epochs, instead of that of `pruning`."""
    stock: MakePruner | None = None
    """Asked at every rung from the first, instead of `pruning`."""

    @property
    def name(self) -> str:
        """As tables have it."""
        return f"{self.rule}, {self.setting}" if self.setting else self.rule

    @property
    def is_optunas(self) -> bool:
        """Whether it is a pruner of Optuna's."""
        return self.stock is not None or self.pruning.rule in OPTUNA_PRUNERS

    def pruning_for(self, spec: StudySpec) -> Pruning:
        """Its settings for a study of this budget."""
        if self.floor_share is None:
            return self.pruning
        return self.pruning.model_copy(update={"min_epochs": round(self.floor_share * spec.experiment.epochs)})

    def floor(self, spec: StudySpec) -> int:
        """The first epoch at which it is asked."""
        return 0 if self.stock else spec.model_copy(update={"pruning": self.pruning_for(spec)}).pruning_floor

    def court(self, spec: StudySpec, curves: Sequence[Curve]) -> SimulatedStudy:
        """What asks it. Raises `MiiiiSearchError` for options that its pruner does not take."""
        if not self.is_optunas:
            return OwnPrunerStudy(make_own_pruner(self.pruning), curves)
        pruning, floor, epochs = self.pruning_for(spec), self.floor(spec), spec.experiment.epochs
        return OptunaPrunerStudy(self.stock or (lambda: make_optuna_pruner(pruning, floor, epochs)), curves)


STOCK: dict[str, MakePruner] = {
    "median": optuna.pruners.MedianPruner,
    "percentile": lambda: optuna.pruners.PercentilePruner(25.0),
    "successive halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "patient": lambda: optuna.pruners.PatientPruner(optuna.pruners.MedianPruner(), patience=3),
    "threshold": lambda: optuna.pruners.ThresholdPruner(lower=0.5),
}
"""As they come; what must be given is given as in Optuna's documentation."""

SAFETIES = (1.0, 2.0, 5.0, 10.0)
"""Of `forecast`, beside the default."""

TUNED = tuple(
    PrunerVariant(rule.replace("_", " "), "tuned", Pruning.model_validate({"rule": rule, "options": options}), floor)
    for rule, options, floor in (
        ("median", {"n_startup_trials": 10}, 1 / 4),
        ("percentile", {"percentile": 25.0, "n_startup_trials": 5}, 3 / 4),
        ("successive_halving", {"reduction_factor": 2, "min_early_stopping_rate": 0}, 3 / 4),
        ("hyperband", {"reduction_factor": 2}, 3 / 4),
        ("patient", {"patience": 2}, 1 / 8),
        ("threshold", {"lower": 0.3}, 1 / 2),
    )
)
"""The best settings that `bench/pruning.py --tune` found on the making sets."""


def pruner_variants(own: Pruning | None = None) -> list[PrunerVariant]:
    """All rules that are compared; `own` is what a study has, which comes first if it is none of them."""
    ours = [
        PrunerVariant("none"),
        PrunerVariant("forecast", pruning=Pruning(rule="forecast")),
        *(PrunerVariant("forecast", f"safety {s:g}", Pruning(rule="forecast", safety=s)) for s in SAFETIES),
        PrunerVariant("quantile", pruning=Pruning(rule="quantile")),
    ]
    known = [one.pruning for one in [*ours, *TUNED] if one.floor_share is None]
    mine = [PrunerVariant("this study's", pruning=own)] if own is not None and own not in known else []
    return [*mine, *ours, *(PrunerVariant(name, "as it comes", stock=make) for name, make in STOCK.items()), *TUNED]
