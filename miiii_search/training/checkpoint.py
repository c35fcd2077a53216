"""Checkpoints: files from which another process continues a run exactly.

The file is a line with the format, a line with the SHA-256 of the rest, and a NumPy archive without pickle. So nothing
in it is executed, and a single lost or changed byte is detected.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from miiii_search.damaged_files import DAMAGED_FILE_ERRORS
from miiii_search.experiment.record import Floats, Record
from miiii_search.experiment.spec import Experiment, Hyperparameters
from miiii_search.training.lane_state import Arrays

FORMAT = b"miiii-search checkpoint 1\n"


class CheckpointError(Exception):
    """A file that is not a complete checkpoint of this version."""


@dataclass(frozen=True)
class Checkpoint:
    """A run up to one of its evaluations."""

    experiment: Experiment
    hyperparameters: Hyperparameters
    epoch: int
    state: Arrays
    record: Record
    spectra: Mapping[int, Floats]
    """The spectra of the run's weight snapshots, by epoch."""
    origin: Mapping[str, Any]
    """The origin of the checkpoint: device, versions and seconds, also of earlier parts."""

    def is_of(self, experiment: Experiment, hyperparameters: Hyperparameters) -> bool:
        """Return whether this is a checkpoint of a run, whichever machine trained it."""
        return (self.experiment, self.hyperparameters) == (experiment, hyperparameters)

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        about = {
            "experiment": _experiment_of_format_1(self.experiment),
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
        """Read the content of a file.

        Raises:
            CheckpointError: It is not a complete checkpoint of this version.
        """
        if not data.startswith(FORMAT):
            raise CheckpointError("it is not a checkpoint of this version")
        digest, newline, archive = data[len(FORMAT) :].partition(b"\n")
        if not newline or hashlib.sha256(archive).hexdigest().encode() != digest:
            raise CheckpointError("its checksum does not match: it is incomplete or was changed")
        try:
            with np.load(io.BytesIO(archive), allow_pickle=False) as file:
                arrays = dict(file)
            about = json.loads(arrays["about"].tobytes())
            return Checkpoint(
                experiment=Experiment(**about["experiment"]),
                hyperparameters=Hyperparameters(**about["hyperparameters"]),
                epoch=int(about["epoch"]),
                state=_with_prefix("state/", arrays),
                record=Record(**_with_prefix("record/", arrays)),
                spectra={int(epoch): spectrum for epoch, spectrum in _with_prefix("spectrum/", arrays).items()},
                origin=dict(about["origin"]),
            )
        except DAMAGED_FILE_ERRORS as error:
            raise CheckpointError(f"it cannot be read: {error}") from None


def _experiment_of_format_1(experiment: Experiment) -> dict[str, Any]:
    """Return an experiment as format 1 has it, which workers of older versions read: `end_factor` is `share` there."""
    tree = experiment.model_dump(mode="json", exclude_none=True)
    for decay in tree["annealing"].values():
        decay["share"] = decay.pop("end_factor")
    return tree


def _with_prefix(prefix: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arrays whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
