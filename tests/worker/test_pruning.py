"""A pruner that fails does no harm."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from optuna.trial import TrialState

from miiii_search.config.study_sections import Pruning
from miiii_search.experiment.spec import Experiment
from miiii_search.pruners.base import PruningContext
from miiii_search.storage.database import open_database
from miiii_search.study.create import create_study
from miiii_search.worker import pruning as worker_pruning
from miiii_search.worker.worker import Worker
from tests.support import make_spec


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
