"""Replays, compared with a simulation that steps through every evaluation, and on small studies."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from miiii_search.config.study_spec import rungs
from miiii_search.experiment.spec import Experiment
from miiii_search.pruners import NopPruner, Pruner, PruningContext, Quantile
from miiii_search.pruners.forecast import Forecast
from miiii_search.pruners.peers import Peer
from miiii_search.simulation.curves import Curve
from miiii_search.simulation.pruner_variants import pruner_variants
from miiii_search.simulation.replay import ReplayedRun, replay
from miiii_search.simulation.simulated_study import OwnPrunerStudy
from tests.simulation.support import curve_of, epochs_of, make_record, set_of
from tests.support import examples

SHORT = Experiment(p=7, task="nanda", train_fraction=0.5, epochs=64, evaluate_every=2, validation_samples=12)
INTERVAL = SHORT.evaluation_interval


def a_curve(number: int, seed: int, solves: float = 0.4, fails: float = 0.1) -> Curve:
    """A random walk of accuracy that may jump to 1 for good, or end with a loss that is not finite."""
    chance, n = random.Random(seed), len(epochs_of(SHORT))
    accuracy = [chance.randrange(8) / 8 for _ in range(n)]
    if chance.random() < solves:
        at = chance.randrange(n)
        accuracy[at:] = [1.0] * (n - at)
    loss = [chance.random() * 3 for _ in range(n)]
    record = make_record(accuracy, loss, [min(1.0, k / 8) for k in range(n)], 30.0, SHORT)
    if chance.random() < fails:
        last = chance.randrange(1, n)
        return curve_of(number, record.rows(slice(0, last)), SHORT, failed_epoch=last * INTERVAL)
    return curve_of(number, record, SHORT)


def stepped(curves: Sequence[Curve], rule: Pruner, lanes: int, floor: int) -> list[tuple[int, str, int, int]]:
    """(number, ending, start, epochs) of each run: all lanes take one step of an evaluation at a time."""
    queue, running, over = list(range(len(curves))), dict[int, int](), dict[int, tuple[str, int, int]]()
    reports: list[dict[int, float]] = [{} for _ in curves]
    states = [TrialState.WAITING] * len(curves)
    clock = 0
    while queue or running:
        while queue and len(running) < lanes:
            k = queue.pop(0)
            running[k], states[k] = clock, TrialState.RUNNING
        clock += INTERVAL
        ages = {k: clock - start for k, start in running.items()}
        for k, age in ages.items():
            ends = age >= curves[k].last_epoch
            if (age in rungs(SHORT) or ends) and age in curves[k].accuracy:
                reports[k][age] = curves[k].accuracy[age]
        for k, age in ages.items():
            if age >= curves[k].last_epoch:
                curve = curves[k]
                ending = "failed" if curve.failed else "solved" if curve.solved_epoch is not None else "unsolved"
                over[k] = (ending, running.pop(k), age)
                states[k] = TrialState.FAIL if curve.failed else TrialState.COMPLETE
        peers = [Peer(k, states[k], reports[k]) for k in range(len(curves)) if states[k] != TrialState.WAITING]
        pruned_runs = [
            k
            for k, age in ages.items()
            if k in running and age in rungs(SHORT) and age >= floor
            if rule.should_prune(
                PruningContext(SHORT, age, curves[k].history.until(age), Peer(k, states[k], reports[k]), peers)
            )
        ]
        for k in pruned_runs:
            over[k], states[k] = ("pruned", running.pop(k), ages[k]), TrialState.PRUNED
    return [(curves[k].number, *over[k]) for k in range(len(curves))]


def outline(runs: Sequence[ReplayedRun]) -> list[tuple[int, str, int, int]]:
    return [(run.curve.number, run.outcome, int(run.started), run.epochs) for run in runs]


RULES: list[Pruner] = [NopPruner(), Quantile(0.25, 4), Quantile(0.6, 2), Forecast(3.0), Forecast(1.0)]


@examples(60)
@given(
    st.lists(st.integers(0, 10**6), min_size=0, max_size=14),
    st.sampled_from(RULES),
    st.integers(1, 6),
    st.sampled_from([0, 8, 16, 33]),
)
def test_against_stepping_through_it(seeds: list[int], rule: Pruner, lanes: int, floor: int) -> None:
    curves = [a_curve(k, seed) for k, seed in enumerate(seeds)]
    assert outline(replay(curves, OwnPrunerStudy(rule, curves), lanes, floor)) == stepped(curves, rule, lanes, floor)


def test_the_pruners_pruned_something() -> None:
    """Else the test above compares nothing."""
    curves = [a_curve(k, k) for k in range(40)]
    pruned = {
        rule: sum(run.outcome == "pruned" for run in replay(curves, OwnPrunerStudy(rule, curves), 4, 8))
        for rule in RULES
    }
    assert pruned.pop(RULES[0]) == 0
    assert min(pruned.values()) > 0 and len(set(pruned.values())) > 1, pruned


@pytest.mark.parametrize("lanes", [1, 3])
def test_an_empty_study_and_a_lone_trial(lanes: int) -> None:
    lone = [a_curve(0, 1, solves=0.0, fails=0.0)]
    for rule in pruner_variants():
        study = rule.simulated_study(set_of(lone, SHORT).spec, [])
        assert replay([], study, lanes, 0) == []
    for own in (NopPruner(), Quantile(0.5, 2)):
        assert outline(replay(lone, OwnPrunerStudy(own, lone), lanes, 0)) == [(0, "unsolved", 0, 64)]


def test_ties_go_on() -> None:
    record = make_record([0.25] * len(epochs_of(SHORT)), [2.0] * len(epochs_of(SHORT)), experiment=SHORT)
    same = [curve_of(k, record, SHORT) for k in range(6)]
    rule = Quantile(0.9, 2)
    assert {run.outcome for run in replay(same, OwnPrunerStudy(rule, same), 6, 0)} == {"unsolved"}


@pytest.mark.parametrize("name", [one.name for one in pruner_variants() if not one.is_from_optuna])
def test_who_reports_first_makes_no_difference(name: str) -> None:
    """Runs that reach rungs together, in another order: the same runs are pruned at the same rungs."""
    curves = [a_curve(k, 7 * k + 1) for k in range(8)]
    contender = next(one for one in pruner_variants() if one.name == name)
    spec = set_of(curves, SHORT).spec
    found = []
    for order in (curves, curves[::-1], random.Random(0).sample(curves, len(curves))):
        runs = replay(order, contender.simulated_study(spec, order), len(order), 8)
        found.append(sorted((run.curve.number, run.outcome, run.epochs, run.reason) for run in runs))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", [one.name for one in pruner_variants()])
def test_a_replay_is_repeatable(name: str) -> None:
    curves = [a_curve(k, 3 * k) for k in range(12)]
    contender = next(one for one in pruner_variants() if one.name == name)
    spec = set_of(curves, SHORT).spec
    study = contender.simulated_study(spec, [])
    once, twice = (outline(replay(curves, study.for_curves(curves), 3, contender.floor(spec))) for _ in range(2))
    assert once == twice == outline(replay(curves, contender.simulated_study(spec, curves), 3, contender.floor(spec)))


def test_a_curve_that_ended_early_when_it_was_recorded() -> None:
    """Nobody knows how it would have gone on: it is trained to its end, and judged at the rungs that are known."""
    rising = np.linspace(1, 3, len(epochs_of(SHORT)))
    cut = curve_of(0, make_record(rising * 0, rising, experiment=SHORT).rows(slice(0, 20)), SHORT, pruned=True)
    assert outline(replay([cut], OwnPrunerStudy(NopPruner(), [cut]), 1, 0)) == [(0, "unsolved", 0, 64)]
    [run] = replay([cut], OwnPrunerStudy(Forecast(3.0), [cut]), 1, 16)
    assert (run.outcome, run.epochs) == ("pruned", 32)
    assert outline(replay([cut], OwnPrunerStudy(Forecast(3.0), [cut]), 1, 48)) == [(0, "unsolved", 0, 64)]
