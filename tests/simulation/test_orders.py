"""Orders of runs: each run once, in the same order as a worker of the service, and good runs earlier."""

from __future__ import annotations

import random
import statistics
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest
from optuna.trial import TrialState

from miiii_search.config.search_space import Point, PointKey, point_key
from miiii_search.config.study_sections import Budget
from miiii_search.config.study_spec import rungs
from miiii_search.pruners.base import NopPruner
from miiii_search.samplers.optuna_samplers import TrialSampler
from miiii_search.simulation.curves import Curve
from miiii_search.simulation.orders import ORDERS, GridEIOrder, OptunaOrder
from miiii_search.simulation.replay import ReplayedRun, replay
from miiii_search.simulation.simulated_study import OwnPrunerStudy
from miiii_search.storage.database import open_database
from miiii_search.study.create import create_study
from miiii_search.trial_queue.leases import Heartbeat
from tests.simulation.landscape import SPACE, SPEC, LowAccuracy, curve_at, landscape
from tests.simulation.support import EXPERIMENT, curve_of, make_record
from tests.support import SECONDS, end

BEST: Point = {"learning_rate": 3e-3, "weight_decay": 1.0, "dropout": 0.1}
FLOOR = 1024


def hill(point: Point) -> float:
    """Highest at BEST, and lower with each step from it."""
    steps = sum(abs(values.index(point[name]) - values.index(BEST[name])) for name, values in LISTS.items())
    return 0.9 - 0.12 * steps


LISTS = {name: list(values) for name, values in SPACE.items() if isinstance(values, tuple)}


class Listed:
    """A fixed order of runs, which records its arguments."""

    def __init__(self, places: Sequence[int]) -> None:
        self._places = iter(places)
        self.told: list[tuple[list[int], list[int], list[int]]] = []

    def next_run(self, waiting: Sequence[int], ended: Mapping[int, ReplayedRun], running: Collection[int]) -> int:
        self.told.append((list(waiting), list(ended), list(running)))
        return next(self._places)


def some_curves(seed: int) -> list[Curve]:
    """Solved, unsolved and failed ones, some of which end at the same epoch."""
    generator, curves = random.Random(seed), []
    for k, point in enumerate(SPEC.grid()[:20]):
        solved = generator.choice([None, 1024, 2048, generator.randrange(512, 8000)])
        curves.append(curve_at(k, point, generator.random(), solved, failed=generator.random() < 0.2))
    return curves


def taken(runs: Sequence[ReplayedRun]) -> list[PointKey]:
    """The configurations of a study of one lane, in the order in which they were trained."""
    return [point_key(run.curve.point) for run in sorted(runs, key=lambda run: run.started)]


@pytest.mark.parametrize("lanes", [1, 3, 8, 40])
@pytest.mark.parametrize("seed", range(3))
def test_an_order_fixed_beforehand_is_the_queue_rearranged(seed: int, lanes: int) -> None:
    curves = some_curves(seed)
    places = random.Random(seed).sample(range(len(curves)), len(curves))
    rearranged = [curves[k] for k in places]
    order = Listed(places)
    runs = replay(curves, OwnPrunerStudy(LowAccuracy(0.4), curves), lanes, FLOOR, order)
    expected = replay(rearranged, OwnPrunerStudy(LowAccuracy(0.4), rearranged), lanes, FLOOR)
    assert [runs[k] for k in places] == expected
    assert {run.outcome for run in runs} == {"solved", "unsolved", "pruned", "failed"}
    for k, (waiting, ended, running) in zip(places, order.told, strict=True):
        assert k in waiting
        assert sorted([*waiting, *ended, *running]) == list(range(len(curves)))
        assert waiting == sorted(waiting)
        assert len(running) < lanes


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("lanes", [1, 4, 64])
def test_every_configuration_once(name: str, lanes: int) -> None:
    curves = some_curves(5)  # not the whole grid: what has no curve cannot be drawn
    runs = replay(curves, OwnPrunerStudy(LowAccuracy(0.3), curves), lanes, FLOOR, ORDERS[name](SPEC, curves, 0))
    assert [run.curve for run in runs] == curves
    assert len(set(taken(runs))) == len(curves)


@pytest.mark.parametrize("name", ORDERS)
def test_no_curves_or_one(name: str) -> None:
    assert replay([], OwnPrunerStudy(NopPruner(), []), 4, 0, ORDERS[name](SPEC, [], 0)) == []
    [curve] = [curve_at(0, BEST, 0.5)]
    [run] = replay([curve], OwnPrunerStudy(NopPruner(), [curve]), 4, 0, ORDERS[name](SPEC, [curve], 0))
    assert run.started == 0 and run.outcome == "unsolved"


@pytest.mark.parametrize("name", ORDERS)
def test_same_seed_same_order(name: str) -> None:
    curves = landscape(hill).curves

    def study(seed: int) -> list[ReplayedRun]:
        return replay(curves, OwnPrunerStudy(NopPruner(), curves), 3, 0, ORDERS[name](SPEC, curves, seed))

    assert study(1) == study(1)
    assert (study(1) != study(2)) == (name == "tpe")


def runs_until_best(name: str, seed: int, lanes: int) -> int:
    curves = landscape(hill, seed).curves
    runs = replay(curves, OwnPrunerStudy(NopPruner(), curves), lanes, 0, ORDERS[name](SPEC, curves, seed))
    [best] = [run for run in runs if run.curve.point == BEST]
    return sum(run.started <= best.started for run in runs)


@pytest.mark.slow
@pytest.mark.parametrize(("lanes", "most"), [(1, 12), (4, 18)])
def test_the_model_climbs_a_hill(lanes: int, most: int) -> None:
    found = [runs_until_best("grid_ei", seed, lanes) for seed in range(8)]
    assert statistics.mean(found) < most  # in any order that knows nothing, 24.5 of 48 on average
    assert max(found) <= 24


def test_equals_are_taken_in_the_order_of_the_queue() -> None:
    curves = landscape(lambda point: 0.5).curves
    runs = replay(curves, OwnPrunerStudy(NopPruner(), curves), 1, 0, GridEIOrder(curves))
    assert taken(runs) == [point_key(curve.point) for curve in curves]


def test_the_model_among_runs_that_fail() -> None:
    curves = [curve_at(k, point, 0.5, failed=True) for k, point in enumerate(SPEC.grid())]
    assert len(replay(curves, OwnPrunerStudy(NopPruner(), curves), 4, 0, GridEIOrder(curves))) == len(curves)
    # Where one dimension makes runs fail, what has not failed comes first.
    curves = [
        curve_at(c.number, c.point, 0.5 + c.number / 1000, failed=c.point["learning_rate"] in (3e-4, 1e-3))
        for c in landscape(hill).curves
    ]
    runs = sorted(
        replay(curves, OwnPrunerStudy(NopPruner(), curves), 1, 0, GridEIOrder(curves)), key=lambda run: run.started
    )
    assert sum(run.outcome == "failed" for run in runs[:24]) < 10  # 12 by chance


def test_a_sampler_refuses_two_seeds_of_a_configuration() -> None:
    record = make_record([0.5] * 10, [1.0] * 10)
    curves = [curve_of(1, record), curve_of(1, record)]
    with pytest.raises(ValueError, match="each configuration once"):
        OptunaOrder("tpe", SPEC, curves, 0)


@pytest.mark.slow
def test_tpe_draws_what_a_worker_of_the_service_draws(tmp_path: Path) -> None:
    """The same results, pruned and failed runs among them, lead both through the grid in the same order."""
    curves = [
        curve_at(c.number, c.point, 0.3 + c.number / 100, solved=None if c.number % 3 else 3000, failed=c.number == 20)
        for c in landscape(hill).curves
    ]
    simulated = replay(curves, OwnPrunerStudy(LowAccuracy(0.45), curves), 1, FLOOR, OptunaOrder("tpe", SPEC, curves, 7))
    outcomes = {point_key(run.curve.point): run for run in simulated}
    assert {run.outcome for run in simulated} == {"solved", "unsolved", "pruned", "failed"}

    database = open_database(f"sqlite:///{tmp_path}/test.db", create=True)
    study = create_study(
        database, "real", SPEC.model_copy(update={"sampler": "tpe", "budget": Budget(trials=len(curves))})
    )
    queue, drawn = TrialSampler(study, 7), []
    while (lease := queue.create_trial("worker", SECONDS)) is not None:
        run = outcomes[point_key(study.trials()[lease.number].params)]
        drawn.append(point_key(run.curve.point))
        reports = {n: run.curve.accuracy[n] for n in rungs(EXPERIMENT) if n <= run.epochs}
        study.queue.report([Heartbeat(lease, run.epochs, 1.0)], {lease: reports}, SECONDS)
        state = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL}.get(run.outcome, TrialState.COMPLETE)
        end(study, lease, state, run.value)
    database.close()
    assert drawn == taken(simulated)
