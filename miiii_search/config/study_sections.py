"""Sections of a study's specification: its budget, its pruning and its replicates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from miiii_search.experiment.spec import Spec

PRUNING_RULES = (
    "none",
    "forecast",
    "quantile",
    "median",
    "percentile",
    "successive_halving",
    "hyperband",
    "patient",
    "threshold",
)
"""The names of all pruners. `none`, `forecast` and `quantile` are ours, the others Optuna's; see `pruners`."""


def rule_title(rule: str) -> str:
    """Return the name of a pruner for tables and figures, such as `successive halving`."""
    return rule.replace("_", " ")


class Budget(Spec):
    """Limits at which a study is done, even if its queue is not empty.

    Trials that are running at that moment return to the queue.
    """

    trials: Annotated[int, Field(gt=0)] | None = None
    """Maximum number of trials. Default: the whole grid."""
    solved: Annotated[int, Field(gt=0)] | None = None
    """Maximum number of trials whose run is solved. Default: no limit."""
    device_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Maximum device-hours of all workers together: the hours for which a worker holds devices, times the devices.

    Default: no limit.
    """
    wall_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Maximum hours since the first trial was claimed. Nothing is trained later. Default: no limit."""

    @property
    def has_limits(self) -> bool:
        """Whether there is any limit besides the number of trials."""
        return (self.solved, self.device_hours, self.wall_hours) != (None, None, None)


class Pruning(Spec):
    """The rule that ends unpromising trials early; see the package `pruners`."""

    rule: str = "forecast"
    """Name of the rule. `none`, `forecast` and `quantile` are ours, the others Optuna's.

    Default: `forecast`, which lost no run that groks on recorded curves, and trained 59 % of their epochs.
    """
    min_epochs: Annotated[int, Field(ge=0)] | None = None
    """Epoch before which no trial is pruned.

    Default: a quarter of the epochs, or an eighth for `forecast`, but not before the end of an annealing. An annealing
    changes the pace of a run.
    """
    safety: Annotated[float, Field(ge=1, le=100)] = 3.0
    """For `forecast`: how much faster than before the loss of a run may fall from now on. Larger values prune less.

    Default: 3. On recorded curves, 1 and 2 lost runs that grok, and 3 lost none.
    """
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """For `quantile`: a trial below this quantile of all trials at the same rung is pruned.

    Default: 0.25, so that three of four trials go on.
    """
    min_trials: Annotated[int, Field(ge=2)] = 4
    """For `quantile`: minimum number of trials at a rung, including the trial itself, for a decision.

    Default: 4, the smallest number of which a quarter is one trial.
    """
    options: dict[str, float | int | bool] = Field(default_factory=dict)
    """For Optuna's pruners: the arguments of their constructors. Default: Optuna's own."""


class Replicates(Spec):
    """The number of runs of each configuration. Replicate r is trained with the seed `experiment.seed + r`.

    It is stored as a plain number if every configuration has the same number of runs. Earlier versions read only that.
    """

    count: Annotated[int, Field(gt=0)] = 1
    """Number of runs of each configuration, or of each of the `top` configurations.

    Default: 1, so that a search tries as many configurations as it can.
    """
    top: Annotated[int, Field(gt=0)] | None = None
    """Number of configurations that get more than one run: the best ones, once all have had their first run.

    Default: all configurations.
    """

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        return value if isinstance(value, Mapping | Replicates) else {"count": value}

    @model_validator(mode="after")
    def _top_has_further_runs(self) -> Replicates:
        if self.top is not None and self.count == 1:
            raise ValueError(
                f"replicates.top = {self.top} gives further runs to the best configurations, but replicates.count = 1 "
                "allows none: set replicates.count to 2 or more"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_number(self, as_table: SerializerFunctionWrapHandler) -> Any:
        return self.count if self.top is None else as_table(self)
