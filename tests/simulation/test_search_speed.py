"""The time until a study has found its best run, and the comparison of two orders."""

from __future__ import annotations

import math

import pytest

from miiii_search.config.study_sections import Pruning
from miiii_search.simulation.curves import Curve
from miiii_search.simulation.orders import ORDERS
from miiii_search.simulation.pruner_variants import PrunerVariant
from miiii_search.simulation.replay import ReplayedRun
from miiii_search.simulation.scoring import draw_studies
from miiii_search.simulation.search_speed import TimeToFind, best_runs, relative_saving, replay_searches, time_to_find
from tests.simulation.landscape import SPEC, curve_at, landscape


def curves_with(accuracies: list[float]) -> list[Curve]:
    return [curve_at(k, point, accuracies[k]) for k, point in enumerate(SPEC.grid()[: len(accuracies)])]


def test_goals() -> None:
    curves = curves_with([0.1, 0.7, 0.3, 0.7, 0.5, 0.2, 0.6, 0.4, 0.45, 0.15, 0.25])
    assert best_runs(curves) == {1, 3}  # both of a tie
    assert best_runs(curves, 0.1) == {1, 3}  # two of eleven
    assert best_runs(curves, 0.25) == {1, 3, 6}
    assert best_runs(curves, 1.0) == set(range(11))
    assert best_runs([]) == frozenset()
    [failed] = [curve_at(0, SPEC.grid()[0], 0.5, failed=True)]
    assert best_runs([failed]) == frozenset()
    assert best_runs([failed, *curves[1:3]], 1.0) == {1, 2}


def test_found_counts_what_all_lanes_have_trained() -> None:
    curves = curves_with([0.5] * 4)
    runs = [
        ReplayedRun(curves[0], "unsolved", 0.0, 100),
        ReplayedRun(curves[1], "pruned", 0.0, 40),
        ReplayedRun(curves[2], "unsolved", 40.0, 100),
        ReplayedRun(curves[3], "unsolved", 100.0, 100),
    ]
    assert time_to_find(runs, {0}) == TimeToFind(100 + 40 + 60, 100)
    assert time_to_find(runs, {2, 3}) == TimeToFind(100 + 40 + 100 + 40, 140)
    assert time_to_find(runs, {1}) == TimeToFind(math.inf, math.inf)  # it was pruned
    assert time_to_find([], {1}) == TimeToFind(math.inf, math.inf)


def test_change() -> None:
    one = relative_saving([50, 100, 150], [100, 200, 300])
    assert (one.mean, one.low, one.high) == (0.5, 0.5, 0.5)
    assert (one.pairs, one.sooner, one.later) == (3, 3, 0)
    mixed = relative_saving([50, 300, math.inf, 80], [100, 200, 100, 80])
    assert (mixed.pairs, mixed.sooner, mixed.later) == (3, 1, 1)
    assert mixed.mean == pytest.approx(1 - 430 / 380)
    assert mixed.low < mixed.mean < mixed.high
    assert relative_saving([math.inf], [1.0]).pairs == 0


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("name", ORDERS)
def test_searches_on_a_hill(name: str, lanes: int) -> None:
    curves = landscape(lambda point: 0.8 if point["weight_decay"] == 1.0 else 0.2)
    studies, rule = draw_studies(curves, 3), PrunerVariant("none")
    results = replay_searches(ORDERS[name], rule, curves.spec, studies, lanes)
    assert results == replay_searches(ORDERS[name], rule, curves.spec, studies, lanes)
    for one in results:
        assert 0 < one.best.wall_epochs < math.inf
        assert one.good == one.best  # all of the best are equals
        assert one.best.total_epochs == pytest.approx(lanes * one.best.wall_epochs)  # no lane runs empty so early
    # The pruner prunes all of these, because their loss never falls.
    results = replay_searches(
        ORDERS[name], PrunerVariant("forecast", pruning=Pruning(rule="forecast")), curves.spec, studies, lanes
    )
    assert {one.best.total_epochs for one in results} == {math.inf}
