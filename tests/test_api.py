"""The public API: its names, its errors, and the examples of its docstrings."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray

import miiii_search as ms
from miiii_search import api
from miiii_search.api import runs, studies, study
from miiii_search.cli.views.train import train_to_folder
from miiii_search.pruners import forecast
from miiii_search.pruners.history import History

TINY = ms.Experiment(p=7, epochs=32, evaluate_every=8, validation_samples=10)
SMALL = ms.Hyperparameters(d_model=16, n_heads=2)


def spec(**changes: object) -> ms.StudySpec:
    return ms.StudySpec.model_validate(
        {"experiment": TINY, "hyperparameters": SMALL, "space": {"weight_decay": (0.5, 1.0)}, **changes}
    )


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


def test_every_name_is_there_and_importing_the_package_loads_little() -> None:
    assert all(getattr(ms, name) is not None for name in ms.__all__)
    assert dir(ms) == ms.__all__
    code = "import sys, miiii_search; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"jax", "numpy", "optuna", "pydantic", "sqlalchemy"} & set(loaded)
    with pytest.raises(AttributeError, match="attribute Experment"):
        getattr(ms, "Experment")  # noqa: B009


@pytest.fixture(scope="module")
def example_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples read: the run runs/best, and search.db with a study that is done."""
    folder = tmp_path_factory.mktemp("examples")
    with ms.create_study(f"sqlite:///{folder}/search.db", spec(), name="search") as searched:
        assert searched.run(lanes=1)
        best = searched.export_best(folder / "best.toml")
    assert train_to_folder(best, folder / "runs" / "best", compare_with_recorded=False)
    return folder


@pytest.mark.process
@pytest.mark.parametrize("module", [runs, studies, study, forecast], ids=["runs", "studies", "study", "forecast"])
def test_examples_of_docstrings(module: object, example_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(example_folder)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)  # type: ignore[arg-type]
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize("name", api.__all__)
def test_every_function_has_an_example(name: str) -> None:
    function = getattr(api, name)
    if inspect.isfunction(function):
        docstring = inspect.getdoc(function) or ""
        assert all(
            section in docstring for section in ("Args:", "Raises:", "Example:\n    >>> import miiii_search as ms")
        )
        assert "Returns:" in docstring or inspect.signature(function).return_annotation == "None"


@pytest.mark.slow
def test_a_run_and_what_it_learned(tmp_path: Path) -> None:
    run = ms.train(TINY, SMALL)
    assert run.record is not None and run.metrics is not None and run.weights is not None
    assert run.record.validation_accuracy.shape == (4, 3) and run.metrics.epochs_trained == 32
    again = ms.train(TINY, SMALL).metrics
    assert again is not None and again.weights_sha256 == run.metrics.weights_sha256
    findings = ms.analyze(run, out=tmp_path / "report")
    assert findings.ablations and (tmp_path / "report" / "report.html").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.html").write_text("mine")
    with pytest.raises(ms.MiiiiSearchError, match="would be replaced"):
        ms.analyze(run, out=tmp_path / "mine")
    with pytest.raises(ms.NonFiniteLossError, match="not finite") as raised:
        ms.train(TINY, SMALL.model_copy(update={"learning_rate": 1e30}))
    assert raised.value.epoch >= 1


@pytest.mark.process  # its worker is a process, whose programs `pytest --fast` does not change
def test_a_study_from_its_creation_to_its_deletion(storage: str, tmp_path: Path) -> None:
    with ms.create_study(storage, spec(), name="one") as study:
        assert study.counts["waiting"] == 2 and not study.done and study.best_trial is None
        assert study.run(lanes=1) and study.done
        assert study.counts["complete"] == 2
        best = study.best_trial
        assert best is not None and best.value == max(trial.value for trial in study.trials if trial.value is not None)
        table = study.trials_dataframe()
        assert list(table["params_weight_decay"]) == [0.5, 1.0]
        assert list(table["value"]) == [trial.value for trial in study.trials]
        exported = study.export_best(tmp_path / "best.toml")
        assert ms.load_configuration(tmp_path / "best.toml") == exported
        assert exported.metrics is not None
        run = ms.train(exported.experiment, exported.hyperparameters)
        assert run.metrics is not None and run.metrics.weights_sha256 == exported.metrics.weights_sha256
    assert ms.list_studies(storage) == ["one"]
    ms.delete_study(storage, "one")
    assert ms.list_studies(storage) == []


def test_errors_are_types(storage: str, tmp_path: Path) -> None:
    with pytest.raises(ms.MiiiiSearchError, match="there is no database"):
        ms.load_study(storage)
    ms.create_study(storage, spec(), name="one").close()
    ms.create_study(storage, spec(), name="one").close()
    with pytest.raises(ms.DuplicateStudyError, match="exists with another spec"):
        ms.create_study(storage, spec(lease_seconds=5), name="one")
    with pytest.raises(ms.StudyNotFoundError, match="`two`"):
        ms.load_study(storage, "two")
    with pytest.raises(ms.MiiiiSearchError, match="no completed trial"), ms.load_study(storage) as study:
        study.export_best(tmp_path / "best.toml")
    with pytest.raises(ms.MiiiiSearchError, match="no folder"):
        ms.load_run(tmp_path / "nowhere")


EPOCHS = np.arange(100, 1700, 100)


def history(losses: NDArray[np.float64]) -> History:
    n = len(losses)
    ones = np.ones((n, 1))
    return History(EPOCHS[:n].astype(np.int64), ones, 0.3 * ones, losses.reshape(n, 1), np.full(n, 30.0))


@pytest.mark.parametrize(("falls", "is_pruned"), [(False, True), (True, False)])
def test_forecast_in_an_optuna_study(falls: bool, is_pruned: bool) -> None:
    """A trial of Optuna's is pruned at the same epoch as one of this program, and only if its loss does not fall."""
    losses = np.concatenate([np.linspace(1, 4, 4), np.linspace(4, 1 if falls else 4, 12)])
    pruner = ms.pruners.Forecast(safety=3.0, epochs=2000)

    def objective(trial: optuna.Trial) -> float:
        for epoch, loss in zip(EPOCHS, losses, strict=True):
            pruner.report(
                trial, int(epoch), train_accuracy=1.0, validation_accuracy=0.3, validation_loss=loss, weight_norm=30.0
            )
            if trial.should_prune():
                raise optuna.TrialPruned
        return 0.3

    study = optuna.create_study(direction="maximize", pruner=pruner)
    study.optimize(objective, n_trials=1)
    [trial] = study.trials
    assert (trial.state == optuna.trial.TrialState.PRUNED) == is_pruned
    ends = [n for n in range(1, 17) if pruner.reason(history(losses[:n]), 2000, 1.0)]
    assert (EPOCHS[ends[0] - 1] if ends else 1600) == max(trial.intermediate_values)


def test_forecast_needs_the_budget() -> None:
    study = optuna.create_study(pruner=ms.pruners.Forecast())
    trial = study.ask()
    trial.report(0.5, 1)
    with pytest.raises(ValueError, match="needs the epoch budget"):
        trial.should_prune()
