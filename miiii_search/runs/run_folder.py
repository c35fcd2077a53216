"""The folder of a run, which `miiii-search train` writes and the analyses read."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from safetensors.numpy import load

from miiii_search.analysis.file_checks import (
    InvalidRunError,
    check_metrics,
    check_record,
    check_spectra,
    check_weights,
    file_errors,
)
from miiii_search.analysis.trained_run import TrainedRun
from miiii_search.config.overrides import read_config_file
from miiii_search.errors import MiiiiSearchError
from miiii_search.experiment.metrics import Metrics, hash_weights
from miiii_search.experiment.record import Floats, Record, find_snapshots, spectra_from_npz
from miiii_search.runs.output_folder import newest_path
from miiii_search.storage.hints import file_argument, hint
from miiii_search.study.export import KIND, Configuration, read_configuration

CONFIG = "config.toml"
"""The run's configuration, its metrics and its provenance. `train` repeats it."""
METRICS = "metrics.json"
"""The metrics alone, for programs."""
RECORD = "record.npz"
"""Every evaluation of the run, and the spectra of its snapshots."""
WEIGHTS = "weights.safetensors"
"""The weights at the end."""
CURVES = "learning-curves.png"
"""The learning curves."""
SNAPSHOTS = "snapshots"
"""Folder with the weights at epochs 256, 512, 1,024 and so on, as `epoch-N.npz`."""

ReadT = TypeVar("ReadT")


def contains_run(folder: Path) -> bool:
    """Return whether `train` has written a run into a folder."""
    path = newest_path(folder, CONFIG)
    if not path.is_file():
        return False
    try:
        tree = read_config_file(path)
    except MiiiiSearchError:
        return False
    provenance = tree.get("provenance")
    # A configuration written by hand has no metrics; one written by `best` names its study.
    return tree.get("kind") == KIND and "metrics" in tree and isinstance(provenance, dict) and "study" not in provenance


def check_run_folder(folder: Path) -> None:
    """Check that a new run would only replace files that `train` wrote.

    Raises:
        MiiiiSearchError: It would replace another file.
        OSError: There is a folder with the name of a file.
    """
    for name in (CONFIG, METRICS, RECORD, WEIGHTS, CURVES):
        if (folder / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / name))
    if contains_run(folder):
        foreign = [METRICS] if (folder / METRICS).exists() and not _are_metrics(folder / METRICS) else []
    else:
        names = (CONFIG, METRICS, SNAPSHOTS, RECORD, WEIGHTS, CURVES)
        foreign = [name for name in names if os.path.lexists(folder / name)]
    if foreign:
        raise MiiiiSearchError(
            f"{folder / foreign[0]} would be replaced, but is not part of a run that train wrote; choose another --out"
        )


def _are_metrics(path: Path) -> bool:
    """Return whether a file contains metrics of a run."""
    try:
        tree = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(tree, dict) and "weights_sha256" in tree


def read_run(folder: Path) -> tuple[TrainedRun, list[str]]:
    """Read a run from its folder.

    Args:
        folder: The run's folder.

    Returns:
        The run with all data that can be read, and one message per file that cannot be used.

    Raises:
        MiiiiSearchError: The folder is not one of a run, or its configuration cannot be read.
    """
    if not folder.is_dir():
        train = hint("train", "--preset", "demo", "--out", file_argument(folder))
        raise MiiiiSearchError(f"there is no folder {folder}; make one, for example with {train}")
    if not newest_path(folder, CONFIG).is_file():
        raise MiiiiSearchError(
            f"{folder} is not a run's folder: it has no {CONFIG}; give a folder that miiii-search train --out wrote"
        )
    return assemble_run(
        folder.resolve().name,
        read_configuration(newest_path(folder, CONFIG)),
        lambda name: path.read_bytes() if (path := newest_path(folder, name)).is_file() else None,
        find_snapshots(newest_path(folder, SNAPSHOTS)),
        folder,
    )


def assemble_run(
    name: str,
    configuration: Configuration,
    read_file: Callable[[str], bytes | None],
    snapshots: Mapping[int, Path],
    folder: Path | None = None,
) -> tuple[TrainedRun, list[str]]:
    """Assemble a run from its files and check that they belong together.

    Args:
        name: Name of the run in figures and messages.
        configuration: What was trained.
        read_file: Returns the content of the file with a name, or None if there is no such file.
        snapshots: Files of weights by epoch.
        folder: The run's folder, if there is one.

    Returns:
        The run with all data that can be used, and one message per file that cannot.
    """
    problems: list[str] = []
    experiment, hyperparameters = configuration.experiment, configuration.hyperparameters

    def use(what: str, read: Callable[[], ReadT | None]) -> ReadT | None:
        try:
            with file_errors():
                return read()
        except InvalidRunError as error:
            problems.append(f"{what} of {name} cannot be used: {error}")
            return None

    def checked_metrics() -> Metrics | None:
        return configuration.metrics and check_metrics(configuration.metrics, experiment)

    def read_record() -> Record | None:
        data = read_file(RECORD)
        return None if data is None else check_record(Record.from_npz(data), experiment, hyperparameters)

    def read_spectra() -> dict[int, Floats]:
        return check_spectra(spectra_from_npz(read_file(RECORD) or b""), experiment)

    def read_weights() -> dict[str, Floats] | None:
        data = read_file(WEIGHTS)
        return None if data is None else check_weights(load(data), experiment, hyperparameters)

    metrics = use("the metrics in the configuration", checked_metrics)
    record = use(RECORD, read_record)
    spectra = (record and use(f"the spectra in {RECORD}", read_spectra)) or {}
    weights = use(WEIGHTS, read_weights)
    if weights and metrics and hash_weights(weights) != metrics.weights_sha256:
        problems.append(f"{WEIGHTS} of {name} does not contain the weights for which its metrics were measured")
    return TrainedRun(name, experiment, hyperparameters, metrics, record, spectra, weights, folder, snapshots), problems
