"""Scores of replayed studies, compared with values computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from miiii_search.pruners.base import NopPruner
from miiii_search.simulation.curves import Curve
from miiii_search.simulation.replay import ReplayedRun, replay
from miiii_search.simulation.scoring import Score, draw_studies, ground_truth, score, shuffled_studies, summarize
from miiii_search.simulation.simulated_study import OwnPrunerStudy
from tests.simulation.support import EXPERIMENT, curve_of, epochs_of, make_record, set_of

BUDGET = EXPERIMENT.epochs


def solved_at(number: int, epoch: int | None, end: float = 0.5) -> Curve:
    """A curve at a plateau, and from an epoch on at 1."""
    accuracy = np.where(epochs_of() < (epoch or math.inf), end, 1.0)
    return curve_of(number, make_record(accuracy, 1 - accuracy))


def test_what_a_study_cost_and_lost() -> None:
    """Twelve grokkers, of which the second fastest and the two slowest are pruned, and two that never grok."""
    curves = [solved_at(k, 512 * (k + 1)) for k in range(12)] + [solved_at(12, None), solved_at(13, None, 0.9)]
    truth = ground_truth(curves)
    assert (truth.grokkers, truth.fastest, truth.epochs) == (frozenset(range(12)), frozenset(range(10)), 14 * BUDGET)
    assert truth.best == 2 - 512 / BUDGET
    pruned = {1, 10, 11, 12}
    runs = [
        ReplayedRun(curve, "pruned", 100.0 * k, 1000)
        if k in pruned
        else ReplayedRun(curve, "solved" if k < 12 else "unsolved", 100.0 * k, curve.last_epoch)
        for k, curve in enumerate(curves)
    ]
    found = score(truth, runs)
    trained = sum(512 * (k + 1) + 32 for k in range(12) if k not in pruned) + 4 * 1000 + BUDGET
    assert math.isclose(found.epochs_share, trained / (14 * BUDGET))
    assert (found.grokkers_lost, found.top10_lost, found.pruned) == (3 / 12, 1.0, 4 / 14)
    assert (found.first_solved, found.best_found, found.regret) == (512 + 32, 512 + 32, 0.0)
    without = [run for run in runs if run.curve.number != 0]
    assert math.isclose(score(truth, without).regret, 2 * 512 / BUDGET)


def test_where_nothing_is_solved_the_nearly_best_stand_for_grokkers() -> None:
    curves = [solved_at(k, None, end) for k, end in enumerate((0.40, 0.37, 0.35, 0.20))]
    truth = ground_truth(curves)
    assert (truth.grokkers, truth.solved) == (frozenset({0, 1}), False)
    found = score(truth, [ReplayedRun(c, "pruned" if c.number == 0 else "unsolved", 0.0, BUDGET) for c in curves])
    assert found.grokkers_lost == 0.5 and math.isnan(found.first_solved)
    assert math.isclose(found.regret, 0.40 - 0.37, rel_tol=1e-5)


@pytest.mark.parametrize("n", [0, 3])
def test_a_study_in_which_nothing_was_completed(n: int) -> None:
    failed = [curve_of(k, make_record([0.1], [1.0]), failed_epoch=16) for k in range(n)]
    found = score(ground_truth(failed), replay(failed, OwnPrunerStudy(NopPruner(), failed), 2, 0))
    assert math.isnan(found.grokkers_lost) and math.isnan(found.best_found) and found.top10_lost == 0


def test_a_failed_run_costs_what_it_trained() -> None:
    failed = curve_of(0, make_record([0.1] * 10, [1.0] * 10), failed_epoch=160)
    assert ground_truth([failed, solved_at(1, None)]).epochs == 160 + BUDGET


def test_means_and_intervals() -> None:
    scores = [Score(k / 100, math.nan if k < 50 else 0.5, 0, k, k, 0, 0) for k in range(101)]
    found = summarize(scores)
    assert math.isclose(found.mean.epochs_share, 0.5) and found.mean.grokkers_lost == 0.5
    assert (found.low.first_solved, found.high.first_solved, found.replays) == (5, 95, 101)
    assert math.isnan(summarize([Score(0, math.nan, 0, math.nan, 0, 0, 0)]).mean.grokkers_lost)
    with pytest.raises(ValueError, match="nothing"):
        summarize([])


def test_draws_take_one_seed_of_each_configuration_in_any_order() -> None:
    curves = [solved_at(k, None) for k in range(4)]
    seeds = [replace(curve, number=curve.number + 4 * r, replicate=r) for curve in curves for r in range(3)]
    drawn = draw_studies(set_of(curves).subset(seeds), 200)
    for one in drawn:
        assert sorted(curve.number % 4 for curve in one) == [0, 1, 2, 3]
    assert {curve.number for one in drawn for curve in one} == set(range(12))
    assert len({tuple(curve.number % 4 for curve in one) for one in drawn}) == 24
    assert draw_studies(set_of(curves), 5, seed=1) == draw_studies(set_of(curves), 5, seed=1)
    orders = shuffled_studies(set_of(curves), 30)
    assert orders[0] == curves and all(sorted(c.number for c in one) == [0, 1, 2, 3] for one in orders)
    assert len(shuffled_studies(set_of(curves), 1)) == 1
