"""What is recorded through training: one row an evaluation."""

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

FIRST_SNAPSHOT_EPOCH = 256
"""Before, a look would take a noticeable share of the training."""


@dataclass(frozen=True)
class WeightSnapshot:
    """What a run has learned at one moment."""

    epoch: int
    spectrum: Floats  # [p, p // 2 + 1], see Program.spectrum
    weights: dict[str, NDArray[Any]]


def write_snapshot(folder: Path, look: WeightSnapshot) -> None:
    """Writes the weights of a look as `epoch-N.npz` into a folder, which is made. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    with replace_file(folder / f"epoch-{look.epoch}.npz") as file:
        np.savez(file, allow_pickle=False, **look.weights)


def find_snapshots(folder: Path) -> dict[int, Path]:
    """The files that `write_snapshot` wrote, by epoch, ascending."""
    named = [(SNAPSHOT_FILE.fullmatch(path.name), path) for path in folder.glob("epoch-*.npz")]
    return dict(sorted((int(name[1]), path) for name, path in named if name))


def next_snapshot_epoch(experiment: Experiment, epoch: int) -> float:
    """The first epoch after `epoch` at which a look is due: powers of two from 256, at an evaluation; or infinity."""
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

    Losses are mean cross-entropies in nats without the weights of Eq. 12. Those of training are what the epoch's
    step saw, with dropout and before its update, and so cost nothing; validation is measured after it, without
    dropout. Norms are L2 and, like their columns, in the order of the weights' sorted names.
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
        """The evaluations that `keep` selects."""
        return Record(**{f.name: getattr(self, f.name)[keep] for f in fields(self)})

    @staticmethod
    def concatenate(parts: list[Record]) -> Record:
        """One record of several consecutive ones."""
        return Record(**{f.name: np.concatenate([getattr(r, f.name) for r in parts]) for f in fields(Record)})

    def to_npz(self, spectra: Mapping[int, Floats] | None = None, **extra: NDArray[np.generic]) -> bytes:
        """The record as a compressed NumPy archive, without pickle.

        Beside it lie the spectra of looks, by epoch, as `spectrum_epoch` `[looks]` and `spectrum`
        `[looks, p, p // 2 + 1]`, and `extra` arrays.
        """
        file = io.BytesIO()
        arrays: dict[str, NDArray[Any]] = {f.name: getattr(self, f.name) for f in fields(self)}
        if spectra:
            arrays |= {"spectrum_epoch": np.asarray(list(spectra), np.int32), "spectrum": np.stack([*spectra.values()])}
        np.savez_compressed(file, allow_pickle=False, **arrays, **extra)
        return file.getvalue()

    @staticmethod
    def from_npz(data: bytes) -> Record:
        """The inverse of `to_npz`."""
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return Record(**{f.name: arrays[f.name] for f in fields(Record)})


def spectra_from_npz(data: bytes) -> dict[int, Floats]:
    """The spectra that lie beside a record, by epoch; none if a run ended before its first look."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        if "spectrum" not in arrays:
            return {}
        return dict(zip(arrays["spectrum_epoch"].tolist(), arrays["spectrum"], strict=True))
