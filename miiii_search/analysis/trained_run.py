"""A trained run as the analyses use it; any part of it may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from miiii_search.analysis.file_checks import check_weights, read_arrays
from miiii_search.analysis.network import Floats, Weights
from miiii_search.experiment.metrics import Metrics
from miiii_search.experiment.record import Record
from miiii_search.experiment.spec import Experiment, Hyperparameters


@dataclass(frozen=True)
class TrainedRun:
    """All available data of one run."""

    name: str
    """Name in figures and tables."""
    experiment: Experiment
    hyperparameters: Hyperparameters
    metrics: Metrics | None = None
    record: Record | None = None
    spectra: Mapping[int, Floats] = field(default_factory=dict)
    """By epoch; see `training.program.Program.spectrum`."""
    weights: Weights | None = None
    """Final weights."""
    folder: Path | None = None
    """Folder to which `train` wrote the run, if it did."""
    snapshots: Mapping[int, Path] = field(default_factory=dict)
    """Files of weights by epoch, ascending.

    They are read one at a time, since together they may have hundreds of megabytes.
    """

    @property
    def last_epoch(self) -> int:
        """Epoch at which training ended, as far as it is known."""
        if self.metrics is not None:
            return self.metrics.epochs_trained
        return int(self.record.epoch[-1]) if self.record is not None and len(self.record) else self.experiment.epochs

    def read_snapshot(self, epoch: int) -> Weights:
        """Read the weights at one of the epochs of `snapshots`.

        Raises:
            InvalidRunError: The file cannot be read, or contains the weights of another run.
        """
        return check_weights(read_arrays(self.snapshots[epoch]), self.experiment, self.hyperparameters)
