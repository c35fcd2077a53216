"""Reading a run's files, which may be damaged, cut short, or another run's."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from miiii_search.experiment.metrics import Metrics
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment, Hyperparameters

ReadT = TypeVar("ReadT")
Arrays = dict[str, NDArray[Any]]


class InvalidRunError(Exception):
    """A file is not what it should be; why, in a line."""


_DAMAGES = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    EOFError,
    OSError,
    MemoryError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    zipfile.BadZipFile,
    zlib.error,
    SafetensorError,
)
"""What reading a NumPy archive or a safetensors file may raise where its bytes are not those that were written."""


def attempt(read: Callable[[], ReadT]) -> ReadT:
    """What `read` returns. Raises `InvalidRunError` for whatever a damaged file makes it raise."""
    try:
        return read()
    except _DAMAGES as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidRunError((words.strip().splitlines() or [type(error).__name__])[0]) from error


def read_arrays(path: Path) -> Arrays:
    """All arrays of a NumPy archive. Raises `InvalidRunError`."""

    def read() -> Arrays:
        # Opened here, since NumPy leaves open what turns out to be no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    return attempt(read)


def check_metrics(metrics: Metrics, experiment: Experiment) -> Metrics:
    """The metrics, if they are of the experiment's tasks. Raises `InvalidRunError`."""
    if metrics.moduli != experiment.moduli:
        raise InvalidRunError(
            f"they are of {len(metrics.moduli)} tasks other than the {len(experiment.moduli)} trained"
        )
    for name, value in metrics:
        if isinstance(value, tuple) and len(value) != len(metrics.moduli):
            raise InvalidRunError(f"`{name}` has {len(value)} values, not {len(metrics.moduli)}")
    return metrics


def check_record(record: Record, experiment: Experiment, hyperparameters: Hyperparameters) -> Record:
    """The record, if it is of a run like this one. Raises `InvalidRunError`."""
    evaluations, tasks = record.epoch.size, len(experiment.moduli)
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
    """The spectra by epoch, if they are of this p. Raises `InvalidRunError`."""
    expected = (experiment.p, experiment.p // 2 + 1)
    for epoch, spectrum in spectra.items():
        if spectrum.shape != expected or spectrum.dtype.kind != "f":
            found = f"{spectrum.dtype} {list(spectrum.shape)}"
            raise InvalidRunError(f"its spectrum at epoch {epoch} is {found}, not float32 {list(expected)}")
        if not np.isfinite(spectrum).all():
            raise InvalidRunError(f"its spectrum at epoch {epoch} is not finite")
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


def check_weights(
    weights: Mapping[str, NDArray[Any]], experiment: Experiment, hyperparameters: Hyperparameters
) -> dict[str, NDArray[Any]]:
    """The weights, if a run like this one has such. Raises `InvalidRunError`."""
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
