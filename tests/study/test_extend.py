"""An extension queues only new points, each once, and all processes see the same specification."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import optuna_dashboard
import pytest
import sqlalchemy as sa
from optuna.search_space import intersection_search_space
from optuna.trial import TrialState

from miiii_search.config.search_space import Range
from miiii_search.config.study_sections import Pruning
from miiii_search.coordinator.dashboard_note import StudyNote
from miiii_search.errors import MiiiiSearchError
from miiii_search.samplers.optuna_samplers import TrialSampler
from miiii_search.storage import schema
from miiii_search.storage.database import Database, open_database
from miiii_search.study.create import create_study
from miiii_search.study.extend import extend
from miiii_search.study.open import open_study
from miiii_search.study.status import read_status
from miiii_search.study.study import Study
from miiii_search.trial_queue.budget import read_exhausted_limit
from miiii_search.worker import study_watch
from tests.support import SECONDS, claim, end, everything, make_spec, read_back, together, wait_until
from tests.worker.test_worker import working

SPACE = {"dropout": (0.0, 0.1), "weight_decay": (0.0, 0.5, 1.0)}
"""6 points."""
LARGER = "space.dropout=[0.2, 0.0, 0.1, 0.3]"
FIRST = [{"dropout": 0.5, "weight_decay": 1.0}]


def points(study: Study) -> list[tuple[Any, ...]]:
    return [tuple(sorted(t.params.items())) for t in read_back(study).trials]


def end_all(study: Study, **attributes: Any) -> None:
    while study.counts()[TrialState.WAITING]:
        end(study, claim(study), **attributes)


def test_more_of_the_queue(database: Database) -> None:
    """A larger budget adds the points that a study with this budget would have had, in the same order."""
    study = create_study(database, "study", make_spec(space=SPACE, budget={"trials": 2}))
    whole = create_study(database, "whole", make_spec(space=SPACE, budget={"trials": 5}))
    end_all(study)
    assert study.is_done()
    assert extend(study, ["budget.trials=5"]).queued == 3
    assert points(study) == points(whole)
    assert [t.number for t in read_back(study).trials] == list(range(5))
    assert study.counts()[TrialState.WAITING] == 3 and not study.is_done()
    assert not read_status(study).done and read_status(study).n_trials == 5


@pytest.mark.parametrize("first", [(), FIRST], ids=["grid", "first"])
def test_a_larger_space(database: Database, first: list[dict[str, float]]) -> None:
    """Every new combination is queued once. Existing trials keep their values, although the list is reordered."""
    study = create_study(database, "study", make_spec(space=SPACE, first=first))
    end_all(study)
    before = [(t.number, t.params, t.value) for t in read_back(study).trials]
    extension = extend(study, [LARGER])
    assert (extension.queued, extension.n_trials) == (6, 12 + len(first))
    trials = read_back(study).trials
    assert [(t.number, t.params, t.value) for t in trials[: len(before)]] == before
    expected = {*itertools.product((0.0, 0.1, 0.2, 0.3), (0.0, 0.5, 1.0)), *((0.5, 1.0) for _ in first)}
    found = Counter((t.params["dropout"], t.params["weight_decay"]) for t in trials)
    assert found.keys() == expected and set(found.values()) == {1}
    assert len({str(t.distributions) for t in trials}) == 1  # or Optuna would know of no common space
    assert intersection_search_space(read_back(study).trials).keys() == SPACE.keys()
    assert study.trial_settings(trials[-1])[1].dropout in (0.2, 0.3)
    note = optuna_dashboard.get_note(read_back(study))
    assert "0.2, 0.0, 0.1, 0.3" in note and f"{12 + len(first)} trials" in note


def test_more_replicates(database: Database) -> None:
    study = create_study(database, "study", make_spec(space=SPACE))
    assert extend(study, ["replicates=2"]).queued == 6
    assert set(Counter(points(study)).values()) == {2}
    seeds = Counter(study.trial_settings(t)[0].seed for t in read_back(study).trials)
    assert seeds == {0: 6, 1: 6}


def test_a_larger_budget_of_other_kinds(database: Database) -> None:
    study = create_study(database, "study", make_spec(space=SPACE, budget={"solved": 1}))
    end(study, claim(study), value=1.5, epochs_to_solve=8)
    assert study.is_done()
    extend(study, ["budget.solved=2"])
    assert not study.is_done() and read_exhausted_limit(study.queue, study.spec.budget) is None


def test_create_agrees_with_the_extended_spec_and_not_with_the_old(database: Database) -> None:
    old = make_spec(space=SPACE)
    study = create_study(database, "study", old)
    extend(study, [LARGER])
    before = everything(database)
    create_study(database, "study", make_spec(space={**SPACE, "dropout": (0.2, 0.0, 0.1, 0.3)}))
    assert everything(database) == before
    with pytest.raises(MiiiiSearchError, match=r"space\.dropout is \[0\.2, 0\.0, 0\.1, 0\.3\], not \[0\.0, 0\.1\]"):
        create_study(database, "study", old)


def test_twice_and_at_once_is_once(database: Database) -> None:
    create_study(database, "study", make_spec(space=SPACE, budget={"trials": 2}))
    settings = ["budget.trials=12", LARGER]
    studies = [open_study(database, "study") for _ in range(4)]
    done = together(*[partial(extend, study, settings) for study in studies])
    assert sorted(one.queued for one in done) == [0, 0, 0, 10]
    assert sorted(one.changed for one in done) == [False, False, False, True]
    assert set(Counter(points(studies[0])).values()) == {1} and len(points(studies[0])) == 12


def test_two_that_extend_differently_both_count(database: Database) -> None:
    create_study(database, "study", make_spec(space=SPACE))
    one, two = open_study(database, "study"), open_study(database, "study")
    together(partial(extend, one, [LARGER]), partial(extend, two, ["space.weight_decay=[0.0, 0.5, 1.0, 2.0]"]))
    assert len(points(one)) == 16 and set(Counter(points(one)).values()) == {1}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("space.dropout=[0.0]", "would lose 0.1"),
        ("space.n_heads=[2, 4]", "n_heads"),
        ("experiment.epochs=100", "experiment.epochs is 48, not 100"),
        ("pruning.quantile=0.5", "pruning.quantile"),
        ("sampler=random", "sampler"),
        ("budget.trials=3", "has 4 trials already"),
        ("budget.wall_hours=1", "wall_hours is unset"),
        ("budget.solved=1", "solved is 2"),
        ("replicates=1", "replicates.count is 2"),
        ("space.dropout={low=0.0, high=1.0}", "is a range"),
        (LARGER, "raise it too, with --trials N"),
        ("space.dropuot=[1]", "did you mean"),
    ],
)
def test_what_is_refused_changes_nothing(database: Database, setting: str, message: str) -> None:
    spec = make_spec(space=SPACE, budget={"trials": 4, "solved": 2}, replicates=2)
    study = create_study(database, "study", spec)
    before = everything(database)
    with pytest.raises(MiiiiSearchError, match=message.replace("(", r"\(")) as refused:
        extend(study, [setting])
    assert "\n" not in str(refused.value)
    assert everything(database) == before


def test_the_whole_space_is_in_the_study(database: Database) -> None:
    study = create_study(database, "study", make_spec(space=SPACE))
    with pytest.raises(MiiiiSearchError, match="add values with --set"):
        extend(study, ["budget.trials=100"])


def test_a_worker_that_runs_trains_what_is_new(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_watch, "REFRESH_SECONDS", 0.2)
    spec = make_spec(space={"weight_decay": (0.0,)}, pruning=Pruning(rule="none"))
    study = create_study(database, "study", spec)
    held = claim(study, worker="other")  # so that the worker does not find the study done
    with working(open_study(database, "study"), 1):  # which has the old spec, and says nothing while it waits
        extend(study, ["space.weight_decay=[0.0, 0.5]"])
        wait_until(lambda: study.counts()[TrialState.COMPLETE] == 1, 240)
        end(study, held)
        wait_until(study.is_done, 240)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shared_database", "sampler"), [("sqlite", "random"), ("postgresql", "tpe")], indirect=["shared_database"]
)
def test_a_sampler_goes_on_in_the_larger_space(database: Database, sampler: str) -> None:
    spec = make_spec(space=SPACE, sampler=sampler, budget={"trials": 6}, pruning=Pruning(rule="none"))
    study = create_study(database, "study", spec)
    with working(open_study(database, "study"), 2):
        wait_until(study.is_done, 240)
    extend(study, ["budget.trials=12", LARGER])
    assert not study.is_done()
    with working(open_study(database, "study"), 2):
        wait_until(study.is_done, 240)
    assert len(points(study)) == 12 and set(Counter(points(study)).values()) == {1}


def test_a_range_may_widen(database: Database) -> None:
    spec = make_spec(space={"weight_decay": Range(low=0.1, high=1.0)}, sampler="random", budget={"trials": 2})
    study = create_study(database, "study", spec)
    extend(study, ["space.weight_decay.high=2.0"])
    assert study.spec.space["weight_decay"] == Range(low=0.1, high=2.0)
    with pytest.raises(MiiiiSearchError, match="must lie within"):
        extend(study, ["space.weight_decay.low=0.5"])


def test_numbers_continue_while_others_claim(database: Database) -> None:
    study = create_study(database, "study", make_spec(space=SPACE, budget={"trials": 3}))

    def claim_all() -> None:
        for _ in range(3):
            claim(study, SECONDS)

    together(claim_all, partial(extend, open_study(database, "study"), ["budget.trials=6"]))
    assert [t.number for t in read_back(study).trials] == list(range(6))
    assert study.counts()[TrialState.RUNNING] == 3


def test_a_sampler_that_has_not_looked_yet_draws_from_the_larger_space(database: Database) -> None:
    """A sampler with the old specification must not add a trial of the old list: Optuna needs a common space."""
    study = create_study(database, "study", make_spec(space=SPACE, sampler="random", budget={"trials": 6}))
    queue = TrialSampler(study, 0)
    assert queue.create_trial("worker", SECONDS) is not None
    with extended_meanwhile(study):
        assert queue.create_trial("worker", SECONDS) is not None
    assert study.spec.space["dropout"] == (0.2, 0.0, 0.1, 0.3)
    assert len({str(t.distributions) for t in read_back(study).trials}) == 1


@contextmanager
def extended_meanwhile(study: Study) -> Iterator[None]:
    """The study is extended while its sampler draws a point."""
    draw, extended = TrialSampler._sample, list[bool]()

    def draw_late(queue: TrialSampler, *arguments: Any) -> Any:
        point = draw(queue, *arguments)
        if not extended:
            extended.append(extend(open_study(study.database, study.name), ["budget.trials=12", LARGER]).changed)
        return point

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrialSampler, "_sample", draw_late)
        yield
    assert extended == [True]


def test_equal_numbers_of_another_kind_are_another_list(database: Database) -> None:
    """Optuna compares lists as text in the database, where 0 and 0.0 differ."""
    study = create_study(database, "study", make_spec(space={"weight_decay": (0, 1)}, budget={"trials": 1}))
    extend(study, ["space.weight_decay=[0.0, 1.0]", "budget.trials=2"])
    extend(study, ["space.weight_decay=[0.0, 1.0, 2.0]", "budget.trials=3"])
    assert len({str(t.distributions) for t in read_back(study).trials}) == 1
    assert sorted(t.params["weight_decay"] for t in read_back(study).trials) == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("kind", ["postgresql"])
def test_the_coordinator_s_note_and_an_extension_do_not_wait_for_each_other(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """On PostgreSQL, a note with more parts than before locks the study's row too; this must not deadlock."""
    database = open_database(postgres_url, create=True)
    study = create_study(database, "study", make_spec(space=SPACE))
    monkeypatch.setattr("miiii_search.coordinator.dashboard_note.render_note", lambda *_: "a long note " * 1000)
    upsert, locked, goes_on = schema.upsert, threading.Event(), threading.Event()

    def upsert_late(*arguments: Any) -> None:
        if threading.current_thread().name.startswith("coordinator"):
            locked.set()
            assert goes_on.wait(600)
        upsert(*arguments)

    monkeypatch.setattr(schema, "upsert", upsert_late)
    with ThreadPoolExecutor(1, "coordinator") as coordinator, ThreadPoolExecutor(1) as command:
        writing = coordinator.submit(StudyNote(open_study(database, "study")).refresh, False)
        assert locked.wait(600)
        extending = command.submit(extend, study, [LARGER])
        with database.engine.connect() as looking:
            blocked = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            wait_until(lambda: looking.execute(blocked).scalar_one())
        goes_on.set()
        writing.result(600)
        assert extending.result(600).queued == 6
    database.close()
