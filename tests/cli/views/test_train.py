"""The command `train`: the files in its folder when a run ends, is stopped, or cannot be written."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from miiii_search.cli.views import training_progress
from miiii_search.cli.views.train import choose_configuration, train_to_folder
from miiii_search.errors import MiiiiSearchError
from miiii_search.runs.output_folder import open_output
from miiii_search.runs.run_folder import read_run
from miiii_search.study.export import read_configuration

SETTINGS = [
    *("experiment.p=7", "experiment.epochs=320", "experiment.validation_samples=10", "hyperparameters.d_model=16"),
    *("experiment.solved_evaluations=100", "hyperparameters.n_heads=2"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "trained"
    assert train_to_folder(choose_configuration(None, "demo", None, SETTINGS), folder, compare_with_recorded=False)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_run_replaces_another(
    folder: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder then holds the snapshots of the new run only. Files of the user are kept."""
    (folder / "snapshots" / "epoch-512.npz").write_bytes(b"the other's")
    (folder / "snapshots" / "notes.txt").write_text("mine")
    assert train_to_folder(read_configuration(trained / "config.toml"), folder, compare_with_recorded=True)
    assert "identical: every metric and every weight" in capsys.readouterr().out
    assert files(folder).keys() == files(trained).keys() | {"snapshots/notes.txt"}
    run, problems = read_run(folder)
    assert problems == [] and list(run.snapshots) == [256, 320]


def test_progress_lines_without_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = choose_configuration(None, "demo", None, SETTINGS)
    monkeypatch.setattr(training_progress, "LINE_SECONDS", 3600.0)
    assert train_to_folder(chosen, tmp_path / "quiet", compare_with_recorded=False)
    assert " · training accuracy " not in capsys.readouterr().out
    monkeypatch.setattr(training_progress, "LINE_SECONDS", 0.0)
    assert train_to_folder(chosen, tmp_path / "run", compare_with_recorded=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if " · training accuracy " in line]
    assert lines and all(re.match(r"epoch \d+ of 320 · training accuracy \d\.\d{3}, valid", line) for line in lines)
    assert lines[-1].startswith("epoch 320 ")


def test_a_run_that_is_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its configuration trains the whole run, which is not compared with the stopped one."""
    chosen = choose_configuration(None, "demo", None, SETTINGS)
    assert not train_to_folder(chosen, tmp_path / "part", compare_with_recorded=True, stop=lambda: True)
    run, problems = read_run(tmp_path / "part")
    assert problems == [] and run.metrics is not None
    epoch = run.metrics.epochs_trained
    assert f"stopped at epoch {epoch} of 320; metrics, weights and curves are in " in capsys.readouterr().out
    config = read_configuration(tmp_path / "part" / "config.toml")
    assert config.provenance["stopped_at_epoch"] == epoch and config.experiment.epochs == 320
    assert train_to_folder(config, tmp_path / "part", compare_with_recorded=True)
    assert f"not compared: the recorded run was stopped at epoch {epoch}" in capsys.readouterr().out
    whole = read_configuration(tmp_path / "part" / "config.toml")
    assert "stopped_at_epoch" not in whole.provenance and whole.metrics and whole.metrics.epochs_trained == 320


def test_a_stopped_run_leaves_another_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(folder)
    assert not train_to_folder(
        choose_configuration(None, "demo", None, SETTINGS), folder, compare_with_recorded=False, stop=lambda: True
    )
    assert f"nothing was written: {folder} holds another run" in capsys.readouterr().out
    assert files(folder) == before


def test_a_loss_that_is_not_finite_leaves_another_alone(folder: Path) -> None:
    before = files(folder)
    with pytest.raises(MiiiiSearchError, match="a lower learning_rate may help"):
        explosive = choose_configuration(None, "demo", None, [*SETTINGS, "hyperparameters.learning_rate=1e30"])
        train_to_folder(explosive, folder, compare_with_recorded=False)
    assert files(folder) == before


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """The error is raised before training, if it can be known by then."""
    (tmp_path / "file").touch()
    chosen = choose_configuration(None, "demo", None, SETTINGS)
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(MiiiiSearchError, match=r"^cannot write to .*; choose another --out$"):
            train_to_folder(chosen, out, compare_with_recorded=False, stop=lambda: pytest.fail("it has trained"))
    (tmp_path / "run" / "weights.safetensors").mkdir(parents=True)
    with pytest.raises(MiiiiSearchError, match=r"^cannot write to .*: Is a directory; choose another --out$"):
        train_to_folder(chosen, tmp_path / "run", compare_with_recorded=False)


@pytest.mark.parametrize("name", ["config.toml", "metrics.json", "snapshots/epoch-1.npz", "weights.safetensors"])
def test_a_folder_with_files_of_somebody_else(name: str, tmp_path: Path) -> None:
    """They are neither replaced nor removed, and the error is raised before training."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    chosen = choose_configuration(None, "demo", None, SETTINGS)
    with pytest.raises(
        MiiiiSearchError, match=r"would be replaced, but is not part of a run .*; choose another --out$"
    ):
        train_to_folder(chosen, tmp_path, compare_with_recorded=False, stop=lambda: pytest.fail("it has trained"))
    assert files(tmp_path) == {name: b"mine"}


def test_a_run_with_metrics_of_somebody_else(folder: Path) -> None:
    (folder / "metrics.json").write_text('{"loss": 1}')
    before = files(folder)
    with pytest.raises(MiiiiSearchError, match=r"metrics.json would be replaced"):
        train_to_folder(choose_configuration(None, "demo", None, SETTINGS), folder, compare_with_recorded=False)
    assert files(folder) == before


def test_a_configuration_that_best_wrote_is_no_run(trained: Path, tmp_path: Path) -> None:
    config = replace(read_configuration(trained / "config.toml"), provenance={"study": "demo", "trial": 3})
    (tmp_path / "config.toml").write_text(config.to_toml())
    before = files(tmp_path)
    with pytest.raises(MiiiiSearchError, match=r"config.toml would be replaced"):
        train_to_folder(config, tmp_path, compare_with_recorded=False)
    assert files(tmp_path) == before


def test_a_folder_that_another_process_writes(folder: Path) -> None:
    with open_output(folder), pytest.raises(MiiiiSearchError, match=r"is being written by process \d+ on "):
        train_to_folder(
            choose_configuration(None, "demo", None, SETTINGS),
            folder,
            compare_with_recorded=False,
            stop=lambda: pytest.fail("it has trained"),
        )


@pytest.fixture
def full_disk(trained: Path, tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Return a function that puts a run on a small disk and leaves a given number of bytes free."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a disk")
    try:

        def fill(left: int) -> Path:
            shutil.copytree(trained, disk / "run")
            free = shutil.disk_usage(disk).free
            (disk / "ballast").write_bytes(b"x" * (free - left))
            return disk / "run"

        yield fill
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_disk_with_space_for_a_run_but_not_for_its_snapshots(
    full_disk: Callable[[int], Path], trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("config.toml", "metrics.json", "record.npz", "weights.safetensors")
    needed = sum(-(-(trained / name).stat().st_size // 4096) for name in names)
    folder = full_disk((needed + 3) * 4096)
    assert train_to_folder(read_configuration(trained / "config.toml"), folder, compare_with_recorded=True)
    said = capsys.readouterr().out
    assert "warning: the snapshots were removed to make space for the run: No space left on device" in said
    assert "warning: the learning curves were not written: No space left on device" in said
    assert "identical: every metric and every weight" in said
    run, problems = read_run(folder)
    assert problems == [] and run.snapshots == {} and run.weights is not None
    assert not (folder / "learning-curves.png").exists()


def test_a_disk_without_space_for_a_run(
    full_disk: Callable[[int], Path], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier run is kept, and the new one is written to a temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = full_disk(2 * 4096)
    before = files(folder)
    with pytest.raises(
        MiiiiSearchError, match=r"No space left on device; the run was written to (.*) instead"
    ) as failure:
        train_to_folder(read_configuration(trained / "config.toml"), folder, compare_with_recorded=False)
    assert files(folder) == before
    elsewhere = re.search(r"written to (.*) instead", str(failure.value))
    assert elsewhere is not None and read_run(Path(elsewhere[1]))[1] == []


def test_a_run_without_learning_curves(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is written even if matplotlib fails."""
    monkeypatch.setitem(sys.modules, "miiii_search.analysis.figures.curves", None)
    assert train_to_folder(choose_configuration(None, "demo", None, SETTINGS), folder, compare_with_recorded=False)
    assert "warning: the learning curves could not be drawn: " in capsys.readouterr().out
    assert read_run(folder)[1] == [] and not (folder / "learning-curves.png").exists()
