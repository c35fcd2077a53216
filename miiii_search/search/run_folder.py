"""A run's folder: written by `miiii-search train`, read by the analyses."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from miiii_search.analysis.run import TrainedRun
from miiii_search.errors import UserError
from miiii_search.experiment.metrics import digest
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.experiment.telemetry import Record, snapshots_in, spectra_from_npz
from miiii_search.search.export import Configuration, read_configuration

CONFIG, RECORD, WEIGHTS, METRICS, SNAPSHOTS = (
    "config.toml",
    "record.npz",
    "weights.safetensors",
    "metrics.json",
    "snapshots",
)

ReadT = TypeVar("ReadT")


def read_run(folder: Path) -> tuple[TrainedRun, list[str]]:
    """What of a run can be read, and a line about each file that cannot.

    Raises `UserError` if the folder is not one of a run, or if its configuration is not readable.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; make one with miiii-search train --out {folder}")
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"{folder} is not a run's folder: it has no {CONFIG}; name one that miiii-search train --out wrote"
        )
    return assemble(
        folder.resolve().name,
        read_configuration(folder / CONFIG),
        lambda name: (folder / name).read_bytes() if (folder / name).is_file() else None,
        snapshots_in(folder / SNAPSHOTS),
        folder,
    )


def assemble(
    name: str,
    configuration: Configuration,
    fetch: Callable[[str], bytes | None],
    snapshots: Mapping[int, Path],
    folder: Path | None = None,
) -> tuple[TrainedRun, list[str]]:
    """A run of files that `fetch` gets by their names (None: there is no such file), as `read_run` returns it."""
    problems: list[str] = []
    experiment, hyperparameters = configuration.experiment, configuration.hyperparameters

    def attempt(file: str, read: Callable[[bytes], ReadT]) -> ReadT | None:
        data = fetch(file)
        if data is None:
            return None
        try:
            return read(data)
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, SafetensorError) as error:
            problems.append(f"{file} of {name} cannot be used: {str(error).splitlines()[0]}")
            return None

    record = attempt(RECORD, lambda data: _checked_record(Record.from_npz(data), experiment))
    spectra = attempt(RECORD, lambda data: _checked_spectra(spectra_from_npz(data), experiment)) if record else None
    weights = attempt(WEIGHTS, lambda data: _checked_weights(load(data), experiment, hyperparameters))
    if weights and configuration.metrics and digest(weights) != configuration.metrics.weights_sha256:
        problems.append(f"{WEIGHTS} of {name} are not the weights that its metrics were measured with")
    metrics, spectra = configuration.metrics, spectra or {}
    return TrainedRun(name, experiment, hyperparameters, metrics, record, spectra, weights, folder, snapshots), problems


def _checked_record(record: Record, experiment: Experiment) -> Record:
    expected = (len(record.epoch), len(experiment.moduli))
    if record.train_accuracy.shape != expected:
        raise ValueError(f"it has {list(record.train_accuracy.shape)} accuracies, not {list(expected)}")
    return record


def _checked_spectra(
    spectra: dict[int, np.ndarray[Any, Any]], experiment: Experiment
) -> dict[int, np.ndarray[Any, Any]]:
    expected = (experiment.p, experiment.p // 2 + 1)
    for epoch, spectrum in spectra.items():
        if spectrum.shape != expected:
            raise ValueError(f"its spectrum at epoch {epoch} is {list(spectrum.shape)}, not {list(expected)}")
    return spectra


def weight_shapes(experiment: Experiment, hyperparameters: Hyperparameters) -> dict[str, tuple[int, ...]]:
    """The shape of each matrix of a run, by name."""
    d, heads = hyperparameters.d_model, hyperparameters.n_heads
    return {
        "token_embedding": (experiment.p + 1, d),
        "position_embedding": (3, d),
        "query": (d, heads, d // heads),
        "key": (d, heads, d // heads),
        "value": (d, heads, d // heads),
        "attention_output": (heads, d // heads, d),
        "feed_forward_in": (d, 4 * d),
        "feed_forward_out": (4 * d, d),
        "unembedding": (d, sum(experiment.moduli)),
    }


def _checked_weights(
    weights: dict[str, np.ndarray[Any, Any]], experiment: Experiment, hyperparameters: Hyperparameters
) -> dict[str, np.ndarray[Any, Any]]:
    expected = {n: f"float32 {list(shape)}" for n, shape in weight_shapes(experiment, hyperparameters).items()}
    found = {name: f"{array.dtype} {list(array.shape)}" for name, array in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"`{name}` must be {expected.get(name, 'absent')} for the run in {CONFIG}, but is "
                f"{found.get(name, 'absent')}; keep the files of one run together"
            )
    return weights
