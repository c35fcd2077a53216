"""The pruner `quantile`, which compares a trial's accuracy with that of all trials at the same rung."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from miiii_search.experiment.metrics import format_accuracy
from miiii_search.pruners.base import PruningContext, ReportedTrial


@dataclass(frozen=True)
class Quantile(optuna.pruners.BasePruner):
    """Prunes a trial whose validation accuracy is below a quantile of all trials at the same rung.

    A trial that finished before the rung takes part with its last report. Otherwise the best trials, which stop early
    because they are solved, would be missing from the comparison.

    Attributes:
        quantile: The quantile, between 0 and 1.
        min_trials: Smallest number of trials, including the one in question, with which a decision is made.
    """

    quantile: float
    min_trials: int
    uses_peers = True

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether to prune a trial of an Optuna study at its last report."""
        epoch = trial.last_step
        return epoch is not None and self._reason(trial, study.get_trials(deepcopy=False), epoch) is not None

    def should_prune(self, context: PruningContext) -> str | None:
        """Return why a trial of this package should be pruned; None to continue it."""
        return self._reason(context.trial, context.trials, context.epoch)

    def _reason(self, trial: ReportedTrial, trials: Sequence[ReportedTrial], epoch: int) -> str | None:
        accuracy = trial.intermediate_values.get(epoch)
        if accuracy is None:
            return None
        values = [value for other in trials if (value := _value_at(other, epoch)) is not None]
        if len(values) < self.min_trials:
            return None
        threshold = float(np.quantile(values, self.quantile))
        if accuracy >= threshold:
            return None
        return (
            f"validation accuracy {format_accuracy(accuracy)} at epoch {epoch:,} is below "
            f"{format_accuracy(threshold)}, the {self.quantile:.0%} quantile of {len(values)} trials"
        )


def _value_at(trial: ReportedTrial, epoch: int) -> float | None:
    """Return a trial's report at a rung, or its last report if it finished before; None if it has neither."""
    if epoch in trial.intermediate_values:
        return trial.intermediate_values[epoch]
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
        earlier = [step for step in trial.intermediate_values if step < epoch]
        if earlier:
            return trial.intermediate_values[max(earlier)]
    return None
