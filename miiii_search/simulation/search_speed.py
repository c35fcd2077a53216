"""How soon a study finds its best configuration, by the order in which it trains them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from miiii_search.config.study_spec import StudySpec
from miiii_search.simulation.curves import Curve
from miiii_search.simulation.orders import MakeOrder
from miiii_search.simulation.pruner_variants import PrunerVariant
from miiii_search.simulation.replay import Order, ReplayedRun, replay

RESAMPLED = 2000
"""Times that draws are drawn again for an interval."""


@dataclass(frozen=True)
class TimeToFind:
    """When the first of some runs was completed; infinity if none was."""

    spent: float
    """Epochs that all lanes have trained by then."""
    after: float
    """Epochs of one lane since the study began."""


@dataclass(frozen=True)
class SearchResult:
    """What one study found, and when."""

    best: TimeToFind
    """One of the best objective."""
    good: TimeToFind
    """One of the best tenth."""


def best_runs(curves: Sequence[Curve], share: float = 0.0) -> frozenset[int]:
    """The numbers of the best share of the curves by the objective, the best one at least, and of all its equals."""
    values = sorted((curve.objective for curve in curves if curve.objective is not None), reverse=True)
    if not values:
        return frozenset()
    least = values[min(max(math.ceil(share * len(curves)), 1), len(values)) - 1]
    return frozenset(c.number for c in curves if c.objective is not None and c.objective >= least)


def time_to_find(runs: Sequence[ReplayedRun], wanted: Collection[int]) -> TimeToFind:
    """When the first of the runs with these numbers was completed."""
    after = min((r.ended for r in runs if r.curve.number in wanted and r.objective is not None), default=math.inf)
    if after == math.inf:
        return TimeToFind(math.inf, math.inf)
    return TimeToFind(sum(min(run.epochs, max(after - run.started, 0.0)) for run in runs), after)


class Until:
    """An order until all runs that are wanted have started, then the queue: a rule that looks at each run by itself
    makes no difference between them, and a sampler takes its time."""

    def __init__(self, order: Order, wanted: Collection[int]) -> None:
        self._order = order
        self._wanted = set(wanted)

    def next(self, waiting: Sequence[int], ended: Mapping[int, ReplayedRun], running: Collection[int]) -> int:
        """What the order says, while it matters."""
        return waiting[0] if self._wanted.isdisjoint(waiting) else self._order.next(waiting, ended, running)


def replay_searches(
    make: MakeOrder, contender: PrunerVariant, spec: StudySpec, studies: Sequence[Sequence[Curve]], lanes: int
) -> list[SearchResult]:
    """Each study under one order and a rule that looks at each run by itself; the k-th has the seed k."""
    floor, court, results = contender.floor(spec), contender.court(spec, []), []
    for seed, curves in enumerate(studies):
        best, good = best_runs(curves), best_runs(curves, 0.1)
        order = Until(make(spec, curves, seed), [k for k, curve in enumerate(curves) if curve.number in best])
        runs = replay(curves, court.again(curves), lanes, floor, order)
        results.append(SearchResult(time_to_find(runs, best), time_to_find(runs, good)))
    return results


@dataclass(frozen=True)
class RelativeSaving:
    """How much less an order spends than another one, as a share of what that one spends; negative is more.

    The interval holds 95 % of means over draws that are drawn again. It tells how sure a mean over draws is, which all
    are of the same few configurations: not what to expect of another set.
    """

    mean: float
    low: float
    high: float
    pairs: int
    """Draws in which both found what was wanted."""
    sooner: int
    """Of these, in which the order was sooner."""
    later: int


def relative_saving(spent: Sequence[float], against: Sequence[float]) -> RelativeSaving:
    """Compares two orders on the same draws; all NaN if in none of them both found what was wanted."""
    mine, theirs = np.asarray(spent, np.float64), np.asarray(against, np.float64)
    both = np.isfinite(mine) & np.isfinite(theirs)
    mine, theirs = mine[both], theirs[both]
    n = len(mine)
    if n == 0:
        return RelativeSaving(math.nan, math.nan, math.nan, 0, 0, 0)
    picks = np.random.default_rng(0).integers(0, n, (RESAMPLED, n))
    low, high = np.quantile(_saved(mine[picks], theirs[picks]), [0.025, 0.975])
    sooner, later = int((mine < theirs).sum()), int((mine > theirs).sum())
    return RelativeSaving(float(_saved(mine, theirs)), float(low), float(high), n, sooner, later)


def _saved(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    saved: NDArray[np.float64] = 1 - mine.mean(-1) / theirs.mean(-1)
    return saved
