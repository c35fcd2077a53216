"""The order in which a worker claims trials with the sampler `grid_ei`, on both databases."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from miiii_search.config.search_space import Point, point_key
from miiii_search.config.study_sections import Pruning
from miiii_search.experiment.spec import Experiment
from miiii_search.samplers import grid_ei
from miiii_search.samplers.gaussian_process import rank_by_expected_improvement, to_coordinates
from miiii_search.samplers.grid_ei import N_SPARE, GridEISampler
from miiii_search.storage.database import Database, open_database
from miiii_search.study.create import create_study
from miiii_search.study.extend import extend
from miiii_search.study.study import Study
from miiii_search.study.trials import shape_of
from miiii_search.trial_queue.leases import Lease
from miiii_search.worker.worker import Worker
from tests.support import SECONDS, SPACE, claim, end, make_spec, read_back, together

WIDE = {**SPACE, "weight_decay": (0.0, 0.1, 0.2, 0.5, 1.0)}
"""40 configurations of two shapes; with the trial's number as its value, nothing is alike."""


def value_at(point: Point) -> float:
    """Best with much decay, a high rate and dropout; the heads make no difference."""
    return 0.5 * float(point["weight_decay"]) + 100 * float(point["learning_rate"]) + float(point["dropout"])


def with_results(database: Database, n: int = 8, name: str = "ranked", **fields: object) -> Study:
    """A study of which `n` trials have ended, in the queue's order."""
    study = create_study(database, name, make_spec(**{"space": WIDE, **fields}))
    for _ in range(n):
        lease = claim(study)
        end(study, lease, value=value_at(point_of(study, lease.trial_id)))
    return study


def point_of(study: Study, trial_id: int) -> Point:
    return study.read_trials([trial_id])[trial_id].params


def waiting(study: Study) -> list[int]:
    """Trial ids in the queue's order."""
    return [trial._trial_id for trial in read_back(study).trials if trial.state == TrialState.WAITING]


def claim_first(study: Study, first: list[int], n: int = 1) -> list[Lease]:
    return study.queue.claim("worker", SECONDS, n=n, first_ids=first)


def test_it_is_the_model_s_order(database: Database) -> None:
    """The ended trials include a failed and a pruned one, and another trial is running."""
    study = with_results(database)
    for state, value in ((TrialState.FAIL, None), (TrialState.PRUNED, 0.05)):
        end(study, claim(study), state, value)
    claim(study)
    ids = [trial._trial_id for trial in read_back(study).trials]
    values = {k: None if t.state == TrialState.FAIL else t.value for k, t in enumerate(read_back(study).trials[:10])}
    x = to_coordinates([point_of(study, trial_id) for trial_id in ids])
    expected = rank_by_expected_improvement(x, values, [10], range(11, 40), 3)
    assert GridEISampler(study).next_trials(3) == [ids[k] for k in expected][: 3 + N_SPARE]
    assert expected != list(range(11, 40))


def test_the_best_comes_sooner_than_in_the_queue(database: Database) -> None:
    study, order = with_results(database, 0), list[Point]()
    while found := claim_first(study, GridEISampler(study).next_trials(1)):
        order.append(point_of(study, found[0].trial_id))
        end(study, found[0], value=value_at(order[-1]))
    assert len({point_key(point) for point in order}) == len(order) == 40
    best = max(map(value_at, order))
    assert [value_at(point) for point in order].index(best) < 12  # either of two; in a shuffled queue 13 on average
    assert [value_at(point) for point in order[:5]] == [
        value_at(point) for point in (t.params for t in read_back(study).trials[:5])
    ]


def test_too_little_is_known(database: Database, logged: list[str]) -> None:
    study = with_results(database, 0)
    for n in range(5):
        assert GridEISampler(study).next_trials(1) == []
        end(study, claim(study), value=n / 10)
    assert logged == []
    assert GridEISampler(study).next_trials(1) != []
    assert logged == ["from now on, trials with the highest expected improvement are trained first"]


def test_no_order_is_needed_for_what_is_claimed_anyway(database: Database) -> None:
    study = with_results(database, 37)
    assert GridEISampler(study).next_trials(3) == []
    assert sorted(GridEISampler(study).next_trials(2)) == waiting(study)


def test_own_results_that_are_not_written_yet(database: Database) -> None:
    study = with_results(database)
    lease = claim(study)
    before, told = GridEISampler(study).next_trials(1), GridEISampler(study).next_trials(1, {lease.trial_id: 2.0})
    assert before != told
    end(study, lease, value=2.0)
    assert GridEISampler(study).next_trials(1) == told
    assert GridEISampler(study).next_trials(1, {lease.trial_id: 0.0}) == told  # the database knows better


def test_what_was_begun_comes_first_then_the_points_that_were_asked_for(database: Database) -> None:
    first = tuple({"dropout": 0.1, "weight_decay": k / 100, "n_heads": 2, "learning_rate": 2e-3} for k in range(9))
    study = with_results(database, 6, first=first)
    begun = [claim(study) for _ in range(5)][3:]
    assert [lease.number for lease in begun] == [9, 10]
    study.queue.requeue(begun)
    order = GridEISampler(study).next_trials(4)
    assert order[:2] == [lease.trial_id for lease in begun]
    assert len(order) == 4 + N_SPARE and sorted(order) != order
    [lease] = claim_first(study, order)
    assert lease == replace(begun[0], token=lease.token)
    # The points come before what may improve more, too.
    again = with_results(database, 6, name="again", first=first)
    assert GridEISampler(again).next_trials(3) == waiting(again)[:3]
    assert GridEISampler(again).next_trials(4)[:3] == waiting(again)[:3]


def test_what_was_begun_in_a_shape_that_is_not_compiled_must_be_worth_it(database: Database) -> None:
    study = with_results(database)
    begun = [claim(study) for _ in range(8)]
    study.queue.requeue(begun)
    heads = {lease.trial_id: point_of(study, lease.trial_id)["n_heads"] for lease in begun}
    assert set(heads.values()) == {2, 4}
    assert GridEISampler(study).next_trials(9)[:8] == list(heads)
    compiled = GridEISampler(study).next_trials(9, compiled_shapes=[shape_of(16, 2)])
    twos = [trial_id for trial_id in heads if heads[trial_id] == 2]
    assert compiled[: len(twos)] == twos
    assert set(heads) - set(twos) < set(GridEISampler(study).next_trials(30, compiled_shapes=[shape_of(16, 2)]))


def test_one_replicate_after_the_other(database: Database) -> None:
    study = with_results(database, 36, replicates=2)
    ids = waiting(study)
    assert sorted(GridEISampler(study).next_trials(2)) == ids[:4]
    for _ in range(4):
        end(study, claim(study))
    assert not set(GridEISampler(study).next_trials(2)) & set(ids[:4])


def test_compiled_shapes_are_preferred_and_unfit_ones_left_out(database: Database) -> None:
    study = with_results(database)
    heads = {trial_id: point_of(study, trial_id)["n_heads"] for trial_id in waiting(study)}
    shapes = {n: shape_of(16, n) for n in (2, 4)}
    for n, other in ((2, 4), (4, 2)):
        preferred = [heads[trial_id] for trial_id in GridEISampler(study).next_trials(1, compiled_shapes=[shapes[n]])]
        plain = [heads[trial_id] for trial_id in GridEISampler(study).next_trials(1)]
        assert preferred[:4].count(n) >= plain[:4].count(n)
        assert preferred[0] == n
        assert set(preferred) == {2, 4}  # but not at any price
        assert {
            heads[i] for i in GridEISampler(study).next_trials(1, excluded_shapes={shapes[other]: "too large"})
        } == {n}


def test_a_trial_that_optuna_enqueued_has_no_point_and_does_no_harm(database: Database) -> None:
    study = with_results(database)
    read_back(study).enqueue_trial({"dropout": 0.1})
    order = GridEISampler(study).next_trials(1)
    assert order and set(order) <= set(waiting(study)[:-1])
    for _ in range(32):
        end(study, claim(study))
    assert GridEISampler(study).next_trials(1) == []


def test_more_results_than_the_model_takes(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid_ei, "MAX_FINISHED", 8)
    monkeypatch.setattr(grid_ei, "MAX_WAITING", 6)
    monkeypatch.setattr(grid_ei, "MAX_RUNNING", 2)
    study = with_results(database, 0)
    held = [claim(study) for _ in range(24)]
    ended = sorted(held[:20], key=lambda lease: lease.number * 7 % 20)  # not in the order of numbers
    for lease in ended:
        end(study, lease, value=lease.number * 3 % 20)
    known = grid_ei._limit(study.store.read_known_trials(grid_ei.MAX_WAITING))
    trials = read_back(study).trials
    best = [trial.number for trial in sorted(trials[:20], key=lambda trial: -float(trial.value or 0))[:4]]
    latest = [lease.number for lease in ended if lease.number not in best][-4:]
    assert list(known.finished.items()) == [
        (lease.trial_id, trials[lease.number].value) for lease in ended if lease.number in {*best, *latest}
    ]
    assert known.running == [lease.trial_id for lease in held[22:]]
    assert [trial.trial_id for trial in known.waiting] == waiting(study)[:6]
    assert sorted(GridEISampler(study).next_trials(2)) == waiting(study)[:6]


def test_trials_that_fit_nowhere_here_do_not_fill_the_window(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = with_results(database)
    heads = {trial_id: point_of(study, trial_id)["n_heads"] for trial_id in waiting(study)}
    monkeypatch.setattr(grid_ei, "MAX_WAITING", 6)
    fitting = [trial_id for trial_id in heads if heads[trial_id] == 4]
    assert sorted(GridEISampler(study).next_trials(1, excluded_shapes=[shape_of(16, 2)])) == fitting[:6]


def test_a_space_of_seeds_alone(database: Database, logged: list[str]) -> None:
    study = create_study(database, "seeds", make_spec(space={}, replicates=12))
    for n in range(12):
        for trial_id in GridEISampler(study).next_trials(1):
            assert trial_id in waiting(study)
        end(study, claim(study), value=n / 10)
    assert not any("failed" in line for line in logged)


def test_the_same_statements_however_many_results(database: Database) -> None:
    counts = []
    for n in (8, 30):
        study = with_results(database, 0)
        for _ in range(n):
            end(study, claim(study), value=0.01 * n)
        order, statements = GridEISampler(study), list[str]()
        order.next_trials(1)

        def count(_c: object, _d: object, statement: str, *_: object, seen: list[str] = statements) -> None:
            seen.append(statement)

        sa.event.listen(database.engine, "before_cursor_execute", count)
        order.next_trials(1)
        sa.event.remove(database.engine, "before_cursor_execute", count)
        counts.append(sum(statement.startswith("SELECT") for statement in statements))
        with database.transaction() as connection:
            connection.execute(sa.text("UPDATE studies SET study_name = 'of ' || study_id"))
    assert counts == [2, 2]


def test_a_model_that_fails_keeps_the_queue_s_order(
    database: Database, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    study = with_results(database)

    def fail(*_: object) -> list[int]:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(grid_ei, "rank_by_expected_improvement", fail)
    order = GridEISampler(study)
    assert order.next_trials(1) == order.next_trials(1) == []
    assert logged == [
        "the Gaussian process of the results failed (ZeroDivisionError: of all things): "
        "trials are claimed in the order of the queue"
    ]
    [lease] = claim_first(study, [])
    assert lease.number == 8


def test_workers_that_share_an_order_get_different_trials(database: Database) -> None:
    study = with_results(database)
    order = GridEISampler(study).next_trials(4)
    others = [
        replace(study, database=open_database(database.url.render_as_string(hide_password=False))) for _ in range(2)
    ]
    found = together(*(lambda one=one: claim_first(one, order, 4) for one in others))
    for one in others:
        one.database.close()
    claimed = sorted(lease.trial_id for one in found for lease in one)
    assert claimed == sorted(order[:8])


def test_ids_that_do_not_wait_are_passed_over(database: Database) -> None:
    study = with_results(database, 3)
    ids = waiting(study)
    gone = read_back(study).trials[0]._trial_id
    assert [lease.trial_id for lease in claim_first(study, [gone, ids[7], 10**6, ids[3]], 4)] == [
        ids[7],
        ids[3],
        ids[0],
        ids[1],
    ]


@pytest.mark.slow
@pytest.mark.parametrize("shared_database", ["postgresql"], indirect=True)
def test_a_worker_trains_in_the_order_of_the_model(database: Database, logged: list[str]) -> None:
    """For real, and one queue becomes the other while nobody looks."""
    miiii = Experiment(p=11, train_fraction=0.7, epochs=96, evaluate_every=8, validation_samples=30)
    study = create_study(database, "real", make_spec(experiment=miiii, sampler="grid", pruning=Pruning(rule="none")))
    assert extend(study, ["sampler=grid_ei"]).changed
    Worker(study, 2).run(threading.Event())
    assert {trial.state for trial in read_back(study).trials} == {TrialState.COMPLETE}
    starts = [int(line.split()[1]) for line in logged if line.startswith("Trial") and "starts" in line]
    assert sorted(starts) == list(range(24))
    heads = [trial.params["n_heads"] for trial in read_back(study).trials]
    as_queued = sorted(range(24), key=lambda number: (heads[number] != heads[0], number))
    assert starts[:4] == as_queued[:4] and starts != as_queued
    assert sum("highest expected improvement" in line for line in logged) == 1
