"""Optuna's samplers visit each point once, and leave no row that is not a trial, on both databases."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
from optuna.trial import TrialState

from miiii_search.config.overrides import to_tree
from miiii_search.config.search_space import Range
from miiii_search.config.study_sections import Budget
from miiii_search.config.study_spec import GRID_SAMPLERS, SAMPLERS
from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.spec import Annealing, LinearDecay
from miiii_search.samplers.optuna_samplers import OPTUNA_SAMPLERS, REQUIRED_PACKAGES, TrialSampler
from miiii_search.storage import study_attrs
from miiii_search.storage.database import Database, open_database
from miiii_search.storage.study_attrs import SPEC_KEY
from miiii_search.study.create import create_study
from miiii_search.study.study import Study
from miiii_search.trial_queue.leases import Lease
from tests.support import SECONDS, all_tables, end, everything, make_spec, read_back, together

LISTS = {"dropout": (0.0, 0.1), "weight_decay": (0.0, 0.5, 1.0), "n_heads": (2, 4)}
POINTS = list(itertools.product(*LISTS.values()))
RANGES = {"learning_rate": Range(low=1e-4, high=1e-2, log=True), "dropout": (0.0, 0.1)}


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path_factory.mktemp('sampling')}/test.db", create=True)
    yield opened
    opened.close()


def claim_and_end(study: Study, seed: int) -> list[Lease]:
    """A worker that trains one trial after another, as long as there are any."""
    queue, claimed = TrialSampler(study, seed), []
    while not study.is_done():
        queued = study.queue.claim("worker", SECONDS)
        lease = queued[0] if queued else queue.create_trial("worker", SECONDS)
        if lease is not None:
            claimed.append(lease)
            end(study, lease, value=0.25 + lease.number / 100)
    assert queue.create_trial("worker", SECONDS) is None
    return claimed


def points_of(study: Study) -> list[tuple[object, ...]]:
    trials = read_back(study).trials
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    return [tuple(trial.params[name] for name in study.spec.space) for trial in trials]


def test_names() -> None:
    assert [*GRID_SAMPLERS, *OPTUNA_SAMPLERS] == list(SAMPLERS)


@pytest.mark.parametrize("name", OPTUNA_SAMPLERS)
def test_each_point_of_lists_once(sqlite: Database, name: str) -> None:
    if name in REQUIRED_PACKAGES and importlib.util.find_spec(REQUIRED_PACKAGES[name]) is None:
        package = REQUIRED_PACKAGES[name]
        with pytest.raises(MiiiiSearchError, match=f"sampler = '{name}' needs the package {package}.*pip install"):
            TrialSampler(create_study(sqlite, name, make_spec(sampler=name, budget=Budget(trials=1))), 0)
        return
    study = create_study(sqlite, name, make_spec(space=LISTS, sampler=name, budget=Budget(trials=100)))
    claimed = claim_and_end(study, seed=1)
    assert [lease.number for lease in claimed] == list(range(12))
    assert sorted(points_of(study)) == sorted(POINTS)
    assert study.is_done()


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_two_workers(database: Database, name: str) -> None:
    study = create_study(database, "study", make_spec(space=LISTS, sampler=name, budget=Budget(trials=12)))
    other = open_database(database.url.render_as_string(hide_password=False))
    beside = replace(study, database=other)
    # The same seed: both draw the same points.
    found = together(lambda: claim_and_end(study, 3), lambda: claim_and_end(beside, 3))
    other.close()
    assert sorted(lease.number for mine in found for lease in mine) == list(range(12))
    assert sorted(points_of(study)) == sorted(POINTS)
    rows = everything(database)
    assert len(rows["trials"]) == 12 and len(rows["trial_params"]) == 36 and len(rows["studies"]) == 1
    assert rows["miiii_leases"] == []
    assert {name for name, found in rows.items() if found} <= {table.name for table in all_tables()}


@pytest.mark.parametrize("name", [name for name in OPTUNA_SAMPLERS if name not in REQUIRED_PACKAGES])
def test_ranges_spend_the_budget(sqlite: Database, name: str) -> None:
    spec = make_spec(space=RANGES, sampler=name, budget=Budget(trials=30))
    study = create_study(sqlite, f"ranges {name}", spec)
    claim_and_end(study, seed=1)
    points = points_of(study)
    assert len(points) == len(set(points)) == 30
    rates = [float(str(rate)) for rate, _ in points]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    # Uniform in the logarithm: a linear draw has but one in eleven below the middle.
    below = sum(math.log(rate) < math.log(1e-3) for rate in rates)
    assert name == "tpe" or 7 <= below <= 23
    assert {dropout for _, dropout in points} == {0.0, 0.1}


def test_qmc_covers_the_space_evenly(sqlite: Database) -> None:
    """The property that it is chosen for: of 32 points every 16th part of each axis holds two, or nearly so."""
    space = {"dropout": Range(low=0.0, high=0.5), "weight_decay": Range(low=0.0, high=1.0)}
    study = create_study(sqlite, "even", make_spec(space=space, sampler="qmc", budget=Budget(trials=33)))
    claim_and_end(study, seed=1)
    points = [(float(str(x)) * 2, float(str(y))) for x, y in points_of(study)][1:]  # Optuna's first is random
    for axis in zip(*points, strict=True):
        parts = [min(int(x * 16), 15) for x in axis]
        assert all(1 <= parts.count(part) <= 3 for part in range(16))


def test_tpe_learns(sqlite: Database) -> None:
    """It sees the values of the trials that ended: it draws more often near the best than chance would."""
    space = {"weight_decay": Range(low=0.0, high=1.0)}
    study = create_study(sqlite, "learns", make_spec(space=space, sampler="tpe", budget=Budget(trials=40)))
    queue = TrialSampler(study, 0)
    while (lease := queue.create_trial("worker", SECONDS)) is not None:
        weight_decay = study.trials()[lease.number].params["weight_decay"]
        end(study, lease, value=1 - abs(weight_decay - 0.2))
    near = [abs(trial.params["weight_decay"] - 0.2) < 0.1 for trial in study.trials()[20:]]
    assert sum(near) >= 10  # of 20; by chance 4


@pytest.mark.parametrize("name", ["random", "tpe", "qmc"])
def test_points_have_only_what_their_optimizer_uses(sqlite: Database, name: str) -> None:
    space = {
        "optimizer": ("adamw", "muon"),
        "muon_momentum": (0.8, 0.9, 0.95),
        "muon_learning_rate": Range(low=1e-3, high=1e-1, log=True),
    }
    study = create_study(sqlite, f"conditional-{name}", make_spec(space=space, sampler=name, budget=Budget(trials=8)))
    claim_and_end(study, seed=2)
    points = [trial.params for trial in study.trials()]
    assert points.count({"optimizer": "adamw"}) == 1  # since each point is visited once
    others = [point for point in points if point["optimizer"] == "muon"]
    assert len(others) == 7 and all(point.keys() == space.keys() for point in others)


def test_first_points_are_trained_first(sqlite: Database) -> None:
    first = {"learning_rate": 5e-3, "dropout": 0.1}
    spec = make_spec(space=RANGES, sampler="random", budget=Budget(trials=3), first=(first,))
    study = create_study(sqlite, "first", spec)
    claim_and_end(study, seed=1)
    assert study.trials()[0].params == first
    assert len(set(points_of(study))) == 3


def test_budget_counts_what_runs(sqlite: Database) -> None:
    study = create_study(sqlite, "runs", make_spec(space=RANGES, sampler="random", budget=Budget(trials=2)))
    queue = TrialSampler(study, 0)
    held = [queue.create_trial("worker", SECONDS), queue.create_trial("worker", SECONDS)]
    assert None not in held and queue.create_trial("worker", SECONDS) is None
    assert [trial.state for trial in study.trials()] == [TrialState.RUNNING] * 2
    assert study.queue.requeue_overdue() == []  # leased from the start
    assert study.queue.requeue([lease for lease in held if lease]) == [0, 1]
    assert queue.create_trial("worker", SECONDS) is None  # what waits is claimed, not sampled anew
    assert len(claim_and_end(study, 0)) == 2


def test_points_that_are_no_run_are_drawn_again(sqlite: Database) -> None:
    """Both ends of the range can be trained, but not every width between them."""
    space = {"d_model": Range(low=16, high=24)}
    spec = make_spec(space=space, sampler="random", budget=Budget(trials=5))  # of two heads
    study = create_study(sqlite, "widths", spec)
    claim_and_end(study, seed=1)
    assert sorted(points_of(study)) == [(16,), (18,), (20,), (22,), (24,)]


def test_a_space_that_is_exhausted_says_so(sqlite: Database) -> None:
    spec = make_spec(space={"d_model": Range(low=16, high=18)}, sampler="tpe", budget=Budget(trials=9))
    study = create_study(sqlite, "exhausted", spec)
    with pytest.raises(MiiiiSearchError, match=r"no point left to try after 2 trials, so the budget of 9.*widen"):
        claim_and_end(study, seed=1)


def test_trials_of_a_spec_that_an_earlier_version_stored(sqlite: Database) -> None:
    """Such a spec lacks newer fields and has an earlier name for another, so it differs from today's form."""
    annealing = Annealing(dropout=LinearDecay(end=4, end_factor=0.5))
    experiment = make_spec().experiment.model_copy(update={"annealing": annealing})
    spec = make_spec(experiment=experiment, space=LISTS, sampler="random", budget=Budget(trials=2))
    study = create_study(sqlite, "earlier", spec)
    tree = to_tree(spec)
    decay = tree["experiment"]["annealing"]["dropout"]
    decay["share"] = decay.pop("end_factor")
    del tree["max_retries"]
    with sqlite.transaction() as connection:
        study_attrs.write(connection, study.study_id, {SPEC_KEY: tree})
    assert TrialSampler(study, 0).create_trial("worker", SECONDS) is not None
