"""Exports from the folder of a real run, and from folders that are damaged or not of a run."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from miiii_search.analysis.file_checks import weight_shapes
from miiii_search.analysis.transformer_lens import to_config, to_state_dict
from miiii_search.cli.views.export_weights import export_weights as export_run
from miiii_search.cli.views.train import choose_configuration, train_to_folder
from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.runs.run_folder import read_run
from miiii_search.training.model import initial_weights

SETTINGS = ["experiment.p=7", "experiment.epochs=16", "experiment.validation_samples=10", "hyperparameters.d_model=16"]


def export_weights(folder: Path, format: str, out: Path) -> None:
    export_run(*read_run(folder), format, out)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "trained"
    train_to_folder(choose_configuration(None, "demo", None, SETTINGS), folder, compare_with_recorded=False)
    return folder


@pytest.fixture
def run_folder(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of the run, for tests that damage it."""
    return shutil.copytree(trained, tmp_path / "run")


def read(file: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    with safe_open(file, framework="numpy") as opened:
        metadata = {key: json.loads(value) for key, value in opened.metadata().items()}
    return load_file(file), metadata


@pytest.mark.slow
def test_our_names(trained: Path, tmp_path: Path) -> None:
    export_weights(trained, "safetensors", tmp_path / "out.safetensors")
    arrays, metadata = read(tmp_path / "out.safetensors")
    original = load_file(trained / "weights.safetensors")
    assert arrays.keys() == original.keys()
    assert all((arrays[name] == original[name]).all() for name in original)
    assert metadata.keys() == {"moduli", "experiment", "hyperparameters"}
    assert metadata["moduli"] == [7]
    assert metadata["experiment"]["task"] == "nanda"
    assert metadata["hyperparameters"]["d_model"] == 16


def test_transformer_lens(trained: Path, tmp_path: Path) -> None:
    for _ in range(2):  # the second time over the first
        export_weights(trained, "transformer-lens", tmp_path / "out.safetensors")
    arrays, metadata = read(tmp_path / "out.safetensors")
    weights = load_file(trained / "weights.safetensors")
    state = to_state_dict(weights)
    assert arrays.keys() == state.keys()
    for name, array in state.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        assert (arrays[name] == array).all()
    assert metadata.keys() == {"moduli", "experiment", "hyperparameters", "config"}
    assert metadata["config"] == to_config(weights)
    assert metadata["config"]["normalization_type"] is None


@pytest.mark.parametrize("task", ["miiii", "nanda", "basis", "masked"])
def test_weight_shapes_are_the_network_s(task: str) -> None:
    experiment, hyperparameters = Experiment(p=13, task=task), Hyperparameters(d_model=24, n_heads=4)
    made = jax.eval_shape(lambda: initial_weights(13, 24, 4, experiment.task_moduli, jax.random.PRNGKey(0)))
    assert weight_shapes(experiment, hyperparameters) == {name: array.shape for name, array in made.items()}


def test_another_format(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(MiiiiSearchError, match="must be transformer-lens or safetensors, but is `onnx`"):
        export_weights(trained, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["config.toml", "weights.safetensors"])
def test_a_folder_without(missing: str, run_folder: Path, tmp_path: Path) -> None:
    (run_folder / missing).unlink()
    with pytest.raises(MiiiiSearchError, match=rf"no {missing}; .* miiii-search train"):
        export_weights(run_folder, "safetensors", tmp_path / "out")
    with pytest.raises(MiiiiSearchError, match=r"there is no folder"):
        export_weights(tmp_path / "nowhere", "safetensors", tmp_path / "out")


def test_weights_cut_short(run_folder: Path, tmp_path: Path) -> None:
    file = run_folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(
        MiiiiSearchError, match=r"weights.safetensors of run cannot be used: .*; train it again"
    ) as raised:
        export_weights(run_folder, "safetensors", tmp_path / "out")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"query": np.zeros((16, 2, 8), np.float32)},
            r"`query` must be float32 \[16, 4, 4\] .* but is float32 \[16, 2, 8\]",
        ),
        (
            {"unembedding": np.zeros((16, 28), np.float32)},
            r"`unembedding` must be float32 \[16, 7\] .* is float32 \[16, 28\]",
        ),
        (
            {"key": np.zeros((16, 4, 4), np.float64)},
            r"`key` must be float32 \[16, 4, 4\] .* but is float64 \[16, 4, 4\]",
        ),
        ({"value": None}, r"`value` must be float32 \[16, 4, 4\] .* but is absent"),
        ({"bias": np.zeros(16, np.float32)}, r"`bias` must be absent .* but is float32 \[16\]"),
    ],
    ids=["heads", "another task", "float64", "one is missing", "one too many"],
)
def test_weights_of_another_network(run_folder: Path, change: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = run_folder / "weights.safetensors"
    save_file({name: array for name, array in (load_file(file) | change).items() if array is not None}, file)
    for format in ("transformer-lens", "safetensors"):
        with pytest.raises(MiiiiSearchError, match=message) as raised:
            export_weights(run_folder, format, tmp_path / "out")
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_an_out_that_cannot_be_written(run_folder: Path, tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "none" / "out"):
        with pytest.raises(MiiiiSearchError, match=f"cannot write {out}: .*; choose another --out"):
            export_weights(run_folder, "transformer-lens", out)


def test_the_run_s_own_weights_stay(run_folder: Path) -> None:
    file = run_folder / "weights.safetensors"
    before = file.read_bytes()
    (run_folder / "link").symlink_to(file)
    for out in (file, run_folder / "link"):
        with pytest.raises(MiiiiSearchError, match="would be overwritten; choose another --out"):
            export_weights(run_folder, "transformer-lens", out)
    assert file.read_bytes() == before
