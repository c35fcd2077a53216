"""What a pruning rule is, and the two plain ones.

A rule only decides; the worker asks it at rungs, from the study's pruning floor on, and acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from optuna.trial import TrialState

from miiii_search.experiment.metrics import format_accuracy
from miiii_search.experiment.spec import Experiment
from miiii_search.pruners.history import History


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


@dataclass(frozen=True)
class PruningContext:
    """A trial at a rung, as a rule is asked about it."""

    experiment: Experiment
    epoch: int
    """The rung."""
    history: History
    """What its run has shown, up to and with the rung."""
    trial: Any
    """`Reported`; for a pruner of Optuna's its own `FrozenTrial`."""
    trials: Sequence[Any]
    """All trials of the study, itself included, as they were read once for all lanes."""


class Pruner(Protocol):
    """Decides on one trial. The same trials in another order make no difference."""

    @property
    def uses_peers(self) -> bool:
        """Whether it looks at anything but the trial itself."""
        ...

    def should_prune(self, context: PruningContext) -> str | None:
        """Why the trial should be given up, in words; None to let it go on."""
        ...


class NopPruner:
    """The rule `none`."""

    uses_peers = False

    def should_prune(self, context: PruningContext) -> str | None:
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
    uses_peers = True

    def should_prune(self, context: PruningContext) -> str | None:
        """Compares the trial's report at the rung with its peers'."""
        epoch = context.epoch
        mine = context.trial.intermediate_values.get(epoch)
        if mine is None:
            return None
        values = [value for peer in context.trials if (value := _value_at(peer, epoch)) is not None]
        if len(values) < self.min_trials:
            return None
        threshold = float(np.quantile(values, self.quantile))
        if mine >= threshold:
            return None
        return (
            f"validation accuracy {format_accuracy(mine)} at epoch {epoch:,} is below {format_accuracy(threshold)}, "
            f"the {self.quantile:.0%} quantile of {len(values)} trials"
        )


def _value_at(trial: Reported, epoch: int) -> float | None:
    """The trial's report at the rung; a finished one that ended before it, its last."""
    if epoch in trial.intermediate_values:
        return trial.intermediate_values[epoch]
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
        earlier = [step for step in trial.intermediate_values if step < epoch]
        if earlier:
            return trial.intermediate_values[max(earlier)]
    return None
