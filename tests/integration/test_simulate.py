"""`simulate` as a user types it, on a study that was really trained, some of it pruned."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from miiii_search.cli import main
from miiii_search.config.study_sections import Pruning
from miiii_search.simulation.from_study import curves_from_study
from miiii_search.simulation.pruner_variants import pruner_variants
from miiii_search.storage.database import open_database
from miiii_search.study.create import create_study
from miiii_search.worker.worker import Worker
from tests.support import TINY, make_spec

SPEC = make_spec(
    experiment=TINY.model_copy(update={"epochs": 400, "target_accuracy": 0.1, "solved_evaluations": 2}),
    space={"dropout": (0.0, 0.1), "weight_decay": (0.0, 1.0)},
    pruning=Pruning(rule="none"),
)
ENDLESS = make_spec(
    experiment=TINY.model_copy(update={"epochs": 10**6, "solved_evaluations": 10**6}),
    space={"dropout": (0.1,)},
    pruning=Pruning(rule="threshold", min_epochs=20, options={"lower": 1.5}),
)
Type = Callable[..., str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    database = open_database(f"sqlite:///{home}/miiii-search.db", create=True)
    for name, spec in {"whole": SPEC, "given-up": ENDLESS}.items():
        Worker(create_study(database, name, spec), 1).run(threading.Event())
    create_study(database, "empty", SPEC)
    database.close()
    return home


@pytest.fixture
def type_(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    monkeypatch.chdir(home)
    monkeypatch.setenv("COLUMNS", "120")

    def typed(*words: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["miiii-search", *words])
        with pytest.raises(SystemExit) as end:
            main()
        found = capsys.readouterr()
        assert (end.value.code or 0) == code, found
        return found.out + found.err

    return typed


def test_a_table_and_a_picture(type_: Type, home: Path) -> None:
    said = type_("simulate", "--study", "whole", "--lanes", "2", "--replays", "3")
    assert "4 trials of up to 400 epochs, 2 lanes, 3 orders of the queue" in said
    for rule in pruner_variants(SPEC.pruning):
        assert any(line.startswith(rule.name) for line in said.splitlines()), rule.name
    assert "best after" in said and "whole-rules.png" in said
    assert (home / "whole-rules.png").read_bytes().startswith(b"\x89PNG")
    type_("simulate", "--study", "whole", "--replays", "1", "--out", "new/rules.svg")
    assert (home / "new" / "rules.svg").read_text().startswith("<?xml")


def test_what_was_pruned_when_it_was_trained_is_said(type_: Type) -> None:
    said = type_("simulate", "--study", "given-up", "--replays", "1")
    assert "1 trials were pruned when they were trained, so their further curves are unknown" in " ".join(said.split())
    assert "this study's" in said


def test_mistakes_are_a_line(type_: Type, home: Path) -> None:
    assert "no ended trial with a record" in type_("simulate", "--study", "empty", code=2)
    assert "no study `nothing`" in type_("simulate", "--study", "nothing", code=2)
    (home / "file").touch()
    said = type_("simulate", "--study", "whole", "--replays", "1", "--out", "file/rules.png", code=2)
    # Before the replays.
    assert said.strip() == "error: cannot write to file/rules.png: File exists; choose another --out"


def test_the_curves_of_a_study_are_what_the_service_made_of_its_runs(home: Path) -> None:
    database = open_database(f"sqlite:///{home}/miiii-search.db")
    for name in ("whole", "given-up"):
        study = create_study(database, name, SPEC if name == "whole" else ENDLESS)
        curves, problems = curves_from_study(study)
        assert problems == [] and len(curves.curves) == len(study.trials())
        for trial, curve in zip(study.trials(), curves.curves, strict=True):
            assert curve.number == trial.number and curve.point == trial.params
            assert curve.solved_epoch == trial.user_attrs["epochs_to_solve"]
            assert curve.pruned == (trial.state == TrialState.PRUNED)
            assert curve.ended_epoch == trial.user_attrs["epochs_trained"]
            if not curve.pruned:
                assert curve.last_epoch == trial.user_attrs["epochs_trained"]
                assert curve.objective == pytest.approx(trial.value)
            for epoch, accuracy in trial.intermediate_values.items():
                assert curve.accuracy[epoch] == pytest.approx(accuracy)
    database.close()
