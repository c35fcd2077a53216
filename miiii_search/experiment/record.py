"""The record of a run, with one row per evaluation, and snapshots of its weights at log-spaced epochs."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miiii_search.experiment.spec import Experiment
from miiii_search.files import replace_file

Floats = NDArray[np.float32]

SNAPSHOT_FILE = re.compile(r"epoch-(\d+)\.npz")
"""The name of a snapshot's file."""

FIRST_SNAPSHOT_EPOCH = 256
"""Epoch of the first snapshot. Earlier ones would take a noticeable part of the training time."""


@dataclass(frozen=True)
class WeightSnapshot:
    """The weights of a run at one epoch, and the Fourier spectrum of its neurons."""

    epoch: int
    spectrum: Floats  # [p, p // 2 + 1], see Program.spectrum
    weights: dict[str, NDArray[Any]]


def write_snapshot(folder: Path, snapshot: WeightSnapshot) -> None:
    """Write the weights of a snapshot to `folder/epoch-N.npz`. A missing folder is created.

    Raises:
        OSError: The file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with replace_file(folder / f"epoch-{snapshot.epoch}.npz") as file:
        np.savez(file, allow_pickle=False, **snapshot.weights)


def find_snapshots(folder: Path) -> dict[int, Path]:
    """Return the files that `write_snapshot` wrote to a folder, by epoch in ascending order."""
    named = [(SNAPSHOT_FILE.fullmatch(path.name), path) for path in folder.glob("epoch-*.npz")]
    return dict(sorted((int(name[1]), path) for name, path in named if name))


def next_snapshot_epoch(experiment: Experiment, epoch: int) -> float:
    """Return the first epoch after `epoch` at which a snapshot is due, or infinity.

    Snapshots are due at the powers of two from 256, each moved to the next evaluation.
    """
    due = FIRST_SNAPSHOT_EPOCH
    while due < experiment.epochs:
        at = -(-due // experiment.evaluation_interval) * experiment.evaluation_interval
        if at > epoch:
            return at
        due *= 2
    return math.inf


@dataclass(frozen=True)
class Record:
    """The evaluations of one run, oldest first.

    Losses are mean cross-entropies in nats, without the task weights of Eq. 12. Training loss and accuracy are those
    of the epoch's step, with dropout and before its update, so they cost nothing extra. Validation is measured after
    the step, without dropout. Norms are L2. Their columns are in the order of the sorted names of the weights.
    """

    epoch: NDArray[np.int32]  # [evaluations]
    train_loss: Floats  # [evaluations, tasks]
    train_accuracy: Floats  # [evaluations, tasks]
    validation_loss: Floats  # [evaluations, tasks]
    validation_accuracy: Floats  # [evaluations, tasks]
    gradient_norm: Floats  # [evaluations, weights]; of the epoch's last step, before the gradient filter
    weight_norm: Floats  # [evaluations, weights]

    def __len__(self) -> int:
        return len(self.epoch)

    def rows(self, keep: slice | NDArray[np.bool_]) -> Record:
        """Return the evaluations that `keep` selects."""
        return Record(**{f.name: getattr(self, f.name)[keep] for f in fields(self)})

    @staticmethod
    def concatenate(parts: list[Record]) -> Record:
        """Join consecutive records into one."""
        return Record(**{f.name: np.concatenate([getattr(r, f.name) for r in parts]) for f in fields(Record)})

    def to_npz(self, spectra: Mapping[int, Floats] | None = None, **extra: NDArray[np.generic]) -> bytes:
        """Return the record as a compressed NumPy archive, without pickle.

        Args:
            spectra: Spectra of the run's snapshots, by epoch. They are stored as `spectrum_epoch`, `[snapshots]`, and
                `spectrum`, `[snapshots, p, p // 2 + 1]`.
            extra: Further arrays, stored under their names.
        """
        file = io.BytesIO()
        arrays: dict[str, NDArray[Any]] = {f.name: getattr(self, f.name) for f in fields(self)}
        if spectra:
            arrays |= {"spectrum_epoch": np.asarray(list(spectra), np.int32), "spectrum": np.stack([*spectra.values()])}
        np.savez_compressed(file, allow_pickle=False, **arrays, **extra)
        return file.getvalue()

    @staticmethod
    def from_npz(data: bytes) -> Record:
        """Read a record from an archive that `to_npz` returned."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return Record(**{f.name: arrays[f.name] for f in fields(Record)})


def spectra_from_npz(data: bytes) -> dict[int, Floats]:
    """Return the spectra in an archive that `Record.to_npz` returned, by epoch.

    There are none if the run ended before its first snapshot.
    """
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        if "spectrum" not in arrays:
            return {}
        return dict(zip(arrays["spectrum_epoch"].tolist(), arrays["spectrum"], strict=True))
