"""Checks of a run's files, which may be damaged, truncated, or of another run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from miiii_search.damaged_files import DAMAGED_FILE_ERRORS
from miiii_search.errors import reason
from miiii_search.experiment.metrics import Metrics
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment, Hyperparameters

Arrays = dict[str, NDArray[Any]]


class InvalidRunError(Exception):
    """A file cannot be used. The message gives the reason in one line."""


@contextmanager
def file_errors() -> Iterator[None]:
    """Turn any exception that a damaged file causes within the block into `InvalidRunError`.

    Raises:
        InvalidRunError: The block raised such an exception.
    """
    try:
        yield
    except (*DAMAGED_FILE_ERRORS, OSError, MemoryError, SafetensorError) as error:
        raise InvalidRunError(reason(error)) from error


def read_arrays(path: Path) -> Arrays:
    """Read all arrays of a NumPy archive.

    Raises:
        InvalidRunError: The file cannot be read.
    """
    # The file is opened here, since NumPy leaves a file open that turns out not to be an archive.
    with file_errors(), path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def check_metrics(metrics: Metrics, experiment: Experiment) -> Metrics:
    """Return the metrics if they are of the experiment's tasks.

    Raises:
        InvalidRunError: They are of other tasks.
    """
    if metrics.moduli != experiment.task_moduli:
        raise InvalidRunError(
            f"they are of {len(metrics.moduli)} tasks, which are not the {len(experiment.task_moduli)} trained"
        )
    for name, value in metrics:
        if isinstance(value, tuple) and len(value) != len(metrics.moduli):
            raise InvalidRunError(f"`{name}` has {len(value)} values, not {len(metrics.moduli)}")
    return metrics


def check_record(record: Record, experiment: Experiment, hyperparameters: Hyperparameters) -> Record:
    """Return the record if its shapes match the run and its epochs ascend.

    Raises:
        InvalidRunError: They do not.
    """
    evaluations, tasks = record.epoch.size, len(experiment.task_moduli)
    matrices = len(weight_shapes(experiment, hyperparameters))
    if not evaluations:
        raise InvalidRunError("it holds no evaluation")
    for field in fields(record):
        array = getattr(record, field.name)
        columns = {"epoch": (), "gradient_norm": (matrices,), "weight_norm": (matrices,)}.get(field.name, (tasks,))
        if array.shape != (evaluations, *columns) or array.dtype.kind not in "iuf":
            expected = [evaluations, *columns]
            raise InvalidRunError(f"`{field.name}` is {array.dtype} {list(array.shape)}, not numbers {expected}")
    if record.epoch[0] < 1 or not (np.diff(record.epoch) > 0).all():
        raise InvalidRunError("its epochs do not ascend")
    return record


def check_spectra(spectra: dict[int, NDArray[Any]], experiment: Experiment) -> dict[int, NDArray[Any]]:
    """Return the spectra by epoch if they match the experiment's p and are finite.

    Raises:
        InvalidRunError: They do not match or are not finite.
    """
    expected = (experiment.p, experiment.p // 2 + 1)
    for epoch, spectrum in spectra.items():
        if spectrum.shape != expected or spectrum.dtype.kind != "f":
            found = f"{spectrum.dtype} {list(spectrum.shape)}"
            raise InvalidRunError(f"its spectrum at epoch {epoch} is {found}, not float32 {list(expected)}")
        if not np.isfinite(spectrum).all():
            raise InvalidRunError(f"its spectrum at epoch {epoch} is not finite")
    return spectra


def weight_shapes(experiment: Experiment, hyperparameters: Hyperparameters) -> dict[str, tuple[int, ...]]:
    """Return the shape of each weight matrix of a run, by name."""
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
        "unembedding": (d, sum(experiment.classes)),
    }


def check_weights(
    weights: Mapping[str, NDArray[Any]], experiment: Experiment, hyperparameters: Hyperparameters
) -> dict[str, NDArray[Any]]:
    """Return the weights if their names, types and shapes match the run and they are finite.

    Raises:
        InvalidRunError: They do not match or are not finite.
    """
    expected = {n: f"float32 {list(shape)}" for n, shape in weight_shapes(experiment, hyperparameters).items()}
    found = {name: f"{array.dtype} {list(array.shape)}" for name, array in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise InvalidRunError(
                f"`{name}` must be {expected.get(name, 'absent')} for this configuration, but is "
                f"{found.get(name, 'absent')}; keep the files of one run together"
            )
        if not np.isfinite(weights[name]).all():
            raise InvalidRunError(f"`{name}` is not finite")
    return dict(weights)
