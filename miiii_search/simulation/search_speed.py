"""Measures how soon a study finds its best configuration, depending on the order in which it starts its runs."""

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
from miiii_search.simulation.replay import ReplayedRun, RunOrder, replay

BOOTSTRAP_SAMPLES = 2000
"""Number of bootstrap samples for a confidence interval."""


@dataclass(frozen=True)
class TimeToFind:
    """Time until the first of some runs was completed. Infinity if none was."""

    total_epochs: float
    """Epochs that all lanes together had trained."""
    wall_epochs: float
    """Epochs that each lane had trained since the study began."""


@dataclass(frozen=True)
class SearchResult:
    """Times until one study found good runs."""

    best: TimeToFind
    """Time until a run with the best objective was completed."""
    good: TimeToFind
    """Time until one of the best tenth of the runs was completed."""


def best_runs(curves: Sequence[Curve], share: float = 0.0) -> frozenset[int]:
    """Return the numbers of the best runs by the objective, including ties.

    Args:
        curves: Curves of a study.
        share: Share of the runs, rounded up to at least one.
    """
    values = sorted((curve.objective for curve in curves if curve.objective is not None), reverse=True)
    if not values:
        return frozenset()
    least = values[min(max(math.ceil(share * len(curves)), 1), len(values)) - 1]
    return frozenset(c.number for c in curves if c.objective is not None and c.objective >= least)


def time_to_find(runs: Sequence[ReplayedRun], wanted: Collection[int]) -> TimeToFind:
    """Return the time until the first of the runs with these numbers was completed."""
    wall_epochs = min(
        (run.finished for run in runs if run.curve.number in wanted and run.objective is not None), default=math.inf
    )
    if wall_epochs == math.inf:
        return TimeToFind(math.inf, math.inf)
    total_epochs = sum(min(run.epochs, max(wall_epochs - run.started, 0.0)) for run in runs)
    return TimeToFind(total_epochs, wall_epochs)


class OrderUntilStarted:
    """Follows an order until all wanted runs have started, and the queue from then on.

    The rest of the order makes no difference to the time until they are completed, and some orders are slow to compute.
    This holds for pruners that do not compare runs.
    """

    def __init__(self, order: RunOrder, wanted: Collection[int]) -> None:
        self._order = order
        self._wanted = set(wanted)

    def next_run(self, waiting: Sequence[int], finished: Mapping[int, ReplayedRun], running: Collection[int]) -> int:
        """Return the order's next run, or the first of the queue."""
        return waiting[0] if self._wanted.isdisjoint(waiting) else self._order.next_run(waiting, finished, running)


def replay_searches(
    make_order: MakeOrder, variant: PrunerVariant, spec: StudySpec, studies: Sequence[Sequence[Curve]], lanes: int
) -> list[SearchResult]:
    """Replay studies in one order, and measure how soon they find good runs.

    Args:
        make_order: Makes the order of each study. The seed of study k is k.
        variant: The pruner, which must not compare runs.
        spec: Specification of the studies.
        studies: Curves of each study.
        lanes: Number of runs that are trained at the same time.

    Returns:
        The result of each study.
    """
    floor, simulated, results = variant.floor(spec), variant.simulated_study(spec, []), []
    for seed, curves in enumerate(studies):
        best, good = best_runs(curves), best_runs(curves, 0.1)
        wanted = [k for k, curve in enumerate(curves) if curve.number in best]
        order = OrderUntilStarted(make_order(spec, curves, seed), wanted)
        runs = replay(curves, simulated.for_curves(curves), lanes, floor, order)
        results.append(SearchResult(time_to_find(runs, best), time_to_find(runs, good)))
    return results


@dataclass(frozen=True)
class RelativeSaving:
    """The share of epochs that one order saves compared with another. Negative if it spends more.

    The interval is a 95 % bootstrap interval of the mean over studies. All studies consist of the same configurations,
    so it says how precise this mean is, but not what to expect of other configurations.
    """

    mean: float
    low: float
    high: float
    pairs: int
    """Number of studies in which both orders found a wanted run."""
    sooner: int
    """Number of these in which the order found it sooner."""
    later: int
    """Number of these in which the order found it later."""


def relative_saving(spent: Sequence[float], baseline: Sequence[float]) -> RelativeSaving:
    """Compare the epochs that two orders spend on the same studies.

    Args:
        spent: Epochs spent in each study; infinity if no wanted run was found.
        baseline: The same for the order to compare with.

    Returns:
        The comparison. Its floats are NaN if there is no study in which both orders found a wanted run.
    """
    spent_array, baseline_array = np.asarray(spent, np.float64), np.asarray(baseline, np.float64)
    both = np.isfinite(spent_array) & np.isfinite(baseline_array)
    ours, theirs = spent_array[both], baseline_array[both]
    n = len(ours)
    if n == 0:
        return RelativeSaving(math.nan, math.nan, math.nan, 0, 0, 0)
    samples = np.random.default_rng(0).integers(0, n, (BOOTSTRAP_SAMPLES, n))
    low, high = np.quantile(_saved(ours[samples], theirs[samples]), [0.025, 0.975])
    sooner, later = int((ours < theirs).sum()), int((ours > theirs).sum())
    return RelativeSaving(float(_saved(ours, theirs)), float(low), float(high), n, sooner, later)


def _saved(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    saved: NDArray[np.float64] = 1 - ours.mean(-1) / theirs.mean(-1)
    return saved
