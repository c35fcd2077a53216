"""A worker asks the pruner at every rung, and a pruner that fails does no harm."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.pruners import MedianPruner
from optuna.trial import TrialState

from miiii_search.config.study_sections import Pruning
from miiii_search.errors import MiiiiSearchError, StudyDeletedError
from miiii_search.experiment.spec import Experiment
from miiii_search.pruners.base import PruningContext
from miiii_search.pruners.factory import OptunaPruner
from miiii_search.storage.database import open_database
from miiii_search.study.create import create_study
from miiii_search.study.delete import delete
from miiii_search.study.study import Study
from miiii_search.testing.memory_database import outage
from miiii_search.worker import pruning as worker_pruning
from miiii_search.worker.pruning import PruningEvaluator
from miiii_search.worker.worker import Worker
from tests.support import SECONDS, make_spec
from tests.worker.support import active, record_until, update


class Failing:
    """A pruner that divides by zero for every second trial, and prunes the others."""

    uses_peers = True

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def should_prune(self, context: PruningContext) -> str | None:
        self.asked.append((context.trial.trial_id, context.epoch))
        return f"{1 / (context.trial.trial_id % 2)} is enough"


@pytest.mark.slow
def test_a_rule_that_fails_prunes_nothing_and_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    rule = Failing()
    monkeypatch.setattr(worker_pruning, "make_pruner", lambda spec, study: rule)
    database = open_database(f"sqlite:///{tmp_path}/test.db", create=True)
    experiment = Experiment(p=11, train_fraction=0.5, epochs=200_000, evaluate_every=4, validation_samples=12)
    pruning = Pruning(rule="forecast", min_epochs=16)
    study = create_study(database, "s", make_spec(experiment=experiment, pruning=pruning, budget={"trials": 2}))
    worker, stop = Worker(study, 2), threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    even = next(trial for trial in study.trials() if trial._trial_id % 2 == 0)
    odd = next(trial for trial in study.trials() if trial._trial_id % 2 == 1)
    while sum(trial_id == even._trial_id for trial_id, _ in rule.asked) < 3 or not lines_with(logged, "pruned"):
        assert thread.is_alive()
        stop.wait(0.05)
    states = {trial.number: trial.state for trial in study.trials()}
    stop.set()
    thread.join()
    database.close()
    assert states[even.number] == TrialState.RUNNING
    assert states[odd.number] == TrialState.PRUNED
    [line] = lines_with(logged, "failed")
    assert "forecast" in line and "ZeroDivisionError" in line and f"trial {even.number}" in line


def lines_with(lines: list[str], what: str) -> list[str]:
    return [line for line in lines if what in line]


@pytest.mark.parametrize("rule", ["forecast", "quantile", "median", "none"])
def test_the_pruner_is_asked_at_every_undecided_rung(study: Study, rule: str) -> None:
    """With the trials that it compares with, and without what came after the rung."""
    made = create_study(study.database, rule, make_spec(pruning=Pruning(rule=rule, min_epochs=4)))
    evaluator = PruningEvaluator(made)
    asked: list[PruningContext] = []

    def enough(context: PruningContext) -> str | None:
        asked.append(context)
        return "enough" if context.epoch == 8 else None

    trial, other = active(made), active(made)
    for one in (trial, other):
        one.apply_update(update(16, record_until(16, 0.25)))
        made.queue.report([one.heartbeat()], {one.lease: one.reports.pending}, SECONDS)
        one.reports.mark_written(made.spec.pruning_floor)
    if rule in ("forecast", "quantile"):
        evaluator._pruner = Prunes(enough, rule == "quantile")
    elif rule == "median":
        evaluator._pruner = OptunaPruner(made.as_optuna(), MedianPruner(n_startup_trials=0))
    assert trial.reports.undecided == [4, 8, 16]
    expected = ["enough"] * 2 if rule in ("forecast", "quantile") else [None] * 2
    assert evaluator.evaluate([trial, other]) == expected
    assert trial.reports.undecided == other.reports.undecided == []
    if rule in ("forecast", "quantile"):
        assert [context.epoch for context in asked] == [4, 8, 4, 8]
        assert [len(context.history) for context in asked] == [1, 2, 1, 2]
        assert [len(context.trials) for context in asked] == [2] * 4
        assert [context.trial.trial_id for context in asked] == [trial.lease.trial_id] * 2 + [other.lease.trial_id] * 2


class Prunes:
    """A pruner of this package that is a function."""

    def __init__(self, function: Callable[[PruningContext], str | None], uses_peers: bool) -> None:
        self.should_prune, self.uses_peers = function, uses_peers


def test_a_trial_that_another_program_deleted_goes_on(study: Study) -> None:
    trial = active(study)
    trial.apply_update(update(8, record_until(8)))
    trial.reports.mark_written(4)
    evaluator = PruningEvaluator(study)
    evaluator._pruner = Prunes(lambda _: "never asked", True)
    assert evaluator.evaluate([trial]) == [None]  # without a report, it is not among its peers


@pytest.mark.parametrize(
    ("error", "is_raised"), [(ZeroDivisionError("x"), False), (MiiiiSearchError("deleted"), True), (outage(), True)]
)
def test_a_pruner_that_fails(study: Study, logged: list[str], error: Exception, is_raised: bool) -> None:
    def fail(_: PruningContext) -> str | None:
        raise error

    trial = active(study)
    trial.apply_update(update(8, record_until(8)))
    evaluator = PruningEvaluator(study)
    evaluator._pruner = Prunes(fail, False)
    for _ in range(2):
        trial.reports.undecided = [4, 8]
        if is_raised:
            with pytest.raises(type(error)):
                evaluator.evaluate([trial])
        else:
            assert evaluator.evaluate([trial]) == [None]
    assert len(logged) == (not is_raised)  # once
    if logged:
        assert logged[0].startswith(
            "pruning.rule = 'forecast' failed on trial 0 at epoch 4 (ZeroDivisionError: x): the trial continues"
        )


def test_one_of_optunas_pruners_notices_that_the_study_was_deleted(study: Study) -> None:
    made = create_study(study.database, "gone", make_spec(pruning=Pruning(rule="median", min_epochs=4)))
    evaluator, trial = PruningEvaluator(made), active(made)
    trial.reports.undecided = [4]
    delete(made, force=True)
    with pytest.raises(StudyDeletedError):
        evaluator.evaluate([trial])
