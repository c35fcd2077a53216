"""The pruner `forecast`: a run is pruned once nothing that it has not solved can be solved within its epoch budget.

Long before accuracy moves, the validation loss of a task that will generalise turns and falls, all but along a line.
The rule looks at the second half of a run's life, carries the line on, and gives the run up if even a fall several
times as steep would come too late; unless the loss may yet turn, since the weights still shrink, or since the network
had yet to memorise for a part of that half.
docs/pruning.md has the evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import ArrayLike, NDArray
from optuna.trial import FrozenTrial

from miiii_search.pruners.base import PruningContext
from miiii_search.pruners.history import History

MEMORISED = 0.9
"""Training accuracy of a task below which, at any rung of that half, it is too early to say anything of it: while a
network memorises its validation loss rises, whatever becomes of it later."""

FEWEST = 8
"""Rungs, before which a run has shown too little: 192 epochs, where one in sixteen is evaluated."""

SHRINKING = 0.95
"""What the second half of a run's life leaves of the norm of weights that still shrink: those that memorised decay."""

Values = NDArray[np.float64]


HISTORY_KEY = "miiii:history"
"""The trial attribute that holds what `Forecast.report` was given: a list of its arguments at each rung."""


@dataclass(frozen=True)
class Forecast(optuna.pruners.BasePruner):
    """Prunes a run once no unsolved task's validation loss can be down within the epoch budget.

    It is the default of studies of this package, and a pruner for any Optuna study whose objective calls `report`
    and then `trial.should_prune()`. It needs at least eight reports, spaced evenly or further and further apart.

    Attributes:
        safety: How many times as fast as before a loss may fall from now on.
        epochs: The epoch budget of a run. Only `prune` needs it.
        target_accuracy: Validation accuracy at which a task counts as solved. Only `prune` uses it.

    Example:
        >>> import optuna
        >>> from miiii_search.pruners import Forecast
        >>> study = optuna.create_study(direction="maximize", pruner=Forecast(safety=3.0, epochs=10_000))
    """

    safety: float = 3.0
    epochs: int = 0
    target_accuracy: float = 1.0
    uses_peers = False

    @staticmethod
    def report(
        trial: optuna.Trial,
        epoch: int,
        *,
        train_accuracy: ArrayLike,
        validation_accuracy: ArrayLike,
        validation_loss: ArrayLike,
        weight_norm: float,
    ) -> None:
        """Reports a run's state to the study, with the mean validation accuracy as Optuna's intermediate value.

        Args:
            trial: The running trial.
            epoch: Epochs trained so far, more than in the last report.
            train_accuracy: By task, a number or an array of shape [tasks].
            validation_accuracy: The same.
            validation_loss: The same; cross-entropy in units of ln(number of classes), so that guessing has 1.
            weight_norm: L2 norm of all weights together.
        """
        columns = [
            np.atleast_1d(np.asarray(one, float)) for one in (train_accuracy, validation_accuracy, validation_loss)
        ]
        row = [int(epoch), *(column.tolist() for column in columns), float(weight_norm)]
        trial.set_user_attr(HISTORY_KEY, [*trial.user_attrs.get(HISTORY_KEY, []), row])
        trial.report(float(columns[1].mean()), int(epoch))

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether to prune an Optuna trial. Raises `ValueError` if `epochs` was not given."""
        if self.epochs < 1:
            raise ValueError("Forecast needs the epoch budget of a run: Forecast(epochs=10_000)")
        rows = trial.user_attrs.get(HISTORY_KEY, [])
        if not rows:
            return False
        epoch, train, validation, loss, norm = zip(*rows, strict=True)
        history = History(np.asarray(epoch, np.int64), *(np.asarray(x, float) for x in (train, validation, loss, norm)))
        return self.reason(history, self.epochs, self.target_accuracy) is not None

    def should_prune(self, context: PruningContext) -> str | None:
        """Decides on a trial of this package; see `reason`."""
        return self.reason(context.history, context.experiment.epochs, context.experiment.accuracy_threshold)

    def reason(self, shown: History, epochs: int, target_accuracy: float) -> str | None:
        """Returns why a run should be pruned, in words; None to let it go on.

        Args:
            shown: What the run has shown at its rungs so far.
            epochs: The epoch budget.
            target_accuracy: Validation accuracy at which a task counts as solved.
        """
        now = int(shown.epoch[-1]) if len(shown) else 0
        middle = int(np.searchsorted(shown.epoch, now / 2))
        if len(shown) < FEWEST or middle + 1 >= len(shown):
            return None
        unsolved = shown.validation_accuracy[-1] < target_accuracy
        memorised = shown.train_accuracy[middle:].min(axis=0) >= MEMORISED
        shrinks = shown.weight_norm[-1] < SHRINKING * shown.weight_norm[middle]
        if not unsolved.any() or not memorised[unsolved].all() or shrinks:
            return None
        losses = np.nan_to_num(shown.validation_loss[:, unsolved].T, nan=math.inf)
        arrivals = [self._arrival(shown.epoch, loss, middle) for loss in losses]
        if min(arrivals) <= epochs:
            return None
        return self._words(shown, now, epochs, unsolved, min(arrivals))

    def _arrival(self, epoch: NDArray[np.int64], loss: Values, middle: int) -> float:
        """The epoch by which a loss [rungs] may be down, given its pace since the rung `middle`: infinity without one,
        0 if it is up again from a new low, which tells nothing."""
        peak, start = int(loss.argmax()), middle + int(loss[middle:].argmax())
        is_new_low = peak >= middle or loss[middle:].min() < loss[peak:middle].min()
        if is_new_low and peak != start == len(loss) - 1:
            return 0.0
        lowest = loss[start:].min()
        if not is_new_low or lowest == loss[start]:
            return math.inf
        ahead = lowest / (loss[start] - lowest) * (epoch[-1] - epoch[start])
        return float(epoch[-1] + ahead / self.safety)

    def _words(self, shown: History, now: int, epochs: int, unsolved: NDArray[np.bool_], arrival: float) -> str:
        loss = shown.validation_loss[-1, unsolved].min()
        tasks = "" if len(unsolved) == 1 else f" of its {unsolved.sum()} unsolved tasks, {loss:.2f} or more"
        value = f" ({loss:.2f} times that of guessing)" if len(unsolved) == 1 else " times that of guessing,"
        so_far = (
            f"memorised by epoch {now // 2:,}, its weights no longer shrink, "
            f"and at epoch {now:,} the validation loss{tasks}{value}"
        )
        if arrival == math.inf:
            return f"{so_far} has not fallen since epoch {now // 2:,}"
        return (
            f"{so_far} would be down at epoch {arrival:,.0f} of {epochs:,}, "
            f"even if it fell {self.safety:g} times as fast as since epoch {now // 2:,}"
        )
