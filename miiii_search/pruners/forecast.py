"""The pruner `forecast`: prunes a run once none of its unsolved tasks can be solved within its epoch budget.

Long before its accuracy moves, the validation loss of a task that will generalise peaks and then falls almost linearly.
The pruner looks at the second half of a run so far and extrapolates the loss along a line. It prunes the run if even a
fall several times as steep would reach zero too late. Two kinds of runs continue, because their loss may still peak:
those whose weights still shrink, and those that had not memorised the training samples for the whole of that half.
docs/research/pruning.md has the evidence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import ArrayLike, NDArray
from optuna.trial import FrozenTrial

from miiii_search.pruners.base import PruningContext
from miiii_search.pruners.history import Floats, History

MEMORISED_ACCURACY = 0.9
"""Training accuracy from which a task counts as memorised. A task below it at any rung of the second half allows no
forecast: its validation loss rises during memorisation, whether or not the network generalises later."""

MIN_RUNGS = 8
"""Number of rungs that a run must have passed: 192 epochs, if every sixteenth epoch is evaluated."""

SHRINKING_RATIO = 0.95
"""Weights still shrink if their norm fell below this share of its value during the second half of the run so far. Then
the weights that memorised are decaying."""

HISTORY_KEY = "miiii:history"
"""User attribute of a trial that holds what `Forecast.report` was given, as a list of one row per rung."""


@dataclass(frozen=True)
class Forecast(optuna.pruners.BasePruner):
    """Prunes a run once no unsolved task's validation loss can reach zero within the epoch budget.

    It is the default pruner of this package's studies. It also works in any Optuna study whose objective calls `report`
    and then `trial.should_prune()`. It needs at least eight reports, whose distances are equal or grow.

    Attributes:
        safety: Factor by which a loss may fall faster from now on than before. A larger factor prunes fewer runs.
        epochs: Epoch budget of a run. Only `prune` reads it.
        target_accuracy: Validation accuracy at which a task counts as solved. Only `prune` reads it.

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
        """Report the state of a run to an Optuna study. The mean validation accuracy is Optuna's intermediate value.

        Args:
            trial: The running trial.
            epoch: Epochs trained so far, more than in the last report.
            train_accuracy: Training accuracy of each task, a number or an array of shape [tasks].
            validation_accuracy: Validation accuracy of each task, a number or an array of shape [tasks].
            validation_loss: Cross-entropy of each task divided by ln(number of classes), so that guessing has 1; a
                number or an array of shape [tasks].
            weight_norm: L2 norm of all weights together.
        """
        columns = [
            np.atleast_1d(np.asarray(values, float))
            for values in (train_accuracy, validation_accuracy, validation_loss)
        ]
        row = [int(epoch), *(column.tolist() for column in columns), float(weight_norm)]
        trial.set_user_attr(HISTORY_KEY, [*trial.user_attrs.get(HISTORY_KEY, []), row])
        trial.report(float(columns[1].mean()), int(epoch))

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Return whether to prune a trial of an Optuna study.

        Raises:
            ValueError: If the pruner was created without `epochs`.
        """
        if self.epochs < 1:
            raise ValueError("Forecast needs the epoch budget of a run: Forecast(epochs=10_000)")
        rows = trial.user_attrs.get(HISTORY_KEY, [])
        if not rows:
            return False
        epoch, train, validation, loss, norm = zip(*rows, strict=True)
        history = History(np.asarray(epoch, np.int64), *(np.asarray(x, float) for x in (train, validation, loss, norm)))
        return self.reason(history, self.epochs, self.target_accuracy) is not None

    def should_prune(self, context: PruningContext) -> str | None:
        """Return why a trial of this package should be pruned; None to continue it. See `reason`."""
        return self.reason(context.history, context.experiment.epochs, context.experiment.accuracy_threshold)

    def reason(self, history: History, epochs: int, target_accuracy: float) -> str | None:
        """Return why a run should be pruned, as a sentence for the user; None to continue it.

        Args:
            history: Measurements of the run at its rungs so far.
            epochs: Epoch budget of the run.
            target_accuracy: Validation accuracy at which a task counts as solved.
        """
        now = int(history.epoch[-1]) if len(history) else 0
        middle = int(np.searchsorted(history.epoch, now / 2))  # rung at which the second half begins
        if len(history) < MIN_RUNGS or middle + 1 >= len(history):
            return None
        unsolved = history.validation_accuracy[-1] < target_accuracy
        memorised = history.train_accuracy[middle:].min(axis=0) >= MEMORISED_ACCURACY
        weights_shrink = history.weight_norm[-1] < SHRINKING_RATIO * history.weight_norm[middle]
        if not unsolved.any() or not memorised[unsolved].all() or weights_shrink:
            return None
        losses = np.nan_to_num(history.validation_loss[:, unsolved].T, nan=math.inf)
        earliest = min(self._zero_epoch(history.epoch, loss, middle) for loss in losses)
        if earliest <= epochs:
            return None
        return self._describe(history, epochs, unsolved, earliest)

    def _zero_epoch(self, epoch: NDArray[np.int64], loss: Floats, middle: int) -> float:
        """Extrapolate a loss [rungs] from its fall since the rung `middle`.

        Returns:
            The earliest epoch at which the loss can reach zero. Infinity if the loss has not fallen. 0 if it rises
            again after a new minimum, which allows no forecast.
        """
        peak, start = int(loss.argmax()), middle + int(loss[middle:].argmax())
        is_new_low = peak >= middle or loss[middle:].min() < loss[peak:middle].min()
        if is_new_low and peak != start == len(loss) - 1:
            return 0.0
        lowest = loss[start:].min()
        if not is_new_low or lowest == loss[start]:
            return math.inf
        remaining = lowest / (loss[start] - lowest) * (epoch[-1] - epoch[start])
        return float(epoch[-1] + remaining / self.safety)

    def _describe(self, history: History, epochs: int, unsolved: NDArray[np.bool_], zero_epoch: float) -> str:
        now = int(history.epoch[-1])
        loss = history.validation_loss[-1, unsolved].min()
        tasks = "" if len(unsolved) == 1 else f" of its {unsolved.sum()} unsolved tasks, {loss:.2f} or more"
        value = f" ({loss:.2f} times that of guessing)" if len(unsolved) == 1 else " times that of guessing,"
        so_far = (
            f"memorised by epoch {now // 2:,}, its weights no longer shrink, "
            f"and at epoch {now:,} the validation loss{tasks}{value}"
        )
        if zero_epoch == math.inf:
            return f"{so_far} has not fallen since epoch {now // 2:,}"
        return (
            f"{so_far} would only reach zero at epoch {zero_epoch:,.0f} of {epochs:,}, "
            f"even if it fell {self.safety:g} times as fast as since epoch {now // 2:,}"
        )
