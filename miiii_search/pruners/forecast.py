"""The rule `forecast`: a run is given up once nothing that it has not solved will be by the end of its budget.

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
from numpy.typing import NDArray

from miiii_search.pruners.base import PruningContext

MEMORISED = 0.9
"""Training accuracy of a task below which, at any rung of that half, it is too early to say anything of it: while a
network memorises its validation loss rises, whatever becomes of it later."""

FEWEST = 8
"""Rungs, before which a run has shown too little: 192 epochs, where one in sixteen is evaluated."""

SHRINKING = 0.95
"""What the second half of a run's life leaves of the norm of weights that still shrink: those that memorised decay."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Forecast:
    """The rule. `safety` is how many times as fast as before a loss may fall from now on."""

    safety: float
    sees_peers = False

    def should_prune(self, case: PruningContext) -> str | None:
        """Looks at each task that is not at the target; one that may still be solved keeps the run going."""
        shown = case.signals
        middle = int(np.searchsorted(shown.epoch, case.epoch / 2))
        if len(shown) < FEWEST or middle + 1 >= len(shown):
            return None
        unsolved = shown.validation_accuracy[-1] < case.experiment.accuracy_at_target
        memorised = shown.train_accuracy[middle:].min(axis=0) >= MEMORISED
        shrinks = shown.weight_norm[-1] < SHRINKING * shown.weight_norm[middle]
        if not unsolved.any() or not memorised[unsolved].all() or shrinks:
            return None
        losses = np.nan_to_num(shown.validation_loss[:, unsolved].T, nan=math.inf)
        arrivals = [self._arrival(shown.epoch, loss, middle) for loss in losses]
        if min(arrivals) <= case.experiment.epochs:
            return None
        return self._words(case, unsolved, min(arrivals))

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

    def _words(self, case: PruningContext, unsolved: NDArray[np.bool_], arrival: float) -> str:
        loss = case.signals.validation_loss[-1, unsolved].min()
        tasks = "" if len(unsolved) == 1 else f" of its {unsolved.sum()} unsolved tasks, {loss:.2f} or more"
        value = f" ({loss:.2f} times that of guessing)" if len(unsolved) == 1 else " times that of guessing,"
        now = (
            f"memorised by epoch {case.epoch // 2:,}, its weights no longer shrink, "
            f"and at epoch {case.epoch:,} the validation loss{tasks}{value}"
        )
        if arrival == math.inf:
            return f"{now} has not fallen since epoch {case.epoch // 2:,}"
        return (
            f"{now} would be down at epoch {arrival:,.0f} of {case.experiment.epochs:,}, "
            f"even if it fell {self.safety:g} times as fast as since epoch {case.epoch // 2:,}"
        )
