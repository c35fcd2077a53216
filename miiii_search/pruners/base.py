"""The interface of a pruner, and the pruner that prunes nothing.

A pruner only decides. The worker asks it at each rung from the study's pruning floor on, and ends the trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import optuna
from optuna.trial import TrialState

from miiii_search.experiment.spec import Experiment
from miiii_search.pruners.history import History


class ReportedTrial(Protocol):
    """The attributes of a trial that pruners read: a `peers.Peer` or an `optuna.trial.FrozenTrial` has them."""

    @property
    def state(self) -> TrialState:
        """State of the trial."""
        ...

    @property
    def intermediate_values(self) -> dict[int, float]:
        """Reports by epoch. A `Peer` holds those at the rung in question and, once it has finished, its last one."""
        ...


@dataclass(frozen=True)
class PruningContext:
    """A trial at a rung, with everything that a pruner may need to decide on it."""

    experiment: Experiment
    """Settings of the run."""
    epoch: int
    """Epoch of the rung."""
    history: History
    """The run's measurements at all rungs up to and including this one."""
    trial: Any
    """The trial, a `ReportedTrial`. One of Optuna's pruners needs a `FrozenTrial`."""
    trials: Sequence[Any]
    """All trials of the study, including this one, as of one read of the database."""


class Pruner(Protocol):
    """A pruner as the worker and the simulation use it. Its decision does not depend on the order of the trials.

    Those in this package are subclasses of `optuna.pruners.BasePruner` as well, or wrap one.
    """

    @property
    def uses_peers(self) -> bool:
        """Whether the pruner compares the trial with other trials."""
        ...

    def should_prune(self, context: PruningContext) -> str | None:
        """Decide on a trial at a rung.

        Args:
            context: The trial, its run's history and the other trials.

        Returns:
            The reason for pruning the trial, as a sentence for the user; None to continue it.
        """
        ...


class NopPruner(optuna.pruners.NopPruner):
    """The pruner `none`, which continues every trial."""

    uses_peers = False

    def should_prune(self, context: PruningContext) -> str | None:
        """Continue the trial."""
        return None
