"""A run at one moment as a file: what another process needs to go on from there, exactly.

The file is a line with the format, a line with the SHA-256 of all that follows, and a NumPy archive without pickle:
nothing in it is executed, and one byte that was lost or changed is noticed.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from miiii_search.experiment.record import Floats, Record
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.lanes import Arrays

FORMAT = b"miiii-search checkpoint 1\n"


class CheckpointError(Exception):
    """A file that is not a whole checkpoint."""


@dataclass(frozen=True)
class Checkpoint:
    """All of a run up to one of its evaluations."""

    experiment: Experiment
    hyperparameters: Hyperparameters
    epoch: int
    state: Arrays
    record: Record
    spectra: Mapping[int, Floats]
    """By epoch, see `Look`."""
    origin: Mapping[str, Any]
    """Where it was trained: device, versions, seconds, and what came before."""

    def is_of(self, experiment: Experiment, hyperparameters: Hyperparameters) -> bool:
        """Whether it is a moment of this run: everything that a result depends on but the machine."""
        return (self.experiment, self.hyperparameters) == (experiment, hyperparameters)

    def to_bytes(self) -> bytes:
        """The file."""
        about = {
            "experiment": self.experiment.model_dump(mode="json"),
            "hyperparameters": self.hyperparameters.model_dump(mode="json"),
            "epoch": self.epoch,
            "origin": self.origin,
        }
        arrays = {
            "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
            **{f"state/{name}": array for name, array in self.state.items()},
            **{f"record/{f.name}": getattr(self.record, f.name) for f in fields(Record)},
            **{f"spectrum/{epoch}": spectrum for epoch, spectrum in self.spectra.items()},
        }
        file = io.BytesIO()
        np.savez(file, allow_pickle=False, **arrays)
        archive = file.getvalue()
        return FORMAT + hashlib.sha256(archive).hexdigest().encode() + b"\n" + archive

    @staticmethod
    def from_bytes(data: bytes) -> Checkpoint:
        """The inverse of `to_bytes`. Raises `CheckpointError`."""
        if not data.startswith(FORMAT):
            raise CheckpointError("it is not a checkpoint of this version")
        digest, newline, archive = data[len(FORMAT) :].partition(b"\n")
        if not newline or hashlib.sha256(archive).hexdigest().encode() != digest:
            raise CheckpointError("its checksum does not fit: it is incomplete or was changed")
        try:
            with np.load(io.BytesIO(archive), allow_pickle=False) as file:
                arrays = dict(file)
            about = json.loads(arrays["about"].tobytes())
            return Checkpoint(
                experiment=Experiment(**about["experiment"]),
                hyperparameters=Hyperparameters(**about["hyperparameters"]),
                epoch=int(about["epoch"]),
                state=_under("state/", arrays),
                record=Record(**_under("record/", arrays)),
                spectra={int(epoch): spectrum for epoch, spectrum in _under("spectrum/", arrays).items()},
                origin=dict(about["origin"]),
            )
        except (KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"it cannot be read: {error}") from None


def _under(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
