"""Summaries of studies on both databases, with trials in every state and outcome."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from optuna.trial import TrialState

from miiii_search.cli.views.analyze import analyze_study
from miiii_search.config.search_space import Range
from miiii_search.config.study_sections import Budget, Pruning
from miiii_search.runs.study_summary import read_study_summary
from miiii_search.storage.database import Database
from miiii_search.study.create import create_study
from miiii_search.trial_queue.leases import Heartbeat
from miiii_search.worker.worker import Worker
from tests.support import SECONDS, TINY, claim, end, everything, make_spec, metrics_of, read_back

FILES = ("study-curves", "study-configurations", "study-solved", "study-importance", "study-marginals")


@pytest.mark.slow
def test_a_trained_study(database: Database, tmp_path: Path) -> None:
    experiment = TINY.model_copy(update={"target_accuracy": 0.05})  # one validation sample of twelve is right
    spec = make_spec(
        experiment=experiment, space={"learning_rate": (1e-3, 1e-5)}, replicates=2, pruning=Pruning(rule="none")
    )
    study = create_study(database, "trained", spec)
    Worker(study, 4).run(threading.Event())
    before = everything(database)
    found = read_study_summary(study)
    assert found.study == "trained" and found.epochs == 48
    assert [d.values for d in found.dimensions] == [(1e-5, 1e-3)]
    for row, trial in zip(found.trials, read_back(study).trials, strict=True):
        metrics = trial.user_attrs["metrics"]
        is_solved = metrics.get("epochs_to_solve") is not None
        assert (row.number, row.outcome) == (trial.number, "solved" if is_solved else "not solved")
        assert (row.point, row.value) == (trial.params, trial.value)
        assert row.epochs_to_solve == metrics.get("epochs_to_solve")
        assert row.epochs_trained == metrics["epochs_trained"] == list(row.curve)[-1]
        assert row.curve[metrics["epochs_trained"]] == metrics["validation_accuracy_mean"]
        assert row.curve == pytest.approx({**trial.intermediate_values, **row.curve})
        assert list(row.curve) == sorted(row.curve)
    assert sorted(row.replicate for row in found.trials) == [0, 0, 1, 1]
    assert found.counts["solved"] + found.counts["not solved"] == 4
    for spread in found.seed_spreads:
        epochs = [row.epochs_to_solve for row in found.trials if row.point == spread.point]
        assert list(spread.epochs_to_solve) == sorted(epoch for epoch in epochs if epoch)
        assert (spread.ended, spread.seeds) == (2, 2) and spread.median == spread.worst  # of two the later one
    assert len(found.seed_spreads) == 2
    assert (found.importance.cells, found.importance.cells_tried) == (2, 2)

    analyze_study(study, tmp_path / "out")
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    tree = json.loads(written["numbers.json"])
    assert len(tree["configurations"]) == 2
    assert [t["number"] for t in tree["trials"]] == [0, 1, 2, 3] and tree["counts"] == found.counts
    assert {
        "study-curves.png",
        "study-curves.svg",
        "study-solved.png",
        "study-seeds.png",
        "report.html",
    } <= written.keys()
    assert all(written.values())
    assert everything(database) == before  # nothing is written to the study
    analyze_study(study, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == written


def test_every_outcome(database: Database, tmp_path: Path) -> None:
    study = create_study(database, "study", make_spec())
    solved, unsolved, pruned, failed, running = (claim(study) for _ in range(5))
    beats = {lease: Heartbeat(lease, 8, 1.0) for lease in (solved, unsolved, pruned, failed, running)}
    for lease, beat in beats.items():
        study.queue.report([beat], {lease: {8: 0.25, 4: 0.125, 12: float("nan")}}, SECONDS)
    end(study, solved, value=1.5, epochs_to_solve=24, epochs_trained=32, metrics=metrics_of(study, 1.0, 24))
    end(study, unsolved, value=0.5, epochs_to_solve=None, epochs_trained=48)
    end(study, pruned, TrialState.PRUNED, 0.25, epochs_to_solve=None, epochs_trained=16, reason="too low")
    end(
        study,
        failed,
        TrialState.FAIL,
        None,
        epochs_trained=9,
        reason="not finite",
        metrics={"validation_accuracy_mean": 0.0},
    )
    found = read_study_summary(study)
    rows = {row.number: row for row in found.trials}
    assert found.counts == {"solved": 1, "not solved": 1, "pruned": 1, "failed": 1, "running": 1, "waiting": 19}
    assert (rows[solved.number].outcome, rows[solved.number].epochs_to_solve) == ("solved", 24)
    assert rows[solved.number].curve == {4: 0.125, 8: 0.25, 32: 1.0}
    assert (rows[unsolved.number].outcome, rows[unsolved.number].value) == ("not solved", 0.5)
    assert (rows[pruned.number].outcome, rows[pruned.number].value) == ("pruned", 0.25)
    assert (rows[pruned.number].reason, rows[pruned.number].epochs_trained) == ("too low", 16)
    assert (rows[failed.number].outcome, rows[failed.number].value) == ("failed", None)
    assert rows[failed.number].reason == "not finite"
    assert (rows[running.number].outcome, rows[running.number].value) == ("running", None)
    assert rows[running.number].curve == {4: 0.125, 8: 0.25} and rows[running.number].epochs_trained is None
    waiting = next(row for row in found.trials if row.outcome == "waiting")
    assert waiting.curve == {} and waiting.point.keys() == study.spec.space.keys()
    assert found.importance.cells == 24 and found.importance.cells_tried == 3
    assert "3 trials with an objective are too few" in found.importance.notes[0]
    analyze_study(study, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert "study-importance.png" not in names and "study-solved.png" in names


def test_ranges_and_points_outside_of_the_lists(database: Database) -> None:
    space = {
        "learning_rate": Range(low=1e-4, high=1e-2, log=True),
        "n_heads": Range(low=1, high=2),
        "d_model": Range(low=16, high=64),
        "dropout": (0.0, 0.1),
    }
    first = {"learning_rate": 1e-3, "n_heads": 2, "d_model": 16, "dropout": 0.3}
    study = create_study(
        database, "ranges", make_spec(space=space, sampler="random", budget=Budget(trials=4), first=(first,))
    )
    end(study, claim(study), value=0.5, epochs_trained=48)
    found = read_study_summary(study)
    rate, heads, width, dropout = found.dimensions
    assert rate.is_range and (rate.low, rate.high, rate.log) == (1e-4, 1e-2, True)
    assert heads.values == (1, 2) and not heads.is_range  # few enough to be told apart
    assert width.is_range and len(width.labels) == 4
    assert dropout.values == (0.0, 0.1) and dropout.level(0.3) is None
    assert found.trials[0].point == first
    assert "trials at values outside of the lists are left out (1)" in found.importance.notes


def test_an_empty_study(database: Database, tmp_path: Path) -> None:
    study = create_study(database, "empty", make_spec(sampler="tpe", budget=Budget(trials=2)))
    analyze_study(study, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"numbers.json", "report.html"}
    assert json.loads((tmp_path / "out" / "numbers.json").read_text())["trials"] == []
