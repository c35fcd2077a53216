"""Further seeds go to the best configurations only, once. Until then the study is not done."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from miiii_search.config.study_sections import Pruning
from miiii_search.coordinator import coordinator
from miiii_search.coordinator.coordinator import supervise
from miiii_search.coordinator.dashboard_note import render_note
from miiii_search.errors import MiiiiSearchError
from miiii_search.storage import study_attrs
from miiii_search.storage.database import Database
from miiii_search.storage.study_attrs import SELECTED_KEY
from miiii_search.study.archive_export import export_study
from miiii_search.study.archive_import import import_study
from miiii_search.study.create import create_study
from miiii_search.study.delete import delete
from miiii_search.study.extend import extend
from miiii_search.study.open import open_study
from miiii_search.study.overview import list_studies
from miiii_search.study.pause import pause, resume
from miiii_search.study.promote import queue_further_seeds
from miiii_search.study.status import read_status
from miiii_search.study.study import Study
from tests.support import TINY, claim, end, everything, log_lines, make_spec, read_back, together, wait_until
from tests.worker.test_worker import working

SPACE = {"dropout": (0.0, 0.1), "weight_decay": (0.0, 0.5, 1.0)}
"""6 points."""
BEST_2_OF_6 = {"space": SPACE, "replicates": {"count": 3, "top": 2}}


def make_study(database: Database, **fields: Any) -> Study:
    return create_study(database, "study", make_spec(**{**BEST_2_OF_6, **fields}))


def end_all(study: Study, values: Sequence[float | None]) -> None:
    """Finish one trial per value, in the order of the queue. None prunes the trial, with a high value."""
    for value in values:
        if value is None:
            end(study, claim(study), TrialState.PRUNED, 0.99)
        else:
            end(study, claim(study), value=value)


def waiting(study: Study) -> list[FrozenTrial]:
    return [t for t in read_back(study).trials if t.state == TrialState.WAITING]


def seed(study: Study, trial: FrozenTrial) -> int:
    return study.trial_settings(trial)[0].seed


FIRSTS = [0.25, 0.75, 0.5, 0.75, 0.125, 0.75]
"""The best two are trials 1 and 3: of three that are as good, those of the lowest numbers."""


def test_the_best_get_the_other_seeds_once_all_have_run(database: Database) -> None:
    study = make_study(database)
    assert len(waiting(study)) == 6 and study.spec.n_trials == 10
    end_all(study, FIRSTS[:5])
    assert queue_further_seeds(study) is None  # one waits
    last = claim(study)
    assert queue_further_seeds(study) is None  # one runs
    assert not study.is_done() and study.awaits_selection
    end(study, last, value=FIRSTS[5])
    assert not study.is_done() and not read_status(study).done  # so that no worker ends
    assert list_studies(database)[0].state == "waiting for a coordinator"
    assert "of the configurations of trials 1, 3" in str(queue_further_seeds(study))
    study.refresh()
    assert not study.awaits_selection and not study.is_done()
    first, new = read_back(study).trials[:6], waiting(study)
    assert [t.params for t in new] == [first[1].params, first[3].params] * 2
    assert [seed(study, t) for t in new] == [1, 1, 2, 2]
    assert [t.number for t in new] == [6, 7, 8, 9]
    end_all(study, [0.5] * 4)
    assert queue_further_seeds(study) is None and study.is_done() and read_status(study).done
    assert read_status(study).n_trials == 10 and list_studies(database)[0].state == "done"


def test_pruned_and_failed_ones_get_none_and_the_study_ends(database: Database) -> None:
    study = make_study(database)
    end_all(study, [None, 0.25, None, None, None])
    end(study, claim(study), TrialState.FAIL, None)
    assert str(queue_further_seeds(study)).startswith("2 trials with further seeds are queued")
    assert {t.params["dropout"] for t in waiting(study)} == {read_back(study).trials[1].params["dropout"]}
    assert read_status(study).n_trials == list_studies(database)[0].n_trials == 8
    assert " of 8 trials" in render_note(open_study(database, "study"), False)
    end_all(study, [0.5, 0.5])
    assert study.is_done() and list_studies(database)[0].state == "done"


def test_nobody_completed(database: Database) -> None:
    study = make_study(database)
    end_all(study, [None] * 6)
    assert str(queue_further_seeds(study)).startswith("0 trials") and study.is_done()
    assert read_status(study).n_trials == 6


def test_twice_and_at_once_is_once(database: Database) -> None:
    end_all(make_study(database), FIRSTS)
    studies = [open_study(database, "study") for _ in range(4)]
    said = together(*[partial(queue_further_seeds, study) for study in studies])
    assert sum(one is not None for one in said) == 1
    before = everything(database)
    assert queue_further_seeds(studies[0]) is None and queue_further_seeds(open_study(database, "study")) is None
    assert everything(database) == before
    runs = Counter((tuple(t.params.items()), seed(studies[0], t)) for t in read_back(studies[0]).trials)
    assert len(runs) == 10 and set(runs.values()) == {1}


def test_a_coordinator_that_fails_in_between_has_done_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(database)
    end_all(study, FIRSTS)
    before = everything(database)
    with monkeypatch.context() as patch:
        patch.setattr(study_attrs, "write", lambda *_: 1 / 0)  # the last statement
        with pytest.raises(ZeroDivisionError):
            queue_further_seeds(study)
    assert everything(database) == before
    assert queue_further_seeds(study) is not None and len(waiting(study)) == 4


IN_BETWEEN = """
import sys, time
from miiii_search.storage import study_attrs
from miiii_search.study.promote import queue_further_seeds
from miiii_search.storage.database import open_database
from miiii_search.study.open import open_study

def write(*_):
    print("in between", flush=True)
    time.sleep(600)

study = open_study(open_database(sys.argv[1]), "study")
study_attrs.write = write
queue_further_seeds(study)
"""
"""A coordinator that has queued the further seeds, but does not come to note that it has."""


@pytest.mark.process
def test_a_coordinator_that_is_killed_in_between_has_done_nothing(database: Database) -> None:
    study = make_study(database)
    end_all(study, FIRSTS)
    before = everything(database)
    command = [sys.executable, "-c", IN_BETWEEN, database.url.render_as_string(hide_password=False)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as killed:
        assert killed.stdout is not None and killed.stdout.readline() == "in between\n"
        killed.kill()
    assert everything(database) == before
    assert queue_further_seeds(study) is not None and len(waiting(study)) == 4


def test_who_counted_before_does_not_find_the_study_done(database: Database) -> None:
    """One coordinator counts, another one queues, then the first checks whether the study is done."""
    study = make_study(database)
    end_all(study, FIRSTS)
    counted = study.counts()
    queue_further_seeds(open_study(database, "study"))
    assert not study.is_done(counted) and study.selection is not None


@pytest.mark.parametrize(("trials", "further"), [(8, 2), (6, 0), (4, 0), (100, 4)])
def test_a_budget_of_trials_cuts_what_is_too_many(database: Database, trials: int, further: int) -> None:
    study = make_study(database, budget={"trials": trials})
    assert study.spec.n_trials == min(trials, 10)
    end_all(study, FIRSTS[:trials])
    assert queue_further_seeds(study) is not None
    assert [seed(study, t) for t in waiting(study)] == [1, 1, 2, 2][:further]
    end_all(study, [0.5] * further)
    assert study.is_done()


def test_nothing_is_queued_where_the_budget_is_spent(database: Database) -> None:
    study = make_study(database, budget={"solved": 1})
    end_all(study, FIRSTS[:5])
    end(study, claim(study), value=1.5, epochs_to_solve=24)
    assert queue_further_seeds(study) is None and study.is_done() and not waiting(study)
    extend(study, ["budget.solved=3"])
    assert not study.is_done()
    queue_further_seeds(study)
    best = read_back(study).trials[5].params
    assert waiting(study)[0].params == best and len(waiting(study)) == 4


def test_a_paused_study_gets_them_and_trains_them_later(database: Database) -> None:
    study = make_study(database)
    end_all(study, FIRSTS)
    pause(study)
    assert not study.is_done()
    assert queue_further_seeds(study) is not None
    assert not study.is_done() and study.paused
    resume(study)
    end_all(study, [0.5] * 4)
    assert study.is_done()


@pytest.mark.slow
def test_supervision_queues_them_and_goes_on_until_they_have_ended(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "POLL_SECONDS", 0.05)
    study = make_study(database, pruning=Pruning(rule="none"), experiment=TINY)
    with working(open_study(database, "study"), 2) as (_, told), log_lines(threading.current_thread()) as logged:
        wait_until(lambda: any("the coordinator queues further seeds" in line for line in told), 240)
        assert study.counts()[TrialState.COMPLETE] == 6  # the worker waits, and has not ended
        assert supervise(study, threading.Event())
    trials = read_back(study).trials
    best = sorted(trials[:6], key=lambda t: (-(t.value or 0.0), t.number))[:2]
    assert [t.params for t in trials[6:]] == [t.params for t in best] * 2
    assert {t.state for t in trials} == {TrialState.COMPLETE} and len(trials) == 10
    assert logged == [
        f"4 trials with further seeds are queued, of the configurations of trials {best[0].number}, {best[1].number}"
    ]
    # Another seed is another run, and the same seed of another trial would be the same one.
    assert len({t.user_attrs["metrics"]["weights_sha256"] for t in trials if t.params == best[0].params}) == 3


@pytest.mark.parametrize("done", [False, True])
def test_in_a_file_and_back(database: Database, tmp_path: Path, done: bool) -> None:
    """The best are selected once, whether before or after an export and import."""
    study = make_study(database)
    end_all(study, FIRSTS)
    if done:
        queue_further_seeds(study)
    export_study(study, tmp_path / "study.zip")
    copy = import_study(database, tmp_path / "study.zip", "copy")
    assert copy.awaits_selection is not done
    assert (queue_further_seeds(copy) is None) is done
    assert [seed(copy, t) for t in waiting(copy)] == [1, 1, 2, 2]
    end_waiting(copy)
    assert copy.is_done() and not study.is_done()


@pytest.mark.parametrize("selection", [{}, 7, {"n_trials": "many"}, {"n_trials": True}])
def test_a_file_with_a_selection_that_is_none_is_refused(database: Database, tmp_path: Path, selection: Any) -> None:
    study = make_study(database)
    with database.transaction() as connection:
        study_attrs.write(connection, study.study_id, {SELECTED_KEY: selection})
    export_study(study, tmp_path / "study.zip")
    with pytest.raises(MiiiiSearchError, match="damaged, or not a file of export-study"):
        import_study(database, tmp_path / "study.zip", "copy")


def test_a_study_that_was_deleted(database: Database) -> None:
    study = make_study(database)
    end_all(study, FIRSTS)
    delete(open_study(database, "study"), force=True)
    with pytest.raises(MiiiiSearchError, match="was deleted"):
        queue_further_seeds(study)


def end_waiting(study: Study, value: float = 0.5) -> None:
    while study.counts()[TrialState.WAITING]:
        end(study, claim(study), value=value)


def seeds_by_point(study: Study) -> dict[tuple[float, float], list[int]]:
    found: dict[tuple[float, float], list[int]] = {}
    for t in read_back(study).trials:
        found.setdefault((t.params["dropout"], t.params["weight_decay"]), []).append(seed(study, t))
    return {point: sorted(seeds) for point, seeds in found.items()}


def test_more_seeds_for_the_same_ones(database: Database) -> None:
    study = make_study(database)
    end_all(study, FIRSTS)
    queue_further_seeds(study)
    # A lucky second seed of a chosen one, and bad luck of another, do not change who the best are.
    end_all(study, [0.875, 0.0, 0.0, 0.0])
    extension = extend(study, ["replicates.count=4"])
    assert (extension.queued, extension.n_trials, extension.changed) == (0, 12, True)
    assert not study.is_done() and study.awaits_selection
    queue_further_seeds(study)
    end_waiting(study)
    assert study.is_done()
    assert sorted(map(len, seeds_by_point(study).values())) == [1, 1, 1, 1, 4, 4]


def test_seeds_for_more_of_them_and_for_all(database: Database) -> None:
    study = make_study(database)
    end_all(study, FIRSTS)
    queue_further_seeds(study)
    extend(study, ["replicates.top=3"])  # while others wait
    assert queue_further_seeds(study) is None
    end_waiting(study)
    queue_further_seeds(study)
    assert {tuple(t.params.items()) for t in waiting(study)} == {tuple(read_back(study).trials[5].params.items())}
    end_waiting(study)
    assert study.is_done()
    assert extend(study, ["replicates=3"]).queued == 18 - 12
    assert study.selection is None and not study.awaits_selection
    assert set(map(tuple, seeds_by_point(study).values())) == {(0, 1, 2)}
    end_waiting(study)
    assert study.is_done()


def test_a_study_without_replicates_has_its_best_ones_repeated(database: Database) -> None:
    study = create_study(database, "study", make_spec(space=SPACE))
    end_all(study, FIRSTS)
    assert study.is_done()
    extension = extend(study, ["replicates.count=2", "replicates.top=1"])
    assert (extension.queued, extension.n_trials) == (0, 7) and not study.is_done()
    queue_further_seeds(study)
    [again] = waiting(study)
    assert again.params == read_back(study).trials[1].params and seed(study, again) == 1


def test_in_a_larger_space_the_best_are_chosen_anew(database: Database) -> None:
    study = make_study(database, replicates={"count": 2, "top": 1})
    end_all(study, FIRSTS)
    queue_further_seeds(study)
    end_waiting(study)
    assert study.is_done() and study.counts()[TrialState.COMPLETE] == 7
    assert extend(study, ["space.dropout=[0.0, 0.1, 0.2]"]).queued == 3
    end_all(study, [0.5, 1.5])
    assert queue_further_seeds(study) is None
    end(study, claim(study), value=0.5)
    assert not study.is_done()  # although there are as many trials as a study of 9 points and one more has
    assert "trials 8" in str(queue_further_seeds(study))
    end_waiting(study)
    assert study.is_done() and read_status(study).n_trials == 11
    assert sorted(map(len, seeds_by_point(study).values())) == [1] * 7 + [2] * 2


@pytest.mark.parametrize(
    ("fields", "setting", "message"),
    [
        (BEST_2_OF_6, "replicates.top=1", "replicates.top is 2 and can only grow, not become 1"),
        (BEST_2_OF_6, "replicates.count=2", "replicates.count is 3 and can only grow, not become 2"),
        (BEST_2_OF_6, "replicates=2", "replicates.count is 3 and can only grow, not become 2"),
        (BEST_2_OF_6, "budget.trials=9", "study has 10 trials already"),
        ({"space": SPACE, "replicates": 3}, "replicates.top=2", "every configuration has 3 seeds, which"),
    ],
)
def test_extensions_that_are_refused(database: Database, fields: dict[str, Any], setting: str, message: str) -> None:
    study = create_study(database, "study", make_spec(**fields))
    before = everything(database)
    with pytest.raises(MiiiiSearchError, match=message) as refused:
        extend(study, [setting])
    assert "\n" not in str(refused.value) and everything(database) == before
