"""`analyze`, `compare` and `export-weights` as a user types them, on a tiny run and tiny studies."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load, load_file

from miiii_search.analysis.report.comparison_report import COMPARISON_FIGURE_NAMES
from miiii_search.analysis.report.run_report import RUN_FIGURE_NAMES
from miiii_search.analysis.report.study_report import STUDY_FIGURE_NAMES
from miiii_search.cli import main
from miiii_search.cli.views.train import choose_configuration, train_to_folder
from miiii_search.config.study_sections import Pruning
from miiii_search.experiment.metrics import hash_weights
from miiii_search.experiment.record import find_snapshots
from miiii_search.runs.run_folder import read_run
from miiii_search.runs.trial_runs import read_trial_run
from miiii_search.storage.artifacts import find_attachments
from miiii_search.storage.database import open_database
from miiii_search.study.create import create_study
from miiii_search.study.open import open_study
from miiii_search.training.device import use_compilation_cache
from miiii_search.worker.worker import Worker
from tests.support import TINY, make_spec

NEVER = Pruning(rule="none")
ALWAYS = Pruning(rule="threshold", min_epochs=20, options={"lower": 1.5})
LONG = TINY.model_copy(update={"epochs": 320, "solved_evaluations": 100})
"""With a look at 256."""
ENDLESS = LONG.model_copy(update={"epochs": 10**6})
STUDIES = {
    "kept": make_spec(experiment=LONG, space={"dropout": (0.0, 0.1)}, pruning=NEVER),
    "lost": make_spec(experiment=LONG, space={"dropout": (0.1,)}, pruning=NEVER, keep_weights=0),
    "pruned": make_spec(experiment=ENDLESS, space={"dropout": (0.1,)}, pruning=ALWAYS),
    "empty": make_spec(),
}
TRAIN = [
    *("experiment.p=7", "experiment.epochs=320", "experiment.validation_samples=10", "hyperparameters.d_model=16"),
    *("experiment.solved_evaluations=100", "hyperparameters.n_heads=2"),
]
Type = Callable[..., str]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database of ended studies, and a run."""
    use_compilation_cache()
    home = tmp_path_factory.mktemp("home")
    database = open_database(f"sqlite:///{home}/miiii-search.db", create=True)
    for name, spec in STUDIES.items():
        study = create_study(database, name, spec)
        if name != "empty":
            Worker(study, 1).run(threading.Event())
    database.close()
    train_to_folder(choose_configuration(None, "demo", None, TRAIN), home / "run", compare_with_recorded=False)
    return home


@pytest.fixture
def type(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """Types a command in that folder; what it says, or its one line if it fails."""
    monkeypatch.chdir(home)
    for name in ("MIIII_STORAGE", "MIIII_STUDY", "MIIII_PRESET"):
        monkeypatch.delenv(name, raising=False)

    def type(*words: str, code: int = 0) -> str:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["miiii-search", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == code, said
        if code == 0:
            return said.out
        assert said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
        return said.err

    return type


def assert_whole(folder: Path, without: frozenset[str] = frozenset()) -> None:
    """All figures of a run are there, and in the page."""
    expected = set(RUN_FIGURE_NAMES) - without
    assert {path.stem for path in folder.glob("*.png")} == {path.stem for path in folder.glob("*.svg")} == expected
    page = (folder / "report.html").read_text()
    assert set(re.findall(r'<figure id="([\w-]+)">', page)) == expected


def on_page(home: Path, name: str, number: int) -> set[str]:
    """The names of the files that were attached to a trial."""
    database = open_database(f"sqlite:///{home}/miiii-search.db")
    try:
        study = open_study(database, name)
        keys = database.optuna.get_study_system_attrs(study.study_id)
        with database.engine.connect() as connection:
            files = find_attachments(connection, study.study_id, [study.trials()[number]._trial_id])
        return {json.loads(keys[file.key])["filename"] for file in files}
    finally:
        database.close()


def test_a_folder(type: Type, home: Path) -> None:
    said = type("analyze", "run")
    figures = home / "run" / "analysis"
    assert_whole(figures, without=frozenset({"task-order"}))  # its one task has not generalised
    assert f"{len(RUN_FIGURE_NAMES) - 1} figures, numbers.json and the page run/analysis/report.html in " in said
    assert "note:" not in said
    numbers = json.loads((figures / "numbers.json").read_text())
    assert numbers["run"] == "run" and numbers["missing"] == [] and numbers["epochs_trained"] == 320


def test_a_trial_with_its_weights(type: Type, home: Path) -> None:
    said = type("analyze", "--study", "kept", "--trial", "0", "--out", "out/[b]")
    # Of the end alone there is no course.
    assert_whole(home / "out" / "[b]", without=frozenset({"circuits-through-training", "progress-measures"}))
    assert "note: no snapshots of the weights" in said and "out/[b]/report.html" in said
    assert "on the page of trial 0 in the dashboard" in said
    pictures = {f"{path.stem}.png" for path in (home / "out" / "[b]").glob("*.png")}
    assert on_page(home, "kept", 0) == pictures | {"report.html", "numbers.json"}
    assert on_page(home, "kept", 1) == set()


def test_a_trial_without_its_weights(type: Type, home: Path) -> None:
    """First what there is, with the way to the rest; then all of it, in its place."""
    said = type("analyze", "--study", "lost", "--trial", "0", "--no-attach")
    assert re.search(r"note: the weights of trial 0 were not kept: add --retrain to train it again, which took ", said)
    figures = home / "analysis" / "lost-0"
    assert not (figures / "attention.png").exists() and on_page(home, "lost", 0) == set()
    said = type("analyze", "--study", "lost", "--trial", "0", "--retrain")
    assert "trained again, identical: every metric and every weight" in said and "note:" not in said
    assert_whole(figures)
    assert list(find_snapshots(figures / "snapshots")) == [256, 320]
    assert "attention.png" in on_page(home, "lost", 0)


def test_a_pruned_trial(type: Type, home: Path) -> None:
    """It is repeated to the epoch at which it was pruned, of a million."""
    said = type("analyze", "--study", "pruned", "--trial", "0", "--retrain", "--out", "pruned")
    assert "trained again, identical: every metric and every weight" in said
    numbers = json.loads((home / "pruned" / "numbers.json").read_text())
    assert 0 < numbers["epochs_trained"] < 10**6 and "embeddings" in numbers
    database = open_database(f"sqlite:///{home}/miiii-search.db")
    study = open_study(database, "pruned")
    run, _ = read_trial_run(study, study.trials()[0])
    database.close()
    assert run.last_epoch == numbers["epochs_trained"]


def test_a_study(type: Type, home: Path) -> None:
    said = type("analyze", "--study", "kept")
    assert "2 trials of up to 320 epochs" in said
    figures = home / "analysis" / "kept"
    drawn = {path.stem for path in figures.glob("*.png")}
    assert drawn and drawn <= set(STUDY_FIGURE_NAMES)
    json.loads((figures / "numbers.json").read_text(), parse_constant=pytest.fail)
    assert "Study kept" in (figures / "report.html").read_text()


def test_a_study_that_has_not_begun(type: Type, home: Path) -> None:
    assert "24 waiting" in type("analyze", "--study", "empty", "--out", "none")
    assert (home / "none" / "report.html").exists()


def test_runs_side_by_side(type: Type, home: Path) -> None:
    """Two of the same name are called by their paths."""
    (home / "other").mkdir(exist_ok=True)
    (home / "other" / "run").symlink_to(home / "run")
    said = type("compare", "run", "other/run")
    assert "other/run" in said.split("\n")[0]
    figures = home / "comparison"
    assert {path.stem for path in figures.glob("*.png")} == set(COMPARISON_FIGURE_NAMES)
    numbers = json.loads((figures / "numbers.json").read_text())
    assert [one["run"] for one in numbers["runs"]] == ["run", "other/run"] == numbers["table"]["runs"]


def test_a_run_beside_a_reference(type: Type, home: Path) -> None:
    """One run is enough; its differences from the reference are printed at each of its epochs, drawn and written."""
    (home / "figure.csv").write_text(
        "split,epoch,7\ntraining,64,0.5\ntraining,320,0.9\nvalidation,64,0.25\nvalidation,320,0.5\n"
    )
    said = type("compare", "run", "--reference", "figure.csv", "--out", "beside")
    assert "run compared with figure: accuracies, mean over tasks" in said
    assert "training: the largest difference is" in said and "validation: the largest difference is" in said
    assert (home / "beside" / "compare-reference.png").stat().st_size > 0
    compared = json.loads((home / "beside" / "numbers.json").read_text())["reference"]["run"]
    assert compared["epochs"] == [64, 320] and compared["training"]["reference"] == [0.5, 0.9]
    run, _ = read_run(home / "run")
    assert run.record is not None
    assert compared["validation"]["run"][-1] == pytest.approx(
        max(0.25, float(run.record.validation_accuracy[run.record.epoch >= 304].mean())), abs=1e-6
    )


def test_weights_of_a_folder_and_of_a_trial(type: Type, home: Path) -> None:
    assert "the weights are in mine.safetensors" in type("export-weights", "run", "--out", "mine.safetensors")
    run, _ = read_run(home / "run")
    assert run.metrics is not None and hash_weights(load_file(home / "mine.safetensors")) == run.metrics.weights_sha256
    type("export-weights", "--study", "kept", "--trial", "0")
    database = open_database(f"sqlite:///{home}/miiii-search.db")
    study = open_study(database, "kept")
    expected = study.trials()[0].user_attrs["metrics"]["weights_sha256"]
    database.close()
    assert hash_weights(load((home / "weights.safetensors").read_bytes())) == expected


MISTAKES = {
    "analyze run --trial 0": "one of the two",
    "analyze run --retrain": "--trial N",
    "analyze --study kept --retrain": "--trial N",
    "analyze nowhere": "there is no folder nowhere",
    "analyze out-of-runs": "is not a run's folder",
    "analyze run --out run/config.toml": "cannot write to run/config.toml: File exists",
    "analyze run --out /proc/nothing": "cannot write to /proc/nothing",
    "analyze --study kept --trial 7": "has no trial 7; its trials are 0 to 1",
    "analyze --study empty --trial 3": "is waiting; only trials that have ended",
    "analyze --study kept --trial 0 --out run": "run holds a run that train wrote; choose another --out",
    "analyze --study kept --out run/config.toml": "cannot write to run/config.toml",
    "analyze --trial 0": "--study",
    "compare run": "at least two folders of runs",
    "compare run --reference nowhere.csv": "cannot read the reference nowhere.csv",
    "compare run --reference run/config.toml": "the first line of run/config.toml must be split,epoch",
    "compare run nowhere": "there is no folder nowhere",
    "compare run run --out run/config.toml": "cannot write to run/config.toml",
    "export-weights": "one of the two",
    "export-weights run --study kept --trial 0": "one of the two",
    "export-weights run --format keras": "transformer-lens or safetensors",
    "export-weights --study lost --trial 0": "has no weights.safetensors; train it again",
    "export-weights run --out nowhere/weights": "cannot write nowhere/weights",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes(words: str, type: Type, home: Path) -> None:
    """One line with the way out, exit code 2, and nothing is written."""
    (home / "out-of-runs").mkdir(exist_ok=True)
    before = sorted(home.rglob("*"))
    assert MISTAKES[words] in type(*words.split(), code=2)
    assert sorted(home.rglob("*")) == before
