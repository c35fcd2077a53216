"""The benchmark of the training step's options: its runs, and its report of them."""

from __future__ import annotations

import json
from pathlib import Path

import accelerate
import pytest
from accelerate import METHODS, read_rows, train_all

from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.experiment.switches import Switches


def test_each_method_has_a_program_of_its_own() -> None:
    switches = {Switches.of(Hyperparameters.model_validate(changes)) for changes in METHODS.values()}
    assert len(switches) == len(METHODS) - 1  # the two rate factors share one


@pytest.mark.slow
def test_runs_are_trained_once_and_reported(tmp_path: Path) -> None:
    experiment = Experiment(p=7, task="nanda", train_fraction=0.5, epochs=8, target_accuracy=0.01, validation_samples=9)
    base = {"d_model": 8, "n_heads": 2}
    train_all(tmp_path, ["muon", "adamw"], 1, experiment, base)
    [adamw, muon] = read_rows(tmp_path)
    assert (adamw["method"], muon["method"]) == ("adamw", "muon")
    assert adamw["epochs"] == 8 and adamw["seed"] == 0 and adamw["seconds"] > 0
    assert adamw["tasks_at_099"] in (0, 1) and muon["hyperparameters"]["optimizer"] == "muon"
    file = tmp_path / "adamw-0.json"
    file.write_text(json.dumps({**adamw, "solved_epoch": 5}))
    train_all(tmp_path, ["adamw"], 1, experiment, base)
    assert accelerate.read_rows(tmp_path)[0]["solved_epoch"] == 5
